//! Pure: the state of a workload on this host at one look, and how long a supervisor waits for an unfinished play.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use beemesh_protocol::pod::FailedProbe;

use super::probes::spec::ContainerSpec;
use crate::health::{Container, Restart, Role, Run};
use crate::podman::Schedule;
use crate::render::Staged;

/// How long a pod whose containers are created but not started counts as being played by another process.
const PLAY_PATIENCE: Duration = Duration::from_secs(20);
/// Podman starts all containers of a pod at once. One that has not started within this time after the first cannot be
/// started.
const START_PATIENCE: Duration = Duration::from_secs(3);

/// The state of the workload on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sight {
    /// The content of its Quadlet; `None` if there is none.
    pub persisted: Option<Persisted>,
    /// The pod with its name.
    pub pod: Option<SeenPod>,
    /// The host's clock, since 1970.
    pub clock: Duration,
    /// Whether Beemesh is being removed from the host.
    pub released: bool,
    /// How much of its lease is left; `None` if the workload is no singleton and needs none.
    pub lease: Option<Duration>,
}

/// The revision that should run here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Persisted {
    /// Its number, for users.
    pub revision: u64,
    /// The log index that created it, which orders revisions.
    pub index: u64,
}

/// The pod with the workload's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenPod {
    /// Its id.
    pub id: String,
    /// The revision in its labels; `None` if they do not name the workload.
    pub labels: Option<Persisted>,
    /// Its containers.
    pub containers: Vec<Container>,
    /// Its restart policy in its manifest.
    pub restart: Restart,
    /// The containers that Podman does not restart although the manifest requests it, by id.
    pub held: BTreeSet<String>,
    /// The workload ends after more failures of its containers than this.
    pub failures_max: Option<u32>,
    /// The id of the image of one of its members.
    pub image: String,
    /// The schedules of the probes of running containers, by id.
    pub schedules: BTreeMap<String, Schedule>,
    /// The failing probes of running containers, by id.
    pub failing: BTreeMap<String, FailedProbe>,
    /// The containers that last ended because they were out of memory, by id.
    pub out_of_memory: BTreeSet<String>,
    /// The volumes with the termination messages of its containers, by the containers' ids.
    pub messages: BTreeMap<String, String>,
    /// Whether it has init containers, which may run for long before the others are started.
    pub has_init: bool,
    /// A container of the persisted revision that the pod lacks: its play was interrupted, or a user removed the
    /// container.
    pub missing: Option<String>,
    /// The processes that monitor its containers.
    pub conmons: Vec<u32>,
    /// True for the pod of a singleton: Podman never restarts its containers.
    pub needs_lease: bool,
    /// Whether the process that played it died meanwhile.
    pub interrupted: bool,
    /// How the supervisor starts its containers; `None` if Podman starts them together.
    pub staged: Option<Staged>,
    /// The probes and hooks of its containers, if the supervisor runs them.
    pub specs: Arc<Vec<ContainerSpec>>,
}

impl SeenPod {
    /// Whether a holder keeps the pod although no member needs it.
    pub(super) fn is_kept(&self) -> bool {
        let mut containers = self.containers.iter();
        containers.any(|container| container.role == Role::Holder)
    }

    /// Whether a sidecar runs.
    pub(super) fn has_sidecars(&self) -> bool {
        let mut containers = self.containers.iter();
        containers.any(|one| one.role == Role::Sidecar && one.run == Run::Running)
    }

    /// Whether the pod needs its holder also while no container waits for its restart.
    pub(super) fn needs_holder(&self) -> bool {
        let keeps_memory = self.staged.as_ref().is_some_and(Staged::is_in_memory);
        keeps_memory || self.restart == Restart::Never
    }

    /// Whether the supervisor must not start its containers, because their volumes may not be prepared. No container has
    /// been started, so nothing is lost with the pod.
    pub(super) fn is_unprepared(&self, own_debris: bool) -> bool {
        let was_started = |one: &Container| one.role.is_in_manifest() && one.run != Run::Created;
        self.staged.is_some()
            && (self.interrupted || own_debris)
            && !self.containers.iter().any(was_started)
    }

    /// The container of this id, if the supervisor starts it for the first time.
    pub(super) fn first_start(&self, id: &str) -> Option<&Container> {
        self.staged.as_ref()?;
        let mut containers = self.containers.iter();
        containers.find(|container| container.id == id && container.run == Run::Created)
    }

    /// How long missing or unstarted containers count as being worked on by another process. Init containers may take
    /// `init_time_max`.
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
