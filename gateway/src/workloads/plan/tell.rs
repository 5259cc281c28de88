//! Composes the report on a workload.
//!
//! Pure: no I/O, no clock, no randomness. The health comes from the unit. The operation in progress and the reason of
//! the last failure take precedence over it. Messages contain no number of tries, and no time except that of the next
//! try, so that nothing is sent while nothing changes.

use std::fmt::Write as _;

use beemesh_protocol::{
    ipc::UnitState,
    peer::{Phase, WorkloadReport},
    pod::Told,
    state::ResolvedImages,
    workload::{kube_file, split_pod_name},
};
use beemesh_quadlet::health::{Health, Report, Status};

use super::{
    Cause, Disk, Failures, Flight, Image, Memory, Revision, Step, Work, decide::Case, job,
};

/// The report on a workload; `None` if the host has nothing of it.
pub(super) fn report(name: &str, case: &Case<'_>, memory: &Memory) -> Option<WorkloadReport> {
    if case.wanted.is_none() && case.disk == Disk::Nothing && memory.flight.is_none() {
        return None;
    }
    if case.job.is_some_and(|attempt| attempt.over) && case.disk == Disk::Nothing {
        return None;
    }
    let mut report = match (&case.disk, case.unit) {
        (Disk::Ours(present), Some(unit)) => by_unit(*present, unit, case.heard.as_deref()),
        _ => WorkloadReport::default(),
    };
    let (workload, number) = split_pod_name(name).unwrap_or((name, 0));
    report.workload = workload.to_owned();
    report.number = number;
    if memory.stopped && report.phase == Phase::Stopped {
        (report.phase, report.message) = (Phase::Pending, String::new());
    }
    match &case.disk {
        Disk::Other(_) | Disk::Foreign => {
            // Only a workload that should run here is affected.
            case.wanted?;
            report.phase = Phase::Failed;
            report.message = strange(name, &case.disk)?;
        }
        // The host runs a revision that the state does not include yet, so the report stays as it is.
        Disk::Ours(present) if present.index > case.applied => {}
        Disk::Nothing | Disk::Ours(_) => {
            lay_pod_over(&mut report, case, memory);
            lay_work_over(&mut report, case, memory);
            job::lay_end_over(&mut report, case, memory);
        }
    }
    Some(report)
}

/// The file of this name that should not be on the host, as a message.
pub(super) fn strange(name: &str, disk: &Disk) -> Option<String> {
    let file = kube_file(name);
    match disk {
        Disk::Other(cluster) => Some(format!(
            "{file} belongs to cluster {cluster}, so Beemesh does not touch it"
        )),
        Disk::Foreign => Some(format!(
            "{file} was not written by Beemesh, so Beemesh does not touch it"
        )),
        Disk::Nothing | Disk::Ours(_) => None,
    }
}

/// The first format with unique names of private volumes.
const UNIQUE_NAMES: u32 = 2;

/// Maximum number of workloads that a message about old Quadlets names.
const OLD_SHOWN: usize = 8;

/// The messages about workloads whose Quadlet is from an earlier release, each with its format, and about what that
/// leaves open.
pub(super) fn old(workloads: &[(&str, u32)]) -> Vec<String> {
    let unsafe_names = listed(workloads, |format| format < UNIQUE_NAMES);
    let unsafe_names = unsafe_names.map(|names| {
        format!(
            "written by Beemesh 0.2.0 or before: {names}; the names of their private volumes can be met by others, and on \
             Podman before 5.6.1 an image can plant links in their ConfigMaps and Secrets, until their manifests are \
             applied again with a change, such as a new annotation of the pod"
        )
    });
    let unfaithful = listed(workloads, |format| format >= UNIQUE_NAMES);
    let unfaithful = unfaithful.map(|names| {
        format!(
            "written by an earlier release: {names}; they run as before, and get what Beemesh does beyond Podman, such as \
             readiness probes and hooks, when their manifests are applied again with a change"
        )
    });
    unsafe_names.into_iter().chain(unfaithful).collect()
}

