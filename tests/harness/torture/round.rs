//! One round: it strikes hosts, repairs them, and compares them with the history of the clients.

use std::{
    collections::BTreeMap,
    fmt,
    time::{Duration, Instant},
};

use clap::ValueEnum as _;

use super::{
    Options,
    clients::{CALM, CALM_CONTENT, Clients, MANIFESTS, name, runs, yaml},
    faults::{Faults, Kind},
    pods::{Watch, running},
};
use crate::{Chance, Cluster, Host, wait_for};

/// The time limit until all hosts are healthy after the last repair: a Podman that was killed stalls for up to 90 s.
const WELL_MAX: Duration = Duration::from_secs(240);

/// The result of a round.
#[derive(Debug)]
pub(crate) struct Round {
    pub(crate) seed: u64,
    pub(crate) faults: BTreeMap<Kind, usize>,
    pub(crate) hosts: usize,
    /// The number of answered calls.
    pub(crate) answered: usize,
    /// The number of writes that were refused, without effect.
    pub(crate) refused: usize,
    /// The number of writes with an unknown effect.
    pub(crate) open: usize,
    /// The time from the end of all faults until every host agreed and ran what was committed.
    pub(crate) well: Duration,
    pub(crate) took: Duration,
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let faults: usize = self.faults.values().sum();
        write!(
            f,
            "{faults} faults, {} calls answered, {} refused, {} unknown, well after {:.1} s, {:.0} s in all",
            self.answered,
            self.refused,
            self.open,
            self.well.as_secs_f64(),
            self.took.as_secs_f64()
        )
    }
}

/// Boots hosts and strikes them.
///
/// # Panics
/// If a check fails.
pub(crate) fn run(options: &Options, seed: u64) -> Round {
    let cluster = boot("torture", options.hosts, 1);
    let kinds = if options.only.is_empty() {
        Kind::value_variants()
    } else {
        &options.only
    };
    strike(&cluster, options.hosts, seed, kinds, options.faults)
}

/// Boots hosts and joins `members` of them into a cluster, which runs the pod that never changes.
pub(crate) fn boot(test: &str, members: usize, others: usize) -> Cluster {
    let cluster = Cluster::booted(test, members + others);
    cluster.offer();
    cluster.form_of(members);
    let calm = yaml(CALM, CALM_CONTENT);
    let answer = cluster.host(1).apply(&calm);
    assert_eq!(answer["settled"], true, "{answer}");
    cluster
}

/// Strikes a cluster of the first `members` hosts, without any of the manifests that change.
///
/// # Panics
/// If a check fails.
pub(crate) fn strike(
    cluster: &Cluster,
    members: usize,
    seed: u64,
    kinds: &[Kind],
    count: usize,
) -> Round {
    let begun = Instant::now();
    let watch = Watch::begin(&cluster.hosts);
    let mut clients = Clients::new(seed, cluster.hosts.len()).expect("a runtime");
    for (number, host) in cluster.hosts.iter().take(members).enumerate() {
        clients.host(number, host.init_if_on());
    }
    let (members, struck, mended) = {
        let mut faults = Faults::new(cluster, &clients, members, Chance::new(seed, 1));
        for _ in 0..count {
            faults.strike(kinds);
        }
        faults.end();
        (faults.members, faults.struck, Instant::now())
    };
    let hosts: Vec<&Host> = cluster.hosts[..members].iter().collect();
    cluster.agree_on(&hosts, members, members);
    clients.end();
    for manifest in (0..=CALM).filter(|manifest| runs(*manifest)) {
        let content = if manifest == CALM {
            CALM_CONTENT
        } else {
            clients.content(manifest)
        };
        for host in &hosts {
            wait_for(
                &format!("{} with content {content} on {}", name(manifest), host.name),
                WELL_MAX.saturating_sub(mended.elapsed()),
                || runs_only(host, manifest, content),
            );
        }
    }
    let well = mended.elapsed();
    same_everywhere(&hosts);
    holds(&clients, &watch);

    let history = clients.history();
    let mut faults = BTreeMap::new();
    for kind in struck {
        *faults.entry(kind).or_default() += 1;
    }
    Round {
        seed,
        faults,
        hosts: members,
        answered: history.answered(),
        refused: history.refused(),
        open: history.open(),
        well,
        took: begun.elapsed(),
    }
}

/// Checks that a host runs one pod of the manifest with this content, or none if there is no manifest.
pub(crate) fn runs_only(host: &Host, manifest: usize, content: u64) -> Result<(), String> {
    let pods = running(host)
        .into_iter()
        .filter(|pod| pod.manifest == manifest);
    let contents: Vec<u64> = pods.map(|pod| pod.content).collect();
    let wanted = if content == 0 { vec![] } else { vec![content] };
    if contents == wanted {
        Ok(())
    } else {
        Err(format!("{contents:?}"))
    }
}

/// Asserts that every host has the same manifests in its own state.
fn same_everywhere(hosts: &[&Host]) {
    let know = |host: &Host| host.api("GET", "/v1/manifests?stale=true", b"").1;
    let first = know(hosts[0]);
    for host in hosts {
        let here = know(host);
        assert_eq!(
            here, first,
            "{} and {} know the same",
            host.name, hosts[0].name
        );
    }
}

fn holds(clients: &Clients, watch: &Watch) {
    let history = clients.history();
    let seen = watch.seen();
    let mut wrong = history.violations();
    wrong.extend(clients.strange());
    wrong.extend(seen.restarted.iter().cloned());
    let changed = seen
        .contents
        .iter()
        .filter(|(manifest, _)| *manifest < MANIFESTS);
    let never = changed.filter(|(manifest, content)| !history.may_have_had(*manifest, *content));
    wrong.extend(never.map(|(manifest, content)| {
        format!(
            "a pod of {} ran with content {content}, which was refused",
            name(*manifest)
        )
    }));
    assert!(wrong.is_empty(), "{wrong:#?}");
}
