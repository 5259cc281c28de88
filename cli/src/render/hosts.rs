//! Hosts, and changes of them.
//!
//! Pure: text.

use std::time::Duration;

use beemesh_protocol::api::{Host, HostChanged};

use super::{GAP, committed, known, rough, table};

/// All hosts; `now` is the time since 1970.
pub(crate) fn hosts(hosts: &[Host], now: Duration) -> String {
    let mut rows = vec![
        [
            "HOST",
            "ROLE",
            "REACHABLE",
            "APPLIED",
            "BEEMESH",
            "PODMAN",
            "PROBLEM",
        ]
        .map(str::to_owned),
    ];
    for host in hosts {
        rows.push([
            host.name.clone(),
            part(host),
            reachable(host, now),
            host.applied.to_string(),
            known(&host.version),
            known(&host.podman),
            host.trouble.clone(),
        ]);
    }
    table(&rows)
}

fn part(host: &Host) -> String {
    let drained = if host.drained { ", drained" } else { "" };
    format!("{}{drained}", host.role.name())
}

/// `yes`, or for how long the host has been unreachable: `no, for 3m12s`, `no, lost since 10:00:20 UTC (3m12s)`.
fn reachable(host: &Host, now: Duration) -> String {
    let ago = |ms: u64| rough(now.saturating_sub(Duration::from_millis(ms)));
    if let Some(lost) = &host.lost {
        let says = if host.reachable { "yes" } else { "no" };
        let since = time_of_day(Duration::from_millis(lost.since_ms));
        return format!("{says}, lost since {since} ({})", ago(lost.since_ms));
    }
    if let Some(at) = host
        .steady_at_ms
        .map(Duration::from_millis)
        .filter(|at| *at > now)
    {
        let says = if host.reachable { "yes" } else { "no" };
        return format!(
            "{says}, comes and goes: no further pods until {}",
            time_of_day(at)
        );
    }
    match (host.reachable, host.lost_at_ms) {
        (true, _) => "yes".to_owned(),
        (false, None) => "no".to_owned(),
        (false, Some(lost)) => {
            let time = now.saturating_sub(Duration::from_millis(lost));
            format!("no, for {}", rough(time))
        }
    }
}

/// A time since 1970 as a time of the day: `10:00:20 UTC`.
fn time_of_day(at: Duration) -> String {
    let seconds = at.as_secs();
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{hour:02}:{minute:02}:{second:02} UTC")
}

/// One host; `now` is the time since 1970.
pub(crate) fn host(host: &Host, now: Duration) -> String {
    // Each host has these labels only for old manifests, next to the same ones of kubernetes.io.
    let plain = |label: &&String| !label.starts_with("beta.kubernetes.io/");
    let labels = host
        .labels
        .iter()
        .filter(|(label, _)| plain(label))
        .map(|(key, value)| format!("{key}={value}"));
    let labels: Vec<_> = labels.collect();
    let mut rows = vec![
        ["host".into(), host.name.clone()],
        ["id".into(), host.id.to_string()],
        ["role".into(), part(host)],
        ["reachable".into(), reachable(host, now)],
        ["labels".into(), known(&labels.join(", "))],
        ["addresses".into(), known(&host.addresses.join(", "))],
        ["capacity".into(), capacity(host)],
        ["applied".into(), format!("log index {}", host.applied)],
        ["beemesh".into(), known(&host.version)],
        ["podman".into(), known(&host.podman)],
    ];
    if !host.trouble.is_empty() {
        rows.push(["problem".into(), host.trouble.clone()]);
    }
    table(&rows)
}

/// `4 cores, 8192 MiB of memory`.
fn capacity(host: &Host) -> String {
    let Some(has) = &host.capacity else {
        return known("");
    };
    let (cores, rest) = (has.cpu_millis / 1000, has.cpu_millis % 1000);
    let cores = match rest {
        0 => cores.to_string(),
        rest => format!("{cores}.{rest:03}"),
    };
    format!("{cores} cores, {} MiB of memory", has.memory_bytes >> 20)
}

/// The result of a change to a host.
pub(crate) fn host_changed(changed: &HostChanged, did: &str) -> String {
    let committed = committed(changed.index);
    format!("host {}{GAP}{did}{GAP}{committed}\n", changed.host)
}

/// The result of a drain, and what stays on the host.
pub(crate) fn host_drained(changed: &HostChanged) -> String {
    let mut text = host_changed(changed, "drained");
    for left in &changed.leaves {
        text += &format!("{left}\n");
    }
    if changed.leaves_data {
        text += &format!(
            "`beemesh host drain {} --move-without-data` moves them to other hosts, with empty volumes\n",
            changed.host
        );
    }
    text
}

pub(crate) fn host_removed(changed: &HostChanged) -> String {
    format!(
        "{}its workloads keep running there as local units; it can join again with a new token\n",
        host_changed(changed, "removed")
    )
}
