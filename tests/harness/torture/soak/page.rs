//! The report of the resources that hosts use in an hour, and whether they grew.
//!
//! Pure.

use std::fmt::Write as _;

use super::{Options, Sample};

/// A figure that must not grow.
struct Figure {
    what: &'static str,
    of: fn(&Sample) -> u64,
    /// The unit of the figure in the table.
    unit: u64,
    /// The allowed growth over the median of the second quarter.
    more: u64,
}

const MB: u64 = 1_000_000;

const FIGURES: [Figure; 5] = [
    Figure {
        what: "memory of agents and gateways, MB",
        of: |sample| sample.memory,
        unit: MB,
        more: 4 * MB,
    },
    Figure {
        what: "memory of supervisors, MB",
        of: |sample| sample.supervisors,
        unit: MB,
        more: MB,
    },
    Figure {
        what: "open files",
        of: |sample| sample.files,
        unit: 1,
        more: 20,
    },
    Figure {
        what: "threads",
        of: |sample| sample.tasks,
        unit: 1,
        more: 10,
    },
    Figure {
        what: "disk, MB",
        of: |sample| sample.disk,
        unit: MB,
        more: 30 * MB,
    },
];

/// The report, and whether nothing grew: the median of the last quarter exceeds that of the second one by no more than
/// the allowed growth. In the first quarter pools and the log's cache fill. A maximum would depend on one moment, such
/// as one in the middle of a snapshot.
pub(super) fn page(options: &Options, samples: &[Sample]) -> (String, bool) {
    let Options {
        seed,
        minutes,
        hosts,
        ..
    } = options;
    let quarter = samples.len().div_ceil(4);
    let second = &samples[quarter.min(samples.len())..(2 * quarter).min(samples.len())];
    let last = &samples[samples.len().saturating_sub(quarter)..];
    let mut flat = !second.is_empty();
    let mut rows = String::new();
    for Figure {
        what,
        of,
        unit,
        more,
    } in FIGURES
    {
        let (before, after) = (median(second, of), median(last, of));
        let largest = samples.iter().map(of).max().unwrap_or(0);
        let grew = after > before + more;
        flat &= !grew;
        let _ = writeln!(
            rows,
            "| {what} | {:.1} | {:.1} | {} | {:.1} |",
            before as f64 / unit as f64,
            after as f64 / unit as f64,
            if grew { "grew ✗" } else { "✓" },
            largest as f64 / unit as f64,
        );
    }
    let end = samples.last().copied().unwrap_or_default();
    let mut page = INTRODUCTION.to_owned();
    let _ = write!(
        page,
        "`make soak ARGS='--seed {seed} --minutes {minutes} --hosts {hosts}'`, beemesh {}: {} faults and {} answered calls in {:.0} minutes.\n\n\
         | all hosts together | second quarter, median | last quarter, median | | largest of all |\n| --- | ---: | ---: | ---: | ---: |\n{rows}\n\
         | minute | faults | calls | agents, gateways MB | supervisors MB | files | threads | disk MB |\n\
         | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
        env!("CARGO_PKG_VERSION"),
        end.faults,
        end.answered,
        end.at.as_secs_f64() / 60.0,
    );
    for sample in samples {
        let Sample {
            at,
            faults,
            answered,
            memory,
            supervisors,
            files,
            tasks,
            disk,
        } = sample;
        let _ = writeln!(
            page,
            "| {:.1} | {faults} | {answered} | {:.1} | {:.1} | {files} | {tasks} | {:.1} |",
            at.as_secs_f64() / 60.0,
            *memory as f64 / MB as f64,
            *supervisors as f64 / MB as f64,
            *disk as f64 / MB as f64,
        );
    }
    (page, flat)
}

fn median(samples: &[Sample], of: fn(&Sample) -> u64) -> u64 {
    let mut all: Vec<u64> = samples.iter().map(of).collect();
    all.sort_unstable();
    all.get(all.len() / 2).copied().unwrap_or(0)
}

const INTRODUCTION: &str = "# Soak

`make soak` lets clients write, read and delete through all hosts of one cluster for an hour, while faults strike that agents and gateways live
through: cut cables, pauses, kills of supervisors, of Podman and of the monitors of containers. After every ten of them everything is mended, must hold
as in [torture](torture.md), and all workloads but one are deleted. Then it is noted what the hosts take. Agents and gateways must be the same processes
from the beginning to the end.

";

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn grown(by: u64) -> (String, bool) {
        let samples: Vec<Sample> = (0..8)
            .map(|n| Sample {
                at: Duration::from_secs(60 * n),
                files: 100 + by * n,
                ..Sample::default()
            })
            .collect();
        let options = Options {
            seed: 1,
            minutes: 8,
            hosts: 3,
            report: None,
        };
        page(&options, &samples)
    }

    #[test]
    fn what_grows_is_found() {
        let (page, flat) = grown(3);
        assert!(flat, "{page}");
        let (page, flat) = grown(6);
        assert!(
            !flat && page.contains("| open files | 118.0 | 142.0 | grew ✗ | 142.0 |"),
            "{page}"
        );
    }
}
