//! The tables of faults of the leader and of elections.
//!
//! Pure.

use super::table::{figure, judged, table};
use crate::data::{Blow, Elections, Moved, Outage, Reschedules, System};

/// Aim: the longest outage for 99 of 100 faults, in milliseconds.
pub(super) fn aim(blow: Blow) -> f64 {
    match blow {
        Blow::Killed => 500.0,
        Blow::Cut | Blow::Off => 1500.0,
    }
}

/// The fault, in words.
pub(super) fn words(blow: Blow) -> &'static str {
    match blow {
        Blow::Killed => "killed",
        Blow::Cut => "cut off",
        Blow::Off => "powered off",
    }
}

pub(super) fn failover<'a>(outages: impl Iterator<Item = &'a Outage>) -> String {
    let row = |outage: &Outage| {
        let p99 = match outage.system {
            System::Beemesh => judged(outage.times.p99, outage.times.p99 <= aim(outage.blow)),
            System::Etcd | System::Swarm => figure(outage.times.p99),
        };
        vec![
            words(outage.blow).to_owned(),
            outage.system.name().to_owned(),
            outage.times.count.to_string(),
            figure(outage.times.p50),
            p99,
            figure(outage.times.max),
        ]
    };
    let mut outages: Vec<_> = outages.collect();
    outages.sort_by_key(|outage| (outage.blow, outage.system));
    let rows: Vec<_> = outages.into_iter().map(row).collect();
    table(
        &["leader", "system", "times", "p50 ms", "p99 ms", "max ms"],
        &rows,
    )
}

pub(super) fn reschedules(reschedules: &Reschedules) -> String {
    let row = |moved: &Moved| {
        let seconds = |ms: f64| figure(ms / 1000.0);
        vec![
            moved.system.name().to_owned(),
            moved.after.clone().unwrap_or_else(|| "default".to_owned()),
            moved.times.count.to_string(),
            seconds(moved.times.p50),
            seconds(moved.times.max),
        ]
    };
    let rows: Vec<_> = reschedules.moved.iter().map(row).collect();
    table(&["system", "after", "times", "p50 s", "max s"], &rows)
}

pub(super) fn elections(elections: &Elections) -> String {
    let rows: Vec<_> = elections
        .watched
        .iter()
        .map(|watched| {
            vec![
                watched.system.name().to_owned(),
                watched.seconds.to_string(),
                watched.elections.to_string(),
            ]
        })
        .collect();
    table(&["system", "seconds", "terms"], &rows)
}
