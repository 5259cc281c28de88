//! The number of requested pods of a workload, the number of ready pods, and the reason if fewer pods run.
//!
//! Pure, like its parent. [`crate::cluster::placement`] decides which host runs a workload; this module explains the
//! decision.

use std::collections::{BTreeMap, BTreeSet};

use beemesh_protocol::{
    HostId,
    peer::{Phase, WorkloadReport},
    state::{Host, JobEnd, Kind, Object, Place},
    workload::PODS_PER_HOST_MAX,
};
use beemesh_quadlet::manifest::{Scheduling, is_workload};
use serde::Deserialize;

use super::{Scene, sentence};
use crate::cluster::{
    labels::{is_automatic, is_unlabelled},
    placement::{
        self,
        choose::{Alone, most_on_each},
        seats::LEASED,
    },
    reports::is_in_trouble,
    state::{State, Workload},
};

/// Maximum number of names in a message.
const NAMES_MAX: usize = 5;

/// The pods that a workload requests.
pub(super) struct Asked {
    /// The number of pods.
    pub(super) pods: usize,
    /// The places of those that hosts must run.
    pub(super) places: BTreeSet<Place>,
    /// The reason for which some pods have no host, as a message; empty if all have one.
    pub(super) reason: String,
    /// Whether more hosts may become available without a change by a user.
    may_change: bool,
}

impl Asked {
    /// Whether this number of ready pods is the requested one.
    pub(super) fn is_met(&self, ready: usize) -> bool {
        self.reason.is_empty() && ready == self.pods
    }
}

impl Scene {
    pub(super) fn asked(&self, workload: &Workload) -> Asked {
        let object = &workload.object;
        let places = self.wanted(workload);
        let pods = placement::asked(&self.state, workload);
        let mut waits = self.waits(workload);
        let over = self.failed_elsewhere(workload);
        let is_over = !over.is_empty();
        waits.extend(over);
        let between = is_between_attempts(&self.state, workload);
        let given = places.len() + self.ends_of_hosts_that_left(workload).count();
        let none = given == 0 && object.replicas != Some(0);
        if given >= pods && !none && waits.is_empty() {
            let (reason, may_change) = (String::new(), between);
            return Asked {
                pods,
                places,
                reason,
                may_change,
            };
        }
        let alone = Alone::of(&self.state, workload);
        let short = Short::of(object, self.state.hosts(), alone);
        let lacks = short.can() < pods || short.may.is_empty();
        let reason = if lacks || waits.is_empty() {
            short.words(object, pods, places.len())
        } else {
            waits.join("; ")
        };
        let away = |host: &&Host| !self.reachable.contains(&host.id);
        let is_passing = waits.iter().all(|wait| wait == LEASED);
        let may_get = short.can() > given && (is_passing || short.may.iter().any(away));
        Asked {
            pods,
            may_change: !is_over && (short.may_change || may_get || between),
            reason,
            places,
        }
    }

    /// The number of ready pods.
    pub(super) fn ready(&self, workload: &Workload, asked: &Asked) -> usize {
        let ready = |place: &&Place| self.is_ready(**place, workload);
        let ended = self.ends_of_hosts_that_left(workload);
        asked.places.iter().filter(ready).count() + ended.filter(|end| end.succeeded).count()
    }

    /// The ends of a Job's pods on hosts that are no longer members.
    fn ends_of_hosts_that_left(&self, workload: &Workload) -> impl Iterator<Item = &JobEnd> {
        let seats = self.state.seats(&workload.name).iter();
        let left = seats.filter(|seat| seat.host.is_none());
        left.filter_map(|seat| seat.end.as_ref())
    }

    /// Whether the workload is not as requested and stays so without a change by a user.
    pub(super) fn is_stuck(&self, workload: &Workload, asked: &Asked, ready: usize) -> bool {
        let concluded = |place: &Place| self.is_concluded(*place, workload);
        let lacks = !asked.reason.is_empty() || ready < asked.places.len();
        lacks && !asked.may_change && asked.places.iter().all(concluded)
    }

