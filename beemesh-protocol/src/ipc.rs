//! Messages between an agent and the gateway of its host, over `/run/beemesh/agent.sock`.
//!
//! Every connection begins with one [`Opening`] from the gateway. On a control connection the agent answers with
//! [`FromAgent::Welcome`] and both sides then send [`ToAgent`] and [`FromAgent`] frames. On a stream connection the
//! agent answers with one [`Opened`] frame; every byte after it belongs to the peer gateway.

use std::fmt;

use crate::HostId;

/// What a connection is for: its first frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opening {
    /// The one control connection; a second one closes the first.
    Control {
        /// The gateway's version.
        version: String,
    },
    /// A new stream to a member.
    Open {
        /// The member.
        host: HostId,
        /// What the stream is for.
        class: Class,
    },
    /// Takes the stream that [`FromAgent::Incoming`] announced.
    Accept {
        /// Its number.
        stream: u64,
    },
}

/// The agent's answer to [`Opening::Open`] and [`Opening::Accept`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opened {
    /// The next byte is the peer's.
    Ready,
    /// There is no such stream or peer; the agent closes the connection.
    Refused(NoStream),
}

/// Why there is no stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoStream {
    /// The other host is connected and does not regard this one as a member.
    NotMember,
    /// Anything else, in words for a person.
    Other(String),
}

impl NoStream {
    /// What 0.2, which sends words alone, means by them.
    pub(crate) fn from_words(words: String) -> Self {
        match words.as_str() {
            NOT_MEMBER => Self::NotMember,
            _ => Self::Other(words),
        }
    }
}

impl fmt::Display for NoStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotMember => NOT_MEMBER,
            Self::Other(words) => words,
        })
    }
}

/// A gateway of 0.2 compares this text: it stays as it is.
const NOT_MEMBER: &str = "it does not regard this host as a member";

/// What a mesh stream is for. Each has its own libp2p stream, so that none waits behind another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Raft votes, appends and heartbeats ([`crate::raft`]).
    Raft,
    /// One Raft snapshot ([`crate::raft`]).
    Snapshot,
    /// Proposals, read indexes and observations ([`crate::peer`]).
    Peer,
    /// HTTP/1.1 to the peer's API.
    Api,
}

/// A member of the cluster as the agent needs to know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its key.
    pub host: HostId,
    /// Its name for people.
    pub name: String,
    /// Multiaddrs it can be dialled at, without the peer id.
    pub addresses: Vec<String>,
}

/// From the gateway to the agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToAgent {
    /// Do something and answer with [`FromAgent::Reply`] of the same id.
    Request {
        /// Chosen by the gateway, unique on this connection.
        id: u64,
        /// What.
        body: Request,
    },
    /// The whole member list: everybody else is a stranger.
    Members(Vec<Member>),
    /// What this host shows on D-Bus and in `systemctl status beemesh-agent`.
    Report(Report),
    /// The answer to [`FromAgent::JoinRequest`] of the same id.
    JoinAnswer {
        /// The request's id.
        id: u64,
        /// The decision.
        answer: crate::mesh::JoinAnswer,
    },
}

/// Something only the agent may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Writes the workload's Quadlet pair durably and queues one daemon-reload. Answered when the files are durable.
    /// `StartUnit` waits for the reload.
    PutUnit(UnitFiles),
    /// Removes the workload's Quadlet and every YAML file of it, durably, reloads and resets the unit's failed state.
    RemoveUnit {
        /// The workload.
        workload: String,
    },
    /// Removes the YAML files of the workload that its Quadlet does not name.
    TidyUnit {
        /// The workload.
        workload: String,
    },
    /// Starts the workload's unit; answered when its job is done.
    StartUnit {
        /// The workload.
        workload: String,
    },
    /// Stops the workload's unit; answered when its job is done.
    StopUnit {
        /// The workload.
        workload: String,
    },
    /// `syncfs` on the file system of Podman's storage.
    SyncStorage,
    /// Asks a member to admit this host; answered with [`Done::Joined`].
    Join {
        /// The member that is asked, pinned by its key.
        host: HostId,
        /// Multiaddrs to try.
        addresses: Vec<String>,
        /// The application.
        request: crate::mesh::JoinRequest,
    },
    /// Keeps the IP addresses that this host tells others, instead of those of its interfaces. Answered when they are durable
    /// and a [`FromAgent::Welcome`] with them was sent.
    Advertise {
        /// As text.
        addresses: Vec<String>,
    },
    /// Makes another key for this host, durably, beside the one it has; answered with [`Done::Key`].
    MakeKey,
    /// Makes the key that was made last this host's own. The agent begins again with it, and the old one is gone.
    UseKey {
        /// The key, for which there is nothing to do when it is this host's own already.
        host: HostId,
    },
}