/// The names of the workloads with such a format; `None` if there are none.
fn listed(workloads: &[(&str, u32)], has: impl Fn(u32) -> bool) -> Option<String> {
    let all = workloads.iter().filter(|(_, format)| has(*format));
    let all: Vec<&str> = all.map(|(name, _)| *name).collect();
    if all.is_empty() {
        return None;
    }
    let mut names = all[..all.len().min(OLD_SHOWN)].join(", ");
    if all.len() > OLD_SHOWN {
        let _ = write!(names, " and {} more", all.len() - OLD_SHOWN);
    }
    Some(names)
}

fn by_unit(present: Revision, unit: &UnitState, heard: Option<&Report>) -> WorkloadReport {
    let Revision { revision, index } = present;
    let said = || heard.map_or_else(String::new, Report::message);
    let mut health = Health::default();
    let status = heard.map(|report| &report.status);
    let (phase, message) = match (unit.active.as_str(), status) {
        ("failed", Some(Status::Failed { .. } | Status::Ended { .. })) => (Phase::Failed, said()),
        ("failed", _) => (Phase::Failed, format!("its unit failed: {}", unit.result)),
        ("active" | "inactive", Some(Status::Completed { restarts, .. })) => {
            health.restarts = *restarts;
            (Phase::Succeeded, String::new())
        }
        ("inactive", _) if unit.started && unit.result == "success" => (
            Phase::Stopped,
            "stopped by the administrator of this host".to_owned(),
        ),
        ("inactive", _) => (Phase::Pending, String::new()),
        (
            "active",
            Some(Status::Running {
                health: of,
                revision: runs,
            }),
        ) => {
            health = *of;
            if *runs == revision {
                (Phase::Running, said())
            } else {
                (
                    Phase::Starting,
                    format!("revision {runs} is being replaced"),
                )
            }
        }
        ("active", Some(Status::Waiting { .. })) => {
            (Phase::Running, format!("waiting: {}", said()))
        }
        ("deactivating", _) => (Phase::Starting, "stopping".to_owned()),
        // The supervisor does not know the new revision yet.
        (_, Some(Status::Starting { revision: runs, .. })) if *runs != revision => (
            Phase::Starting,
            format!("revision {runs} is being replaced"),
        ),
        (_, Some(Status::Starting { .. })) => (Phase::Starting, said()),
        (_, Some(Status::Failed { .. } | Status::Ended { .. })) => {
            (Phase::Starting, format!("trying again after: {}", said()))
        }
        (_, _) => (Phase::Starting, unit.status.clone()),
    };
    let Health {
        healthy,
        total,
        restarts,
    } = health;
    WorkloadReport {
        workload: String::new(),
        revision,
        index,
        phase,
        healthy,
        total,
        restarts,
        message,
        ended: false,
        containers: match (unit.active.as_str(), status) {
            ("inactive", _) | (_, Some(Status::Updating { .. })) => Told::default(),
            // The supervisor still reports the pod of another revision.
            (
                _,
                Some(
                    Status::Running { revision: runs, .. }
                    | Status::Starting { revision: runs, .. }
                    | Status::Waiting { revision: runs, .. }
                    | Status::Completed { revision: runs, .. },
                ),
            ) if *runs != revision => Told::default(),
            _ => heard.map_or_else(Told::default, |report| Told::of(&report.containers)),
        },
        images: ResolvedImages::default(),
        number: 0,
    }
}

/// Adds what is known of the pod from its play.
fn lay_pod_over(report: &mut WorkloadReport, case: &Case<'_>, memory: &Memory) {
    let Some(played) = Some(&memory.played).filter(|played| played.index == report.index) else {
        return;
    };
    if case.rolls {
        report.images.clone_from(&played.images);
    }
    if report.phase == Phase::Running && report.message.is_empty() {
        report.message.clone_from(&played.note);
    }
}

