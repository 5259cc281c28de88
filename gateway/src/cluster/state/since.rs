//! Which workloads are affected by what is different between two states.
//!
//! Pure. States share what did not change between them, so that it is passed over without a look at what is in it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use beemesh_protocol::{HostId, state::Host};

use super::{Map, State, claims};

impl State {
    /// The names of the workloads that are affected by what changed since `before`: they themselves, their seats, or
    /// who has the data of their claims. `None` is all, because of other hosts, or other rules.
    pub(crate) fn affected_since(&self, before: &Self) -> Option<BTreeSet<String>> {
        let is_same_cluster = self.level == before.level
            && (Arc::ptr_eq(&self.hosts, &before.hosts) || place_alike(&self.hosts, &before.hosts));
        if !is_same_cluster {
            return None;
        }
        let mut affected: BTreeSet<String> = different(&before.workloads, &self.workloads)
            .into_iter()
            .chain(different(&before.book.seats, &self.book.seats))
            .chain(different(&before.rollouts, &self.rollouts))
            .chain(different(&before.revisions, &self.revisions))
            .cloned()
            .collect();
        let homes = different(&before.book.homes, &self.book.homes);
        if !homes.is_empty() {
            let moved: BTreeSet<(&str, &str)> = homes
                .into_iter()
                .map(|(namespace, claim)| (namespace.as_str(), claim.as_str()))
                .collect();
            let uses = self.workloads.values().filter(|workload| {
                let object = &workload.object;
                let namespace = object.namespace.as_str();
                claims(object).any(|claim| moved.contains(&(namespace, claim)))
            });
            affected.extend(uses.map(|workload| workload.name.clone()));
        }
        Some(affected)
    }
}

/// Whether these are the same hosts in all but their addresses and votes, which no workload depends on.
fn place_alike(a: &BTreeMap<HostId, Host>, b: &BTreeMap<HostId, Host>) -> bool {
    let placed = |host: &Host| Host {
        addresses: Vec::new(),
        votes_from_ms: 0,
        ..host.clone()
    };
    a.len() == b.len() && a.values().map(placed).eq(b.values().map(placed))
}

/// The keys whose values are not the same ones in both maps, in the sense of where they are in memory: others may be
/// equal all the same.
fn different<'a, K: Ord, V>(before: &'a Map<K, V>, now: &'a Map<K, V>) -> Vec<&'a K> {
    let mut different = Vec::new();
    if before.ptr_eq(now) {
        return different;
    }
    let (mut old, mut new) = (before.iter().peekable(), now.iter().peekable());
    loop {
        let order = match (old.peek(), new.peek()) {
            (Some((a, _)), Some((b, _))) => a.cmp(b),
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (None, None) => return different,
        };
        let a = if order.is_le() { old.next() } else { None };
        let b = if order.is_ge() { new.next() } else { None };
        match (a, b) {
            (Some((_, a)), Some((_, b))) if std::ptr::eq(a, b) => {}
            (a, b) => different.extend(a.or(b).map(|(key, _)| key)),
        }
    }
}
