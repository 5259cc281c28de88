//! Lines and tables for users to read.
//!
//! Pure: responses of the API in, text out.

mod access;
mod hosts;
mod progress;
mod rollout;
mod workload;

use std::time::Duration;

use beemesh_protocol::{
    api::{
        Action, Applied, AppliedObject, Deleted, Manifest, MoveReason, Phase, Restored, Role,
        Status, Workload, WorkloadHost,
    },
    rollout::STABLE,
};

pub(crate) use access::{audit, policy, policy_set, revoked, tokens, users};
pub(crate) use hosts::{host, host_changed, host_drained, host_removed, hosts};
pub(crate) use progress::{Course, Size};
pub(crate) use rollout::{changed as rollout_changed, revision, revisions, rollout};
pub(crate) use workload::workload;

/// Hosts share a line up to this width, in characters.
const LINE_MAX: usize = 100;
/// The space between columns.
const GAP: &str = "   ";

/// The result of an apply and, after a wait, the state of its workloads.
pub(crate) fn applied(applied: &Applied, waited: Option<Duration>) -> String {
    let names = applied.objects.iter().map(|object| object.name.as_str());
    let width = names.map(|name| name.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for object in &applied.objects {
        text.push_str(&applied_object(object, applied, width));
        let workloads = applied.workloads.iter().flatten();
        let same = |one: &&Workload| one.name == object.name && object.revision > 0;
        if let Some(workload) = workloads.into_iter().find(same) {
            text.push_str(&on_hosts(workload, waited));
        }
    }
    text
}

fn applied_object(object: &AppliedObject, applied: &Applied, width: usize) -> String {
    let name = format!("{:width$}", object.name);
    let what = match (object.revision, object.action) {
        (0, _) | (_, Action::Removed) => object.kind.clone(),
        (revision, _) => format!("revision {revision}"),
    };
    let did = match object.action {
        Action::Created => "created",
        Action::Updated => "updated",
        Action::Unchanged => "unchanged",
        Action::Removed => "removed",
        Action::Kept => "not in the file, stays (`--prune` removes it)",
    };
    let committed = match (object.action, applied.dry_run) {
        (Action::Unchanged | Action::Kept, _) => did.to_owned(),
        (_, true) => format!("would be {did}"),
        (Action::Created, false) if object.revision > 0 => committed(applied.index),
        (Action::Updated, false) if object.revision > 0 => committed(applied.index),
        (_, false) => format!("{did}{GAP}{}", committed(applied.index)),
    };
    format!("{name}{GAP}{what}{GAP}{committed}\n")
}

fn committed(index: u64) -> String {
    format!("committed at log index {index}")
}

/// The hosts of a workload, in one line if it is short and no host has a message.
pub(crate) fn on_hosts(workload: &Workload, waited: Option<Duration>) -> String {
    let hosts = &workload.hosts;
    let time = waited.map_or_else(String::new, |waited| {
        let word = if workload.settled { "in" } else { "after" };
        format!("{GAP}{word} {:.1} s", waited.as_secs_f64())
    });
    if hosts.is_empty() {
        return format!("  {}{time}\n", nowhere(workload));
    }
    let cells: Vec<_> = hosts
        .iter()
        .map(|one| format!("{}  {}", one.label(), on_host(one, workload.revision)))
        .collect();
    let line = format!("  {}{time}\n", cells.join(GAP));
    let plain = hosts.iter().all(|one| one.message.is_empty());
    if plain && line.chars().count() <= LINE_MAX {
        return line;
    }
    let width = hosts.iter().map(|one| one.label().chars().count()).max();
    let width = width.unwrap_or(0);
    let mut text = String::new();
    for one in hosts {
        let state = on_host(one, workload.revision);
        text.push_str(&format!("  {:width$}  {state}\n", one.label()));
    }
    match time.trim_start() {
        "" => text,
        time => format!("{text}  {time}\n"),
    }
}

/// The state on one host, such as `running 2/2 healthy`, `starting: pulling image x` or `unknown: host unreachable
/// (last: running 2/2 healthy)`.
fn on_host(one: &WorkloadHost, revision: u64) -> String {
    let mut state = match one.phase {
        Phase::Running => format!("running {}/{} healthy", one.healthy, one.total),
        Phase::Stopped => "stopped on this host (systemctl stop)".to_owned(),
        phase => phase_name(phase).to_owned(),
    };
    if one.revision != 0 && one.revision != revision {
        state.push_str(&format!(" (revision {})", one.revision));
    }
    if !one.message.is_empty() && one.phase != Phase::Stopped {
        state.push_str(&format!(": {}", one.message));
    }
    if let Some(moved) = &one.moved {
        let why = moved.why.words();
        state.push_str(&format!(" (moved from {}, {why})", moved.host));
    }
    match (one.reachable, one.phase) {
        (true, _) => state,
        (false, Phase::Pending) => "unknown: host unreachable".to_owned(),
        (false, _) => format!("unknown: host unreachable (last: {state})"),
    }
}

fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Pending => "pending",
        Phase::Starting => "starting",
        Phase::Running => "running",
        Phase::Succeeded => "succeeded",
        Phase::Stopped => "stopped",
        Phase::Failed => "failed",
        Phase::Removing => "removing",
    }
}

