//! Pure: what a supervisor can see of its workload on this host, and for how long it believes what it sees half done.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use beemesh_protocol::pod::FailedProbe;

use crate::health::{Container, Restart, Role, Run};
use crate::podman::Schedule;

/// A pod whose containers are made but not started is being played by someone: for how long that is believed.
const PLAY_PATIENCE: Duration = Duration::from_secs(20);
/// Podman starts all of a pod's containers at once: one that is not started a moment after the first cannot be.
const START_PATIENCE: Duration = Duration::from_secs(3);

/// What can be seen of the workload on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sight {
    /// What its Quadlet says; `None` if there is none.
    pub persisted: Option<Persisted>,
    /// The pod of its name.
    pub pod: Option<SeenPod>,
    /// The host's clock, since 1970.
    pub clock: Duration,
    /// Whether Beemesh is being removed from the host.
    pub released: bool,
}

/// The revision that should run here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Persisted {
    /// Its number, for people.
    pub revision: u64,
    /// Orders revisions.
    pub index: u64,
}

/// The pod of the workload's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenPod {
    /// Its id.
    pub id: String,
    /// Whether its labels say that it is the workload's, and of which revision.
    pub labels: Option<Persisted>,
    /// Its containers.
    pub containers: Vec<Container>,
    /// Its restart policy, as its manifest has it.
    pub restart: Restart,
    /// The containers that Podman would not restart although the manifest says so, by id.
    pub held: BTreeSet<String>,
    /// More failures of its containers than this end the workload.
    pub failures_max: Option<u32>,
    /// The id of the image of one of its members.
    pub image: String,
    /// When Podman runs the probes of the containers that run, by id.
    pub schedules: BTreeMap<String, Schedule>,
    /// The probes that fail in the containers that run, by id.
    pub failing: BTreeMap<String, FailedProbe>,
    /// The containers that last ended because they had no memory left, by id.
    pub out_of_memory: BTreeSet<String>,
    /// Whether it has init containers, which may run for long before the others are started.
    pub has_init: bool,
    /// A container of the revision that should run here which the pod lacks: its play was cut short, or somebody removed it.
    pub missing: Option<String>,
    /// The processes that watch its containers.
    pub conmons: Vec<u32>,
}

impl SeenPod {
    /// Whether a holder keeps the pod although no member needs it.
    pub(super) fn is_kept(&self) -> bool {
        let mut containers = self.containers.iter();
        containers.any(|container| container.role == Role::Holder)
    }

    /// For how long containers that are not made or not started are somebody's work. Init containers may take `init_time_max`.
    pub(super) fn patience(&self, init_time_max: Duration) -> Duration {
        let is_starting = self
            .containers
            .iter()
            .any(|container| container.role == Role::Infra && container.run == Run::Running);
        match (is_starting, self.has_init) {
            (true, false) => START_PATIENCE,
            (true, true) => init_time_max,
            (false, _) => PLAY_PATIENCE,
        }
    }
}
