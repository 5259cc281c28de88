//! Messages between gateways that are not Raft's: proposals for the leader, read indexes, and what hosts observe.
//!
//! On a [`crate::ipc::Class::Peer`] stream the opener sends [`Request`]s and the other side answers with [`Reply`]s of
//! the same id, in any order.

use std::fmt;

#[cfg(doc)]
use crate::pod::{CONTAINERS_TOLD_MAX, ContainerReport};
use crate::{HostId, ipc::Member, pod::Told, raft::LogId, state::Command};

/// To another gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Chosen by the sender, unique on its stream.
    pub id: u64,
    /// What.
    pub body: RequestBody,
}

/// What one gateway asks of another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestBody {
    /// Commit these commands, in one entry or several, each answered in order. Only the leader does.
    Propose {
        /// Which.
        commands: Vec<Command>,
        /// The term that the receiver leads as far as the sender knows: in another one they must not be committed, for the
        /// sender may have proposed them again by then. 0 from a sender that does not say.
        term: u64,
    },
    /// Confirm leadership and tell the commit point, for a linearizable read. Only the leader does.
    ReadIndex,
    /// What the sender's host looks like now. Replaces what it said before.
    Observe(HostReport),
    /// Whether the receiver would vote for the sender, whose log ends with this entry. It commits nobody to anything.
    PreVote(Option<LogId>),
    /// What the leader of this term was told by hosts. Only to a host that [takes reports](HostReport::takes_reports).
    Reports {
        /// The term that the sender leads.
        term: u64,
        /// Those that are new to the receiver.
        reports: Vec<Reported>,
    },
}

/// A host and what it observes of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reported {
    /// The host.
    pub host: HostId,
    /// Its report.
    pub report: HostReport,
}

/// From another gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The request's id.
    pub id: u64,
    /// What came of it.
    pub body: ReplyBody,
}

/// What came of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplyBody {
    /// One outcome for each command, in order.
    Committed(Vec<Committed>),
    /// A read is linearizable once the reader has applied this entry.
    ReadIndex(Option<LogId>),
    /// The receiver is not the leader; who it thinks is.
    NotLeader(Option<HostId>),
    /// The observation is noted.
    Noted,
    /// It failed.
    Failed(Failure),
    /// Whether the receiver would vote for the sender.
    PreVoted(bool),
}

/// Why a request failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The receiver leads without a quorum, and has not begun the request.
    NoQuorum,
    /// It lost its leadership during the request.
    LeadershipLost,
    /// Its consensus has ended.
    Stopped,
    /// It did not finish the request in time.
    Late,
    /// In the words of a release that has no variant for it here.
    Other(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoQuorum => "the leader has no quorum",
            Self::LeadershipLost => "leadership lost",
            Self::Stopped => "consensus stopped",
            Self::Late => "not finished in time",
            Self::Other(words) => words,
        })
    }
}

/// A committed command and what the state machine answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// The entry that carried it.
    pub index: u64,
    /// The state machine's answer.
    pub outcome: Outcome,
}

/// What the state machine answers to a command: the same on every gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The command took effect and has nothing to tell.
    Done,
    /// The answer to an apply.
    Applied(Vec<Effect>),
    /// The answer to a deletion: the workloads that were removed.
    Deleted(Vec<String>),
    /// The answer to an admission: all members.
    Admitted(Vec<Member>),
    /// Nothing was changed; every reason, in words for a person.
    Refused(Vec<Refusal>),
}

/// Why the state machine refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// `true` when the thing that was named does not exist.
    pub missing: bool,
    /// The position of the object in the command, from 0, when one object is to blame.
    pub object: Option<u32>,
    /// In words for a person.
    pub message: String,
}

/// What an apply did to one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effect {
    /// What it is.
    pub kind: crate::state::Kind,
    /// `NAME` or `NAMESPACE_NAME`.
    pub name: String,
    /// The workload's revision now; 0 for other kinds and for removed workloads.
    pub revision: u64,
    /// What happened.
    pub action: Action,
}

/// What happened to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It is new.
    Created,
    /// Its content changed, or that of an object it refers to.
    Updated,
    /// It was already like this.
    Unchanged,
    /// The manifest no longer has it.
    Removed,
}

/// What a host observes of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostReport {
    /// Counts up with every report of one run of the gateway.
    pub sequence: u64,
    /// The last log index its state includes.
    pub applied: u64,
    /// Its Beemesh version.
    pub version: String,
    /// Its Podman version; empty while unknown.
    pub podman: String,
    /// What the host waits for or suffers from, in words for a person; empty when all is well.
    pub trouble: String,
    /// By name.
    pub workloads: Vec<WorkloadReport>,
    /// Whether its gateway takes [`RequestBody::Reports`], and as the leader sends them. Others tell everybody themselves
    /// and must be told by everybody.
    pub takes_reports: bool,
    /// Ports of the host that no workload may have: the mesh's and, where it is set, the API's.
    pub reserved_ports: Vec<u16>,
}

/// One workload on one host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WorkloadReport {
    /// `NAME` or `NAMESPACE_NAME`.
    pub workload: String,
    /// The revision that is on the host; 0 when none is.
    pub revision: u64,
    /// The log index of that revision; of the revision that should have come when that one failed before it replaced it.
    pub index: u64,
    /// What it does.
    pub phase: Phase,
    /// Containers that are healthy.
    pub healthy: u32,
    /// Containers it has.
    pub total: u32,
    /// Restarts of its containers since the pod was made.
    pub restarts: u32,
    /// Why it is not running, or what is going on, in words for a person.
    pub message: String,
    /// The pod of a Job has ended for good on this host: well when `phase` is `Succeeded`, else as a failed attempt.
    pub ended: bool,
    /// Its containers that have [something to tell](ContainerReport::is_telling), at most [`CONTAINERS_TOLD_MAX`]; none from
    /// releases before 0.3.
    pub containers: Told,
}

/// What a workload does on a host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Phase {
    /// Work on it has not begun.
    #[default]
    Pending,
    /// Its images are being pulled, its pod is being made or replaced.
    Starting,
    /// Its pod runs, as the unit says; see `healthy`.
    Running,
    /// Its pod has done its job and exited.
    Succeeded,
    /// The administrator of the host stopped the unit.
    Stopped,
    /// It could not be started or was given up; see `message`.
    Failed,
    /// It is being removed.
    Removing,
}
