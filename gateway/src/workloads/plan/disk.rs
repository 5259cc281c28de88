//! What the disk has of a pod.
//!
//! Pure: no I/O, no clock, no randomness. Input: the Quadlet as the agent reports it. Output: whose it is.

use beemesh_protocol::{ClusterId, ipc::UnitState};
use beemesh_quadlet::render::{FORMAT, Quadlet, read_quadlet};

use super::Revision;
use crate::cluster::state::State;

/// The Quadlet of a pod on the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Disk {
    /// No Quadlet.
    Nothing,
    /// A Quadlet of this cluster.
    Ours(Revision),
    /// A Quadlet of another cluster.
    Other(ClusterId),
    /// A file in the place of the Quadlet that Beemesh did not write.
    Foreign,
}

/// The format of the Quadlet on the disk, if it is from an earlier release with another one.
pub(super) fn old_format(disk: &Disk, unit: Option<&UnitState>) -> Option<u32> {
    let quadlet = read_quadlet(&unit?.kube)?;
    let is_old = matches!(disk, Disk::Ours(_)) && quadlet.format < FORMAT;
    is_old.then_some(quadlet.format)
}

/// The Quadlet on the disk. A unit from before a recovery belongs to this cluster.
pub(super) fn disk(name: &str, state: &State, unit: Option<&UnitState>) -> Disk {
    let Some(unit) = unit.filter(|unit| !unit.kube.is_empty()) else {
        return Disk::Nothing;
    };
    match read_quadlet(&unit.kube) {
        Some(Quadlet {
            workload,
            cluster: other,
            ..
        }) if workload == name && state.cluster() != Some(other) && !state.was(other) => {
            Disk::Other(other)
        }
        Some(Quadlet {
            workload,
            revision,
            index,
            ..
        }) if workload == name => Disk::Ours(Revision { revision, index }),
        _ => Disk::Foreign,
    }
}
