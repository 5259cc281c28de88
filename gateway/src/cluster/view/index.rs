//! An index of reports by workload.
//!
//! Pure, like its parent. A report lists its pods in any order. The index finds the report on a pod of a workload, and
//! the places of the pods that hosts report of a workload. It is computed from the index of the previous reports, at the cost of
//! the hosts that have sent a new report. The result includes the names of the workloads whose report changed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use beemesh_protocol::{
    HostId,
    peer::{HostReport, WorkloadReport},
    state::Place,
};
use rpds::RedBlackTreeMapSync as Map;

use crate::cluster::reports::Reports;

/// The index of a set of reports.
#[derive(Debug, Clone, Default)]
pub(crate) struct Index {
    of: Reports,
    /// For each host's report, the positions of its pods, sorted by workload and number.
    sorted: Map<HostId, Arc<[usize]>>,
    /// The places of the pods that hosts report of each workload.
    places: Map<String, Arc<BTreeSet<Place>>>,
}

impl Index {
    /// Whether this is the index of exactly these reports.
    pub(super) fn is_of(&self, reports: &Reports) -> bool {
        Arc::ptr_eq(&self.of, reports)
    }

    /// The report on the pod of the workload in this place.
    pub(super) fn report(&self, place: Place, workload: &str) -> Option<&WorkloadReport> {
        let all = &self.of.get(&place.host)?.workloads;
        let sorted = self.sorted.get(&place.host)?;
        let wanted = (workload, place.number);
        let at = sorted.partition_point(|at| key(&all[*at]) < wanted);
        let found = &all[*sorted.get(at)?];
        (key(found) == wanted).then_some(found)
    }

    /// The places of the pods that hosts report of the workload.
    pub(super) fn places(&self, workload: &str) -> impl Iterator<Item = Place> {
        let places = self.places.get(workload).into_iter();
        places.flat_map(|places| places.iter().copied())
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
        let same = old.len() == new.len() && old.iter().zip(new).all(|(a, b)| key(a) == key(b));
        if same {
            // The usual case: the same pods, some with another report.
            let pairs = old.iter().zip(new).filter(|(a, b)| a != b);
            touched.extend(pairs.map(|(_, now)| now.workload.clone()));
            return;
        }
        let (old, sorted) = (named(old), sorted(new));
        let new = named(new);
        for (name, number) in old.keys().filter(|key| !new.contains_key(*key)) {
            let number = *number;
            self.forget(name, Place { host, number });
            touched.insert((*name).to_owned());
        }
        for ((name, number), said) in &new {
            let number = *number;
            match old.get(&(*name, number)) {
                Some(before) if before == said => continue,
                Some(_) => {}
                None => self.note(name, Place { host, number }),
            }
            touched.insert((*name).to_owned());
        }
        if sorted.is_empty() {
            self.sorted.remove_mut(&host);
        } else {
            self.sorted.insert_mut(host, sorted);
        }
    }

    fn note(&mut self, workload: &str, place: Place) {
        let mut places = self.places.get(workload).cloned().unwrap_or_default();
        Arc::make_mut(&mut places).insert(place);
        self.places.insert_mut(workload.to_owned(), places);
    }

    fn forget(&mut self, workload: &str, place: Place) {
        let Some(mut places) = self.places.get(workload).cloned() else {
            return;
        };
        Arc::make_mut(&mut places).remove(&place);
        if places.is_empty() {
            self.places.remove_mut(workload);
        } else {
            self.places.insert_mut(workload.to_owned(), places);
        }
    }
}

/// What identifies the pod of a report on its host.
fn key(report: &WorkloadReport) -> (&str, u32) {
    (&report.workload, report.number)
}

/// The reports by pod. If a host reports a pod twice, the first report counts.
fn named(all: &[WorkloadReport]) -> BTreeMap<(&str, u32), &WorkloadReport> {
    let named = all.iter().rev();
    named.map(|one| (key(one), one)).collect()
}

fn sorted(all: &[WorkloadReport]) -> Arc<[usize]> {
    let mut sorted: Vec<usize> = (0..all.len()).collect();
    // A stable sort keeps the first of two reports on the same pod before the other.
    sorted.sort_by(|a, b| key(&all[*a]).cmp(&key(&all[*b])));
    sorted.into()
}
