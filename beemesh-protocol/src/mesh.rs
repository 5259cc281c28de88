//! Messages between agents, over libp2p.
//!
//! `/beemesh/stream/1`, between members: one [`StreamOpening`], one [`crate::ipc::Opened`], then opaque bytes.
//! `/beemesh/join/1`, from a stranger: one [`JoinRequest`], one [`JoinAnswer`]. A stranger may use no other protocol.

use crate::{
    ClusterId, HostId,
    ipc::{Class, Member},
};

/// libp2p protocol name of gateway streams between members.
pub const STREAM_PROTOCOL: &str = "/beemesh/stream/1";
/// libp2p protocol name of join requests.
pub const JOIN_PROTOCOL: &str = "/beemesh/join/1";
/// The token id of a request without a token. Such a request only asks whether the applicant is a member.
pub const NO_TOKEN: [u8; 8] = [0; 8];
/// TCP and UDP port of the mesh.
pub const PORT: u16 = 4701;

/// TCP port of the remote API.
pub const API_PORT: u16 = 7443;

/// The first frame on a stream between members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamOpening {
    /// The purpose of the stream.
    pub class: Class,
}

/// A stranger's join request.
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
    /// Multiaddrs to dial the applicant.
    pub addresses: Vec<String>,
    /// The member that the applicant replaces. `token` is [`NO_TOKEN`] then: a member of an older release, which
    /// ignores this field, answers that the applicant is a stranger. It does not admit the applicant beside the host to
    /// be replaced.
    pub replace: Option<Replace>,
}

impl JoinRequest {
    /// The id of the token that the request presents, for any purpose; [`NO_TOKEN`] without a token.
    #[must_use]
    pub fn shown(&self) -> [u8; 8] {
        let replace = self.replace.as_ref();
        replace.map_or(self.token, |replace| replace.token)
    }
}

/// The member that an applicant replaces, and the token that permits it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replace {
    /// The member's name or key.
    pub name: String,
    /// The token's id.
    pub token: [u8; 8],
}

impl std::fmt::Debug for JoinRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // No log may contain the secret.
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
    /// The applicant is not in the member list.
    Refused {
        /// The reason, as a message.
        reason: String,
    },
    /// The applicant asked with [`NO_TOKEN`] and is no member. No other request gets this answer.
    Stranger,
}

/// A member that a token names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contact {
    /// Its key. The applicant sends its request only to a host with this key.
    pub host: HostId,
    /// Multiaddrs to try.
    pub addresses: Vec<String>,
}
