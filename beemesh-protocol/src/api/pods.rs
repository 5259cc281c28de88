//! The pods of a workload on its hosts.
//!
//! Pure data.

use serde::{Deserialize, Serialize};

use super::MovedFrom;
use crate::{HostId, pod::ContainerReport, workload::split_pod_name};

/// A pod of a workload on one host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkloadHost {
    /// The host's name.
    pub host: String,
    /// The identity key of the host.
    pub id: HostId,
    /// The phase of the workload on this host.
    pub phase: Phase,
    /// The revision on the host; 0 if there is none.
    pub revision: u64,
    /// The number of healthy containers.
    pub healthy: u32,
    /// The number of containers.
    pub total: u32,
    /// Restarts of its containers since the pod was created.
    pub restarts: u32,
    /// Why it does not run, or the present step.
    pub message: String,
    /// True if the host is reachable. Otherwise the other fields are from its last report.
    pub reachable: bool,
    /// The containers that are not simply running: those that are down, were restarted, or have a failing probe. At
    /// most [eight](crate::pod::CONTAINERS_TOLD_MAX).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub containers: Vec<ContainerReport>,
    /// Where the pod was before, if it has moved to this host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moved: Option<MovedFrom>,
    /// The name of the pod, with which `beemesh-pod-NAME` is its unit; empty from releases before 0.5.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub pod: String,
}

impl WorkloadHost {
    /// The host, with the name of the pod if other pods of the workload may be on it: `h1`, `h1 (web__1)`.
    #[must_use]
    pub fn label(&self) -> String {
        match split_pod_name(&self.pod) {
            Some((_, 1..)) => format!("{} ({})", self.host, self.pod),
            _ => self.host.clone(),
        }
    }
}

/// The phase of a workload on a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Phase {
    /// The host has not started to work on it.
    Pending,
    /// Its images are being pulled, or its pod is being created or replaced.
    Starting,
    /// Its pod runs.
    Running,
    /// All its containers ended with code 0.
    Succeeded,
    /// The administrator of the host stopped the unit.
    Stopped,
    /// It could not be started, or its supervisor gave it up.
    Failed,
    /// It is being removed.
    Removing,
}
