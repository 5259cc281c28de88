//! Which hosts the rules of a workload allow for one more pod, and how well each host suits it.
//!
//! Pure: no I/O, no clock, no randomness. Input: the replicated state, what the hosts report of themselves, and the
//! pods that were given a host in the same plan. The rules hold when a pod gets a host, and not afterwards, as in
//! Kubernetes.

use std::{collections::BTreeMap, fmt, sync::Arc};

use beemesh_protocol::{HostId, peer::HostReport, state::Host};
use beemesh_quadlet::manifest::{Cores, PodTerm, Room, Scheduling, Spread};

use super::{LABEL_HOSTNAME, choose::Taken};
use crate::cluster::{
    placement,
    state::{State, Workload, is_under_way},
};

/// What a preference for an even spread weighs, for each pod that a domain has too many.
const SPREAD_WEIGHT: i64 = 100;

/// The rule that refuses a host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rule {
    /// Its labels do not match the node affinity.
    Affinity,
    /// It lacks the label of a rule.
    NoLabel(String),
    /// This workload has a port that the pod needs.
    Port(u16, String),
    /// It has fewer thousandths of a core left than requested.
    Cores { asked: i128, left: i128 },
    /// It has less memory left than requested, in bytes.
    Memory { asked: i128, left: i128 },
    /// No pod is in its domain that the pod must be near; the label of the domain.
    Near(String),
    /// A pod of this workload is in its domain, and one of both must be apart from the other.
    Apart(String),
    /// The pods would be spread too unevenly over the values of this label.
    Spread(String),
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mebibytes = |bytes: &i128| bytes >> 20;
        match self {
            Self::Affinity => f.write_str("node affinity does not match"),
            Self::NoLabel(label) => write!(f, "no label {label}"),
            Self::Port(port, holder) => write!(f, "port {port} is taken by {holder}"),
            Self::Cores { asked, left } => write!(
                f,
                "cores requested: {}, left: {}",
                Cores(*asked),
                Cores((*left).max(0))
            ),
            Self::Memory { asked, left } => write!(
                f,
                "memory requested: {} MiB, left: {} MiB",
                mebibytes(asked),
                mebibytes(&(*left).max(0))
            ),
            Self::Near(label) => write!(f, "no pod of its affinity has this {label}"),
            Self::Apart(workload) => write!(f, "must be apart from {workload}"),
            Self::Spread(label) => write!(f, "maxSkew over {label} would be exceeded"),
        }
    }
}

/// The pods that have a host.
#[derive(Debug, Default)]
pub(super) struct Pods<'a> {
    on: Vec<(HostId, &'a Workload)>,
    /// What the pods on each host request.
    used: BTreeMap<HostId, Room>,
    /// The number of pods on each host that were chosen a host.
    seated: BTreeMap<HostId, usize>,
    /// True if a pod must be apart from others. Those must then be apart from it.
    has_apart: bool,
}

impl<'a> Pods<'a> {
    /// The pods that the state gives to hosts.
    pub(super) fn of(state: &'a State) -> Self {
        let mut pods = Self::default();
        for workload in state.workloads() {
            let here: Vec<HostId> = match workload.job {
                // A Job that is over takes nothing.
                Some(_) => {
                    let seats = state.seats(&workload.name).iter();
                    let runs = seats.filter(|seat| is_under_way(seat));
                    runs.filter_map(|seat| seat.host).collect()
                }
                None => {
                    let places = placement::places(state, workload).into_iter();
                    places.map(|place| place.host).collect()
                }
            };
            for host in here {
                pods.add(state, host, workload);
            }
        }
        pods
    }

    /// Adds a pod that gets a host.
    pub(super) fn add(&mut self, state: &State, host: HostId, workload: &'a Workload) {
        let scheduling = workload.scheduling();
        self.has_apart |= !scheduling.apart.is_empty();
        let used = self.used.entry(host).or_default();
        *used = used.plus(scheduling.requests);
        if state.is_seated(workload) {
            *self.seated.entry(host).or_default() += 1;
        }
        self.on.push((host, workload));
    }

    /// The number of pods on the host that were chosen a host.
    pub(super) fn seated(&self, host: HostId) -> usize {
        self.seated.get(&host).copied().unwrap_or(0)
    }

    /// What the pods on the host request.
    fn used(&self, host: HostId) -> Room {
        self.used.get(&host).copied().unwrap_or_default()
    }
}

