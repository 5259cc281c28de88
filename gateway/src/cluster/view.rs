//! The cluster as the API shows it.
//!
//! Pure: no I/O, no clock, no randomness. Input: a [`Scene`], which is all that this host knows at one moment. Output:
//! the types of [`beemesh_protocol::api`], and whether a change has taken effect on all hosts.
//!
//! A single request draws its response from a scene. Event streams and requests that wait share a [`View`], which draws
//! only the rows that a change affects.

mod asked;
mod drawn;
mod effects;
mod index;
mod jobs;
mod members;
mod recovery;
mod rollout;
mod table;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, OnceLock},
};

use beemesh_protocol::{
    HostId,
    api::{
        self, Capacity, Host, HostCounts, Leader, LostHost, Manifest, ManifestObject, MoveReason,
        MovedFrom, Phase, Role, Status, Workload, WorkloadCounts, WorkloadHost,
    },
    peer::{self, HostReport, WorkloadReport},
    state::{self, Place},
    workload::pod_name,
};
use beemesh_quadlet::manifest::{is_stopped, kind_of};

pub(crate) use asked::lack;
pub(crate) use drawn::View;
pub(crate) use effects::Kinds;
pub(crate) use table::{Row, Table};

use crate::cluster::{
    consensus::{self, Consensus},
    placement::{self, choose::There, seats},
    reports::Reports,
    state::State,
};
use index::Index;

/// All that this host knows at one moment.
#[derive(Clone)]
pub(crate) struct Scene {
    /// The answering host.
    pub(crate) host: HostId,
    /// The log index of `state`.
    pub(crate) applied: u64,
    /// The replicated state.
    pub(crate) state: Arc<State>,
    /// The state of consensus.
    pub(crate) consensus: Consensus,
    /// The last report of every host.
    pub(crate) reports: Reports,
    /// The hosts that the mesh reaches, including the answering host.
    pub(crate) reachable: BTreeSet<HostId>,
    /// When the mesh lost its connection to each host that it reached before, in milliseconds since 1970.
    pub(crate) lost: BTreeMap<HostId, u64>,
    /// The leader that a reachable member hears while this host hears none.
    pub(crate) elsewhere: Option<HostId>,
    /// The answering host was removed from the cluster.
    pub(crate) removed: bool,
    /// The other members of the cluster that admitted the answering host, by id and name, until it has received the log
    /// of that cluster.
    pub(crate) joining: Option<Vec<(HostId, String)>>,
    /// The index of `reports`, built on first use. An index of other reports is not used.
    pub(crate) index: OnceLock<Index>,
}

/// Data of the answering host that is not in the scene.
#[derive(Debug, Clone, Default)]
pub(crate) struct Own {
    /// Its name, used until the cluster knows it.
    pub(crate) name: String,
    /// Its Beemesh version.
    pub(crate) version: String,
    /// The condition that it waits for, in addition to that in its report.
    pub(crate) trouble: String,
}

/// The message of a host that was removed.
const REMOVED: &str =
    "this host was removed from the cluster: its workloads stay as units of this host";

impl Scene {
    /// A workload with its hosts; `None` if there is no workload of that name.
    pub(crate) fn workload(&self, name: &str) -> Option<Workload> {
        Some(self.render(self.state.workload(name)?))
    }

    /// All workloads, sorted by name.
    pub(crate) fn workloads(&self) -> Vec<Workload> {
        self.make_index();
        let all = self.state.workloads();
        all.map(|workload| self.render(workload)).collect()
    }

    fn render(&self, workload: &crate::cluster::state::Workload) -> Workload {
        let object = &workload.object;
        let asked = self.asked(workload);
        let places = self.shown_places(&workload.name, &asked.places);
        let ready = self.ready(workload, &asked);
        let rollout = self.rollout(workload, &asked.places);
        let settled = rollout.is_none()
            && asked.is_met(ready)
            && places.len() == asked.places.len()
            && self.is_calm(workload, &asked.places);
        Workload {
            name: workload.name.clone(),
            namespace: object.namespace.clone(),
            kind: kind_of(object).to_owned(),
            manifest: workload.manifest.clone(),
            revision: workload.revision,
            index: workload.index,
            applied_at_ms: workload.at_ms,
            settled,
            stuck: !settled && self.is_without_progress(workload, &asked, ready, rollout.as_ref()),
            stopped: is_stopped(object),
            asked: u32::try_from(asked.pods).unwrap_or(u32::MAX),
            ready: u32::try_from(ready).unwrap_or(u32::MAX),
            min_ready_seconds: asked::min_ready_seconds(object),
            hosts: places
                .into_iter()
                .map(|place| self.workload_host(place, workload))
                .collect(),
            reason: self.reason(workload, asked.reason, rollout.as_ref()),
            rollout,
            identity: self.state.identity(object),
            object: None,
        }
    }

