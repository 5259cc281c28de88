//! The page of many gateways.
//!
//! Pure. Like the page of benchmarks it keeps the text between the two marks, which people write.

use super::{
    circumstances,
    failures::words,
    keeping, kept,
    table::{figure, megabytes, table},
};
use crate::data::{Saved, Scale, ScaleLoad, Sized, Through};

const INTRODUCTION: &str = "\
# Scale

`make bench ONLY=scale` measures this and writes this page. Real gateways, as they are packaged, run as processes of one machine, each with a log
of its own on the machine's disk. Where a host has an agent, the program that measures takes the gateways' connections and carries their streams
from one to the other over memory; no units, no pods, no Podman. One cluster grows from size to size. As everywhere, at most five hosts vote;
the others follow without a vote.

All gateways share the machine's cores and its disk. So times at large sizes are those of a machine that does the work of all hosts, and longer than
on real ones. What one gateway spends and sends is its own and holds anywhere.

";
const UNWRITTEN: &str = "\n## What breaks first\n\nNobody has looked.\n\n";

/// The page; `before` is the old page.
pub(crate) fn render(saved: &Saved<Scale>, before: &str) -> String {
    let mut page = String::from(INTRODUCTION);
    page += &keeping(kept(before).unwrap_or(UNWRITTEN));
    page += "## Joining and rest\n\nA join is the time from the request on the new host until that host is a member, follows the leader and has \
             applied the log. A burst is what was read at once from a stream that had something: a packet, or less.\n\n";
    page += &resting(&saved.data);
    page += "## Commits\n\nConfigMaps of 1 KiB by `POST /v1/apply`. A follower is the host that joined last.\n\n";
    page += &loads(&saved.data);
    page += "## A leader fails\n\nThe leader's process is killed, or its network drops every packet. The time ends with the first \
             write that another host accepts, of those that began after the failure; one begins every 2 ms for each gateway.\n\n";
    page += &outages(&saved.data);
    page += &circumstances(&saved.run);
    page
}

fn resting(scale: &Scale) -> String {
    let row = |sized: &Sized| {
        let rest = &sized.rest;
        vec![
            sized.hosts.to_string(),
            figure(sized.joins.p50),
            figure(sized.joins.max),
            figure(sized.settled),
            figure(rest.leader_cpu / 1e4),
            figure(rest.follower_cpu / 1e4),
            figure(rest.sent),
            figure(rest.bursts),
            figure(megabytes(rest.leader_pss)),
            figure(megabytes(rest.follower_pss)),
        ]
    };
    let head = [
        "gateways",
        "join p50 ms",
        "max ms",
        "all agree after s",
        "leader CPU % of a core",
        "follower CPU %",
        "bytes/s to each follower",
        "bursts/s",
        "leader PSS MB",
        "follower PSS MB",
    ];
    table(&head, &scale.sizes.iter().map(row).collect::<Vec<_>>())
}

fn loads(scale: &Scale) -> String {
    let row = |(sized, load): (&Sized, &ScaleLoad)| {
        vec![
            sized.hosts.to_string(),
            match load.through {
                Through::Leader => "leader".to_owned(),
                Through::Follower => "follower".to_owned(),
            },
            load.clients.to_string(),
            figure(load.times.p50),
            figure(load.times.p99),
            figure(load.throughput),
            load.errors.to_string(),
            figure(load.leader_cpu),
            figure(load.leader_cpu / (sized.hosts - 1).max(1) as f64),
            figure(load.all_cpu),
            figure(load.sent),
            figure(load.bursts),
            figure(load.behind),
        ]
    };
    let mut all: Vec<_> = scale
        .sizes
        .iter()
        .flat_map(|sized| sized.loads.iter().map(move |load| (sized, load)))
        .collect();
    all.sort_by_key(|(sized, load)| (load.through, load.clients, sized.hosts));
    let head = [
        "gateways",
        "through the",
        "clients",
        "p50 ms",
        "p99 ms",
        "writes/s",
        "errors",
        "leader µs/write",
        "for each follower",
        "all gateways µs/write",
        "bytes to a follower/write",
        "bursts/write",
        "last host behind s",
    ];
    table(&head, &all.into_iter().map(row).collect::<Vec<_>>())
}

fn outages(scale: &Scale) -> String {
    let mut all: Vec<_> = scale
        .sizes
        .iter()
        .flat_map(|sized| sized.outages.iter().map(move |outage| (sized, outage)))
        .collect();
    all.sort_by_key(|(sized, outage)| (outage.blow, sized.hosts));
    let row = |(sized, outage): (&Sized, &crate::data::Outage)| {
        vec![
            sized.hosts.to_string(),
            words(outage.blow).to_owned(),
            outage.times.count.to_string(),
            figure(outage.times.p50),
            figure(outage.times.max),
        ]
    };
    let head = ["gateways", "leader", "times", "p50 ms", "max ms"];
    table(&head, &all.into_iter().map(row).collect::<Vec<_>>())
}
