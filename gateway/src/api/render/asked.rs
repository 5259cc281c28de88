//! How many pods of a workload are asked for, how many are ready, and why no more run.
//!
//! Pure, like its parent. Who runs what is decided by [`crate::place`]; this tells it in words.

use std::collections::{BTreeMap, BTreeSet};

use beemesh_protocol::{
    HostId,
    peer::{Phase, WorkloadReport},
    state::{Host, JobEnd, Kind, Object},
};
use beemesh_quadlet::manifest::is_workload;
use serde::Deserialize;

use super::{Scene, sentence};
use crate::{
    labels::{is_automatic, is_unlabelled},
    observe::is_in_trouble,
    place,
    state::{State, Workload},
};

/// More names than these make no sentence.
const NAMES_MAX: usize = 5;

/// What is asked for.
pub(super) struct Asked {
    /// How many pods.
    pub(super) pods: usize,
    /// The hosts that are to run them.
    pub(super) hosts: BTreeSet<HostId>,
    /// Why those are fewer, in words for a person; empty when they are as many.
    pub(super) reason: String,
    /// More hosts may come by themselves.
    may_change: bool,
}

impl Asked {
    /// Whether so many pods that are ready are what is asked for.
    pub(super) fn is_met(&self, ready: usize) -> bool {
        self.reason.is_empty() && ready == self.pods
    }
}

impl Scene {
    pub(super) fn asked(&self, workload: &Workload) -> Asked {
        let object = &workload.object;
        let hosts = self.wanted(workload);
        let pods = place::asked(&self.state, workload);
        let waits = self.waits(workload);
        let given = hosts.len() + self.ends_of_hosts_that_left(workload).count();
        let none = given == 0 && object.replicas != Some(0);
        if given >= pods && !none && waits.is_empty() {
            let (reason, may_change) = (String::new(), false);
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
        let may_get =
            short.may.len() > given && (waits.is_empty() || short.may.iter().any(away));
        Asked {
            pods,
            may_change: short.may_change || may_get || is_between_attempts(&self.state, workload),
            reason,
            hosts,
        }
    }

    /// How many pods are ready.
    pub(super) fn ready(&self, workload: &Workload, asked: &Asked) -> usize {
        let ready = |host: &&HostId| self.is_ready(**host, workload);
        let ended = self.ends_of_hosts_that_left(workload);
        asked.hosts.iter().filter(ready).count() + ended.filter(|end| end.succeeded).count()
    }

    /// The ends of a Job's pods whose host is no member any more.
    fn ends_of_hosts_that_left(&self, workload: &Workload) -> impl Iterator<Item = &JobEnd> {
        let seats = self.state.seats(&workload.name).iter();
        let left = seats.filter(|seat| seat.host.is_none());
        left.filter_map(|seat| seat.end.as_ref())
    }

    /// Whether it is not as it should be, and will not be by itself.
    pub(super) fn is_stuck(&self, workload: &Workload, asked: &Asked, ready: usize) -> bool {
        let concluded = |host: &HostId| self.is_concluded(*host, workload);
        let lacks = !asked.reason.is_empty() || ready < asked.hosts.len();
        lacks && !asked.may_change && asked.hosts.iter().all(concluded)
    }

    /// Whether the host runs this revision as it should, or has done its work.
    fn is_ready(&self, host: HostId, workload: &Workload) -> bool {
        self.says(host, workload, |report| match report.phase {
            Phase::Running => report.healthy == report.total && !is_in_trouble(report),
            Phase::Succeeded => true,
            Phase::Pending | Phase::Starting | Phase::Stopped | Phase::Failed | Phase::Removing => {
                false
            }
        })
    }

    /// Whether the host runs this revision as it should, or has given it up.
    fn is_concluded(&self, host: HostId, workload: &Workload) -> bool {
        let given_up =
            |report: &WorkloadReport| matches!(report.phase, Phase::Stopped | Phase::Failed);
        self.is_ready(host, workload) || self.says(host, workload, given_up)
    }

    /// Whether what a host that can be reached says of this revision is so.
    fn says(
        &self,
        host: HostId,
        workload: &Workload,
        is_so: impl Fn(&WorkloadReport) -> bool,
    ) -> bool {
        let report = self.report(host, &workload.name);
        let report = report.filter(|report| report.index >= workload.index);
        report.is_some_and(is_so) && self.reachable.contains(&host)
    }
}

/// What a cluster lacks to run an object as it asks, in words; empty when it can be run, or soon may.
pub(in crate::api) fn lack(object: &Object, members: &BTreeMap<HostId, Host>) -> String {
    let short = Short::of(object, members);
    let may = short.may.len();
    let pods = object.replicas.map_or(1, |replicas| {
        usize::try_from(replicas).unwrap_or(usize::MAX)
    });
    if !is_workload(object.kind) || may >= pods || short.may_change {
        return String::new();
    }
    short.words(object, pods, may)
}

/// Whether a Job has failed, and is tried again after a pause.
fn is_between_attempts(state: &State, workload: &Workload) -> bool {
    let mut seats = state.seats(&workload.name).iter();
    workload.job.is_some() && seats.any(|seat| seat.end.is_none() && seat.index == 0)
}

/// The hosts that a `nodeSelector` matches.
struct Short<'a> {
    may: Vec<&'a Host>,
    drained: Vec<&'a Host>,
    /// Some host has not told its kind yet, by which the object asks.
    may_change: bool,
}

