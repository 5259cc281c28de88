//! The view of the cluster that all readers share.
//!
//! Pure, like its parent. A view is a scene and the rows that were drawn from it. The next view shares all rows except
//! those that a change affects:
//!
//! - a workload that changed, or for which a host reports something else;
//! - if a host becomes reachable or unreachable, all rows that concern this host, and the workloads that wait for a
//!   host;
//! - if the list of hosts changes in a way that affects placement, every workload.
//!
//! Rows are drawn on first use.

use std::{
    collections::BTreeSet,
    sync::{Arc, OnceLock},
};

use beemesh_protocol::{
    HostId,
    api::{Host, Status, Workload},
};

use super::{Own, Scene, Table};

/// A scene, and the rows drawn from it.
pub(crate) struct View {
    pub(crate) scene: Scene,
    workloads: OnceLock<Table<String, Workload>>,
    hosts: OnceLock<Table<HostId, Host>>,
}

impl View {
    /// The first view.
    pub(crate) fn of(scene: Scene) -> Self {
        Self {
            scene,
            workloads: OnceLock::new(),
            hosts: OnceLock::new(),
        }
    }

    /// The view of a later scene; `None` if nothing is different.
    pub(crate) fn next(&self, scene: Scene) -> Option<Self> {
        if self.scene.is_same(&scene) {
            return None;
        }
        let workloads = OnceLock::new();
        if let Some((before, index)) = self.workloads.get().zip(self.scene.index()) {
            let (index, said) = index.next(&scene.reports);
            let _ = scene.index.set(index);
            let _ = workloads.set(self.workloads_after(before, &scene, said));
        }
        let hosts = self.hosts.get();
        let hosts = hosts.map(|before| self.hosts_after(before, &scene));
        Some(Self {
            scene,
            workloads,
            hosts: hosts.map_or_else(OnceLock::new, OnceLock::from),
        })
    }

    /// Every workload by its name, for event streams.
    pub(crate) fn workload_rows(&self) -> &Table<String, Workload> {
        self.workloads.get_or_init(|| {
            let mut table = Table::default();
            for workload in self.scene.workloads() {
                table.put(workload.name.clone(), workload, |_, _| false);
            }
            table
        })
    }

    /// Every host by its id, for event streams. A report that only has a new log index is no change.
    pub(crate) fn host_rows(&self) -> &Table<HostId, Host> {
        self.hosts.get_or_init(|| {
            let mut table = Table::default();
            for host in self.scene.hosts() {
                table.put(host.id, host, keeps_up);
            }
            table
        })
    }

    /// A workload with its hosts; `None` if there is no workload of that name.
    pub(crate) fn workload(&self, name: &str) -> Option<Workload> {
        match self.workloads.get() {
            Some(table) => table.get(name).map(|row| row.shown.clone()),
            None => self.scene.workload(name),
        }
    }

    /// All workloads, sorted by name.
    pub(crate) fn workloads(&self) -> Vec<Workload> {
        match self.workloads.get() {
            Some(table) => table.rows().map(|row| row.shown.clone()).collect(),
            None => self.scene.workloads(),
        }
    }

    /// The workloads of a manifest by name, for requests that wait.
    pub(crate) fn workloads_of(&self, manifest: &str) -> Vec<Workload> {
        let names = self.scene.state.workloads_of(manifest);
        let rows = names
            .iter()
            .filter_map(|name| self.workload_rows().get(name));
        rows.map(|row| row.shown.clone()).collect()
    }

    /// All members, sorted by name.
    pub(crate) fn hosts(&self) -> Vec<Host> {
        let Some(table) = self.hosts.get() else {
            return self.scene.hosts();
        };
        let mut hosts: Vec<_> = table.rows().map(|row| row.shown.clone()).collect();
        hosts.sort_by(|a, b| a.name.cmp(&b.name));
        hosts
    }

