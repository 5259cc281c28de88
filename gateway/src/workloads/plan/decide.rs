//! The rules that choose the next operation for a workload.
//!
//! Pure: no I/O, no clock, no randomness.

use std::sync::Arc;

use beemesh_protocol::{ClusterId, ipc::UnitState};
use beemesh_quadlet::health::{Report, Status};
use tokio::time::Instant;

use super::{
    Disk, Image, Memory, NEWS_MAX, Revision, Work,
    job::{self, Attempt},
};

/// The state of one workload at one moment.
#[derive(Debug, Clone)]
pub(super) struct Case<'a> {
    pub(super) now: Instant,
    /// The last log index that the state includes.
    pub(super) applied: u64,
    /// The revision that this host should run.
    pub(super) wanted: Option<Revision>,
    /// Its attempt, if it is a Job.
    pub(super) job: Option<Attempt>,
    pub(super) cluster: Option<ClusterId>,
    /// True if the workload has a rollout, at whose end the leader records the images.
    pub(super) rolls: bool,
    pub(super) disk: Disk,
    pub(super) unit: Option<&'a UnitState>,
    /// The report of the unit's supervisor.
    pub(super) heard: Option<Arc<Report>>,
}

impl Case<'_> {
    pub(super) fn doing(&self) -> Doing {
        doing(
            self.unit,
            self.heard.as_deref().map(|report| &report.status),
        )
    }
}

/// The next operation, and the time of the next decision.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Decision {
    pub(super) work: Option<Work>,
    pub(super) due: Option<Instant>,
}

/// The state of a unit, as far as decisions depend on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Doing {
    /// It was never started since the host booted.
    Fresh,
    /// It was stopped on this host.
    Stopped,
    /// All containers of its pod ended with code 0.
    Completed,
    /// Its supervisor gave up.
    Failed,
    /// All its containers ended, one of them with a failure, and the manifest does not request a restart.
    Ended,
    /// It is up, with this status.
    Up(Option<Status>),
    /// systemd or the supervisor is changing it now.
    Changing,
}

/// Reads the state of a unit; a missing unit counts as never started.
fn doing(unit: Option<&UnitState>, status: Option<&Status>) -> Doing {
    let Some(unit) = unit else {
        return Doing::Fresh;
    };
    match unit.active.as_str() {
        "active" if matches!(status, Some(Status::Completed { .. })) => Doing::Completed,
        "active" => Doing::Up(status.cloned()),
        "failed" if matches!(status, Some(Status::Ended { .. })) => Doing::Ended,
        "failed" => Doing::Failed,
        "inactive" if !unit.started => Doing::Fresh,
        "inactive" if matches!(status, Some(Status::Completed { .. })) => Doing::Completed,
        "inactive" if unit.result == "success" => Doing::Stopped,
        // The unit failed, but `systemctl reset-failed` cleared that: it counts as never started.
        "inactive" => Doing::Fresh,
        _ => Doing::Changing,
    }
}

/// Decides as if no operation were in progress; the caller compares the result with the one in progress.
pub(super) fn decide(case: &Case<'_>, memory: &Memory) -> Decision {
    let Some(work) = choose(case, memory) else {
        return Decision {
            work: None,
            due: job::news_by(case, memory),
        };
    };
    let unit_failed = matches!(work, Work::Start(_)) && case.doing() == Doing::Failed;
    let failures = memory
        .failures
        .as_ref()
        .filter(|failures| failures.index == work.index());
    let failures = failures.filter(|_| memory.image != Some(Image::Arrived));
    let retry_at = failures.map(|failures| failures.retry_at(unit_failed));
    let news_by = memory
        .done
        .filter(|(done, _)| *done == work)
        .map(|(_, at)| at + NEWS_MAX);
    match retry_at.max(news_by) {
        Some(due) if due > case.now => Decision {
            work: None,
            due: Some(due),
        },
        _ => Decision {
            work: Some(work),
            due: None,
        },
    }
}

fn choose(case: &Case<'_>, memory: &Memory) -> Option<Work> {
    let present = match &case.disk {
        // The gateway does not touch the file.
        Disk::Other(_) | Disk::Foreign => return None,
        // The host has a revision that the state does not include yet, so the state is old.
        Disk::Ours(present) if present.index > case.applied => return None,
        Disk::Ours(present) => Some(present),
        Disk::Nothing => None,
    };
    if let Some((attempt, wanted)) = case.job.zip(case.wanted) {
        return job::choose(case, attempt, wanted, present, memory);
    }
    match (case.wanted, present) {
        (None, None) => None,
        (None, Some(present)) => Some(Work::Remove(present.index)),
        (Some(wanted), None) => Some(Work::Bring(wanted.index)),
        (Some(wanted), Some(present)) if wanted.index != present.index => {
            match left(case, memory) {
                Doing::Stopped => Some(Work::Persist(wanted.index)),
                // Another state follows.
                Doing::Changing => stuck(case).then_some(Work::Bring(wanted.index)),
                Doing::Fresh | Doing::Completed | Doing::Failed | Doing::Ended | Doing::Up(_) => {
                    Some(Work::Bring(wanted.index))
                }
            }
        }
        (Some(wanted), Some(_)) => keep(wanted, case, memory),
    }
}

/// The operation that is missing after the right revision was persisted.
fn keep(wanted: Revision, case: &Case<'_>, memory: &Memory) -> Option<Work> {
    let settled = memory.settled == wanted.index;
    match left(case, memory) {
        Doing::Fresh | Doing::Failed => Some(Work::Start(wanted.index)),
        Doing::Stopped | Doing::Changing => None,
        // From here on the supervisor manages the pod, once it knows the revision.
        Doing::Completed | Doing::Ended | Doing::Up(_) if settled => None,
        Doing::Completed | Doing::Ended => Some(Work::Settle(wanted.index)),
        Doing::Up(Some(Status::Running { revision, .. })) if revision == wanted.revision => {
            Some(Work::Settle(wanted.index))
        }
        Doing::Up(Some(Status::Running { .. } | Status::Updating { .. })) => {
            Some(Work::Finish(wanted.index))
        }
        // A new status is about to follow.
        Doing::Up(_) => None,
    }
}

/// The state of the unit. A unit that an operation has stopped and not started again counts as never started.
pub(super) fn left(case: &Case<'_>, memory: &Memory) -> Doing {
    match case.doing() {
        Doing::Stopped if memory.stopped => Doing::Fresh,
        other => other,
    }
}

/// Whether the unit is being started, for which systemd may have restarted it again and again. A new revision can end
/// that.
pub(super) fn stuck(case: &Case<'_>) -> bool {
    case.unit.is_some_and(|unit| unit.active == "activating")
}
