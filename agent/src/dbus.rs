//! `io.beemesh.Agent1` on the system bus.

use beemesh_protocol::HostId;

/// What the host shows on D-Bus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shown {
    pub(crate) peer_id: HostId,
    pub(crate) role: String,
    pub(crate) leader: String,
    pub(crate) peers: Vec<String>,
    pub(crate) workloads: Vec<String>,
    pub(crate) version: String,
}
