//! Singletons: workloads whose pod never runs on two hosts at a time.
//!
//! Pure. A workload is a singleton from its creation to its deletion, because its pods would run without a lease before,
//! or afterwards. From level 3 on the state machine holds to that. At a lower level hosts of earlier releases run a
//! workload with the annotation like any other.

use std::sync::Arc;

use beemesh_protocol::{
    HostId,
    state::{Kind, Object},
};
use beemesh_quadlet::manifest::{SINGLETON, asks_to_be_single, is_stopped, workload_name};

use super::{
    Decision, Key, LOSES, Refusal, State, Workload,
    assign::{Book, claims},
    title, workload_of,
};

/// Why a workload with this object must not get that one, as a message; `None` if it may.
pub(crate) fn changes_single(before: Option<&Object>, after: &Object) -> Option<String> {
    let asks = asks_to_be_single(after);
    let title = title(after);
    if let Some(before) = before
        && asks_to_be_single(before) != asks
    {
        let verb = if asks { "become" } else { "stop being" };
        let name = workload_name(&after.namespace, &after.name);
        return Some(format!(
            "{title} cannot {verb} a singleton ({SINGLETON}), because its pod would run without a lease: delete it first with `beemesh delete {name}`"
        ));
    }
    let has_one = after.replicas == Some(1) || is_stopped(after);
    (asks && !has_one).then(|| {
        format!("{title} is a singleton ({SINGLETON}), which has one replica: `replicas: 1`")
    })
}

impl State {
    /// Returns true if the pod of the workload runs only on a host that has its lease.
    pub(crate) fn is_singleton(&self, workload: &Workload) -> bool {
        self.level >= LOSES && workload.failover.singleton
    }

    /// Refuses objects by which a workload would become a singleton, or end to be one.
    pub(super) fn check_singletons(&self, objects: &[Object]) -> Decision<()> {
        if self.level < LOSES {
            return Ok(());
        }
        let refusals = (0..).zip(objects).filter_map(|(position, object)| {
            let name = workload_of(object)?;
            let before = self.workloads.get(&name).map(|one| &*one.object);
            Some(Refusal {
                missing: false,
                object: Some(position),
                message: changes_single(before, object)?,
            })
        });
        let refusals: Vec<_> = refusals.collect();
        match refusals.is_empty() {
            true => Ok(()),
            false => Err(refusals),
        }
    }

    /// Forgets that a host has data of the claims of this workload alone. A singleton without a host would otherwise wait
    /// for the host that a user has it leave.
    pub(super) fn leave_data(&mut self, name: &str, object: &Object, host: HostId) {
        for claim in claims(object) {
            let key = Key {
                kind: Kind::PersistentVolumeClaim,
                namespace: object.namespace.clone(),
                name: claim.to_owned(),
            };
            let users = self.used_by.get(&key).into_iter();
            let mut others = users
                .flat_map(|users| users.iter())
                .filter(|one| *one != name);
            let is_needed = others.any(|other| {
                let mut seats = self.seats(other).iter();
                seats.any(|seat| seat.host == Some(host))
            });
            if !is_needed {
                self.book.move_out((key.namespace, key.name), host);
            }
        }
    }
}

impl Book {
    /// Forgets that the host has data of the claim.
    fn move_out(&mut self, key: (String, String), host: HostId) {
        let mut hosts = self.homes.get(&key).cloned().unwrap_or_default();
        Arc::make_mut(&mut hosts).remove(&host);
        if hosts.is_empty() {
            self.homes.remove_mut(&key);
        } else {
            self.homes.insert_mut(key, hosts);
        }
    }
}

#[cfg(test)]
mod tests;