/// Returns true if the host runs this revision of the workload as requested, according to its last report.
fn fine(one: &WorkloadHost, revision: u64) -> bool {
    one.revision == revision
        && match one.phase {
            Phase::Running => one.healthy == one.total && one.message.is_empty() && one.reachable,
            Phase::Succeeded => true,
            Phase::Pending | Phase::Starting | Phase::Stopped | Phase::Failed | Phase::Removing => {
                false
            }
        }
}

/// The reasons why workloads do not run as requested, in one line: too few hosts, and the problem on each host. Empty
/// if there is none.
pub(crate) fn not_running(workloads: &[Workload]) -> String {
    let mut words = Vec::new();
    for workload in workloads {
        let Workload {
            name,
            reason,
            revision,
            ..
        } = workload;
        if !reason.is_empty() {
            let counts = counts(workload);
            words.push(format!("{name}: {counts} ready: {reason}"));
        }
        // A finished Job stays finished, also if its host is unreachable by now.
        let away = |one: &&WorkloadHost| workload.settled && !one.reachable;
        // With the revision before it, a host has no problem of its own: the rollout has the reason.
        let ran = |one: &WorkloadHost| workload.rollout.is_some() && fine(one, one.revision);
        let bad = workload.hosts.iter();
        let bad = bad.filter(|one| !fine(one, *revision) && !ran(one));
        for one in bad.filter(|one| !away(one)) {
            let state = on_host(one, workload.revision);
            words.push(format!("{name} on {}: {state}", one.label()));
        }
    }
    words.join("; ")
}

/// The reasons for workloads that run, but not for as long as required.
pub(crate) fn not_for_long(workloads: &[Workload]) -> String {
    let words = workloads.iter().map(|workload| {
        let restarts: u32 = workload.hosts.iter().map(|one| one.restarts).sum();
        let asked = Duration::from_secs(workload.min_ready_seconds.into());
        format!(
            "{} has been ready for less than {} s ({restarts} restarts)",
            workload.name,
            STABLE.max(asked).as_secs()
        )
    });
    words.collect::<Vec<_>>().join("; ")
}

/// The number of ready pods, of those that are requested.
pub(crate) fn counts(workload: &Workload) -> String {
    let Workload { asked, ready, .. } = workload;
    // A gateway of 0.2.0 does not send the counts.
    if (*asked, *ready) == (0, 0) && workload.reason.is_empty() {
        let fine = |one: &&WorkloadHost| fine(one, workload.revision);
        let well = workload.hosts.iter().filter(fine).count();
        return format!("{well}/{}", workload.hosts.len());
    }
    format!("{ready}/{asked}")
}

/// The reason why no host has a pod of the workload.
fn nowhere(workload: &Workload) -> &str {
    match workload.reason.as_str() {
        _ if workload.stopped => "stopped",
        // A Job that succeeded on a host that is no longer a member.
        "" if workload.ready > 0 => "succeeded",
        "" => "no pods requested",
        reason => reason,
    }
}

