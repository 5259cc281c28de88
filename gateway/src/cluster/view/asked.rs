//! The number of requested pods of a workload, the number of ready pods, and the reason if fewer pods run.
//!
//! Pure, like its parent. [`crate::cluster::placement`] decides which host runs a workload; this module explains the
//! decision.

use std::collections::{BTreeMap, BTreeSet};

use beemesh_protocol::{
    HostId,
    peer::{Phase, WorkloadReport},
    state::{Host, JobEnd, Kind, Object},
};
use beemesh_quadlet::manifest::is_workload;
use serde::Deserialize;

use super::{Scene, sentence};
use crate::cluster::{
    labels::{is_automatic, is_unlabelled},
    placement,
    reports::is_in_trouble,
    state::{State, Workload},
};

/// Maximum number of names in a message.
const NAMES_MAX: usize = 5;

/// The pods that a workload requests.
pub(super) struct Asked {
    /// The number of pods.
    pub(super) pods: usize,
    /// The hosts that must run them.
    pub(super) hosts: BTreeSet<HostId>,
    /// The reason for which fewer hosts than pods run the workload, as a message; empty if there are enough hosts.
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
        let hosts = self.wanted(workload);
        let pods = placement::asked(&self.state, workload);
        let mut waits = self.waits(workload);
        let over = self.failed_elsewhere(workload);
        let is_over = !over.is_empty();
        waits.extend(over);
        let between = is_between_attempts(&self.state, workload);
        let given = hosts.len() + self.ends_of_hosts_that_left(workload).count();
        let none = given == 0 && object.replicas != Some(0);
        if given >= pods && !none && waits.is_empty() {
            let (reason, may_change) = (String::new(), between);
            return Asked {
                pods,
                hosts,
                reason,
                may_change,
            };
        }
        let short = Short::of(object, self.state.hosts());
        let lacks = short.may.len() < pods || short.may.is_empty();
        let reason = if lacks || waits.is_empty() {
            short.words(object, pods, hosts.len())
        } else {
            waits.join("; ")
        };
        let away = |host: &&Host| !self.reachable.contains(&host.id);
        let may_get = short.may.len() > given && (waits.is_empty() || short.may.iter().any(away));
        Asked {
            pods,
            may_change: !is_over && (short.may_change || may_get || between),
            reason,
            hosts,
        }
    }

    /// The number of ready pods.
    pub(super) fn ready(&self, workload: &Workload, asked: &Asked) -> usize {
        let ready = |host: &&HostId| self.is_ready(**host, workload);
        let ended = self.ends_of_hosts_that_left(workload);
        asked.hosts.iter().filter(ready).count() + ended.filter(|end| end.succeeded).count()
    }

    /// The ends of a Job's pods on hosts that are no longer members.
    fn ends_of_hosts_that_left(&self, workload: &Workload) -> impl Iterator<Item = &JobEnd> {
        let seats = self.state.seats(&workload.name).iter();
        let left = seats.filter(|seat| seat.host.is_none());
        left.filter_map(|seat| seat.end.as_ref())
    }

    /// Whether the workload is not as requested and stays so without a change by a user.
    pub(super) fn is_stuck(&self, workload: &Workload, asked: &Asked, ready: usize) -> bool {
        let concluded = |host: &HostId| self.is_concluded(*host, workload);
        let lacks = !asked.reason.is_empty() || ready < asked.hosts.len();
        lacks && !asked.may_change && asked.hosts.iter().all(concluded)
    }

    /// Whether the host runs this revision as requested, or has completed it. The end of a Job that the cluster has
    /// recorded holds even if its host is lost.
    fn is_ready(&self, host: HostId, workload: &Workload) -> bool {
        if let Some(end) = self.job_end(host, workload) {
            return end.succeeded;
        }
        self.says(host, workload, |report| match report.phase {
            Phase::Running => report.healthy == report.total,
            Phase::Succeeded => true,
            Phase::Pending | Phase::Starting | Phase::Stopped | Phase::Failed | Phase::Removing => {
                false
            }
        })
    }

    /// Whether no container has ended lately on any of these hosts. A container that was restarted is ready, but may
    /// fail again.
    pub(super) fn is_calm(&self, workload: &Workload, hosts: &BTreeSet<HostId>) -> bool {
        let calm = |host: &HostId| {
            let report = self.report(*host, &workload.name);
            !report.is_some_and(is_in_trouble)
        };
        hosts.iter().all(calm)
    }

    /// Whether the host runs this revision as requested, or has given it up. A failed attempt of a Job is followed by
    /// another one unless the cluster has recorded the end of the Job.
    fn is_concluded(&self, host: HostId, workload: &Workload) -> bool {
        let more = workload.job.is_some() && self.state.is_seated(workload);
        let given_up = |report: &WorkloadReport| match report.phase {
            Phase::Stopped => true,
            Phase::Failed => !(more && report.ended),
            _ => false,
        };
        self.job_end(host, workload).is_some()
            || self.is_ready(host, workload)
            || self.says(host, workload, given_up)
    }

    /// Returns true if the host is reachable, and its report satisfies the condition and is of the revision that the host
    /// has to run, or of one that this state does not include yet.
    fn says(
        &self,
        host: HostId,
        workload: &Workload,
        is_so: impl Fn(&WorkloadReport) -> bool,
    ) -> bool {
        let runs = placement::runs(&self.state, workload, host);
        let index = runs.map_or(workload.index, |runs| runs.index);
        let report = self.report(host, &workload.name);
        let is_later = |report: &WorkloadReport| report.index > self.applied;
        let report = report.filter(|report| report.index == index || is_later(report));
        report.is_some_and(is_so) && self.reachable.contains(&host)
    }
}

