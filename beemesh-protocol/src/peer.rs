//! Messages between gateways, except those of Raft: proposals for the leader, read indexes, and reports of hosts.
//!
//! On a [`crate::ipc::Class::Peer`] stream the opener sends [`Request`]s. The other side answers each with a [`Reply`]
//! of the same id, in any order.

use std::fmt;

#[cfg(doc)]
use crate::pod::{CONTAINERS_TOLD_MAX, ContainerReport};
use crate::{
    HostId,
    ipc::Member,
    pod::Told,
    raft::LogId,
    state::{Command, ResolvedImages},
};

/// A message to another gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Chosen by the sender, unique on its stream.
    pub id: u64,
    /// The request.
    pub body: RequestBody,
}

/// A request of one gateway to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestBody {
    /// Commit these commands, in one or more entries, and answer each in order. Only the leader does so.
    Propose {
        /// The commands.
        commands: Vec<Command>,
        /// The term in which the receiver leads, as far as the sender knows. In another term the receiver must not
        /// commit the commands, because the sender may have proposed them again by then. 0 if the sender does not set
        /// it.
        term: u64,
    },
    /// Confirm leadership and return the commit index, for a linearizable read. Only the leader does so.
    ReadIndex,
    /// The present report of the sender's host, which replaces the previous one.
    Observe(HostReport),
    /// Whether the receiver would vote for the sender, whose log ends with this entry. The answer binds no host.
    PreVote(Option<LogId>),
    /// The reports that hosts sent to the leader of this term. Sent only to a host that [takes
    /// reports](HostReport::takes_reports).
    Reports {
        /// The term that the sender leads.
        term: u64,
        /// The reports that are new for the receiver.
        reports: Vec<Reported>,
    },
    /// Grant the sender's host the leases of these workloads, by name, counted from before the request was sent. Only the
    /// leader does so. Sent only from level 3 on, which all members know: a release that does not know it ends the stream.
    Lease(Vec<String>),
}

/// A host and its report on itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reported {
    /// The host.
    pub host: HostId,
    /// Its report.
    pub report: HostReport,
}

/// A message from another gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The id of the request.
    pub id: u64,
    /// The result.
    pub body: ReplyBody,
}

/// The result of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplyBody {
    /// One outcome for each command, in order.
    Committed(Vec<Committed>),
    /// A read is linearizable once the reader has applied this entry.
    ReadIndex(Option<LogId>),
    /// The receiver is not the leader. Contains the leader that it hears.
    NotLeader(Option<HostId>),
    /// The report is stored.
    Noted,
    /// The request failed.
    Failed(Failure),
    /// Whether the receiver would vote for the sender.
    PreVoted(bool),
    /// The workloads whose leases were granted, of those that were asked for.
    Leased(Vec<String>),
}

/// Why a request failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The receiver leads without a quorum, and has not started the request.
    NoQuorum,
    /// The receiver lost its leadership during the request.
    LeadershipLost,
    /// The consensus of the receiver has ended.
    Stopped,
    /// The receiver did not finish the request in time.
    Late,
    /// A message from a release that has no variant for it.
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

/// A committed command and the answer of the state machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// The log index of its entry.
    pub index: u64,
    /// The state machine's answer.
    pub outcome: Outcome,
}

/// The answer of the state machine to a command, which is the same on every gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The command took effect and returns no data.
    Done,
    /// The answer to an apply.
    Applied(Vec<Effect>),
    /// The answer to a deletion: the workloads that were removed.
    Deleted(Vec<String>),
    /// The answer to an admission: all members.
    Admitted(Vec<Member>),
    /// Nothing was changed. Contains every reason.
    Refused(Vec<Refusal>),
}

/// A reason for which the state machine refuses a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Whether the refusal is about an object that does not exist.
    pub missing: bool,
    /// The position of the refused object in the command, from 0, if it is a single object.
    pub object: Option<u32>,
    /// The reason, as a message.
    pub message: String,
}

/// The effect of an apply on one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effect {
    /// Its kind.
    pub kind: crate::state::Kind,
    /// `NAME` or `NAMESPACE_NAME`.
    pub name: String,
    /// The new revision of a workload; 0 for other kinds and for removed workloads.
    pub revision: u64,
    /// The effect.
    pub action: Action,
}

/// The effect of an apply on an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// The object is new.
    Created,
    /// Its content changed, or that of an object it refers to.
    Updated,
    /// The object was the same before.
    Unchanged,
    /// The manifest no longer has it.
    Removed,
    /// It was not in the applied objects, and stays in the manifest.
    Kept,
}

/// The report of a host on itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostReport {
    /// The number of the report in one run of the gateway, which increases with every report.
    pub sequence: u64,
    /// The last log index that its state includes.
    pub applied: u64,
    /// Its Beemesh version.
    pub version: String,
    /// Its Podman version; empty if unknown.
    pub podman: String,
    /// What the host waits for, or its problem, as a message; empty if there is none.
    pub trouble: String,
    /// Its workloads, sorted by name.
    pub workloads: Vec<WorkloadReport>,
    /// Whether its gateway accepts [`RequestBody::Reports`], and sends them while it leads. Gateways that do not accept
    /// them exchange reports with every other member.
    pub takes_reports: bool,
    /// Ports of the host that no workload may use: that of the mesh and, if it is set, that of the API.
    pub reserved_ports: Vec<u16>,
    /// The members that its agent is not connected to, sorted; `None` from releases before 0.5.
    pub unreached: Option<Vec<HostId>>,
    /// Its processors, in thousandths of a core; 0 if unknown.
    pub cpu_millis: u32,
    /// Its memory, in bytes; 0 if unknown.
    pub memory_bytes: u64,
}

/// The report on one pod of a workload on a host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WorkloadReport {
    /// `NAME` or `NAMESPACE_NAME`.
    pub workload: String,
    /// The revision on the host; 0 if there is none.
    pub revision: u64,
    /// The log index of that revision. If a new revision failed before it replaced the old one, the log index of the
    /// new one.
    pub index: u64,
    /// The phase of the workload.
    pub phase: Phase,
    /// The number of healthy containers.
    pub healthy: u32,
    /// The number of containers.
    pub total: u32,
    /// Restarts of its containers since the pod was created.
    pub restarts: u32,
    /// Why it does not run, or the present step, as a message.
    pub message: String,
    /// Whether the pod of a Job has ended for good on this host. It completed if `phase` is `Succeeded`; otherwise the
    /// attempt failed.
    pub ended: bool,
    /// The containers that are [not simply running](ContainerReport::is_telling), at most [`CONTAINERS_TOLD_MAX`];
    /// empty from releases before 0.3.
    pub containers: Told,
    /// The images of the pod during a rollout; empty otherwise, and from releases before 0.4.
    pub images: ResolvedImages,
    /// The number of the pod among those of the workload on the host, from 0; 0 from releases before 0.5.
    pub number: u32,
}

/// The phase of a workload on a host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Phase {
    /// The host has not started to work on it.
    #[default]
    Pending,
    /// Its images are being pulled, or its pod is being created or replaced.
    Starting,
    /// Its pod runs, according to the unit; see `healthy`.
    Running,
    /// All its containers ended with code 0.
    Succeeded,
    /// The administrator of the host stopped the unit.
    Stopped,
    /// It could not be started, or its supervisor gave it up; see `message`.
    Failed,
    /// It is being removed.
    Removing,
}
