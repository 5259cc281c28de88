//! Keeps this host's own entry in the member list up to date: its name, its addresses, and the labels of its machine.
//!
//! Shell: waits for a change, and proposes what [`address_change`] and [`label_change`] decide, which are pure. A
//! [`Backoff`] paces all proposals, including those that are refused or change nothing: each proposal is a log entry on
//! every host, and wakes this loop.

use std::{collections::BTreeMap, env::consts::ARCH, sync::Arc, time::Duration};

use beemesh_protocol::{
    HostId,
    ipc::Welcome,
    peer::Outcome,
    state::{Change, Command, Host},
};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use super::known;
use crate::{
    clock::{backoff::Backoff, now_ms},
    cluster::{host_name::decided, labels, state::State},
    context::Gateway,
    raft::{Node, View},
};

/// Timeout for one proposal; the next attempt follows.
const PROPOSE_MAX: Duration = Duration::from_secs(10);

/// Proposes this host's name and addresses when they differ from the member list.
pub(crate) async fn keep_address(gateway: Gateway) {
    let welcome = gateway.link.welcome();
    let wanted = |view: &View| {
        let welcome = welcome.borrow().clone()?;
        address_change(gateway.host, &welcome, &view.state)
    };
    let (view, news) = (gateway.node.state(), welcome.clone());
    keep(view, news, wanted, |change| propose(&gateway.node, change)).await;
}

/// Sets the labels with which a `nodeSelector` selects an operating system and an architecture.
pub(crate) async fn keep_labels(gateway: Gateway) {
    let machine = labels::of_machine(ARCH);
    let wanted = |view: &View| {
        let change = label_change(gateway.host, &machine, &view.state)?;
        // A member that has not reported its release may not know this change.
        let reports = gateway.reports.borrow();
        let told = |host: &HostId| reports.contains_key(host);
        let known = gateway.reachable().iter().all(told);
        drop(reports);
        (known && known::check(&gateway, &change).is_ok()).then_some(change)
    };
    let (view, news) = (gateway.node.state(), gateway.reports.clone());
    keep(view, news, wanted, |change| propose(&gateway.node, change)).await;
}

async fn propose(node: &Node, change: Change) -> Result<(), String> {
    let command = Command::unasked(now_ms(), change);
    let committed = node
        .propose(vec![command], Instant::now() + PROPOSE_MAX)
        .await
        .map_err(|error| error.to_string())?;
    match committed.into_iter().next().map(|one| one.outcome) {
        Some(Outcome::Refused(refusals)) => {
            let words = refusals.into_iter().map(|refusal| refusal.message);
            Err(words.collect::<Vec<_>>().join("; "))
        }
        _ => Ok(()),
    }
}

/// Proposes the wanted change as long as there is one, whenever the state or `news` change.
async fn keep<N, F: Future<Output = Result<(), String>>>(
    mut view: watch::Receiver<Arc<View>>,
    mut news: watch::Receiver<N>,
    wanted: impl Fn(&View) -> Option<Change>,
    propose: impl Fn(Change) -> F,
) {
    let mut backoff = Backoff::of_proposals();
    loop {
        news.mark_unchanged();
        let now = view.borrow_and_update().clone();
        let change = wanted(&now);
        let due = match change {
            Some(change) if backoff.allows(Instant::now()) => {
                let pause = backoff.tried(Instant::now());
                if let Err(error) = propose(change).await {
                    tracing::warn!(%error, ?pause, "the member list does not show this host as it is yet");
                }
                continue;
            }
            Some(_) => backoff.due(),
            None => None,
        };
        let changed = tokio::select! {
            changed = view.changed() => changed,
            changed = news.changed() => changed,
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => Ok(()),
        };
        if changed.is_err() {
            return;
        }
    }
}

fn address_change(host: HostId, welcome: &Welcome, state: &State) -> Option<Change> {
    let known = state.hosts().get(&host)?;
    let (name, _) = decided(host, welcome, state)?;
    // An agent may have no address yet. An empty list would make this host unreachable.
    let addresses = match welcome.addresses.as_slice() {
        [] => &known.addresses,
        _ => &welcome.addresses,
    };
    let same = known.name == name && known.addresses == *addresses;
    (!same).then(|| {
        Change::PutHost(Host {
            name: name.to_owned(),
            addresses: addresses.clone(),
            ..known.clone()
        })
    })
}

fn label_change(host: HostId, machine: &BTreeMap<String, String>, state: &State) -> Option<Change> {
    let set = labels::to_set(state.hosts().get(&host)?, machine);
    (!set.is_empty()).then(|| Change::LabelHost {
        host,
        set,
        remove: Vec::new(),
    })
}

#[cfg(test)]
mod tests;