/// A workload's Quadlet pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitFiles {
    /// The workload: `NAME` or `NAMESPACE_NAME`. The unit is `beemesh-pod-WORKLOAD.service`.
    pub workload: String,
    /// The log index of its revision: names the YAML file `beemesh-pod-WORKLOAD.INDEX.yaml`.
    pub index: u64,
    /// The text of `beemesh-pod-WORKLOAD.kube`.
    pub kube: String,
    /// The bytes that are played.
    pub yaml: Vec<u8>,
}

/// What a successful request gives back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Done {
    /// Nothing but success.
    Done,
    /// The member's answer to [`Request::Join`].
    Joined(crate::mesh::JoinAnswer),
    /// The key that [`Request::MakeKey`] made.
    Key {
        /// Its public half.
        host: HostId,
    },
}

/// What the gateway wants shown on its host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Its part in the cluster.
    pub role: HostRole,
    /// The leader's key, when one is known.
    pub leader: Option<HostId>,
    /// The leader's name, empty when none is known.
    pub leader_name: String,
    /// Members of the cluster, this host included.
    pub hosts: u32,
    /// Workloads this host should run.
    pub workloads: u32,
    /// Those of them that are healthy.
    pub healthy: u32,
}

/// A host's part in its cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostRole {
    /// It has no state of a cluster yet.
    Joining,
    /// It leads.
    Leader,
    /// It votes and does not lead.
    Follower,
    /// It asks for votes.
    Candidate,
    /// It receives the log and does not vote.
    Learner,
    /// Its consensus has ended.
    Stopped,
    /// It is not a member of the cluster any more.
    Removed,
    /// What a later release calls a part that this one does not know; empty while the gateway has not said anything.
    Other(String),
}

impl HostRole {
    /// The word for it, as on D-Bus.
    #[must_use]
    pub fn word(&self) -> &str {
        match self {
            Self::Joining => "joining",
            Self::Leader => "leader",
            Self::Follower => "follower",
            Self::Candidate => "candidate",
            Self::Learner => "learner",
            Self::Stopped => "stopped",
            Self::Removed => "removed",
            Self::Other(word) => word,
        }
    }

    /// What 0.2, which sends a word alone, means by it.
    pub(crate) fn from_word(word: String) -> Self {
        const KNOWN: [HostRole; 7] = [
            HostRole::Joining,
            HostRole::Leader,
            HostRole::Follower,
            HostRole::Candidate,
            HostRole::Learner,
            HostRole::Stopped,
            HostRole::Removed,
        ];
        let known = KNOWN.into_iter().find(|role| role.word() == word);
        known.unwrap_or(Self::Other(word))
    }
}

impl Default for HostRole {
    fn default() -> Self {
        Self::Other(String::new())
    }
}

/// From the agent to the gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromAgent {
    /// The first frame on a control connection.
    Welcome(Welcome),
    /// The answer to a [`ToAgent::Request`] of the same id.
    Reply {
        /// The request's id.
        id: u64,
        /// What came of it; an error is words for a person.
        result: Result<Done, String>,
    },
    /// Workload units of this host. All of them are sent after `Welcome`, and again after the agent lost and regained
    /// D-Bus, as [`FromAgent::units`] shares them out, with nothing in between.
    Units {
        /// The units.
        units: Vec<UnitState>,
        /// Whether the next message has more of them.
        more: bool,
    },
    /// One workload unit is new or changed.
    Unit(UnitState),
    /// A workload's files are gone and systemd has forgotten its unit.
    UnitGone {
        /// The workload.
        workload: String,
    },
    /// A member was reached or lost.
    Peer {
        /// The member.
        host: HostId,
        /// Whether it is connected now.
        connected: bool,
    },
    /// A member opened a stream: take it with [`Opening::Accept`] within [`ACCEPT_SECONDS_MAX`].
    Incoming {
        /// The stream's number.
        stream: u64,
        /// The member, as authenticated by the mesh.
        host: HostId,
        /// What the stream is for.
        class: Class,
    },
    /// A stranger applies for membership: answer with [`ToAgent::JoinAnswer`].
    JoinRequest {
        /// The request's id.
        id: u64,
        /// The stranger, as authenticated by the mesh.
        host: HostId,
        /// What it sent.
        request: crate::mesh::JoinRequest,
    },
}

