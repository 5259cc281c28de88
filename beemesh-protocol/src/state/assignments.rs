//! The assignment of pods to hosts.
//!
//! Pure data.

use super::Moved;
use crate::HostId;

/// The final result of a Job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobEnd {
    /// True if the Job succeeded.
    pub succeeded: bool,
    /// The reason of a failure, as a message.
    pub reason: String,
    /// When the result was recorded, in milliseconds since 1970.
    pub at_ms: u64,
}

/// The assignment of one pod of a workload to a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// `NAME` or `NAMESPACE_NAME`.
    pub workload: String,
    /// The number of the pod, from 0.
    pub ordinal: u32,
    /// The host; `None` if the pod has no host.
    pub host: Option<HostId>,
    /// The log index of the assignment to the host. For a Job it identifies the attempt, and is 0 between two attempts.
    /// An attempt without a host is one whose host was removed.
    pub index: u64,
    /// The number of failed attempts of a Job.
    pub failures: u32,
    /// When the last of them failed, in milliseconds since 1970; 0 if no attempt failed.
    pub failed_at_ms: u64,
    /// The Job's result; `None` while it runs.
    pub end: Option<JobEnd>,
    /// Its last move, from level 3 on; `None` if it has not moved.
    pub moved: Option<Moved>,
    /// The number of the pod among those of the workload on the host, from 0. Above 0 from level 3 on.
    pub number: u32,
}

impl Assignment {
    /// The place of the pod; `None` if it has no host.
    #[must_use]
    pub fn place(&self) -> Option<Place> {
        let number = self.number;
        self.host.map(|host| Place { host, number })
    }
}

/// A place for a pod of a workload: a host, and the number of the pod among those of the workload on this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The host.
    pub host: HostId,
    /// The number of the pod, from 0.
    pub number: u32,
}

impl Place {
    /// The place of the first pod on a host.
    #[must_use]
    pub fn first(host: HostId) -> Self {
        Self { host, number: 0 }
    }
}

/// A host that has data of a PersistentVolumeClaim.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClaimRecord {
    /// The claim's namespace.
    pub namespace: String,
    /// The claim's name.
    pub name: String,
    /// The host.
    pub host: HostId,
}

/// Assignments of the workloads that do not run on every host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Assignments {
    /// Sorted by workload and ordinal.
    pub assigned: Vec<Assignment>,
    /// Sorted by claim and host.
    pub claims: Vec<ClaimRecord>,
}