    /// The pods that members must run or report, sorted by the names of their hosts.
    fn shown_places(&self, workload: &str, asked: &BTreeSet<Place>) -> Vec<Place> {
        let mut places = asked.clone();
        match self.index() {
            Some(index) => places.extend(index.places(workload)),
            None => {
                let all = self.reports.keys().copied();
                places.extend(all.flat_map(|host| self.told(host, workload)));
            }
        }
        // What a host had when it was lost says nothing of the present.
        places.retain(|place| {
            let member = self.state.hosts().get(&place.host);
            member.is_some_and(|member| member.lost_at_ms == 0 || asked.contains(place))
        });
        let mut places: Vec<_> = places.into_iter().collect();
        places.sort_by_cached_key(|place| (self.name(place.host), place.number));
        places
    }

    /// The places of the pods of the workload in the last report of the host.
    fn told(&self, host: HostId, workload: &str) -> impl Iterator<Item = Place> {
        let report = self.reports.get(&host).into_iter();
        let all = report.flat_map(|report| &report.workloads);
        let told = all.filter(move |one| one.workload == workload);
        told.map(move |one| Place {
            host,
            number: one.number,
        })
    }

    /// Builds the index, with which later lookups find reports by their workload. This pays off for a caller that draws
    /// many workloads.
    fn make_index(&self) -> &Index {
        let make = || Index::default().next(&self.reports).0;
        self.index.get_or_init(make)
    }

    fn index(&self) -> Option<&Index> {
        let index = self.index.get();
        index.filter(|index| index.is_of(&self.reports))
    }

    fn workload_host(
        &self,
        place: Place,
        workload: &crate::cluster::state::Workload,
    ) -> WorkloadHost {
        let unseen = WorkloadReport::default();
        let host = place.host;
        let report = self.report(place, &workload.name).unwrap_or(&unseen);
        let mut shown = WorkloadHost {
            host: self.name(host),
            id: host,
            phase: phase(report.phase),
            revision: report.revision,
            healthy: report.healthy,
            total: report.total,
            restarts: report.restarts,
            message: report.message.clone(),
            reachable: self.reachable.contains(&host),
            containers: report.containers.0.clone(),
            moved: self.moved_from(place, workload),
            pod: pod_name(&workload.name, place.number),
        };
        self.lay_attempts_over(&mut shown, workload);
        shown
    }

    /// Where the pod of the workload in this place was before.
    fn moved_from(
        &self,
        place: Place,
        workload: &crate::cluster::state::Workload,
    ) -> Option<MovedFrom> {
        let mut seats = self.state.seats(&workload.name).iter();
        let seat = seats.find(|seat| seat.place() == Some(place))?;
        let moved = seat.moved.as_ref()?;
        Some(MovedFrom {
            host: moved.from.clone(),
            why: match moved.why {
                state::MoveReason::Lost => MoveReason::Lost,
                state::MoveReason::Unreachable => MoveReason::Unreachable,
                state::MoveReason::Drained => MoveReason::Drained,
                state::MoveReason::Unfit => MoveReason::Unfit,
            },
            at_ms: moved.at_ms,
        })
    }

    /// The reasons, as messages, for which pods of the workload have no host.
    fn waits(&self, workload: &crate::cluster::state::Workload) -> Vec<String> {
        seats::waits(&self.there(), workload)
    }

