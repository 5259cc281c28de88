//! Reports by workload.
//!
//! Pure, like its parent. A report has its workloads in any order, and says nothing of the others; the index finds what
//! a host says of one, and the hosts that say something of it. It follows from the index of the reports before at the
//! cost of the hosts that have said something new, and says of which workloads.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use beemesh_protocol::{
    HostId,
    peer::{HostReport, WorkloadReport},
};
use rpds::RedBlackTreeMapSync as Map;

use crate::cluster::reports::Reports;

/// What is found fast in the reports that it was made of.
#[derive(Debug, Clone, Default)]
pub(crate) struct Index {
    of: Reports,
    /// Of each host's report, the positions of its workloads, sorted by their names.
    sorted: Map<HostId, Arc<[usize]>>,
    /// The hosts that say something of a workload.
    hosts: Map<String, Arc<BTreeSet<HostId>>>,
}

impl Index {
    /// Whether it is the index of these very reports.
    pub(super) fn is_of(&self, reports: &Reports) -> bool {
        Arc::ptr_eq(&self.of, reports)
    }

    /// What the host says of the workload.
    pub(super) fn report(&self, host: HostId, workload: &str) -> Option<&WorkloadReport> {
        let all = &self.of.get(&host)?.workloads;
        let sorted = self.sorted.get(&host)?;
        let at = sorted.partition_point(|at| all[*at].workload.as_str() < workload);
        let found = &all[*sorted.get(at)?];
        (found.workload == workload).then_some(found)
    }

    /// The hosts that say something of the workload.
    pub(super) fn hosts(&self, workload: &str) -> impl Iterator<Item = HostId> {
        let hosts = self.hosts.get(workload).into_iter();
        hosts.flat_map(|hosts| hosts.iter().copied())
    }

    /// The index of these reports, which came after those of this one, and the names of the workloads of which
    /// something else is said.
    pub(super) fn next(&self, reports: &Reports) -> (Self, BTreeSet<String>) {
        let mut next = Self {
            of: Arc::clone(reports),
            ..self.clone()
        };
        let mut touched = BTreeSet::new();
        if self.is_of(reports) {
            return (next, touched);
        }
        let unsaid = HostReport::default();
        for (host, before) in self.of.iter() {
            if !reports.contains_key(host) {
                next.replace(*host, before, &unsaid, &mut touched);
            }
        }
        for (host, now) in reports.iter() {
            let before = self.of.get(host);
            if !before.is_some_and(|before| Arc::ptr_eq(before, now)) {
                let before = before.map_or(&unsaid, |before| before);
                next.replace(*host, before, now, &mut touched);
            }
        }
        (next, touched)
    }

    fn replace(
        &mut self,
        host: HostId,
        before: &HostReport,
        now: &HostReport,
        touched: &mut BTreeSet<String>,
    ) {
        let (old, new) = (&before.workloads, &now.workloads);
        let same =
            old.len() == new.len() && old.iter().zip(new).all(|(a, b)| a.workload == b.workload);
        if same {
            // The usual case: of what it has, something is different.
            let pairs = old.iter().zip(new).filter(|(a, b)| a != b);
            touched.extend(pairs.map(|(_, now)| now.workload.clone()));
            return;
        }
        let (old, sorted) = (named(old), sorted(new));
        let new = named(new);
        for name in old.keys().filter(|name| !new.contains_key(*name)) {
            self.forget(name, host);
            touched.insert((*name).to_owned());
        }
        for (name, said) in &new {
            match old.get(name) {
                Some(before) if before == said => continue,
                Some(_) => {}
                None => self.note(name, host),
            }
            touched.insert((*name).to_owned());
        }
        if sorted.is_empty() {
            self.sorted.remove_mut(&host);
        } else {
            self.sorted.insert_mut(host, sorted);
        }
    }

    fn note(&mut self, workload: &str, host: HostId) {
        let mut hosts = self.hosts.get(workload).cloned().unwrap_or_default();
        Arc::make_mut(&mut hosts).insert(host);
        self.hosts.insert_mut(workload.to_owned(), hosts);
    }

    fn forget(&mut self, workload: &str, host: HostId) {
        let Some(mut hosts) = self.hosts.get(workload).cloned() else {
            return;
        };
        Arc::make_mut(&mut hosts).remove(&host);
        if hosts.is_empty() {
            self.hosts.remove_mut(workload);
        } else {
            self.hosts.insert_mut(workload.to_owned(), hosts);
        }
    }
}

/// Should a host name a workload twice, its first word counts.
fn named(all: &[WorkloadReport]) -> BTreeMap<&str, &WorkloadReport> {
    let named = all.iter().rev();
    named.map(|one| (one.workload.as_str(), one)).collect()
}

fn sorted(all: &[WorkloadReport]) -> Arc<[usize]> {
    let mut sorted: Vec<usize> = (0..all.len()).collect();
    // A stable sort keeps the first of two that are named alike before the other.
    sorted.sort_by(|a, b| all[*a].workload.cmp(&all[*b].workload));
    sorted.into()
}
