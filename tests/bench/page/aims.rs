//! The aims, and whether the results meet them.
//!
//! Pure.

use super::{
    All,
    commits::{self, AIM_CLIENTS, P50_MAX, THROUGHPUT_MIN},
    failures, rest,
    table::{self, figure, megabytes, table},
    workloads,
};
use crate::data::{
    Applied, Applies, Commits, Deed, Elections, Failover, Idle, Rest, Saved, System,
};

const TITLE: &str = "Aims";

/// The most memory (PSS) of agent and gateway together, in bytes.
const PSS_MAX: u64 = 15_000_000;
/// The most memory (PSS) of one supervisor, in bytes.
const SUPERVISOR_MAX: u64 = 1_000_000;
/// The number of workloads that run when [`CPU_MAX`] applies.
const CPU_WORKLOADS: usize = 5;
/// The most CPU time of all of Beemesh on a host, in percent of one core.
const CPU_MAX: f64 = 0.3;

struct Aim {
    what: String,
    wanted: String,
    found: String,
    met: bool,
}

impl Aim {
    fn at_most(what: String, found: f64, wanted: f64, unit: &str) -> Self {
        Self {
            what,
            wanted: format!("at most {wanted}{unit}"),
            found: format!("{}{unit}", figure(found)),
            met: found <= wanted,
        }
    }

    fn row(self) -> Vec<String> {
        let met = if self.met { "✓" } else { "✗" };
        vec![self.what, self.wanted, self.found, met.to_owned()]
    }
}

/// The aims of a part.
struct Part {
    /// `None` if the part was not measured.
    aims: Option<Vec<Aim>>,
    /// Whether an aim on the page belongs to this part.
    is_one: fn(&str) -> bool,
}

impl Part {
    fn rows(self, before: &str) -> Vec<Vec<String>> {
        match self.aims {
            Some(aims) => aims.into_iter().map(Aim::row).collect(),
            None => table::rows(before, self.is_one),
        }
    }
}

/// A table of all aims with a result, from this data or from the old page.
pub(super) fn section(all: &All, before: &str) -> String {
    let before = super::section(before, TITLE);
    let rows = parts(all).into_iter().flat_map(|part| part.rows(before));
    let rows: Vec<_> = rows.collect();
    format!(
        "## {TITLE}\n\n{}",
        table(&["what", "aim", "measured", "met"], &rows)
    )
}

fn parts(all: &All) -> [Part; 5] {
    fn of<T>(saved: Option<&Saved<T>>, aims: fn(&T) -> Vec<Aim>) -> Option<Vec<Aim>> {
        saved.map(|saved| aims(&saved.data))
    }
    let failover = all.failover.iter();
    let failover = failover.flat_map(|saved| of_failover(&saved.data));
    [
        Part {
            aims: of(all.commits.as_ref(), of_commits),
            is_one: |what| what.starts_with("commit"),
        },
        Part {
            aims: (!all.failover.is_empty()).then(|| failover.collect()),
            is_one: |what| what.starts_with("leader "),
        },
        Part {
            aims: of(all.elections.as_ref(), of_elections),
            is_one: |what| what.starts_with("elections "),
        },
        Part {
            aims: of(all.applies.as_ref(), of_applies),
            is_one: |what| what.ends_with("on 3 hosts"),
        },
        Part {
            aims: of(all.rest.as_ref(), of_rest),
            is_one: |what| what.starts_with("idle "),
        },
    ]
}

fn of_commits(commits: &Commits) -> Vec<Aim> {
    let mut aims = Vec::new();
    for cell in &commits.cells {
        let Some((p50, throughput)) = commits::ratios(commits, cell) else {
            continue;
        };
        let what = commits::describe(cell.setting);
        if cell.setting.clients == 1 {
            let what = format!("commit, p50 by 1 client, {what}");
            aims.push(Aim::at_most(what, p50, P50_MAX, " × etcd's"));
        }
        if cell.setting.clients == AIM_CLIENTS {
            aims.push(Aim {
                what: format!("commits a second by {AIM_CLIENTS} clients, {what}"),
                wanted: format!("at least {THROUGHPUT_MIN} × etcd's"),
                found: format!("{} × etcd's", figure(throughput)),
                met: throughput >= THROUGHPUT_MIN,
            });
        }
    }
    aims
}

fn of_failover(failover: &Failover) -> Vec<Aim> {
    let ours = failover
        .outages
        .iter()
        .filter(|outage| outage.system == System::Beemesh);
    ours.map(|outage| {
        let what = format!("leader {}: next write, p99", failures::words(outage.blow));
        Aim::at_most(what, outage.times.p99, failures::aim(outage.blow), " ms")
    })
    .collect()
}

fn of_elections(elections: &Elections) -> Vec<Aim> {
    let ours = elections
        .watched
        .iter()
        .filter(|watched| watched.system == System::Beemesh);
    ours.map(|watched| {
        let what = format!(
            "elections without a cause in {} s, all cores busy",
            watched.seconds
        );
        Aim::at_most(what, watched.elections as f64, 0.0, "")
    })
    .collect()
}

fn of_applies(applies: &Applies) -> Vec<Aim> {
    let of = |applied: &Applied| {
        let what = format!(
            "{}, {} workloads on 3 hosts",
            workloads::words(applied.deed),
            applied.workloads
        );
        if applied.deed == Deed::Unchanged {
            let entries = applied.entries as f64;
            let wanted = workloads::ENTRIES_MAX as f64;
            return Some(Aim::at_most(what, entries, wanted, " log entries"));
        }
        let ratio = workloads::ratio(applied)?;
        Some(Aim::at_most(
            what,
            ratio,
            workloads::RATIO_MAX,
            " × Podman's",
        ))
    };
    applies.rows.iter().filter_map(of).collect()
}

fn of_rest(rest: &Rest) -> Vec<Aim> {
    let ours = rest
        .hosts
        .iter()
        .filter(|idle| idle.system == System::Beemesh);
    ours.flat_map(of_idle).collect()
}

fn of_idle(idle: &Idle) -> Vec<Aim> {
    let role = if idle.leads { "leader" } else { "follower" };
    let host = format!("idle {role}, {} workloads", idle.workloads);
    let supervisors = |name: &str| name == "beemesh-pod";
    let own = idle
        .programs
        .iter()
        .filter(|one| !supervisors(&one.program));
    let pss = megabytes(own.map(|one| one.pss).sum());
    let mut aims = vec![Aim::at_most(
        format!("{host}: PSS of agent and gateway"),
        pss,
        megabytes(PSS_MAX),
        " MB",
    )];
    for one in idle.programs.iter().filter(|one| supervisors(&one.program)) {
        let each = megabytes(one.pss / one.processes.max(1) as u64);
        let what = format!("{host}: PSS of a supervisor");
        aims.push(Aim::at_most(what, each, megabytes(SUPERVISOR_MAX), " MB"));
    }
    if idle.workloads == CPU_WORKLOADS {
        let cpu = idle.programs.iter().map(rest::percent).sum();
        aims.push(Aim::at_most(
            format!("{host}: CPU"),
            cpu,
            CPU_MAX,
            " % of a core",
        ));
    }
    let written = idle.programs.iter().map(|one| one.written).sum::<u64>() as f64;
    aims.push(Aim::at_most(
        format!("{host}: written"),
        written,
        0.0,
        " bytes",
    ));
    aims
}
