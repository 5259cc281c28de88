//! systemd over D-Bus: unit files in, unit states out.

use beemesh_protocol::ipc::{UnitFiles, UnitState};

/// Something systemd or the disk must do. Names are workloads.
#[derive(Debug)]
pub(crate) enum Order {
    Put(UnitFiles),
    Remove(String),
    Tidy(String),
    Start(String),
    Stop(String),
    SyncStorage,
}

/// What systemd says.
#[derive(Debug)]
pub(crate) enum SystemdEvent {
    Units(Vec<UnitState>),
    Unit(UnitState),
    UnitGone(String),
    Gateway { active: String },
    Lost(String),
}
