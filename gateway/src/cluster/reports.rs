//! The reports of hosts about themselves.
//!
//! Pure.

use std::{collections::BTreeMap, sync::Arc};

use beemesh_protocol::{
    HostId,
    peer::{HostReport, Phase, WorkloadReport},
};

/// The last report of each host.
pub(crate) type Reports = Arc<BTreeMap<HostId, Arc<HostReport>>>;

/// Whether a container of a running pod is down, waits for a restart, is unhealthy, or has ended recently. Only then
/// does the report of a running pod have a message.
pub(crate) fn is_in_trouble(report: &WorkloadReport) -> bool {
    report.phase == Phase::Running && !report.message.is_empty()
}
