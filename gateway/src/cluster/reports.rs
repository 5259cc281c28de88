//! What hosts say of themselves.
//!
//! Pure.

use std::{collections::BTreeMap, sync::Arc};

use beemesh_protocol::{
    HostId,
    peer::{HostReport, Phase, WorkloadReport},
};

/// The last reports of hosts.
pub(crate) type Reports = Arc<BTreeMap<HostId, Arc<HostReport>>>;

/// Whether a container of a pod that runs is down, waits to be started again, is unhealthy, or has ended lately: then, and only
/// then, its report has words.
pub(crate) fn is_in_trouble(report: &WorkloadReport) -> bool {
    report.phase == Phase::Running && !report.message.is_empty()
}
