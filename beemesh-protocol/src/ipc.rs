//! Messages between an agent and the gateway of its host, over `/run/beemesh/agent.sock`.
//!
//! Every connection begins with one [`Opening`] from the gateway. On a control connection the agent answers with
//! [`FromAgent::Welcome`], and then both sides send [`ToAgent`] and [`FromAgent`] frames. On a stream connection the
//! agent answers with one [`Opened`] frame. All bytes after it belong to the peer gateway.

use std::fmt;

use crate::HostId;

/// The first frame of a connection, with the purpose of the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opening {
    /// The control connection. There is one; a second one closes the first.
    Control {
        /// The gateway's version.
        version: String,
    },
    /// A new stream to a member.
    Open {
        /// The member.
        host: HostId,
        /// The purpose of the stream.
        class: Class,
    },
    /// Takes the stream that [`FromAgent::Incoming`] announced.
    Accept {
        /// The stream's number.
        stream: u64,
    },
}

/// The agent's answer to [`Opening::Open`] and [`Opening::Accept`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opened {
    /// All following bytes come from the peer.
    Ready,
    /// There is no such stream or peer; the agent closes the connection.
    Refused(NoStream),
}

/// Why there is no stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoStream {
    /// The other host is connected, but does not regard this host as a member.
    NotMember,
    /// Any other reason, as a message.
    Other(String),
}

impl NoStream {
    /// Parses a refusal of 0.2, which sends words alone.
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

/// A gateway of 0.2 compares this text, so it must not change.
const NOT_MEMBER: &str = "it does not regard this host as a member";

/// The purpose of a mesh stream. Each class has its own libp2p streams, so that one class never delays another.
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

/// A member of the cluster, with the data that the agent needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its key.
    pub host: HostId,
    /// Its display name.
    pub name: String,
    /// Multiaddrs to dial it, without the peer id.
    pub addresses: Vec<String>,
}

/// From the gateway to the agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToAgent {
    /// A request, which the agent answers with [`FromAgent::Reply`] of the same id.
    Request {
        /// Chosen by the gateway, unique on this connection.
        id: u64,
        /// The request.
        body: Request,
    },
    /// The complete member list. Any other host is a stranger.
    Members(Vec<Member>),
    /// The state that the agent shows on D-Bus and in `systemctl status beemesh-agent`.
    Report(Report),
    /// The answer to [`FromAgent::JoinRequest`] of the same id.
    JoinAnswer {
        /// The request's id.
        id: u64,
        /// The decision.
        answer: crate::mesh::JoinAnswer,
    },
}

/// An operation that only the agent may perform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Write the workload's Quadlet pair durably and queue one daemon-reload. The agent answers when the files are
    /// durable. `StartUnit` waits for the reload.
    PutUnit(UnitFiles),
    /// Remove the workload's Quadlet and all its YAML files durably, reload systemd and reset the unit's failed state.
    RemoveUnit {
        /// The workload.
        workload: String,
    },
    /// Remove those YAML files of the workload that its Quadlet does not name.
    TidyUnit {
        /// The workload.
        workload: String,
    },
    /// Start the workload's unit. The agent answers when systemd's job is done.
    StartUnit {
        /// The workload.
        workload: String,
    },
    /// Stop the workload's unit. The agent answers when systemd's job is done.
    StopUnit {
        /// The workload.
        workload: String,
    },
    /// Run `syncfs` on the file system of Podman's storage.
    SyncStorage,
    /// Ask a member to admit this host; answered with [`Done::Joined`].
    Join {
        /// The member to ask, pinned by its key.
        host: HostId,
        /// Multiaddrs to try.
        addresses: Vec<String>,
        /// The join request.
        request: crate::mesh::JoinRequest,
    },
    /// Store the IP addresses that this host advertises instead of the addresses of its interfaces. The agent answers
    /// after they are durable and it has sent a [`FromAgent::Welcome`] with them.
    Advertise {
        /// IP addresses as text.
        addresses: Vec<String>,
    },
    /// Generate another key for this host durably and keep the current one; answered with [`Done::Key`].
    MakeKey,
    /// Make the key that [`Request::MakeKey`] generated this host's key. The agent restarts with it and deletes the old
    /// one.
    UseKey {
        /// The key. If it is this host's key already, the agent does nothing.
        host: HostId,
    },
    /// Check, before a workload is applied, that Podman's generator accepts its Quadlet, and find the processes that
    /// listen on its ports; answered with [`Done::Checked`]. The agent keeps nothing of it.
    Check {
        /// The workload.
        workload: String,
        /// The text of `beemesh-pod-WORKLOAD.kube`.
        kube: String,
        /// The host ports of the workload.
        ports: Vec<PortAsked>,
    },
}

/// The transport protocol of a host port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// A host port that a workload needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortAsked {
    /// Its transport protocol.
    pub transport: Transport,
    /// The port number.
    pub port: u16,
}

/// A process that listens on a port of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// The transport protocol of the port.
    pub transport: Transport,
    /// The port number.
    pub port: u16,
    /// The IP addresses on which something listens, as text.
    pub addresses: Vec<String>,
    /// The process, as `nginx (process 812)`; empty if it was not found.
    pub process: String,
    /// The container of the process, or that whose port the process publishes; empty if there is none.
    pub container: String,
}