    /// Returns true if the pod runs this revision as requested, or has completed it. The end of a Job that the cluster has
    /// recorded holds even if its host is lost.
    fn is_ready(&self, place: Place, workload: &Workload) -> bool {
        if let Some(end) = self.job_end(place.host, workload) {
            return end.succeeded;
        }
        self.says(place, workload, |report| match report.phase {
            Phase::Running => report.healthy == report.total,
            Phase::Succeeded => true,
            Phase::Pending | Phase::Starting | Phase::Stopped | Phase::Failed | Phase::Removing => {
                false
            }
        })
    }

    /// Returns true if no container of these pods has ended lately. A container that was restarted is ready, but may fail again.
    pub(super) fn is_calm(&self, workload: &Workload, places: &BTreeSet<Place>) -> bool {
        let calm = |place: &Place| {
            let report = self.report(*place, &workload.name);
            !report.is_some_and(is_in_trouble)
        };
        places.iter().all(calm)
    }

    /// Returns true if the pod runs this revision as requested, or its host has given it up. A failed attempt of a Job is followed by
    /// another one unless the cluster has recorded the end of the Job.
    fn is_concluded(&self, place: Place, workload: &Workload) -> bool {
        let more = workload.job.is_some() && self.state.is_seated(workload);
        let given_up = |report: &WorkloadReport| match report.phase {
            Phase::Stopped => true,
            Phase::Failed => !(more && report.ended),
            _ => false,
        };
        self.job_end(place.host, workload).is_some()
            || self.is_ready(place, workload)
            || self.says(place, workload, given_up)
    }

    /// Returns true if the host is reachable, and its report on the pod satisfies the condition and is of the revision
    /// that the pod has to run, or of one that this state does not include yet.
    fn says(
        &self,
        place: Place,
        workload: &Workload,
        is_so: impl Fn(&WorkloadReport) -> bool,
    ) -> bool {
        let runs = placement::runs(&self.state, workload, place);
        let index = runs.map_or(workload.index, |runs| runs.index);
        let report = self.report(place, &workload.name);
        let is_later = |report: &WorkloadReport| report.index > self.applied;
        let report = report.filter(|report| report.index == index || is_later(report));
        report.is_some_and(is_so) && self.reachable.contains(&place.host)
    }
}

/// What the cluster lacks to run an object as requested: the field that asks for it, and a message. `None` if it can run
/// the object now or may be able to soon.
pub(crate) fn lack(
    object: &Object,
    members: &BTreeMap<HostId, Host>,
    level: u32,
) -> Option<(&'static str, String)> {
    let alone = match object.replicas {
        Some(2..) => Alone::of_object(level, object, &Scheduling::of(object)),
        _ => None,
    };
    let short = Short::of(object, members, alone);
    let may = short.may.len();
    let pods = object.replicas.map_or(1, |replicas| {
        usize::try_from(replicas).unwrap_or(usize::MAX)
    });
    let is_enough = short.can() >= pods && may > 0 || pods == 0;
    if !is_workload(object.kind) || is_enough || short.may_change {
        return None;
    }
    let field = match (object.replicas, may) {
        (Some(_), 1..) => "spec.replicas",
        _ if object.selector.is_empty() => "",
        _ if object.kind == Kind::Pod => "spec.nodeSelector",
        _ => "spec.template.spec.nodeSelector",
    };
    Some((field, short.words(object, pods, short.can())))
}

/// Whether a Job has failed and will be retried after a pause.
fn is_between_attempts(state: &State, workload: &Workload) -> bool {
    let mut seats = state.seats(&workload.name).iter();
    workload.job.is_some() && seats.any(|seat| seat.end.is_none() && seat.index == 0)
}