    fn there(&self) -> There<'_> {
        There::new(&self.state, &self.reachable, &self.reports)
    }

    fn wanted(&self, workload: &crate::cluster::state::Workload) -> BTreeSet<Place> {
        placement::places(&self.state, workload)
    }

    fn report(&self, place: Place, workload: &str) -> Option<&WorkloadReport> {
        if let Some(index) = self.index() {
            return index.report(place, workload);
        }
        let all = &self.reports.get(&place.host)?.workloads;
        let is_it =
            |report: &&WorkloadReport| report.workload == workload && report.number == place.number;
        all.iter().find(is_it)
    }

    /// Returns true if the last report of the host contains a pod of the workload.
    fn has(&self, host: HostId, workload: &str) -> bool {
        self.told(host, workload).next().is_some()
    }

    /// Returns true if the pod has finished the rollout of this revision, with success or without.
    fn arrived(&self, place: Place, workload: &crate::cluster::state::Workload) -> bool {
        let Some(report) = self.report(place, &workload.name) else {
            return false;
        };
        let done = match report.phase {
            peer::Phase::Running => report.healthy == report.total,
            peer::Phase::Succeeded | peer::Phase::Stopped | peer::Phase::Failed => true,
            peer::Phase::Pending | peer::Phase::Starting | peer::Phase::Removing => false,
        };
        let (_, index) = self.state.assigned(workload, place);
        done && report.index >= index && self.reachable.contains(&place.host)
    }

    /// The names of the hosts that may still have a part of removed workloads: they report one, have not applied log
    /// index `index` of the removal, or are unreachable.
    pub(crate) fn holding(&self, index: u64, removed: &[String]) -> Vec<String> {
        let again = |name: &&String| self.state.workload(name).is_none();
        let gone: Vec<_> = removed.iter().filter(again).collect();
        let holds = |host: &&HostId| {
            let told = self.reports.get(*host);
            !self.reachable.contains(*host)
                || told.is_none_or(|report| report.applied < index)
                || gone.iter().any(|name| self.has(**host, name))
        };
        names_of(&self.state, self.state.hosts().keys().filter(holds))
    }

    /// All manifests, sorted by name.
    pub(crate) fn manifests(&self) -> Vec<Manifest> {
        let shown = |manifest: &crate::cluster::state::Manifest| Manifest {
            name: manifest.name.clone(),
            index: manifest.index,
            applied_at_ms: manifest.at_ms,
            objects: manifest
                .objects
                .iter()
                .map(|one| self.manifest_object(one))
                .collect(),
        };
        self.state.manifests().map(shown).collect()
    }

    fn manifest_object(&self, object: &state::Object) -> ManifestObject {
        ManifestObject {
            kind: kind_of(object).to_owned(),
            namespace: object.namespace.clone(),
            name: object.name.clone(),
            identity: self.state.identity(object),
        }
    }

    /// All members, sorted by name.
    pub(crate) fn hosts(&self) -> Vec<Host> {
        let all = self.state.hosts().values();
        let mut hosts: Vec<_> = all.map(|host| self.shown_host(host)).collect();
        hosts.sort_by(|a, b| a.name.cmp(&b.name));
        hosts
    }

    fn shown_host(&self, host: &state::Host) -> Host {
        let unsaid = Arc::new(HostReport::default());
        let report = self.reports.get(&host.id).unwrap_or(&unsaid);
        Host {
            name: host.name.clone(),
            id: host.id,
            addresses: host.addresses.clone(),
            role: self.role(host.id),
            reachable: self.reachable.contains(&host.id),
            lost_at_ms: self.lost_at(host.id),
            lost: (host.lost_at_ms != 0).then_some(LostHost {
                since_ms: host.lost_at_ms,
                declared: host.declared_lost,
            }),
            steady_at_ms: Some(host.steady_at_ms).filter(|at| *at != 0),
            capacity: (report.cpu_millis > 0).then_some(Capacity {
                cpu_millis: report.cpu_millis,
                memory_bytes: report.memory_bytes,
            }),
            labels: host.labels.clone(),
            drained: host.drained,
            applied: report.applied,
            version: report.version.clone(),
            podman: report.podman.clone(),
            trouble: report.trouble.clone(),
        }
    }

    /// The number of workloads that have all requested pods ready.
    fn healthy(&self) -> usize {
        self.make_index();
        let healthy = |workload: &&crate::cluster::state::Workload| {
            let asked = self.asked(workload);
            asked.is_met(self.ready(workload, &asked))
        };
        self.state.workloads().filter(healthy).count()
    }

    /// The status of the answering host; `healthy` is the number of healthy workloads.
    fn status(&self, own: Own, healthy: usize) -> Status {
        let members = self.state.hosts();
        // A host that was removed still has data of the other hosts' consensus, which no longer applies to it.
        let outside = Consensus {
            term: self.consensus.term,
            ..Consensus::default()
        };
        let consensus = if self.removed {
            &outside
        } else {
            &self.consensus
        };
        let missing = members
            .keys()
            .filter(|host| !self.reachable.contains(*host));
        let missing = names_of(&self.state, missing);
        let report = self.reports.get(&self.host);
        let troubles = [
            if self.removed { REMOVED } else { "" },
            own.trouble.as_str(),
            report.map_or("", |report| report.trouble.as_str()),
        ];
        let troubles: Vec<_> = troubles.into_iter().filter(|one| !one.is_empty()).collect();
        Status {
            cluster: self.state.cluster(),
            host: members
                .get(&self.host)
                .map_or(own.name, |host| host.name.clone()),
            id: self.host,
            role: self.role(self.host),
            leader: self.heard_leader(consensus).map(|id| Leader {
                name: self.name(id),
                id,
            }),
            elsewhere: self.heard_elsewhere().map(|id| Leader {
                name: self.name(id),
                id,
            }),
            term: consensus.term,
            applied: self.applied,
            quorum: consensus.quorum,
            voters: names_of(&self.state, consensus.voters.iter()),
            learners: names_of(&self.state, consensus.learners.iter()),
            hosts: HostCounts {
                total: members.len(),
                reachable: members.len() - missing.len(),
                missing,
            },
            workloads: WorkloadCounts {
                total: self.state.workloads().len(),
                healthy,
            },
            version: own.version,
            podman: report.map_or_else(String::new, |report| report.podman.clone()),
            trouble: troubles.join("; "),
        }
    }

    fn role(&self, host: HostId) -> Role {
        if host == self.host && self.removed {
            return Role::Removed;
        }
        if self.consensus.leader == Some(host) {
            return Role::Leader;
        }
        if host != self.host {
            return if self.consensus.voters.contains(&host) {
                Role::Follower
            } else {
                Role::Learner
            };
        }
        match self.consensus.role {
            consensus::Role::Leader => Role::Leader,
            consensus::Role::Candidate => Role::Candidate,
            consensus::Role::Follower => Role::Follower,
            consensus::Role::Learner | consensus::Role::Stopped => Role::Learner,
        }
    }

    /// The leader, unless this host has not heard from it lately.
    fn heard_leader(&self, consensus: &Consensus) -> Option<HostId> {
        let heard = |leader: &HostId| consensus.quorum || *leader == self.host;
        consensus.leader.filter(heard)
    }

    /// The leader that this host does not hear, while it is a member without one.
    pub(crate) fn heard_elsewhere(&self) -> Option<HostId> {
        let without = !self.removed && !self.consensus.quorum;
        self.elsewhere.filter(|_| without)
    }

    /// When the mesh lost the host, in milliseconds since 1970. `None` for a host that it reaches, or has not reached yet.
    fn lost_at(&self, host: HostId) -> Option<u64> {
        let lost = self.lost.get(&host).copied();
        lost.filter(|_| !self.reachable.contains(&host))
    }

    /// What people call the host.
    pub(crate) fn name(&self, host: HostId) -> String {
        name_of(&self.state, host)
    }

    /// The member with that name or key.
    pub(crate) fn host_named(&self, name: &str) -> Option<HostId> {
        let named = |host: &&state::Host| host.name == name || host.id.to_string() == name;
        self.state.hosts().values().find(named).map(|host| host.id)
    }

    /// The host to ask for a workload's logs if the user named none: this host if it runs the workload, or else the
    /// first reachable host by name. With a number, only hosts with the pod of this number count.
    pub(crate) fn host_with(&self, workload: &str, number: Option<u32>) -> Option<HostId> {
        let found = self.state.workload(workload)?;
        let places = placement::places(&self.state, found).into_iter();
        let places = places.filter(|place| number.is_none_or(|number| place.number == number));
        let wanted: BTreeSet<HostId> = places.map(|place| place.host).collect();
        if wanted.contains(&self.host) {
            return Some(self.host);
        }
        let first = |host: &&HostId| (!self.reachable.contains(*host), self.name(**host));
        wanted.iter().min_by_key(first).copied()
    }
}

/// The names of hosts, sorted.
pub(crate) fn names_of<'a>(state: &State, hosts: impl Iterator<Item = &'a HostId>) -> Vec<String> {
    let mut names: Vec<_> = hosts.map(|host| name_of(state, *host)).collect();
    names.sort();
    names
}

/// `h1`, `h1 and h2`, `h1, h2 and h3`.
pub(crate) fn sentence(names: &[String]) -> String {
    match names {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

/// The name of a host; for a host that is no member, its key.
fn name_of(state: &State, host: HostId) -> String {
    let known = state.hosts().get(&host);
    known.map_or_else(|| host.to_string(), |host| host.name.clone())
}

fn phase(phase: peer::Phase) -> Phase {
    match phase {
        peer::Phase::Pending => api::Phase::Pending,
        peer::Phase::Starting => api::Phase::Starting,
        peer::Phase::Running => api::Phase::Running,
        peer::Phase::Succeeded => api::Phase::Succeeded,
        peer::Phase::Stopped => api::Phase::Stopped,
        peer::Phase::Failed => api::Phase::Failed,
        peer::Phase::Removing => api::Phase::Removing,
    }
}

#[cfg(test)]
pub(crate) mod tests;
