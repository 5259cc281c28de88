//! An index of reports by workload.
//!
//! Pure, like its parent. A report lists its workloads in any order. The index finds the report of a workload on a
//! host, and the hosts that report a workload. It is computed from the index of the previous reports, at the cost of
//! the hosts that have sent a new report. The result includes the names of the workloads whose report changed.

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

/// The index of a set of reports.
#[derive(Debug, Clone, Default)]
pub(crate) struct Index {
    of: Reports,
    /// For each host's report, the positions of its workloads, sorted by name.
    sorted: Map<HostId, Arc<[usize]>>,
    /// The hosts that report each workload.
    hosts: Map<String, Arc<BTreeSet<HostId>>>,
}

impl Index {
    /// Whether this is the index of exactly these reports.
    pub(super) fn is_of(&self, reports: &Reports) -> bool {
        Arc::ptr_eq(&self.of, reports)
    }

    /// The host's report of the workload.
    pub(super) fn report(&self, host: HostId, workload: &str) -> Option<&WorkloadReport> {
        let all = &self.of.get(&host)?.workloads;
        let sorted = self.sorted.get(&host)?;
        let at = sorted.partition_point(|at| all[*at].workload.as_str() < workload);
        let found = &all[*sorted.get(at)?];
        (found.workload == workload).then_some(found)
    }

    /// The hosts that report the workload.
    pub(super) fn hosts(&self, workload: &str) -> impl Iterator<Item = HostId> {
        let hosts = self.hosts.get(workload).into_iter();
        hosts.flat_map(|hosts| hosts.iter().copied())
    }

    /// The index of later reports, and the names of the workloads whose report is different.
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
            // The usual case: the same workloads, some with another report.
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

/// The reports by workload. If a host reports a workload twice, the first report counts.
fn named(all: &[WorkloadReport]) -> BTreeMap<&str, &WorkloadReport> {
    let named = all.iter().rev();
    named.map(|one| (one.workload.as_str(), one)).collect()
}

fn sorted(all: &[WorkloadReport]) -> Arc<[usize]> {
    let mut sorted: Vec<usize> = (0..all.len()).collect();
    // A stable sort keeps the first of two reports with the same name before the other.
    sorted.sort_by(|a, b| all[*a].workload.cmp(&all[*b].workload));
    sorted.into()
}
