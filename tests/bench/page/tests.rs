#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;

use super::*;
use crate::data::{
    Blow, Cell, Outage, Scale, ScaleLoad, ScaleRest, Setting, Sized, System, Through, Times,
};

fn saved<T>(data: T) -> Option<Saved<T>> {
    let run = Run {
        date: "2026-01-31 12:00 UTC".into(),
        command: "make bench".into(),
        kernel: "6.18".into(),
        cores: 2,
        suite: "trixie".into(),
        versions: BTreeMap::from([("etcd".into(), "3.5".into())]),
        failures: vec!["Swarm, commits: no\nquorum".into()],
    };
    Some(Saved { run, data })
}

fn cell(system: System, clients: usize, p50: f64, throughput: f64) -> Cell {
    Cell {
        system,
        setting: Setting {
            hosts: 3,
            value: 1024,
            through: Through::Leader,
            clients,
        },
        times: Times {
            count: 10,
            p50,
            p99: 2.0 * p50,
            max: 123.4,
        },
        throughput,
        errors: 0,
        cpu_micros: 1500.0,
        written: 8192.0,
    }
}

fn all() -> All {
    let cells = vec![
        cell(System::Beemesh, 1, 1.0, 1000.0),
        cell(System::Etcd, 1, 2.0, 500.0),
        cell(System::Beemesh, 64, 4.0, 9000.0),
        cell(System::Etcd, 64, 4.0, 6000.0),
    ];
    let outage = Outage {
        system: System::Beemesh,
        blow: Blow::Killed,
        times: Times {
            count: 3,
            p50: 300.0,
            p99: 600.0,
            max: 600.0,
        },
    };
    All {
        commits: saved(Commits { cells }),
        failover: saved(Failover {
            outages: vec![outage],
        })
        .into_iter()
        .collect(),
        ..All::default()
    }
}

#[test]
fn figures_aims_and_circumstances_are_on_the_page() {
    let page = render(&all(), "");
    for line in [
        "| commit, p50 by 1 client, 3 hosts, 1 KiB, through the leader | at most 0.7 × etcd's | 0.50 × etcd's | ✓ |",
        "| commits a second by 64 clients, 3 hosts, 1 KiB, through the leader | at least 2 × etcd's | 1.50 × etcd's | ✗ |",
        "| leader killed: next write, p99 | at most 500 ms | 600 ms | ✗ |",
        "| 1 | Beemesh | 1.00 | 2.00 | 123 | 1000 | 1.50 | 8.00 | 0.50 ✓ | 2.00 |",
        "| 64 | etcd | 4.00 | 8.00 | 123 | 6000 | 1.50 | 8.00 |  |  |",
        "`make bench` on 2026-01-31 12:00 UTC: kernel 6.18, 2 cores, hosts of trixie; etcd 3.5.",
        "Not measured: Swarm, commits: no quorum",
    ] {
        assert!(page.lines().any(|found| found == line), "{line}\n{page}");
    }
}

#[test]
fn hand_written_text_is_kept_and_the_rest_is_generated() {
    let first = render(&All::default(), "");
    let written = first.replace(UNWRITTEN, "\n## Changes\n\nBy hand.\n\n");
    let second = render(&all(), &written);
    assert!(second.contains("By hand."), "{second}");
    assert_eq!(
        second,
        render(&all(), &second),
        "the same page of the same data"
    );
    assert!(render(&all(), "nonsense").contains(UNWRITTEN));
}

#[test]
fn what_was_measured_elsewhere_stays_on_the_page() {
    let before = render(&all(), "");
    assert_eq!(render(&All::default(), &before), before);
    let measured = All {
        failover: all().failover,
        ..All::default()
    };
    assert_eq!(
        render(&measured, &before),
        before,
        "and beside what is new, without being there twice"
    );
}

#[test]
fn circumstances_of_one_run_are_told_once() {
    let of = |date: &str| {
        let mut one = all().failover.remove(0);
        one.run.date = date.into();
        one
    };
    let measured = All {
        failover: ["1:00", "2:00", "3:00"].map(of).into(),
        ..All::default()
    };
    let page = render(&measured, "");
    let told: Vec<_> = page
        .lines()
        .filter(|line| line.starts_with("`make bench`"))
        .collect();
    assert!(
        page.contains("`make bench` on 1:00 to 3:00: kernel"),
        "{page}"
    );
    assert_eq!(page.matches(": kernel").count(), 1, "{told:?}");
}

#[test]
fn the_page_of_scale_has_its_tables_and_keeps_what_people_wrote() {
    let times = Times {
        count: 7,
        p50: 500.0,
        p99: 900.0,
        max: 900.0,
    };
    let load = ScaleLoad {
        through: Through::Leader,
        clients: 64,
        times,
        throughput: 4000.0,
        errors: 0,
        leader_cpu: 450.0,
        all_cpu: 1800.0,
        sent: 1234.0,
        bursts: 0.25,
        behind: 0.1,
    };
    let sized = Sized {
        hosts: 10,
        joins: times,
        settled: 1.5,
        rest: ScaleRest {
            leader_cpu: 5000.0,
            follower_cpu: 1000.0,
            sent: 321.0,
            bursts: 3.3,
            leader_pss: 8_000_000,
            follower_pss: 7_000_000,
        },
        loads: vec![load],
        outages: vec![Outage {
            system: System::Beemesh,
            blow: Blow::Cut,
            times,
        }],
    };
    let scale = saved(Scale { sizes: vec![sized] }).unwrap();
    let page = scale::render(&scale, "");
    for line in [
        "| 10 | 500 | 900 | 1.50 | 0.50 | 0.10 | 321 | 3.30 | 8.00 | 7.00 |",
        "| 10 | leader | 64 | 500 | 900 | 4000 | 0 | 450 | 50.0 | 1800 | 1234 | 0.25 | 0.10 |",
        "| 10 | cut off | 7 | 500 | 900 |",
    ] {
        assert!(page.lines().any(|found| found == line), "{line}\n{page}");
    }
    let written = page.replace("Nobody has looked.", "The disk.");
    assert!(scale::render(&scale, &written).contains("\n\nThe disk.\n\n"));
}
