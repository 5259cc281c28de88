//! The stages of one commit: the times when each process received its bytes.
//!
//! The pause between writes is long enough to attribute each event to the write before it. A heartbeat between two
//! writes falsifies a few results, which does not change the median.

use std::{thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
use harness::Host;

use super::trace::{Act, Event, Trace};
use crate::{
    data::{Span, Times, Way},
    place::Place,
    probe::{Accepted, Probe, now},
    running::Running,
};

/// The pause between the starts of two writes, in milliseconds.
const PAUSE_MS: u64 = 40;

/// The stages, in order.
const STRETCHES: [&str; 10] = [
    "client → leader's gateway: connect and send",
    "leader's gateway: parse, check, batch, append → its agent",
    "leader's agent → mesh → follower's agent",
    "follower's agent → its gateway",
    "follower's gateway: decode, hand to its log",
    "follower's fdatasync",
    "follower's gateway: acknowledge → its agent",
    "follower's agent → mesh → leader's agent",
    "leader's agent → its gateway",
    "leader's gateway: commit, apply, answer → client",
];
/// Parts of the second stage, then the whole.
const BESIDES: [&str; 4] = [
    "within the second: until leader's fdatasync begins",
    "within the second: leader's fdatasync",
    "within the second: from its end to the agent",
    "the whole",
];

/// The PIDs of the programs of one host.
#[derive(Debug, Clone, Copy)]
struct Pair {
    agent: u32,
    gateway: u32,
}

/// Watches commits through the leader for this many seconds.
pub(super) fn measure(running: &Running, seconds: u64) -> Result<Way> {
    let leader = running.leader();
    let first = pair(leader)?;
    let others = running
        .cluster
        .hosts
        .iter()
        .filter(|host| host.name != leader.name);
    let others: Vec<Pair> = others.map(pair).collect::<Result<_>>()?;
    let all = others.iter().chain([&first]);
    let pids: Vec<u32> = all.flat_map(|pair| [pair.agent, pair.gateway]).collect();
    let trace = Trace::start(&pids)?;
    let probe = Probe::every(running.system, &Place::of(leader), PAUSE_MS)?;
    let begun = now();
    thread::sleep(Duration::from_secs(seconds));
    let writes = probe.within(begun, now());
    drop(probe);
    let events = trace.stop()?;
    let ways: Vec<_> = writes
        .iter()
        .filter_map(|write| way(&events, first, &others, *write))
        .collect();
    eprintln!(
        "  {} of {} commits can be followed",
        ways.len(),
        writes.len()
    );
    ensure!(!ways.is_empty(), "no commit can be followed");
    Ok(Way {
        what: "One commit of 1 KiB through the leader of three hosts".to_owned(),
        spans: spans(&ways),
    })
}

fn pair(host: &Host) -> Result<Pair> {
    let processes = host.processes();
    let one = |name: &str| {
        let pids = processes
            .get(name)
            .with_context(|| format!("{} has no {name}", host.name))?;
        pids.first().copied().context("no process")
    };
    Ok(Pair {
        agent: one("beemesh-agent")?,
        gateway: one("beemesh-gateway")?,
    })
}

/// The time of each stage in microseconds, then those of [`BESIDES`].
type Took = [u64; STRETCHES.len() + BESIDES.len()];

/// Follows one write through the faster follower.
fn way(events: &[Event], leader: Pair, others: &[Pair], (begun, ended): Accepted) -> Option<Took> {
    let from = events.partition_point(|event| event.at < begun);
    let to = events.partition_point(|event| event.at <= ended);
    let events = &events[from..to];
    let next = |after: u64, pid: u32, act: Act| {
        let mut later = events.iter().filter(|event| event.at >= after);
        later
            .find(|event| event.pid == pid && event.act == act)
            .map(|event| event.at)
    };
    let asked = next(begun, leader.gateway, Act::Got)?;
    let sent = next(asked, leader.agent, Act::Got)?;
    let follow = |other: &Pair| {
        let arrived = next(sent, other.agent, Act::Got)?;
        let taken = next(arrived, other.gateway, Act::Got)?;
        let flushing = next(taken, other.gateway, Act::FlushBegun)?;
        let flushed = next(flushing, other.gateway, Act::Flushed)?;
        let acknowledged = next(flushed, other.agent, Act::Got)?;
        Some([arrived, taken, flushing, flushed, acknowledged])
    };
    let there = others
        .iter()
        .filter_map(follow)
        .min_by_key(|there| there[4])?;
    let back = next(there[4], leader.agent, Act::Got)?;
    let told = next(back, leader.gateway, Act::Got)?;
    let flushing = next(asked, leader.gateway, Act::FlushBegun)?;
    let flushed = next(flushing, leader.gateway, Act::Flushed)?;
    let mut at = vec![begun, asked, sent];
    at.extend(there);
    at.extend([back, told, ended]);
    let mut took = [0; STRETCHES.len() + BESIDES.len()];
    let besides = [
        flushing - asked,
        flushed - flushing,
        // 0 if the followers need not wait for it.
        sent.saturating_sub(flushed),
        ended - begun,
    ];
    let stretches = at.windows(2).map(|ends| ends[1] - ends[0]);
    for (took, micros) in took.iter_mut().zip(stretches.chain(besides)) {
        *took = micros;
    }
    Some(took)
}

fn spans(ways: &[Took]) -> Vec<Span> {
    let names = STRETCHES.into_iter().chain(BESIDES);
    let span = |(at, what): (usize, &str)| Span {
        what: what.to_owned(),
        times: Times::of(ways.iter().map(|took| took[at]).collect()),
    };
    names.enumerate().map(span).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_is_followed_through_the_faster_follower() {
        let pair = |agent, gateway| Pair { agent, gateway };
        let (leader, slow, fast) = (pair(1, 2), pair(3, 4), pair(5, 6));
        let event = |at, pid, act| Event { at, pid, act };
        let events = [
            event(90, 2, Act::Got),
            event(110, 2, Act::Got),
            event(112, 2, Act::FlushBegun),
            event(117, 2, Act::Flushed),
            event(120, 1, Act::Got),
            event(130, 3, Act::Got),
            event(131, 5, Act::Got),
            event(140, 6, Act::Got),
            event(150, 6, Act::FlushBegun),
            event(170, 6, Act::Flushed),
            event(180, 5, Act::Got),
            event(190, 1, Act::Got),
            event(195, 2, Act::Got),
            event(300, 4, Act::Got),
        ];
        let took = way(&events, leader, &[slow, fast], (100, 200));
        assert_eq!(
            took,
            Some([10, 10, 11, 9, 10, 20, 10, 10, 5, 5, 2, 5, 3, 100])
        );
        assert_eq!(way(&events, leader, &[slow], (100, 200)), None);
    }
}
