//! The tables of applies, of followers that catch up, and of the stages of operations.
//!
//! Pure.

use super::table::{figure, judged, table};
use crate::data::{Applied, Applies, CatchUps, CaughtUp, Deed, Span, Spans, Way};

/// Aim: the most time that Beemesh takes, as a multiple of Podman's.
pub(super) const RATIO_MAX: f64 = 1.1;
/// Aim: the most log entries that an unchanged manifest takes.
pub(super) const ENTRIES_MAX: u64 = 1;

/// The operation, in words.
pub(super) fn words(deed: Deed) -> &'static str {
    match deed {
        Deed::First => "first apply",
        Deed::Update => "update",
        Deed::Unchanged => "unchanged apply",
        Deed::Delete => "delete",
    }
}

/// The time that Beemesh took, as a multiple of Podman's.
pub(super) fn ratio(applied: &Applied) -> Option<f64> {
    Some(applied.beemesh.p50 / applied.podman?.p50)
}

pub(super) fn applies(applies: &Applies) -> String {
    let row = |applied: &Applied| {
        let other = |time: fn(&Applied) -> Option<f64>| time(applied).map_or(String::new(), figure);
        let entries = match applied.deed {
            Deed::Unchanged => judged(applied.entries as f64, applied.entries <= ENTRIES_MAX),
            Deed::First | Deed::Update | Deed::Delete => applied.entries.to_string(),
        };
        vec![
            words(applied.deed).to_owned(),
            applied.workloads.to_string(),
            applied.beemesh.count.to_string(),
            figure(applied.beemesh.p50),
            figure(applied.beemesh.max),
            other(|applied| Some(applied.podman?.p50)),
            ratio(applied).map_or(String::new(), |ratio| judged(ratio, ratio <= RATIO_MAX)),
            other(|applied| Some(applied.quadlets?.p50)),
            other(|applied| Some(applied.beemesh.p50 / applied.quadlets?.p50)),
            entries,
        ]
    };
    let rows: Vec<_> = applies.rows.iter().map(row).collect();
    let head = [
        "deed",
        "workloads",
        "times",
        "Beemesh p50 ms",
        "max ms",
        "one play p50 ms",
        "÷ one play",
        "Quadlets p50 ms",
        "÷ Quadlets",
        "log entries",
    ];
    table(&head, &rows)
}

pub(super) fn catch_ups(catch_ups: &CatchUps) -> String {
    let row = |one: &CaughtUp| {
        vec![
            one.missed.clone(),
            one.system.name().to_owned(),
            figure(one.seconds),
            figure(one.before.p50),
            figure(one.before.p99),
            figure(one.meanwhile.p50),
            figure(one.meanwhile.p99),
            figure(one.meanwhile.max),
        ]
    };
    let rows: Vec<_> = catch_ups.rows.iter().map(row).collect();
    let head = [
        "missed",
        "system",
        "caught up in s",
        "p50 ms before",
        "p99 ms before",
        "p50 ms meanwhile",
        "p99 ms meanwhile",
        "max ms meanwhile",
    ];
    table(&head, &rows)
}

pub(super) fn spans(spans: &Spans) -> String {
    let row = |span: &Span| {
        let times = span.times;
        vec![
            span.what.clone(),
            figure(times.p50),
            figure(times.p99),
            figure(times.max),
        ]
    };
    let way = |way: &Way| {
        let rows: Vec<_> = way.spans.iter().map(row).collect();
        let count = way.spans.first().map_or(0, |span| span.times.count);
        let head = ["stretch", "p50 ms", "p99 ms", "max ms"];
        format!("{}, {count} times:\n\n{}", way.what, table(&head, &rows))
    };
    spans.ways.iter().map(way).collect()
}
