//! The rules for Jobs: a host starts an attempt at most once, and stores how it ended.
//!
//! Pure: no I/O, no clock, no randomness. The log index of an attempt identifies it. Its Quadlet is written before its
//! pod is played, and has no `[Install]` section. A Quadlet whose unit does not run, and for which no end is known, is
//! therefore an attempt that a reboot, a power cut or a crash has interrupted. This host does not start it again; the
//! leader decides whether another attempt follows. An end is made durable before it is reported, and is reported again
//! after each restart until the replicated state has it.

use beemesh_protocol::{
    ClusterId,
    peer::{Phase, WorkloadReport},
};
use beemesh_quadlet::{health::Status, render::is_installed};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{
    Disk, Memory, NEWS_MAX, Revision, Work,
    decide::{Case, Doing, left, stuck},
};

/// The replicated state of a Job on this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Attempt {
    /// The attempt is over, so nothing is started.
    pub(super) over: bool,
    /// Maximum number of failures in one attempt after which its containers are restarted; 0 if they are not restarted.
    pub(super) restarts: u32,
}

/// The end of an attempt on this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct End {
    /// The cluster to which the log index belongs.
    pub(crate) cluster: ClusterId,
    /// The log index that identifies the attempt.
    pub(crate) index: u64,
    /// Whether it completed.
    pub(crate) succeeded: bool,
    /// Restarts of its containers, which count as failures.
    pub(crate) restarts: u32,
    /// Why it failed, as a message.
    pub(crate) reason: String,
}

/// The operation for a Job that this host should have.
pub(super) fn choose(
    case: &Case<'_>,
    attempt: Attempt,
    wanted: Revision,
    present: Option<&Revision>,
    memory: &Memory,
) -> Option<Work> {
    let Some(present) = present else {
        return (!attempt.over).then_some(Work::Bring(wanted.index));
    };
    // Release 0.2.0 let every boot start it.
    if case.unit.is_some_and(|unit| is_installed(&unit.kube)) {
        return Some(Work::Disarm(present.index));
    }
    if memory.ended(present.index).is_some() && memory.concluded != present.index {
        return Some(Work::Conclude(present.index));
    }
    if attempt.over {
        return None;
    }
    let doing = left(case, memory);
    if present.index != wanted.index {
        let waits = doing == Doing::Changing && !stuck(case);
        return (!waits).then_some(Work::Bring(wanted.index));
    }
    match doing {
        Doing::Up(Some(Status::Running { revision, .. })) if revision == wanted.revision => {
            (memory.settled != wanted.index).then_some(Work::Settle(wanted.index))
        }
        // The Quadlet was written while the pod of the previous revision still ran.
        Doing::Up(Some(Status::Running { .. } | Status::Updating { .. })) => {
            Some(Work::Finish(wanted.index))
        }
        _ => None,
    }
}

/// Until when systemd may still have to report that a unit is up which seems to be down.
pub(super) fn news_by(case: &Case<'_>, memory: &Memory) -> Option<Instant> {
    let (_, at) = memory.done.filter(|_| case.job.is_some())?;
    Some(at + NEWS_MAX).filter(|by| *by > case.now)
}

/// The end of the attempt on the disk, if it was not known before.
pub(super) fn end(case: &Case<'_>, memory: &Memory) -> Option<End> {
    let (attempt, cluster) = case.job.zip(case.cluster)?;
    let (Disk::Ours(present), None) = (&case.disk, &memory.flight) else {
        return None;
    };
    let current = case
        .wanted
        .is_some_and(|wanted| wanted.index == present.index);
    if !current || present.index > case.applied || memory.ended(present.index).is_some() {
        return None;
    }
    let end = |succeeded, restarts, reason: String| End {
        cluster,
        index: present.index,
        succeeded,
        restarts,
        reason,
    };
    let unit = case.unit?;
    let heard = case.heard.as_deref();
    let message = || heard.map_or_else(String::new, |report| report.message());
    let is_news = news_by(case, memory).is_none();
    // The known state of the unit may still be that of an earlier attempt.
    if memory.end.is_some() && !is_news {
        return None;
    }
    let is_down = !attempt.over && is_news;
    match (case.doing(), heard.map(|report| &report.status)) {
        (Doing::Completed, Some(Status::Completed { revision, restarts }))
            if *revision == present.revision =>
        {
            Some(end(true, *restarts, String::new()))
        }
        (Doing::Ended, Some(Status::Ended { .. })) => Some(end(false, attempt.restarts, message())),
        (Doing::Failed, Some(Status::Failed { .. })) => Some(end(false, 0, message())),
        (Doing::Failed, _) => Some(end(false, 0, format!("its unit failed: {}", unit.result))),
        (Doing::Stopped, _) if is_down && !memory.stopped => {
            let reason = "stopped by the administrator of this host";
            Some(end(false, 0, reason.to_owned()))
        }
        (Doing::Stopped | Doing::Fresh | Doing::Completed, _) if is_down => {
            let failures = memory.failures.as_ref();
            let failed = failures.filter(|failures| failures.index == present.index);
            let reason = match failed.map(|failures| failures.message.as_str()) {
                Some(message) if !message.is_empty() => message.to_owned(),
                _ => "interrupted: the host was restarted, or its pod was taken down, before it was done"
                    .to_owned(),
            };
            Some(end(false, 0, reason))
        }
        _ => None,
    }
}

/// Replaces the unit's status by the end of the attempt, if that is known.
pub(super) fn lay_end_over(report: &mut WorkloadReport, case: &Case<'_>, memory: &Memory) {
    let (Some(_), Disk::Ours(present)) = (case.job, &case.disk) else {
        return;
    };
    let current = case
        .wanted
        .is_some_and(|wanted| wanted.index == present.index);
    let Some(end) = memory.ended(present.index).filter(|_| current) else {
        return;
    };
    // While the end is made durable and the attempt is cleaned up.
    if matches!(&memory.flight, Some(flight) if !matches!(flight.work, Work::Conclude(_) | Work::Disarm(_)))
    {
        return;
    }
    report.phase = if end.succeeded {
        Phase::Succeeded
    } else {
        Phase::Failed
    };
    report.message.clone_from(&end.reason);
    report.restarts = end.restarts;
    report.ended = memory.recorded == present.index;
}
