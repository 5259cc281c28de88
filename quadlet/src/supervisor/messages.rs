//! Pure: the events that the shell reports to a supervisor, and the effects that it carries out.

use std::time::Duration;

use beemesh_protocol::pod::{ContainerReport, FailedProbe};

#[cfg(doc)]
use super::Supervisor;
use super::failure::Failure;
use super::probes::spec::{ContainerSpec, Handler};
use super::probes::{Due, Outcome, RunId, Ticket};
use super::termination::MessageFile;
use super::{Ledger, Persisted, Sight};
use crate::health::{Report, Restart};
use crate::render::PreparedVolume;

/// An event that the shell reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The answer to [`Effect::Look`].
    Looked(Box<Sight>),
    /// [`Effect::Look`] failed, because Podman did not answer.
    Blind {
        /// The content of the Quadlet, which is known without Podman.
        persisted: Option<Persisted>,
        /// The failure.
        failure: Failure,
    },
    /// Podman's event stream reports a change.
    Hint,
    /// Podman's event stream reports that a container ended.
    Died {
        /// Its name.
        container: String,
        /// Its exit code.
        code: i32,
    },
    /// Podman reports that a probe has run.
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
        /// Its last run; `None` if that is unknown or succeeded.
        probe: Option<FailedProbe>,
    },
    /// The answer to [`Effect::Hear`].
    Heard {
        /// The container's name.
        container: String,
        /// Its termination message; empty if it has none.
        message: String,
        /// The last line that it wrote, unless it has a message; empty if that is unknown.
        output: String,
    },
    /// [`Effect::Play`] succeeded.
    Played,
    /// [`Effect::Play`] failed.
    Failed(Failure),
    /// [`Effect::Play`] failed because of this container.
    FailedFor(Failure, Box<ContainerReport>),
    /// A run of a probe has ended.
    ProbeRan {
        /// The run.
        ticket: Ticket,
        /// Its result.
        outcome: Outcome,
    },
    /// A `postStart` hook has ended.
    Posted {
        /// The container's name.
        container: String,
        /// The run of the container.
        run: RunId,
        /// Why it failed, as a message.
        outcome: Result<(), String>,
    },
    /// [`Effect::Start`] or [`Effect::Remove`] succeeded.
    Started,
    /// [`Effect::Start`] failed.
    NotStarted {
        /// The container's id.
        id: String,
        /// The failure.
        failure: Failure,
    },
    /// [`Effect::Repair`] has succeeded, or failed with this message.
    Repaired(Result<(), String>),
    /// These processes are now in the unit's control group.
    Attached(Vec<u32>),
    /// The workload is a singleton, and its host may run it no longer.
    LeaseEnds,
    /// The workload is a singleton, and its host may run it again.
    LeaseBegins,
    /// The time [`Supervisor::wake_at`] has come.
    Woken,
    /// The process received SIGTERM.
    Terminated,
}

/// An effect that the shell carries out. It answers [`Effect::Look`], [`Effect::Play`], [`Effect::Repair`],
/// [`Effect::Attach`], [`Effect::Probing`], [`Effect::TellProbe`], [`Effect::Hear`] and [`Effect::Start`] with an
/// [`Event`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Wait while the gateway plays the pod.
    Await,
    /// Read the Quadlet, and inspect the pod.
    Look,
    /// Take down the remains of the workload's pod, then play the persisted YAML.
    Play {
        /// The persisted revision, for the status line while images are pulled.
        revision: u64,
    },
    /// Disable a container's restarts by Podman, and keep the pod while none of its members runs.
    Hold {
        /// The container's id.
        container: String,
        /// The id of an image that the host has.
        image: String,
        /// Its restart policy in the manifest.
        restart: Restart,
    },
    /// Enable a container's restarts by Podman.
    Release {
        /// The container's id.
        container: String,
        /// Its restart policy in the manifest.
        restart: Restart,
        /// No other container is held, so the pod needs no holder.
        last: bool,
    },
    /// Start one container.
    Start {
        /// Its id.
        container: String,
        /// Folders of volumes that it needs, unless a container before it has made them.
        folders: Vec<PreparedVolume>,
        /// Its working directory, which its image may lack.
        working_dir: Option<String>,
    },
    /// Remove an init container that has done its work.
    Remove {
        /// Its id.
        container: String,
    },
    /// Start a run of a probe. [`Event::ProbeRan`] answers it later.
    Probe(Due),
    /// Start a `postStart` hook. [`Event::Posted`] answers it later.
    Post {
        /// The container's name.
        container: String,
        /// The run of the container.
        run: RunId,
        /// The hook.
        hook: Handler,
    },
    /// Begin to end a container whose probe or hook has failed.
    Condemn {
        /// The container's id.
        container: String,
        /// Why, for the log. It may contain output of the container.
        reason: String,
        /// Its probes and hooks.
        spec: Box<ContainerSpec>,
        /// The time that it has to end.
        grace: Duration,
        /// The image of the holder that keeps the pod meanwhile; `None` if the container is not started again.
        holder: Option<String>,
        /// Its restart policy in the manifest.
        restart: Restart,
    },
    /// All members have ended for good: stop the containers that keep the pod.
    Rest,
    /// List the runs of a container's probe that have not ended.
    Probing {
        /// The container's id.
        container: String,
    },
    /// Kill those runs of a container's probe that have not ended.
    EndProbe {
        /// The container's id.
        container: String,
        /// The runs.
        sessions: Vec<String>,
    },
    /// Request the termination message of a container, or the last line that it wrote if it has none.
    Hear {
        /// The container's id.
        id: String,
        /// Its name.
        container: String,
        /// The file with its message, if it has one.
        file: Option<MessageFile>,
    },
    /// Request the last output of a container's probe, and log it.
    TellProbe {
        /// The container's id.
        id: String,
        /// Its name.
        container: String,
    },
    /// Store the ledger for the next supervisor.
    Keep(Ledger),
    /// Check and repair Podman's storage.
    Repair,
    /// Move processes into the unit's control group.
    Attach(Vec<u32>),
    /// Take the workload's pod down.
    Down,
    /// End the containers of the pod within a time that is shorter than their grace periods, kill those that are left, and
    /// remove the pod.
    Yield {
        /// The time that the containers have to end.
        within: Duration,
    },
    /// Tell systemd that the unit is up.
    Ready,
    /// Write the report for the gateway, and show its line.
    Say(Report),
    /// End the process.
    Exit(i32),
}