/// Bytes of units in one [`FromAgent::Units`]: far below a frame's limit, [`crate::frame::CONTROL_MAX`], and some hundred
/// units all the same.
pub const UNITS_BYTES_MAX: usize = 1 << 20;

impl FromAgent {
    /// All workload units of this host, in messages that fit into frames.
    #[must_use]
    pub fn units(all: Vec<UnitState>) -> Vec<Self> {
        let (mut messages, mut units, mut bytes) = (Vec::new(), Vec::new(), 0);
        for unit in all {
            let size = unit.size();
            if bytes + size > UNITS_BYTES_MAX && !units.is_empty() {
                let units = std::mem::take(&mut units);
                messages.push(Self::Units { units, more: true });
                bytes = 0;
            }
            bytes += size;
            units.push(unit);
        }
        messages.push(Self::Units { units, more: false });
        messages
    }
}

/// An announced stream that is not taken within this many seconds is closed by the agent.
pub const ACCEPT_SECONDS_MAX: u64 = 5;

/// Who this host is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Welcome {
    /// Its key.
    pub host: HostId,
    /// Its name: the configured one, else the host name.
    pub name: String,
    /// Multiaddrs it can be dialled at, without the peer id.
    pub addresses: Vec<String>,
    /// The agent's version.
    pub version: String,
    /// Members that are connected now.
    pub connected: Vec<HostId>,
    /// Ports of this host that no workload may have: the mesh's and, where it is set, the API's.
    pub reserved_ports: Vec<u16>,
    /// Whether an administrator has configured `name`; otherwise it is the host name, which may change by itself.
    pub name_is_set: bool,
}

/// What systemd and the disk say about one workload's unit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UnitState {
    /// The workload.
    pub workload: String,
    /// The text of its `.kube` on disk; empty when there is none.
    pub kube: String,
    /// `ActiveState`: `active`, `activating`, `deactivating`, `inactive`, `failed`, `reloading`.
    pub active: String,
    /// `SubState`.
    pub sub: String,
    /// `Result`: `success` or the cause of the last failure.
    pub result: String,
    /// `StatusText`: what the supervisor says.
    pub status: String,
    /// Whether the unit was active at any time since the host booted (`ActiveEnterTimestamp` is not 0).
    pub started: bool,
}

impl UnitState {
    /// No fewer bytes than it takes in a message.
    fn size(&self) -> usize {
        // Offsets, lengths, padding.
        const REST: usize = 128;
        let Self {
            workload,
            kube,
            active,
            sub,
            result,
            status,
            started: _,
        } = self;
        let texts = [workload, kube, active, sub, result, status];
        REST + texts.map(String::len).iter().sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::CONTROL_MAX;

    #[test]
    fn any_number_of_units_fits_into_frames() {
        let unit = |number: usize, bytes: usize| UnitState {
            workload: format!("w{number}"),
            kube: "k".repeat(bytes),
            ..UnitState::default()
        };
        let many = |count: usize, bytes: usize| {
            let all: Vec<_> = (0..count).map(|number| unit(number, bytes)).collect();
            all
        };
        for (all, messages) in [
            (many(0, 0), 1),
            (many(3, 400), 1),
            (many(1000, 16 << 10), 16),
            (many(50_000, 1), 7),
            (many(2, UNITS_BYTES_MAX), 2),
        ] {
            let parts = FromAgent::units(all.clone());
            assert_eq!(parts.len(), messages, "{}", all.len());
            let (mut read, mut open) = (Vec::new(), true);
            for part in parts {
                let bytes = part.encode();
                assert!(bytes.len() <= CONTROL_MAX, "{} bytes", bytes.len());
                let Ok(FromAgent::Units { units, more }) = FromAgent::decode(&bytes) else {
                    panic!("another message");
                };
                assert!(open, "a part after the last");
                open = more;
                read.extend(units);
            }
            assert!(!open, "the last part says so");
            assert_eq!(read, all);
        }
    }
}