/// What the cluster lacks to run an object as requested: the field that asks for it, and a message. `None` if it can run
/// the object now or may be able to soon.
pub(crate) fn lack(
    object: &Object,
    members: &BTreeMap<HostId, Host>,
) -> Option<(&'static str, String)> {
    let short = Short::of(object, members);
    let may = short.may.len();
    let pods = object.replicas.map_or(1, |replicas| {
        usize::try_from(replicas).unwrap_or(usize::MAX)
    });
    if !is_workload(object.kind) || may >= pods || short.may_change {
        return None;
    }
    let field = match (object.replicas, may) {
        (Some(_), 1..) => "spec.replicas",
        _ if object.selector.is_empty() => "",
        _ if object.kind == Kind::Pod => "spec.nodeSelector",
        _ => "spec.template.spec.nodeSelector",
    };
    Some((field, short.words(object, pods, may)))
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
    /// A host has not set its automatic labels yet, and the object selects by such a label.
    may_change: bool,
}

impl<'a> Short<'a> {
    fn of(object: &Object, members: &'a BTreeMap<HostId, Host>) -> Self {
        let all = members.values();
        let selected = all.filter(|host| placement::selects(host, &object.selector));
        let (drained, may) = selected.partition(|host| host.drained);
        let by_kind = object.selector.keys().any(|label| is_automatic(label));
        Self {
            may,
            drained,
            may_change: by_kind && members.values().any(is_unlabelled),
        }
    }

    /// The message that explains why only this number of hosts run the object.
    fn words(&self, object: &Object, pods: usize, hosts: usize) -> String {
        let selector = selector(&object.selector);
        let (may, drained) = (named(&self.may), named(&self.drained));
        match (self.may.len(), self.drained.len()) {
            (0, 0) => format!("no host matches nodeSelector {selector}"),
            (0, _) if selector.is_empty() => "every host is drained".to_owned(),
            (0, _) => {
                format!("every host that matches nodeSelector {selector} is drained: {drained}")
            }
            (count, _) if count >= pods || count > hosts => {
                format!("{hosts} of {pods} pods have a host so far")
            }
            (count, left) => {
                let matches = match (selector.as_str(), count) {
                    ("", 1) => "1 host can run one".to_owned(),
                    ("", _) => format!("{count} hosts can run one each"),
                    (selector, 1) => format!("1 host matches nodeSelector {selector}"),
                    (selector, _) => {
                        format!("{count} hosts match nodeSelector {selector}, for one each")
                    }
                };
                let drained = match left {
                    0 => String::new(),
                    1 => format!("; {drained} is drained"),
                    _ => format!("; {drained} are drained"),
                };
                format!("{pods} replicas are requested, and {matches}: {may}{drained}")
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
