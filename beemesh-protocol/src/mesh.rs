//! Messages between agents, over libp2p.
//!
//! `/beemesh/stream/1`, between members: one [`StreamOpening`], one [`crate::ipc::Opened`], then opaque bytes.
//! `/beemesh/join/1`, from a stranger: one [`JoinRequest`], one [`JoinAnswer`]. Strangers may speak nothing else.

use crate::{
    ClusterId, HostId,
    ipc::{Class, Member},
};

/// libp2p protocol name of gateway streams between members.
pub const STREAM_PROTOCOL: &str = "/beemesh/stream/1";
/// libp2p protocol name of applications for membership.
pub const JOIN_PROTOCOL: &str = "/beemesh/join/1";
/// The id of no token: an application with it only asks whether the applicant is a member.
pub const NO_TOKEN: [u8; 8] = [0; 8];
/// TCP and UDP port of the mesh.
pub const PORT: u16 = 4701;

/// TCP port of the remote API.
pub const API_PORT: u16 = 7443;

/// The first frame on a stream between members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamOpening {
    /// What the stream is for.
    pub class: Class,
}

/// A stranger's application.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinRequest {
    /// The cluster that the token names.
    pub cluster: ClusterId,
    /// The token's id, or [`NO_TOKEN`].
    pub token: [u8; 8],
    /// The token's secret.
    pub secret: [u8; 32],
    /// The applicant's name.
    pub name: String,
    /// Multiaddrs the applicant can be dialled at.
    pub addresses: Vec<String>,
    /// The member whose place the applicant takes. `token` is [`NO_TOKEN`] then, so that a member that does not know this field
    /// only says that the applicant is a stranger, and does not admit it beside the one that it is to replace.
    pub replace: Option<Replace>,
}

impl JoinRequest {
    /// The id of the token that its bearer shows, whatever it is shown for; [`NO_TOKEN`] when none is.
    #[must_use]
    pub fn shown(&self) -> [u8; 8] {
        let replace = self.replace.as_ref();
        replace.map_or(self.token, |replace| replace.token)
    }
}

/// Whose place an applicant takes, and by which right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replace {
    /// The member's name or key.
    pub name: String,
    /// The token's id.
    pub token: [u8; 8],
}

impl std::fmt::Debug for JoinRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The secret stays out of every log.
        f.debug_struct("JoinRequest")
            .field("cluster", &self.cluster)
            .field("name", &self.name)
            .field("replace", &self.replace)
            .finish_non_exhaustive()
    }
}

/// The cluster's decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JoinAnswer {
    /// The applicant is in the replicated member list.
    Admitted {
        /// The cluster.
        cluster: ClusterId,
        /// All members, the applicant included.
        members: Vec<Member>,
    },
    /// It is not.
    Refused {
        /// In words for a person.
        reason: String,
    },
    /// Who asked with [`NO_TOKEN`] is no member. Nobody else is answered so.
    Stranger,
}

/// A member that a token names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contact {
    /// Its key: the joiner talks to nobody else.
    pub host: HostId,
    /// Multiaddrs to try.
    pub addresses: Vec<String>,
}
