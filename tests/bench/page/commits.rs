//! The tables of commits.
//!
//! Pure.

use std::collections::BTreeSet;

use super::table::{figure, judged, table};
use crate::data::{Cell, Commits, Setting, System, Through};

/// Aim: the largest median, as a fraction of etcd's.
pub(super) const P50_MAX: f64 = 0.7;
/// The number of clients for the aim [`THROUGHPUT_MIN`].
pub(super) const AIM_CLIENTS: usize = 64;
/// Aim: the least number of writes per second, as a multiple of etcd's.
pub(super) const THROUGHPUT_MIN: f64 = 2.0;

const HEAD: [&str; 10] = [
    "clients",
    "system",
    "p50 ms",
    "p99 ms",
    "max ms",
    "writes/s",
    "CPU ms/write",
    "KiB/write",
    "p50 ÷ etcd's",
    "writes/s ÷ etcd's",
];

/// A table for each number of hosts, size of values and place of the clients.
pub(super) fn body(commits: &Commits) -> String {
    let kinds: BTreeSet<_> = commits
        .cells
        .iter()
        .map(|cell| kind(cell.setting))
        .collect();
    let one = |kind: (usize, usize, Through)| {
        let cells = commits
            .cells
            .iter()
            .filter(|cell| self::kind(cell.setting) == kind);
        let rows: Vec<_> = cells.map(|cell| row(commits, cell)).collect();
        format!("{}:\n\n{}", name(kind), table(&HEAD, &rows))
    };
    kinds.into_iter().map(one).collect()
}

fn kind(setting: Setting) -> (usize, usize, Through) {
    (setting.hosts, setting.value, setting.through)
}

fn name((hosts, value, through): (usize, usize, Through)) -> String {
    let through = match through {
        Through::Leader => "leader",
        Through::Follower => "follower",
    };
    format!("{hosts} hosts, {} KiB, through the {through}", value >> 10)
}

fn row(commits: &Commits, cell: &Cell) -> Vec<String> {
    let mut row = vec![
        cell.setting.clients.to_string(),
        cell.system.name().to_owned(),
        figure(cell.times.p50),
        figure(cell.times.p99),
        figure(cell.times.max),
        figure(cell.throughput),
        figure(cell.cpu_micros / 1000.0),
        figure(cell.written / 1024.0),
    ];
    if cell.errors > 0 {
        row[5] += &format!(" ({} failed)", cell.errors);
    }
    row.extend(match ratios(commits, cell) {
        Some((p50, throughput)) => [
            if cell.setting.clients == 1 {
                judged(p50, p50 <= P50_MAX)
            } else {
                figure(p50)
            },
            if cell.setting.clients == AIM_CLIENTS {
                judged(throughput, throughput >= THROUGHPUT_MIN)
            } else {
                figure(throughput)
            },
        ],
        None => [String::new(), String::new()],
    });
    row
}

/// Median and throughput of a cell of Beemesh as fractions of etcd's.
pub(super) fn ratios(commits: &Commits, cell: &Cell) -> Option<(f64, f64)> {
    if cell.system != System::Beemesh || cell.times.count == 0 {
        return None;
    }
    let etcd = commits.cells.iter().find(|other| {
        other.system == System::Etcd && other.setting == cell.setting && other.times.count > 0
    })?;
    Some((
        cell.times.p50 / etcd.times.p50,
        cell.throughput / etcd.throughput,
    ))
}

/// The description of one setting in an aim's row.
pub(super) fn describe(setting: Setting) -> String {
    name(kind(setting))
}