impl<'a> Short<'a> {
    fn of(object: &Object, members: &'a BTreeMap<HostId, Host>) -> Self {
        let all = members.values();
        let selected = all.filter(|host| place::selects(host, &object.selector));
        let (drained, may) = selected.partition(|host| host.drained);
        let by_kind = object.selector.keys().any(|label| is_automatic(label));
        Self {
            may,
            drained,
            may_change: by_kind && members.values().any(is_unlabelled),
        }
    }

    /// Why only so many hosts run one.
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
                format!("{hosts} of {pods} pods have a host yet")
            }
            (count, left) => {
                let matches = match (selector.as_str(), count) {
                    ("", 1) => "1 host may run one".to_owned(),
                    ("", _) => format!("{count} hosts may run one each"),
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
                format!("{pods} pods are asked for, and {matches}: {may}{drained}")
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
mod tests {
    use beemesh_protocol::{api, state::Change};
    use serde_json::json;

    use super::super::tests::{changed, h, pod, report, scene, with};
    use super::*;

    /// Of the scene's three hosts, with `drained` ones: a Deployment's shown form once each host that is to run it does.
    fn shown(replicas: Option<u32>, selector: &[(&str, &str)], drained: &[u8]) -> api::Workload {
        let mut scene = scene();
        for host in drained {
            let (host, drained) = (h(*host), true);
            changed(&mut scene, 7, Change::DrainHost { host, drained });
        }
        let apply = Change::Apply {
            manifest: "five".into(),
            objects: vec![Object {
                kind: Kind::Deployment,
                replicas,
                ..pod("five", selector)
            }],
            policy: None,
        };
        changed(&mut scene, 8, apply);
        let workload = scene.state.workload("five").unwrap().clone();
        let wanted = scene.wanted(&workload);
        for host in [1, 2, 3]
            .into_iter()
            .filter(|host| wanted.contains(&h(*host)))
        {
            with(
                &mut scene,
                host,
                8,
                vec![report("five", 8, Phase::Running, 2)],
            );
        }
        scene.workload("five").unwrap()
    }

    #[test]
    fn what_runs_is_counted_against_what_was_asked_for() {
        let ssd = [("disk", "ssd")];
        let second = [("n", "2")];
        for (replicas, selector, drained, counts, reason) in [
            (None, &[][..], &[][..], (3, 3), ""),
            (Some(2), &[], &[], (2, 2), ""),
            (Some(0), &[], &[], (0, 0), ""),
            (Some(0), &ssd, &[], (0, 0), ""),
            (None, &[], &[3], (2, 2), ""),
            (
                Some(5),
                &[],
                &[],
                (3, 5),
                "5 pods are asked for, and 3 hosts may run one each: h1, h2 and h3",
            ),
            (
                Some(3),
                &[],
                &[3],
                (2, 3),
                "3 pods are asked for, and 2 hosts may run one each: h1 and h2; h3 is drained",
            ),
            (
                Some(2),
                &second,
                &[],
                (1, 2),
                "2 pods are asked for, and 1 host matches nodeSelector n=2: h2",
            ),
            (
                None,
                &ssd,
                &[],
                (0, 0),
                "no host matches nodeSelector disk=ssd",
            ),
            (
                Some(1),
                &ssd,
                &[],
                (0, 1),
                "no host matches nodeSelector disk=ssd",
            ),
            (
                None,
                &second,
                &[2],
                (0, 0),
                "every host that matches nodeSelector n=2 is drained: h2",
            ),
            (None, &[], &[1, 2, 3], (0, 0), "every host is drained"),
        ] {
            let five = shown(replicas, selector, drained);
            assert_eq!((five.ready, five.asked), counts, "{five:?}");
            assert_eq!(five.reason, reason);
            assert_eq!(
                (five.settled, five.stuck),
                (reason.is_empty(), !reason.is_empty())
            );
        }
    }

    #[test]
    fn a_label_that_hosts_have_not_given_themselves_yet_is_waited_for() {
        let os = [("kubernetes.io/os", "linux")];
        let five = shown(None, &os, &[]);
        assert_eq!(
            five.reason,
            "no host matches nodeSelector kubernetes.io/os=linux"
        );
        assert!(!five.settled && !five.stuck, "{five:?}");
    }

    #[test]
    fn an_apply_says_what_the_cluster_lacks() {
        let state = scene().state;
        let lacks = |kind, replicas, selector: &[(&str, &str)]| {
            let object = Object {
                kind,
                replicas,
                ..pod("five", selector)
            };
            lack(&object, state.hosts())
        };
        use Kind::{ConfigMap, Deployment, Pod};
        assert_eq!(lacks(Deployment, Some(3), &[]), "");
        assert_eq!(lacks(Pod, None, &[("n", "2")]), "");
        assert_eq!(lacks(Deployment, Some(0), &[("n", "9")]), "");
        assert_eq!(lacks(ConfigMap, None, &[]), "");
        assert_eq!(
            lacks(Pod, None, &[("beta.kubernetes.io/arch", "arm64")]),
            ""
        );
        assert_eq!(
            lacks(Deployment, Some(4), &[]),
            "4 pods are asked for, and 3 hosts may run one each: h1, h2 and h3"
        );
        assert_eq!(
            lacks(Pod, None, &[("n", "9")]),
            "no host matches nodeSelector n=9"
        );
    }

    #[test]
    fn a_pod_is_ready_while_no_container_of_it_is_in_trouble() {
        for (phase, healthy, message, ready, stuck) in [
            (Phase::Running, 2, "", true, false),
            (
                Phase::Running,
                2,
                "side ended with 1 3 min ago",
                false,
                false,
            ),
            (Phase::Running, 1, "", false, false),
            (Phase::Succeeded, 0, "", true, false),
            (Phase::Starting, 2, "", false, false),
            (Phase::Failed, 0, "no image", false, true),
            (Phase::Stopped, 0, "stopped", false, true),
        ] {
            let mut scene = scene();
            let report = WorkloadReport {
                message: message.into(),
                ..report("lone", 6, phase, healthy)
            };
            with(&mut scene, 2, 6, vec![report]);
            let lone = scene.workload("lone").unwrap();
            let told = (lone.ready == 1, lone.settled, lone.stuck);
            assert_eq!(told, (ready, ready, stuck), "{phase:?} {healthy} {message}");
            scene.reachable.remove(&h(2));
            let lone = scene.workload("lone").unwrap();
            assert_eq!((lone.ready, lone.settled, lone.stuck), (0, false, false));
        }
    }

    #[test]
    fn an_author_may_ask_for_longer() {
        let object = |kind, body: serde_json::Value| Object {
            kind,
            body: body.to_string().into_bytes(),
            ..pod("web", &[])
        };
        let asks = json!({"spec": {"minReadySeconds": 30}});
        for (object, expected) in [
            (object(Kind::Deployment, asks.clone()), 30),
            (object(Kind::DaemonSet, asks.clone()), 30),
            (object(Kind::Pod, asks), 0),
            (object(Kind::Deployment, json!({"spec": {}})), 0),
            (
                object(Kind::Deployment, json!({"spec": {"minReadySeconds": -1}})),
                0,
            ),
        ] {
            assert_eq!(min_ready_seconds(&object), expected, "{object:?}");
        }
    }
}