/// The result of a deletion.
pub(crate) fn deleted(what: &str, deleted: &Deleted) -> String {
    let committed = committed(deleted.index);
    if deleted.removed.is_empty() {
        return format!("{what}{GAP}removed{GAP}{committed}\n");
    }
    let width = deleted
        .removed
        .iter()
        .map(|name| name.chars().count())
        .max();
    let width = width.unwrap_or(0);
    let line = |name: &String| format!("{name:width$}{GAP}removed{GAP}{committed}\n");
    deleted.removed.iter().map(line).collect()
}

pub(crate) fn workloads(workloads: &[Workload]) -> String {
    if workloads.is_empty() {
        return "no workloads\n".to_owned();
    }
    let mut rows =
        vec![["WORKLOAD", "KIND", "REVISION", "MANIFEST", "READY", "STATE"].map(str::to_owned)];
    for workload in workloads {
        rows.push([
            workload.name.clone(),
            workload.kind.clone(),
            workload.revision.to_string(),
            workload.manifest.clone(),
            counts(workload),
            state(workload),
        ]);
    }
    table(&rows)
}

/// The state of the whole workload in a few words, with the reason if it does not run.
fn state(workload: &Workload) -> String {
    if workload.stopped {
        return stopped(workload);
    }
    if workload.rollout.is_some() {
        return rollout::phase(workload);
    }
    let bad = |one: &&WorkloadHost| !fine(one, workload.revision);
    let bad: Vec<_> = workload.hosts.iter().filter(bad).collect();
    match bad.as_slice() {
        [] if workload.hosts.is_empty() => nowhere(workload).to_owned(),
        // The committed reason says more about unreachable hosts than their last reports.
        [_, ..] if !workload.reason.is_empty() && bad.iter().all(|one| !one.reachable) => {
            workload.reason.clone()
        }
        [] if !workload.reason.is_empty() => format!("running: {}", workload.reason),
        [] if workload
            .hosts
            .iter()
            .all(|one| one.phase == Phase::Succeeded) =>
        {
            "succeeded".to_owned()
        }
        [] => match workload.hosts.iter().find_map(after_a_loss) {
            Some(words) => format!("running ({words})"),
            None => "running".to_owned(),
        },
        [one] => format!("{} on {}", on_host(one, workload.revision), one.label()),
        [one, rest @ ..] => {
            let state = on_host(one, workload.revision);
            format!("{state} on {}, and {} more", one.label(), rest.len())
        }
    }
}

/// Where a pod runs whose host was given up: `on h1 instead of h3, which was lost`.
fn after_a_loss(one: &WorkloadHost) -> Option<String> {
    let moved = one.moved.as_ref()?;
    let is_loss = matches!(moved.why, MoveReason::Lost | MoveReason::Unreachable);
    let why = moved.why.words();
    is_loss.then(|| format!("on {} instead of {}, {why}", one.label(), moved.host))
}

/// The state of a workload that a user has stopped.
fn stopped(workload: &Workload) -> String {
    let (there, away): (Vec<_>, Vec<_>) = workload.hosts.iter().partition(|one| one.reachable);
    match (there.as_slice(), away.as_slice()) {
        ([], []) => "stopped".to_owned(),
        ([], [one, ..]) => format!("stopped, but {} is unreachable", one.host),
        ([one], _) => format!("stopping on {}", one.label()),
        ([one, rest @ ..], _) => format!("stopping on {}, and {} more", one.label(), rest.len()),
    }
}

/// The result of a restore.
pub(crate) fn restored(restored: &Restored) -> String {
    let new = restored.manifests - restored.unchanged.min(restored.manifests);
    if new == 0 {
        return format!(
            "nothing to restore: the cluster already has all {} manifests of the backup\n",
            restored.manifests
        );
    }
    format!(
        "{new} of {} manifests restored{GAP}{}\n",
        restored.manifests,
        committed(restored.index)
    )
}

pub(crate) fn manifests(manifests: &[Manifest]) -> String {
    if manifests.is_empty() {
        return "no manifests\n".to_owned();
    }
    let mut rows = vec![["MANIFEST", "INDEX", "OBJECTS"].map(str::to_owned)];
    for manifest in manifests {
        let objects = manifest
            .objects
            .iter()
            .map(|object| match object.namespace.as_str() {
                "default" => format!("{} {}", object.kind, object.name),
                namespace => format!("{} {namespace}/{}", object.kind, object.name),
            });
        let objects: Vec<_> = objects.collect();
        rows.push([
            manifest.name.clone(),
            manifest.index.to_string(),
            objects.join(", "),
        ]);
    }
    table(&rows)
}

