//! Pure: what the shell reports to a supervisor, and what a supervisor has it do.

use beemesh_protocol::pod::{ContainerReport, FailedProbe};

#[cfg(doc)]
use super::Supervisor;
use super::failure::Failure;
use super::{Ledger, Persisted, Sight};
use crate::health::{Report, Restart};

/// What the shell reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The answer to [`Effect::Look`].
    Looked(Box<Sight>),
    /// [`Effect::Look`] failed: Podman cannot be asked about the pod.
    Blind {
        /// What the Quadlet says all the same.
        persisted: Option<Persisted>,
        /// Why not.
        failure: Failure,
    },
    /// Podman's event stream says that something happened.
    Hint,
    /// Podman's event stream says that a container ended.
    Died {
        /// Its name.
        container: String,
        /// Its exit code.
        code: i32,
    },
    /// Podman says that a probe has run.
    Probed {
        /// The container's id.
        id: String,
        /// Its name.
        container: String,
        /// Whether the container counts as healthy.
        healthy: bool,
    },
    /// The answer to [`Effect::Probing`].
    Probing {
        /// The container's id.
        id: String,
        /// Runs of its probe that have not ended.
        sessions: Vec<String>,
    },
    /// The answer to [`Effect::TellProbe`].
    ProbeSaid {
        /// The container's name.
        container: String,
        /// Its last run; nothing when that is not known, or was fine.
        probe: Option<FailedProbe>,
    },
    /// The answer to [`Effect::Hear`].
    Heard {
        /// The container's name.
        container: String,
        /// The last line that it wrote; empty when that is not known.
        output: String,
    },
    /// [`Effect::Play`] succeeded.
    Played,
    /// [`Effect::Play`] failed.
    Failed(Failure),
    /// [`Effect::Play`] failed because of this container.
    FailedFor(Failure, Box<ContainerReport>),
    /// [`Effect::Start`] failed.
    NotStarted {
        /// The container's id.
        id: String,
        /// Why.
        failure: Failure,
    },
    /// [`Effect::Repair`] is done, or failed in words.
    Repaired(Result<(), String>),
    /// These processes are in the unit's control group now.
    Attached(Vec<u32>),
    /// [`Supervisor::wake_at`] has come.
    Woken,
    /// SIGTERM.
    Terminated,
}

/// What the shell carries out. [`Effect::Look`], [`Effect::Play`], [`Effect::Repair`], [`Effect::Attach`], [`Effect::Probing`],
/// [`Effect::TellProbe`], [`Effect::Hear`] and [`Effect::Start`] are answered with an [`Event`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Wait while the gateway plays the pod.
    Await,
    /// Read the Quadlet, look at the pod.
    Look,
    /// Take down what is there of the workload, then play the persisted YAML.
    Play {
        /// Of the persisted revision, for the status line while images are pulled.
        revision: u64,
    },
    /// Take the restarts of a container out of Podman's hands, and see to it that the pod stays while none of its members runs.
    Hold {
        /// The container's id.
        container: String,
        /// The id of an image that the host has.
        image: String,
        /// As the manifest has it.
        restart: Restart,
    },
    /// Have Podman restart a container again.
    Release {
        /// The container's id.
        container: String,
        /// As the manifest has it.
        restart: Restart,
        /// No container is held any more: the pod needs no holder.
        last: bool,
    },
    /// Start one ended container.
    Start {
        /// Its id.
        container: String,
    },
    /// All members have ended for good: stop what keeps the pod.
    Rest,
    /// Look which runs of a container's probe have not ended.
    Probing {
        /// The container's id.
        container: String,
    },
    /// End those runs of a container's probe that have not ended.
    EndProbe {
        /// The container's id.
        container: String,
        /// The runs.
        sessions: Vec<String>,
    },
    /// Ask what a container wrote last.
    Hear {
        /// The container's id.
        id: String,
        /// Its name.
        container: String,
    },
    /// Ask what the probe of a container said last, and log it.
    TellProbe {
        /// The container's id.
        id: String,
        /// Its name.
        container: String,
    },
    /// Keep the ledger where the next supervisor finds it.
    Keep(Ledger),
    /// Have Podman's storage checked and repaired.
    Repair,
    /// Move processes into the unit's control group.
    Attach(Vec<u32>),
    /// Take the workload's pod down.
    Down,
    /// Tell systemd that the unit is up.
    Ready,
    /// Write the report for the gateway, and show its line.
    Say(Report),
    /// End the process.
    Exit(i32),
}