/// One choice: a workload that needs one more pod.
pub(super) struct Rules<'a> {
    pub(super) state: &'a State,
    pub(super) reports: &'a BTreeMap<HostId, Arc<HostReport>>,
    pub(super) workload: &'a Workload,
    pub(super) pods: &'a Pods<'a>,
    /// The pods of the workload on each host, those of this plan included.
    pub(super) taken: &'a Taken,
    /// The host that the pod leaves.
    pub(super) leaving: Option<HostId>,
}

impl Rules<'_> {
    /// How well the host suits one more pod; the rule that refuses it otherwise.
    pub(super) fn score(&self, host: &Host) -> Result<i64, Rule> {
        let own = self.workload.scheduling();
        let hosts = own.hosts.as_ref();
        if hosts.is_some_and(|any| !any.iter().any(|one| one.matches(&host.name, &host.labels))) {
            return Err(Rule::Affinity);
        }
        self.ports(own, host)?;
        self.room(own, host)?;
        self.apart(own, host)?;
        self.near(own, host)?;
        let mut score = 0;
        for spread in &own.spread {
            score -= self.spread(own, spread, host)?;
        }
        for (weight, term) in &own.preferred_hosts {
            if term.matches(&host.name, &host.labels) {
                score += weight;
            }
        }
        for (weight, term) in &own.preferred_pods {
            let count = self.near_by(term, host).count();
            score += weight.saturating_mul(i64::try_from(count).unwrap_or(i64::MAX));
        }
        Ok(score)
    }

    fn ports(&self, own: &Scheduling, host: &Host) -> Result<(), Rule> {
        if own.ports.is_empty() {
            return Ok(());
        }
        for (_, other) in self.others().filter(|(on, _)| *on == host.id) {
            let theirs = &other.scheduling().ports;
            let mut wanted = own.ports.iter();
            if let Some(port) = wanted.find(|port| theirs.iter().any(|one| port.meets(one))) {
                return Err(Rule::Port(port.port, other.name.clone()));
            }
        }
        Ok(())
    }

    fn room(&self, own: &Scheduling, host: &Host) -> Result<(), Rule> {
        let asked = own.requests;
        let report = self.reports.get(&host.id);
        let Some(has) = report.and_then(|report| capacity(report)) else {
            return Ok(());
        };
        if asked == Room::default() {
            return Ok(());
        }
        let used = self.pods.used(host.id);
        let (cores, memory) = (has.millis - used.millis, has.bytes - used.bytes);
        if asked.millis > 0 && asked.millis > cores {
            return Err(Rule::Cores {
                asked: asked.millis,
                left: cores,
            });
        }
        if asked.bytes > 0 && asked.bytes > memory {
            return Err(Rule::Memory {
                asked: asked.bytes,
                left: memory,
            });
        }
        Ok(())
    }

    fn apart(&self, own: &Scheduling, host: &Host) -> Result<(), Rule> {
        for term in &own.apart {
            if let Some(other) = self.near_by(term, host).next() {
                return Err(Rule::Apart(other.name.clone()));
            }
        }
        if !self.pods.has_apart {
            return Ok(());
        }
        let object = &self.workload.object;
        let others = self
            .all()
            .filter(|(_, other)| other.name != self.workload.name);
        for (on, other) in others {
            let theirs = &other.scheduling().apart;
            let selects = |term: &&PodTerm| {
                term.selects(&other.object.namespace, &object.namespace, &own.labels)
                    && self.is_one_domain(&term.topology, on, host)
            };
            if theirs.iter().any(|term| selects(&term)) {
                return Err(Rule::Apart(other.name.clone()));
            }
        }
        Ok(())
    }

    fn near(&self, own: &Scheduling, host: &Host) -> Result<(), Rule> {
        for term in &own.near {
            if label(host, &term.topology).is_none() {
                return Err(Rule::NoLabel(term.topology.clone()));
            }
            let namespace = &self.workload.object.namespace;
            // The first of pods that must be near each other has none to be near.
            let is_first = term.selects(namespace, namespace, &own.labels)
                && self.selected(term).next().is_none();
            if !is_first && self.near_by(term, host).next().is_none() {
                return Err(Rule::Near(term.topology.clone()));
            }
        }
        Ok(())
    }

    /// What the host costs for the evenness of this spread.
    fn spread(&self, own: &Scheduling, spread: &Spread, host: &Host) -> Result<i64, Rule> {
        let Some(here) = label(host, &spread.topology) else {
            return match spread.is_required {
                true => Err(Rule::NoLabel(spread.topology.clone())),
                false => Ok(SPREAD_WEIGHT),
            };
        };
        let mut counts: BTreeMap<&str, i64> = BTreeMap::new();
        let members = self.state.hosts();
        for member in members.values().filter(|member| self.may_have(own, member)) {
            if let Some(domain) = label(member, &spread.topology) {
                counts.entry(domain).or_default();
            }
        }
        let namespace = &self.workload.object.namespace;
        let counted = self.all().filter(|(_, other)| {
            other.object.namespace == *namespace && spread.selects(&other.scheduling().labels)
        });
        for (on, _) in counted {
            let domain = members.get(&on).and_then(|on| label(on, &spread.topology));
            if let Some(count) = domain.and_then(|domain| counts.get_mut(domain)) {
                *count += 1;
            }
        }
        let own = i64::from(spread.selects(&own.labels));
        let least = counts.values().copied().min().unwrap_or(0);
        let skew = counts.get(here).copied().unwrap_or(0) + own - least;
        match skew > spread.skew && spread.is_required {
            true => Err(Rule::Spread(spread.topology.clone())),
            false => Ok(skew.max(0).saturating_mul(SPREAD_WEIGHT)),
        }
    }

    /// Returns true if the domain of the host counts for a spread: the host may get pods of the workload.
    fn may_have(&self, own: &Scheduling, host: &Host) -> bool {
        let hosts = own.hosts.as_ref();
        host.lost_at_ms == 0
            && placement::fits(host, &self.workload.object.selector)
            && hosts.is_none_or(|any| any.iter().any(|one| one.matches(&host.name, &host.labels)))
    }

    /// The pods that a term selects, in the domain of the host.
    fn near_by<'s>(
        &'s self,
        term: &'s PodTerm,
        host: &'s Host,
    ) -> impl Iterator<Item = &'s Workload> {
        let selected = self.selected(term);
        let near = selected.filter(|(on, _)| self.is_one_domain(&term.topology, *on, host));
        near.map(|(_, workload)| workload)
    }

    fn selected<'s>(&'s self, term: &'s PodTerm) -> impl Iterator<Item = (HostId, &'s Workload)> {
        let own = &self.workload.object.namespace;
        self.all().filter(move |(_, other)| {
            term.selects(own, &other.object.namespace, &other.scheduling().labels)
        })
    }

    fn is_one_domain(&self, topology: &str, on: HostId, host: &Host) -> bool {
        let other = self.state.hosts().get(&on);
        let other = other.and_then(|other| label(other, topology));
        other.is_some() && other == label(host, topology)
    }

    /// The pods of other workloads.
    fn others(&self) -> impl Iterator<Item = (HostId, &Workload)> {
        let all = self.pods.on.iter().copied();
        all.filter(|(_, other)| other.name != self.workload.name)
    }

    /// The pods of all workloads that stay: the pod that gets a host does not count on the host that it leaves, and nothing
    /// counts on a host that is lost.
    fn all(&self) -> impl Iterator<Item = (HostId, &Workload)> {
        let mut leaving = self.leaving;
        let own = self.taken.pods().filter(move |host| {
            let leaves = leaving == Some(*host);
            if leaves {
                leaving = None;
            }
            !leaves
        });
        let own = own.map(|host| (host, self.workload));
        let members = self.state.hosts();
        let is_lost = |host: &HostId| members.get(host).is_some_and(|one| one.lost_at_ms != 0);
        self.others().chain(own).filter(move |(on, _)| !is_lost(on))
    }
}

fn label<'h>(host: &'h Host, key: &str) -> Option<&'h str> {
    match key {
        LABEL_HOSTNAME => Some(&host.name),
        key => host.labels.get(key).map(String::as_str),
    }
}

/// What the host has; `None` if it has not reported it.
fn capacity(report: &HostReport) -> Option<Room> {
    (report.cpu_millis > 0 && report.memory_bytes > 0).then(|| Room {
        millis: i128::from(report.cpu_millis),
        bytes: i128::from(report.memory_bytes),
    })
}

#[cfg(test)]
mod tests;