/// The time in its two largest units.
fn rough(time: Duration) -> String {
    let seconds = time.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{}s", seconds % 60),
        (0, _, _) => format!("{hours}h{}m", minutes % 60),
        (_, _, _) => format!("{days}d{}h", hours % 24),
    }
}

pub(crate) fn status(status: &Status) -> String {
    let part = match (status.role, &status.leader) {
        (Role::Leader | Role::Removed, _) => status.role.name().to_owned(),
        (role, Some(leader)) => format!("{} of {}", role.name(), leader.name),
        (role, None) => format!("{}, no leader", role.name()),
    };
    let hosts = &status.hosts;
    let missing = match hosts.missing.as_slice() {
        [] => String::new(),
        missing => format!(", missing: {}", missing.join(", ")),
    };
    let workloads = &status.workloads;
    let cluster = status.cluster.map(|cluster| cluster.to_string());
    let mut rows = vec![
        ["host", &status.host].map(str::to_owned),
        ["role".into(), format!("{part} (term {})", status.term)],
        ["cluster".into(), cluster.unwrap_or_else(|| "none".into())],
        ["quorum".into(), quorum(status)],
        [
            "hosts".into(),
            format!("{}/{} reachable{missing}", hosts.reachable, hosts.total),
        ],
        ["voters".into(), known(&status.voters.join(", "))],
    ];
    if !status.quorum && status.role != Role::Removed {
        let to_do = match &status.elsewhere {
            Some(leader) => format!(
                "the cluster works, and workloads of this host keep running; restore the connection between {} and {}, and \
                 use another host until then",
                status.host, leader.name
            ),
            None => "workloads keep running and start again after a reboot; changes are refused; `--stale` shows this \
                     host's view; if a majority of the voters is lost for good, `beemesh-agent recover` on a surviving host \
                     is the last resort"
                .to_owned(),
        };
        rows.push(["note".into(), to_do]);
    }
    if !status.learners.is_empty() {
        rows.push(["learners".into(), status.learners.join(", ")]);
    }
    rows.extend([
        [
            "workloads".into(),
            format!("{}/{} healthy", workloads.healthy, workloads.total),
        ],
        ["applied".into(), format!("log index {}", status.applied)],
        ["beemesh".into(), status.version.clone()],
        ["podman".into(), known(&status.podman)],
    ]);
    if !status.trouble.is_empty() {
        rows.push(["problem".into(), status.trouble.clone()]);
    }
    table(&rows)
}

/// Returns whether the cluster has a quorum and, if not, which voters must return.
fn quorum(status: &Status) -> String {
    if status.quorum {
        return "yes".to_owned();
    }
    if let Some(leader) = &status.elsewhere {
        return format!(
            "no connection: other members reach the leader {}, this host does not",
            leader.name
        );
    }
    let voters = status.voters.len();
    let missing = |voter: &&String| status.hosts.missing.contains(voter);
    let missing: Vec<&String> = status.voters.iter().filter(missing).collect();
    let there = voters - missing.len();
    let needed = (voters / 2 + 1).saturating_sub(there);
    let names = match missing.as_slice() {
        [] => String::new(),
        [one] => one.to_string(),
        [first @ .., last] => {
            let first: Vec<&str> = first.iter().map(|name| name.as_str()).collect();
            format!("{} and {last}", first.join(", "))
        }
    };
    match (voters, needed) {
        (0, _) => "no".to_owned(),
        (_, 0) => format!("no: {there} of {voters} voters reachable, no leader elected"),
        (_, needed) if needed == missing.len() => {
            format!("no: {there} of {voters} voters reachable; {names} must return")
        }
        (_, needed) => {
            format!("no: {there} of {voters} voters reachable; {needed} of {names} must return")
        }
    }
}

fn known(text: &str) -> String {
    if text.is_empty() {
        "-".to_owned()
    } else {
        text.to_owned()
    }
}

/// Pads each column to its widest cell, without trailing spaces.
fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..N).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, &width)| format!("{cell:width$}"));
        let line = cells.collect::<Vec<_>>().join(GAP);
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests;
