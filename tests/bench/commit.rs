//! Part 1: the time of a small durable write, and the number of writes per second.
//!
//! Each round boots new hosts for every system in turn, so that a quiet or busy minute of the machine affects all of
//! them. The writes of all rounds are one cell.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};

use crate::{
    attempt::attempt,
    data::{Cell, Commits, Setting, System, Through, Times},
    load::{Load, Loaded},
    meter::Usage,
    options::Options,
    place::Place,
    running::Running,
};

/// Sizes of values in bytes.
const VALUES: [usize; 2] = [1 << 10, 64 << 10];
/// The largest total of values that all clients of a cell write, in bytes. It has to fit on three disks for every cell,
/// twice in etcd's case.
const BYTES_MAX: usize = 192 << 20;

/// The results of one cell so far.
#[derive(Default)]
struct Sum {
    loaded: Loaded,
    usage: Usage,
}

/// Measures all cells. A system that fails adds its reason to `failures`.
pub(crate) fn measure(options: &Options, failures: &mut Vec<String>) -> Result<Commits> {
    let mut sums = BTreeMap::new();
    for round in 1..=options.rounds() {
        for &hosts in options.sizes() {
            for &system in options.systems() {
                eprintln!("commits: round {round}, {hosts} hosts, {}", system.name());
                attempt(
                    failures,
                    system,
                    &format!("commits on {hosts} hosts"),
                    || one_cluster(system, hosts, options, &mut sums),
                );
            }
        }
    }
    let cells = sums
        .into_iter()
        .map(|((setting, system), sum)| cell(system, setting, sum));
    Ok(Commits {
        cells: cells.collect(),
    })
}

fn one_cluster(
    system: System,
    hosts: usize,
    options: &Options,
    sums: &mut BTreeMap<(Setting, System), Sum>,
) -> Result<()> {
    let running = Running::boot(system, hosts)?;
    for value in VALUES {
        for through in [Through::Leader, Through::Follower] {
            for &clients in options.clients() {
                let setting = Setting {
                    hosts,
                    value,
                    through,
                    clients,
                };
                let sum = sums.entry((setting, system)).or_default();
                one_cell(&running, setting, options.load_seconds(), sum)
                    .with_context(|| format!("{setting:?}"))?;
            }
        }
    }
    Ok(())
}

fn one_cell(running: &Running, setting: Setting, seconds: f64, sum: &mut Sum) -> Result<()> {
    let load = Load {
        system: running.system,
        value: setting.value,
        clients: setting.clients,
        seconds,
        bytes_max: BYTES_MAX,
        prefix: format!(
            "{:?}-{}-{}",
            setting.through, setting.value, setting.clients
        )
        .to_lowercase(),
    };
    let host = running.host(setting.through);
    let before = Usage::of(&running.cluster.hosts)?;
    let loaded = load.on(&Place::of(host))?;
    let usage = Usage::of(&running.cluster.hosts)?.since(before);
    eprintln!("  {}", line(setting, &loaded));
    let all = &mut sum.loaded;
    all.micros.extend(loaded.micros);
    all.seconds += loaded.seconds;
    all.writes += loaded.writes;
    all.errors += loaded.errors;
    all.error = loaded.error.or(all.error.take());
    sum.usage.cpu_micros += usage.cpu_micros;
    sum.usage.written += usage.written;
    Ok(())
}

fn line(setting: Setting, loaded: &Loaded) -> String {
    let times = Times::of(loaded.micros.clone());
    let error = loaded.error.as_deref().unwrap_or_default();
    format!(
        "{:>2} KiB by {:>3} through the {:?}: p50 {:.2} ms, p99 {:.2} ms, {:.0}/s, {} errors {error}",
        setting.value >> 10,
        setting.clients,
        setting.through,
        times.p50,
        times.p99,
        times.count as f64 / loaded.seconds.max(f64::MIN_POSITIVE),
        loaded.errors,
    )
}

fn cell(system: System, setting: Setting, sum: Sum) -> Cell {
    let Sum { loaded, usage } = sum;
    let writes = loaded.writes.max(1) as f64;
    Cell {
        system,
        setting,
        throughput: loaded.micros.len() as f64 / loaded.seconds.max(f64::MIN_POSITIVE),
        times: Times::of(loaded.micros),
        errors: loaded.errors,
        cpu_micros: usage.cpu_micros as f64 / writes,
        written: usage.written as f64 / writes,
    }
}
