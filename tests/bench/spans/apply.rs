//! The stages of one apply, from the events of the hosts' Podman and systemd.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use harness::{Host, pod};
use serde_json::Value;

use crate::{
    data::{Span, Times, Way},
    probe::now,
    running::Running,
};

/// The time limit of an apply.
const APPLY_MAX: Duration = Duration::from_secs(60);
/// The pause between two looks at the state of the hosts.
const PAUSE: Duration = Duration::from_millis(2);

/// The stages. Each ends when the slowest host has completed it.
const STRETCHES: [&str; 5] = [
    "commit: the apply is answered",
    "the Quadlet is durable, Podman makes the pod",
    "Podman starts the last container",
    "the unit is active: the supervisor has adopted the pod",
    "the storage is durable and every host has said so",
];
/// The name of the sum of all stages.
const WHOLE: &str = "the whole";

/// Applies this many pods, one after the other.
pub(super) fn measure(running: &Running, rounds: usize) -> Result<Way> {
    let mut took = Vec::new();
    for round in 1..=rounds {
        took.push(one(running, &format!("way{round}"))?);
    }
    let names = STRETCHES.into_iter().chain([WHOLE]).enumerate();
    let span = |(at, what): (usize, &str)| Span {
        what: what.to_owned(),
        times: Times::of(took.iter().map(|took| took[at]).collect()),
    };
    Ok(Way {
        what: "One new pod of one container, applied on a follower of three hosts".to_owned(),
        spans: names.map(span).collect(),
    })
}

/// The time of each stage in microseconds, then the time of the whole.
fn one(running: &Running, name: &str) -> Result<[u64; STRETCHES.len() + 1]> {
    let host = running.other_than(running.leader());
    let manifest = pod(name, "way");
    let begun = now();
    let (status, answer) = host.api("POST", "/v1/apply", manifest.as_bytes());
    let committed = now();
    ensure!(status == 200, "{answer}");
    let settled = until_settled(host, name)?;
    let (mut made, mut started, mut active) = (committed, 0, 0);
    for host in &running.cluster.hosts {
        let events = events(host, name)?;
        made = made.max(events.0);
        started = started.max(events.1);
        active = active.max(activated(host, name, begun)?);
    }
    let gone = host.beemesh(&["delete", name, "--wait=60s"]);
    ensure!(gone.code == 0, "{gone}");
    let at = [begun, committed, made, started, active, settled];
    let mut took = [0; STRETCHES.len() + 1];
    for (took, ends) in took.iter_mut().zip(at.windows(2)) {
        *took = ends[1].saturating_sub(ends[0]);
    }
    took[STRETCHES.len()] = settled - begun;
    Ok(took)
}

/// The time when every host was seen to have finished, in microseconds since 1970.
fn until_settled(host: &Host, name: &str) -> Result<u64> {
    let begun = Instant::now();
    let path = format!("/v1/workloads/{name}?stale=true");
    loop {
        let (_, workload) = host.api("GET", &path, b"");
        if workload["settled"] == true {
            return Ok(now());
        }
        ensure!(begun.elapsed() < APPLY_MAX, "not settled: {workload}");
        thread::sleep(PAUSE);
    }
}

/// The times when Podman made the pod and when it started its last container, in microseconds since 1970.
fn events(host: &Host, name: &str) -> Result<(u64, u64)> {
    let ask = [
        "podman",
        "events",
        "--stream=false",
        "--since=2m",
        "--format=json",
    ];
    let told = host.run(&ask).ok();
    let (mut made, mut started) = (None, None);
    for line in told.lines() {
        let event: Value = serde_json::from_str(line)?;
        let at = event["timeNano"].as_u64().map(|nanos| nanos / 1000);
        let of = event["Name"].as_str().unwrap_or_default();
        match (event["Type"].as_str(), event["Status"].as_str()) {
            (Some("pod"), Some("create")) if of == name => made = at,
            (Some("container"), Some("start")) if of.starts_with(&format!("{name}-")) => {
                started = started.max(at);
            }
            _ => {}
        }
    }
    let missing = |what| format!("{}: no {what} of {name} in {told}", host.name);
    Ok((
        made.with_context(|| missing("pod"))?,
        started.with_context(|| missing("start"))?,
    ))
}

/// The time when the workload's unit became active, in microseconds since 1970, on the day of `day`.
fn activated(host: &Host, name: &str, day: u64) -> Result<u64> {
    const DAY: u64 = 24 * 3600 * 1_000_000;
    let unit = format!("beemesh-pod-{name}");
    let show = [
        "systemctl",
        "show",
        "--timestamp=us+utc",
        "--value",
        "-p",
        "ActiveEnterTimestamp",
    ];
    let said = host.run(&[&show[..], &[&unit]].concat()).ok();
    let clock = said
        .split_whitespace()
        .nth(2)
        .with_context(|| format!("{unit}: {said:?}"))?;
    Ok(day - day % DAY + micros_of_day(clock).with_context(|| clock.to_owned())?)
}

/// A time of day such as `01:02:03.000004` in microseconds.
fn micros_of_day(clock: &str) -> Option<u64> {
    let (whole, micros) = clock.split_once('.')?;
    let mut seconds = 0;
    for part in whole.split(':') {
        seconds = seconds * 60 + part.parse::<u64>().ok()?;
    }
    Some(seconds * 1_000_000 + micros.parse::<u64>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::micros_of_day;

    #[test]
    fn a_clock_is_read() {
        assert_eq!(micros_of_day("01:02:03.000004"), Some(3_723_000_004));
        assert_eq!(micros_of_day("01:02"), None);
    }
}
