//! Part 2: the time from an apply to pods that run on three hosts, beside Podman alone on the same hosts in the same
//! round.
//!
//! Podman alone is measured in two ways: one `podman kube play` of all pods, and a Quadlet for each pod, written by
//! hand.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use harness::{Answer, Host, pod};
use serde_json::Value;

use crate::{
    attempt::attempt,
    data::{Applied, Applies, Deed, System, Times},
    options::Options,
    running::Running,
};

/// The number of hosts in the cluster; every workload runs on each of them.
const HOSTS: usize = 3;
/// The numbers of pods in the manifest.
const WORKLOADS: [usize; 3] = [1, 10, 50];
const NAME: &str = "many";

/// The times of one operation in all rounds, in microseconds, by Beemesh, by Podman and by Quadlets.
#[derive(Default)]
struct Row {
    beemesh: Vec<u64>,
    podman: Vec<u64>,
    quadlets: Vec<u64>,
    entries: u64,
}

/// Measures all numbers of pods.
pub(crate) fn measure(options: &Options, failures: &mut Vec<String>) -> Result<Applies> {
    let mut applies = Applies::default();
    for &workloads in options.workloads(&WORKLOADS) {
        let what = format!("apply of {workloads} workloads");
        eprintln!("{what}");
        let rows = attempt(failures, System::Beemesh, &what, || {
            rounds(workloads, options.rounds())
        });
        for (deed, row) in DEEDS.into_iter().zip(rows.into_iter().flatten()) {
            let times = |micros: Vec<u64>| (!micros.is_empty()).then(|| Times::of(micros));
            applies.rows.push(Applied {
                workloads,
                deed,
                beemesh: Times::of(row.beemesh),
                podman: times(row.podman),
                quadlets: times(row.quadlets),
                entries: row.entries,
            });
        }
    }
    Ok(applies)
}

/// The operations, in the order of each round.
const DEEDS: [Deed; 4] = [Deed::First, Deed::Update, Deed::Unchanged, Deed::Delete];

fn rounds(workloads: usize, rounds: usize) -> Result<[Row; 4]> {
    let running = Running::boot(System::Beemesh, HOSTS)?;
    let mut rows: [Row; 4] = Default::default();
    for round in 1..=rounds {
        let (first, second) = (pods(workloads, "first"), pods(workloads, "second"));
        let manifest = |deed| if deed == Deed::First { &first } else { &second };
        for (deed, row) in DEEDS.into_iter().zip(&mut rows) {
            row.podman
                .extend(by_podman(&running, deed, manifest(deed))?);
        }
        for (deed, row) in DEEDS.into_iter().zip(&mut rows) {
            row.quadlets
                .extend(by_quadlets(&running, deed, manifest(deed))?);
        }
        for (deed, row) in DEEDS.into_iter().zip(&mut rows) {
            let (micros, entries) = by_beemesh(&running, deed, manifest(deed))?;
            row.beemesh.push(micros);
            row.entries = row.entries.max(entries);
            let last = |micros: &[u64]| micros.last().map(|micros| micros / 1000);
            eprintln!(
                "  round {round}, {deed:?}: {} ms, {entries} entries; Podman {:?} ms, Quadlets {:?} ms",
                micros / 1000,
                last(&row.podman),
                last(&row.quadlets)
            );
        }
    }
    Ok(rows)
}

fn pods(count: usize, marker: &str) -> String {
    let pods = (1..=count).map(|n| pod(&format!("{NAME}{n}"), marker));
    pods.collect::<Vec<_>>().join("---\n")
}

/// The time that Podman takes on all hosts at once, in microseconds; `None` for an operation that Podman does not have.
fn by_podman(running: &Running, deed: Deed, manifest: &str) -> Result<Option<u64>> {
    let command: &[&str] = match deed {
        Deed::First => &["podman", "kube", "play", "-q", "-"],
        Deed::Update => &["podman", "kube", "play", "-q", "--replace", "-"],
        Deed::Delete => &["podman", "kube", "down", "--force", "-"],
        Deed::Unchanged => return Ok(None),
    };
    let begun = Instant::now();
    running.cluster.each(|host| {
        let _ = host.run_with(command, manifest.as_bytes()).ok();
    });
    Ok(Some(micros(begun)?))
}

/// A command that writes a Quadlet for each pod of the manifest on its standard input.
const WRITE: &str = "awk -v RS='---\\n' '{ n++; f = \"/etc/containers/systemd/bare\" n; printf \"%s\", $0 > (f \".yaml\"); \
                     print \"[Kube]\\nYaml=bare\" n \".yaml\\n[Service]\\nTimeoutStartSec=900\" > (f \".kube\") }'";

/// The time with a Quadlet for each pod that is written, started, changed and removed by hand, in microseconds.
fn by_quadlets(running: &Running, deed: Deed, manifest: &str) -> Result<Option<u64>> {
    let units =
        "$(cd /etc/containers/systemd && ls | sed -n 's/^\\(bare.*\\)\\.kube$/\\1.service/p')";
    let line = match deed {
        Deed::First => format!("{WRITE} && systemctl daemon-reload && systemctl start {units}"),
        Deed::Update => format!("{WRITE} && systemctl restart {units}"),
        Deed::Delete => format!(
            "systemctl stop {units} && rm /etc/containers/systemd/bare* && systemctl daemon-reload"
        ),
        Deed::Unchanged => return Ok(None),
    };
    let begun = Instant::now();
    running.cluster.each(|host| {
        let _ = host
            .run_with(&["sh", "-c", &line], manifest.as_bytes())
            .ok();
    });
    Ok(Some(micros(begun)?))
}

/// The time until every host has finished the operation by Beemesh, in microseconds, and the number of log entries that
/// it took.
fn by_beemesh(running: &Running, deed: Deed, manifest: &str) -> Result<(u64, u64)> {
    let host = running.cluster.host(1);
    let before = applied(host);
    let begun = Instant::now();
    let done = match deed {
        Deed::Delete => {
            let what = format!("--manifest={NAME}");
            host.beemesh(&["delete", &what, "--wait=900s", "-o", "json"])
        }
        Deed::First | Deed::Update | Deed::Unchanged => {
            let name = format!("--name={NAME}");
            // Wait until all pods are ready for the first time: the wait for a stable state would add two seconds to
            // every figure.
            let how = [&name, "--wait=900s", "--stable=0", "-o", "json"];
            host.try_apply(manifest, &how)
        }
    };
    let micros = micros(begun)?;
    settled(done)?;
    Ok((micros, applied(host) - before))
}

fn micros(begun: Instant) -> Result<u64> {
    u64::try_from(begun.elapsed().as_micros()).context("too long")
}

fn settled(answer: Answer) -> Result<()> {
    let said: Value = serde_json::from_str(&answer.out).unwrap_or_default();
    ensure!(said["settled"] == true, "not settled: {answer}");
    Ok(())
}

fn applied(host: &Host) -> u64 {
    host.status()["applied"].as_u64().unwrap_or_default()
}
