#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;

use super::*;
use crate::data::{Blow, Cell, Outage, Setting, System, Through, Times};

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
        }),
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
fn what_people_wrote_is_kept_and_the_rest_made_anew() {
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