    /// The status of the answering host.
    pub(crate) fn status(&self, own: Own) -> Status {
        let healthy = match self.workloads.get() {
            Some(table) => table.rows().filter(|row| is_met(&row.shown)).count(),
            None => self.scene.healthy(),
        };
        self.scene.status(own, healthy)
    }

    fn workloads_after(
        &self,
        before: &Table<String, Workload>,
        scene: &Scene,
        said: BTreeSet<String>,
    ) -> Table<String, Workload> {
        let mut table = before.clone();
        let affected = if Arc::ptr_eq(&self.scene.state, &scene.state) {
            Some(BTreeSet::new())
        } else {
            scene.state.affected_since(&self.scene.state)
        };
        let touched = match affected {
            Some(mut touched) => {
                touched.extend(said);
                touched.extend(self.touched_by_reach(before, scene));
                touched
            }
            None => {
                let now = scene.state.workloads().map(|workload| &workload.name);
                before.keys().chain(now).cloned().collect()
            }
        };
        for name in touched {
            match scene.workload(&name) {
                Some(workload) => table.put(name, workload, |_, _| false),
                None => table.remove(&name),
            }
        }
        table
    }

    /// The workloads that are affected if hosts become reachable or unreachable: those of these hosts, and those that
    /// lack a host for a pod, which may be assigned to them.
    fn touched_by_reach(&self, before: &Table<String, Workload>, scene: &Scene) -> Vec<String> {
        let moved = self.scene.reachable.symmetric_difference(&scene.reachable);
        let moved: BTreeSet<&HostId> = moved.collect();
        if moved.is_empty() {
            return Vec::new();
        }
        let has_to_do = |workload: &&Workload| {
            let mut hosts = workload.hosts.iter();
            !workload.reason.is_empty() || hosts.any(|host| moved.contains(&host.id))
        };
        let all = before.rows().map(|row| &row.shown);
        all.filter(has_to_do).map(|one| one.name.clone()).collect()
    }

    fn hosts_after(&self, before: &Table<HostId, Host>, scene: &Scene) -> Table<HostId, Host> {
        let was = &self.scene;
        let mut table = before.clone();
        for host in before.keys() {
            if !scene.state.hosts().contains_key(host) {
                table.remove(host);
            }
        }
        let same_roles = was.removed == scene.removed
            && was.consensus.role == scene.consensus.role
            && was.consensus.leader == scene.consensus.leader
            && was.consensus.voters == scene.consensus.voters;
        let (had, has) = (was.state.hosts(), scene.state.hosts());
        let same_hosts = std::ptr::eq(had, has);
        for (id, host) in has {
            let same_report = match (was.reports.get(id), scene.reports.get(id)) {
                (Some(before), Some(now)) => Arc::ptr_eq(before, now),
                (before, now) => before.is_none() && now.is_none(),
            };
            let is_same = same_roles
                && same_report
                && (same_hosts || had.get(id) == Some(host))
                && was.reachable.contains(id) == scene.reachable.contains(id)
                && was.lost_at(*id) == scene.lost_at(*id);
            if !is_same {
                table.put(*id, scene.shown_host(host), keeps_up);
            }
        }
        table
    }
}

impl Scene {
    /// Whether both views come from the same data. Equal data from different sources may count as different.
    fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.state, &other.state)
            && self.applied == other.applied
            && Arc::ptr_eq(&self.reports, &other.reports)
            && self.reachable == other.reachable
            && self.lost == other.lost
            && self.consensus == other.consensus
            && self.elsewhere == other.elsewhere
            && self.removed == other.removed
            && self.joining == other.joining
    }
}

/// Whether as many pods are ready as requested.
fn is_met(workload: &Workload) -> bool {
    workload.reason.is_empty() && workload.ready == workload.asked
}

/// Whether the host's rows differ in the applied log index only.
fn keeps_up(before: &Host, now: &Host) -> bool {
    let before = Host {
        applied: now.applied,
        ..before.clone()
    };
    before == *now
}

#[cfg(test)]
mod tests;