/// The data for a message about hosts that match a `nodeSelector`.
struct Short<'a> {
    may: Vec<&'a Host>,
    drained: Vec<&'a Host>,
    /// Why each of them runs one pod at most.
    alone: Option<Alone>,
    /// A host has not set its automatic labels yet, and the object selects by such a label.
    may_change: bool,
}

impl<'a> Short<'a> {
    fn of(object: &Object, members: &'a BTreeMap<HostId, Host>, alone: Option<Alone>) -> Self {
        let all = members.values();
        let selected = all.filter(|host| placement::selects(host, &object.selector));
        let (drained, may) = selected.partition(|host| host.drained);
        let by_kind = object.selector.keys().any(|label| is_automatic(label));
        Self {
            may,
            drained,
            alone,
            may_change: by_kind && members.values().any(is_unlabelled),
        }
    }

    /// The number of pods that these hosts can run.
    fn can(&self) -> usize {
        self.may.len().saturating_mul(most_on_each(self.alone))
    }

    /// The message that explains why only this number of pods have a host.
    fn words(&self, object: &Object, pods: usize, placed: usize) -> String {
        let selector = selector(&object.selector);
        let (may, drained) = (named(&self.may), named(&self.drained));
        match (self.may.len(), self.drained.len()) {
            (0, 0) => format!("no host matches nodeSelector {selector}"),
            (0, _) if selector.is_empty() => "every host is drained".to_owned(),
            (0, _) => {
                format!("every host that matches nodeSelector {selector} is drained: {drained}")
            }
            (_, _) if self.can() >= pods || self.can() > placed => {
                format!("{placed} of {pods} pods have a host so far")
            }
            (count, left) => {
                let each = match self.alone {
                    Some(_) => "one".to_owned(),
                    None => PODS_PER_HOST_MAX.to_string(),
                };
                let matches = match (selector.as_str(), count) {
                    ("", 1) => format!("1 host can run {each}"),
                    ("", _) => format!("{count} hosts can run {each} each"),
                    (selector, 1) => {
                        format!("1 host matches nodeSelector {selector}, for {each}")
                    }
                    (selector, _) => {
                        format!("{count} hosts match nodeSelector {selector}, for {each} each")
                    }
                };
                let why = self
                    .alone
                    .map_or_else(String::new, |alone| format!(", because {}", alone.words()));
                let drained = match left {
                    0 => String::new(),
                    1 => format!("; {drained} is drained"),
                    _ => format!("; {drained} are drained"),
                };
                format!("{pods} replicas are requested, and {matches}{why}: {may}{drained}")
            }
        }
    }
}

fn named(hosts: &[&Host]) -> String {
    let mut names: Vec<_> = hosts.iter().map(|host| host.name.clone()).collect();
    names.sort();
    match names.len() {
        many if many > NAMES_MAX => format!("{many} hosts"),
        _ => sentence(&names),
    }
}

/// `disk=ssd, zone=a`.
fn selector(selector: &BTreeMap<String, String>) -> String {
    let labels = selector
        .iter()
        .map(|(label, value)| format!("{label}={value}"));
    labels.collect::<Vec<_>>().join(", ")
}

/// `spec.minReadySeconds` of the kinds that have it.
pub(super) fn min_ready_seconds(object: &Object) -> u32 {
    #[derive(Deserialize)]
    struct Body {
        spec: Option<Spec>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Spec {
        min_ready_seconds: Option<i64>,
    }
    let key = b"\"minReadySeconds\"";
    let may = matches!(object.kind, Kind::Deployment | Kind::DaemonSet)
        && object.body.windows(key.len()).any(|bytes| bytes == key);
    if !may {
        return 0;
    }
    let body = serde_json::from_slice::<Body>(&object.body).ok();
    let spec = body.and_then(|body| body.spec);
    let seconds = spec.and_then(|spec| spec.min_ready_seconds).unwrap_or(0);
    u32::try_from(seconds.max(0)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