fn lay_work_over(report: &mut WorkloadReport, case: &Case<'_>, memory: &Memory) {
    let flight = memory
        .flight
        .as_ref()
        .filter(|flight| !flight.step.is_after_sync());
    let target = case.wanted.map_or(report.index, |wanted| wanted.index);
    let failures = memory
        .failures
        .as_ref()
        .filter(|failures| failures.index == target && !failures.message.is_empty());
    match (case.wanted, flight, failures) {
        (None, flight, failures) => {
            report.phase = Phase::Removing;
            report.message = match (flight, failures) {
                (
                    Some(Flight {
                        work: Work::Remove(_),
                        step,
                        ..
                    }),
                    _,
                ) => words(*step).to_owned(),
                (_, Some(failures)) => failures.message.clone(),
                _ => String::new(),
            };
        }
        (
            Some(_),
            Some(Flight {
                work: Work::Persist(_) | Work::Disarm(_) | Work::Conclude(_),
                ..
            }),
            _,
        ) => {}
        (Some(_), Some(flight), _) => {
            report.phase = Phase::Starting;
            report.message = words(flight.step).to_owned();
            // Until the end of the replacement they may be those of the pod before it, and say nothing of this revision.
            if matches!(flight.work, Work::Bring(_) | Work::Finish(_)) {
                report.containers = Told::default();
            }
        }
        (Some(wanted), None, Some(failures)) => {
            explain(report, wanted, failures, memory.image);
        }
        (Some(_), None, None) => {}
    }
}

/// Adds the failure for which no operation is in progress. The report gets the log index of the failed revision, so
/// that a caller that waits for this revision ends its wait.
fn explain(
    report: &mut WorkloadReport,
    wanted: Revision,
    failures: &Failures,
    image: Option<Image>,
) {
    let message = &reason(failures, image);
    if failures.cause == Cause::Interrupted && report.index != wanted.index {
        // It has not failed, so a rollout goes on.
        (report.phase, report.message) = match report.phase {
            Phase::Running => {
                let (new, old) = (wanted.revision, report.revision);
                let words = format!(
                    "revision {new} is tried again after: {message}; revision {old} keeps running"
                );
                (Phase::Running, words)
            }
            _ => (Phase::Starting, format!("trying again after: {message}")),
        };
        return;
    }
    if failures.cause == Cause::Waits {
        // The workload has not failed; it is started later.
        (report.phase, report.message) = match report.phase {
            Phase::Running => {
                let (new, old) = (wanted.revision, report.revision);
                let words = format!("revision {new} {message}; revision {old} keeps running");
                (Phase::Running, words)
            }
            _ => (Phase::Pending, message.clone()),
        };
        return;
    }
    if report.index == wanted.index {
        if report.phase != Phase::Failed {
            report.phase = Phase::Starting;
            // The supervisor has tried the same, and its report names the container that failed.
            if report.containers.0.is_empty() {
                report.message = format!("trying again after: {message}");
            }
        } else if report.message.is_empty() {
            message.clone_into(&mut report.message);
        }
        return;
    }
    report.message = match report.phase {
        Phase::Running => {
            let (new, old) = (wanted.revision, report.revision);
            format!("revision {new} cannot be started: {message}; revision {old} keeps running")
        }
        _ => message.to_owned(),
    };
    report.phase = Phase::Failed;
    report.index = wanted.index;
}

/// Why an operation failed, and what ends the pause before the next one, if that is known.
fn reason(failures: &Failures, image: Option<Image>) -> String {
    let message = &failures.message;
    match image {
        Some(Image::Missing { again }) => {
            let (hour, minute, second) = (again / 3600 % 24, again / 60 % 60, again % 60);
            format!(
                "{message}; tries again at {hour:02}:{minute:02}:{second:02} UTC, and within 10 s once the image is on this host"
            )
        }
        Some(Image::Arrived) | None => message.clone(),
    }
}

fn words(step: Step) -> &'static str {
    match step {
        Step::Pull => "looking for its images",
        Step::Put => "writing its unit",
        Step::Replace => "starting its pod",
        Step::Start => "waiting for its unit",
        Step::Stop => "stopping its unit",
        Step::Down => "taking its pod down",
        Step::Sync => "writing its storage to disk",
        Step::Tidy | Step::Collect | Step::Clear => "cleaning up",
        Step::Forget => "removing its unit",
    }
}
