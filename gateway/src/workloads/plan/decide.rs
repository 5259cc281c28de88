//! The rules by which one workload's next work is chosen.
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

/// One workload at one moment.
#[derive(Debug, Clone)]
pub(super) struct Case<'a> {
    pub(super) now: Instant,
    /// The last log index our state includes.
    pub(super) applied: u64,
    /// What this host should run.
    pub(super) wanted: Option<Revision>,
    /// What is different about it, when it is a Job.
    pub(super) job: Option<Attempt>,
    pub(super) cluster: Option<ClusterId>,
    pub(super) disk: Disk,
    pub(super) unit: Option<&'a UnitState>,
    /// What the unit's supervisor says.
    pub(super) heard: Option<Arc<Report>>,
}

impl Case<'_> {
    /// What the unit does.
    pub(super) fn doing(&self) -> Doing {
        doing(
            self.unit,
            self.heard.as_deref().map(|report| &report.status),
        )
    }
}

/// What to do, and when to decide again.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Decision {
    pub(super) work: Option<Work>,
    pub(super) due: Option<Instant>,
}

/// What a unit does, as far as decisions go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Doing {
    /// It was never started since the host booted.
    Fresh,
    /// It was stopped by somebody on this host.
    Stopped,
    /// Its pod has done its work and ended well.
    Completed,
    /// Its supervisor gave up.
    Failed,
    /// Its containers ended, one of them in failure, and the manifest has none started again.
    Ended,
    /// It is up, and says this about itself.
    Up(Option<Status>),
    /// systemd or the supervisor is changing that now.
    Changing,
}

/// Reads a unit's state; one that is not there was never started.
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
        // Ended badly, but systemd was told to forget that: as good as never started.
        "inactive" => Doing::Fresh,
        _ => Doing::Changing,
    }
}

/// Decides as if nothing were under way; the caller compares it with what is.
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
        // Not ours to touch.
        Disk::Other(_) | Disk::Foreign => return None,
        // The host has accepted something that our state does not know yet: our state is old.
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
                // It ends as one of the others.
                Doing::Changing => stuck(case).then_some(Work::Bring(wanted.index)),
                Doing::Fresh | Doing::Completed | Doing::Failed | Doing::Ended | Doing::Up(_) => {
                    Some(Work::Bring(wanted.index))
                }
            }
        }
        (Some(wanted), Some(_)) => keep(wanted, case, memory),
    }
}

/// The right revision is persisted: what is missing?
fn keep(wanted: Revision, case: &Case<'_>, memory: &Memory) -> Option<Work> {
    let settled = memory.settled == wanted.index;
    match left(case, memory) {
        Doing::Fresh | Doing::Failed => Some(Work::Start(wanted.index)),
        Doing::Stopped | Doing::Changing => None,
        // From here on the supervisor looks after the pod, once it has been told of the revision.
        Doing::Completed | Doing::Ended | Doing::Up(_) if settled => None,
        Doing::Completed | Doing::Ended => Some(Work::Settle(wanted.index)),
        Doing::Up(Some(Status::Running { revision, .. })) if revision == wanted.revision => {
            Some(Work::Settle(wanted.index))
        }
        Doing::Up(Some(Status::Running { .. } | Status::Updating { .. })) => {
            Some(Work::Finish(wanted.index))
        }
        // It is about to say something else.
        Doing::Up(_) => None,
    }
}

/// What the unit does. What our own work has stopped, and then did not start again, is as good as never started.
pub(super) fn left(case: &Case<'_>, memory: &Memory) -> Doing {
    match case.doing() {
        Doing::Stopped if memory.stopped => Doing::Fresh,
        other => other,
    }
}

/// A unit that systemd restarts over and over is always changing, and a new revision is what could end that.
pub(super) fn stuck(case: &Case<'_>) -> bool {
    case.unit.is_some_and(|unit| unit.active == "activating")
}