/// The result of a [`Request::Check`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checked {
    /// Why Podman's generator makes no unit of the Quadlet; empty if it makes one.
    pub unit: String,
    /// The listeners on the asked ports.
    pub listeners: Vec<Listener>,
}

/// A workload's Quadlet pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitFiles {
    /// The workload: `NAME` or `NAMESPACE_NAME`. The unit is `beemesh-pod-WORKLOAD.service`.
    pub workload: String,
    /// The log index of its revision. It is part of the name of the YAML file, `beemesh-pod-WORKLOAD.INDEX.yaml`.
    pub index: u64,
    /// The text of `beemesh-pod-WORKLOAD.kube`.
    pub kube: String,
    /// The YAML that Podman plays.
    pub yaml: Vec<u8>,
}

/// The result of a successful request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Done {
    /// Success without a value.
    Done,
    /// The member's answer to [`Request::Join`].
    Joined(crate::mesh::JoinAnswer),
    /// The key that [`Request::MakeKey`] generated.
    Key {
        /// Its public half.
        host: HostId,
    },
    /// The result of [`Request::Check`].
    Checked(Checked),
}

/// The gateway's state, for display on its host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// The host's role in the cluster.
    pub role: HostRole,
    /// The leader's key, if a leader is known.
    pub leader: Option<HostId>,
    /// The leader's name, empty if no leader is known.
    pub leader_name: String,
    /// Number of members of the cluster, this host included.
    pub hosts: u32,
    /// Number of workloads that this host should run.
    pub workloads: u32,
    /// Number of these that are healthy.
    pub healthy: u32,
}

/// A host's role in its cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostRole {
    /// It has no cluster state yet.
    Joining,
    /// It is the leader.
    Leader,
    /// It is a voter and not the leader.
    Follower,
    /// It is a candidate in an election.
    Candidate,
    /// It receives the log and does not vote.
    Learner,
    /// Its Raft instance has stopped.
    Stopped,
    /// The cluster has removed it.
    Removed,
    /// The word of a later release for a role that this release does not know; empty before the gateway's first report.
    Other(String),
}

impl HostRole {
    /// The role as a word, as on D-Bus.
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

    /// What 0.2, which sends a word alone, means by it, or a later release by a part that is not known here.
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
        /// The result; an error is a message.
        result: Result<Done, String>,
    },
    /// Workload units of this host. The agent sends all of them after `Welcome`, and again after it lost and regained
    /// D-Bus. [`FromAgent::units`] splits them into messages, and no other message comes between these.
    Units {
        /// The units.
        units: Vec<UnitState>,
        /// Whether the next message continues the list.
        more: bool,
    },
    /// One workload unit is new or changed.
    Unit(UnitState),
    /// A workload's files are gone and systemd has forgotten its unit.
    UnitGone {
        /// The workload.
        workload: String,
    },
    /// A member connected or disconnected.
    Peer {
        /// The member.
        host: HostId,
        /// Whether it is connected now.
        connected: bool,
    },
    /// A member opened a stream. The gateway must take it with [`Opening::Accept`] within [`ACCEPT_SECONDS_MAX`].
    Incoming {
        /// The stream's number.
        stream: u64,
        /// The member, as authenticated by the mesh.
        host: HostId,
        /// The purpose of the stream.
        class: Class,
    },
    /// A stranger asks to join; the gateway answers with [`ToAgent::JoinAnswer`].
    JoinRequest {
        /// The request's id.
        id: u64,
        /// The stranger, as authenticated by the mesh.
        host: HostId,
        /// Its join request.
        request: crate::mesh::JoinRequest,
    },
}

/// Bytes of units in one [`FromAgent::Units`]. This is far below a frame's limit, [`crate::frame::CONTROL_MAX`], and
/// still enough for some hundred units.
pub const UNITS_BYTES_MAX: usize = 1 << 20;

impl FromAgent {
    /// Splits all workload units of this host into messages that fit into frames.
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

/// Seconds after which the agent closes an announced stream that the gateway has not taken.
pub const ACCEPT_SECONDS_MAX: u64 = 5;

/// The identity of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Welcome {
    /// Its key.
    pub host: HostId,
    /// Its name: the configured one, or else the host name.
    pub name: String,
    /// Multiaddrs to dial it, without the peer id.
    pub addresses: Vec<String>,
    /// The agent's version.
    pub version: String,
    /// Members that are connected now.
    pub connected: Vec<HostId>,
    /// Ports of this host that no workload may use: the port of the mesh and, if it is configured, the port of the API.
    pub reserved_ports: Vec<u16>,
    /// Whether an administrator has configured `name`. Otherwise it is the host name, which the system may change.
    pub name_is_set: bool,
}

/// The state of one workload's unit in systemd and on disk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UnitState {
    /// The workload.
    pub workload: String,
    /// The text of its `.kube` file on disk; empty if there is no file.
    pub kube: String,
    /// `ActiveState`: `active`, `activating`, `deactivating`, `inactive`, `failed`, `reloading`.
    pub active: String,
    /// `SubState`.
    pub sub: String,
    /// `Result`: `success` or the cause of the last failure.
    pub result: String,
    /// `StatusText`: the message of the supervisor.
    pub status: String,
    /// Whether the unit was active at any time since the host booted (`ActiveEnterTimestamp` is not 0).
    pub started: bool,
}

impl UnitState {
    /// An upper bound of its size in a message, in bytes.
    fn size(&self) -> usize {
        // Offsets, lengths and padding.
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
