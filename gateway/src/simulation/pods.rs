//! How the pods of the workload that is rolled out behave: some revisions fail, on some hosts or on all.
//!
//! Pods of other workloads are ready at once. A pod of this one takes a while, and its behaviour is a part of its
//! manifest, so that an undo brings back the behaviour, too.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use beemesh_protocol::{
    HostId,
    ipc::UnitState,
    state::{Change, Kind, Object},
};
use beemesh_quadlet::health::{Health, Report, Status};
use harness::Chance;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::time::sleep;

use super::{rig::Rig, world::World};
use crate::cluster::strategy::Strategy;

/// The workload that is rolled out.
pub(super) const WEB: &str = "web";

/// The variable of the container with the behaviour of its pod.
const BEHAVIOUR: &str = "BEHAVIOUR";
/// The variable with the numbers of the hosts on which it behaves so.
const ON: &str = "ON";

/// How a pod behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Behaviour {
    /// It becomes ready, and stays ready.
    Good,
    /// Its image is missing, so the pod before it stays.
    NoImage,
    /// It fails before it is ready.
    Fails,
    /// It fails when it has been ready, before it counts as available.
    FailsSoon,
    /// It is never ready.
    Unready,
}

const BAD: [Behaviour; 4] = [
    Behaviour::NoImage,
    Behaviour::Fails,
    Behaviour::FailsSoon,
    Behaviour::Unready,
];

impl fmt::Display for Behaviour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl Behaviour {
    /// Returns the behaviour of the object's pod on this host.
    pub(super) fn of(object: &Object, host: HostId) -> Self {
        let (behaviour, hosts) = Self::written(object);
        if hosts.contains(&u64::from(host.0[0])) {
            behaviour
        } else {
            Self::Good
        }
    }

    /// Returns true if the object's pods become ready on none of these hosts.
    pub(super) fn is_bad_on_all<'a>(
        object: &Object,
        mut hosts: impl Iterator<Item = &'a HostId>,
    ) -> bool {
        hosts.all(|host| Self::of(object, *host) != Self::Good)
    }

    fn written(object: &Object) -> (Self, Vec<u64>) {
        let body: Value = serde_json::from_slice(&object.body).unwrap_or_default();
        let env = body.pointer("/spec/template/spec/containers/0/env");
        let value = |name: &str| {
            let all = env.and_then(Value::as_array)?;
            let found = all.iter().find(|one| one["name"] == name)?;
            found["value"].as_str().map(str::to_owned)
        };
        let written = value(BEHAVIOUR).unwrap_or_default();
        let behaviour = BAD.into_iter().find(|one| one.to_string() == written);
        let on = value(ON).unwrap_or_default();
        let hosts = on.split(' ').filter_map(|number| number.parse().ok());
        (behaviour.unwrap_or(Self::Good), hosts.collect())
    }
}

/// Draws a new version of the workload, for a cluster of hosts with these numbers.
pub(super) fn drawn(chance: &mut Chance, content: u64, hosts: u64) -> Change {
    let behaviour = match chance.below(2) {
        0 => Behaviour::Good,
        _ => *chance.pick(&BAD).expect("a behaviour"),
    };
    let all = chance.below(3) > 0;
    let on = (1..=hosts).filter(|_| all || chance.below(2) == 0);
    let on: Vec<String> = on.map(|number| number.to_string()).collect();
    let strategy = match chance.below(6) {
        0 => json!({"type": "Recreate"}),
        1 => json!({"rollingUpdate": {"maxUnavailable": 2}}),
        2 => json!({"rollingUpdate": {"maxUnavailable": "50%"}}),
        _ => json!({}),
    };
    let on_failure = match chance.below(6) {
        0 => "pause",
        _ => "undo",
    };
    let history = *chance.pick(&[0, 1, 3]).expect("a limit");
    let min_ready = *chance.pick(&[0, 0, 0, 3]).expect("a time");
    let replicas = *chance.pick(&[None, None, None, Some(2)]).expect("a number");
    // More than hosts, in half of them: they run side by side.
    let replicas = replicas.map(|few| if content.is_multiple_of(2) { few } else { 5 });
    let env = json!([
        {"name": BEHAVIOUR, "value": behaviour.to_string()},
        {"name": ON, "value": on.join(" ")},
        {"name": "N", "value": content.to_string()},
    ]);
    let container = json!({"env": env, "image": "localhost/web:1", "name": "main"});
    let body = json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": WEB, "annotations": {"beemesh.io/on-failure": on_failure}},
        "spec": {
            "minReadySeconds": min_ready,
            "progressDeadlineSeconds": 8,
            "revisionHistoryLimit": history,
            "selector": {"matchLabels": {"app": WEB}},
            "strategy": strategy,
            "template": {
                "metadata": {"labels": {"app": WEB}},
                "spec": {"containers": [container]},
            },
        },
    });
    let body = body.to_string().into_bytes();
    applied(Object {
        kind: Kind::Deployment,
        namespace: "default".into(),
        name: WEB.into(),
        hash: Sha256::digest(&body).into(),
        body,
        references: Vec::new(),
        replicas,
        selector: BTreeMap::new(),
    })
}

/// Applies the workload in this version.
pub(super) fn applied(object: Object) -> Change {
    Change::Apply {
        manifest: object.name.clone(),
        objects: vec![object],
        policy: None,
        keep: true,
        if_index: None,
    }
}

/// The version of the workload, in words.
pub(super) fn describe(object: &Object) -> String {
    let (behaviour, on) = Behaviour::written(object);
    let strategy = Strategy::of(object);
    format!(
        "{behaviour} on {on:?}, {:?} replicas, {strategy:?}",
        object.replicas
    )
}

/// A pod that was started and is not ready yet.
#[derive(Debug)]
pub(super) struct Fresh {
    pub(super) workload: String,
    /// The number of its revision.
    pub(super) revision: u64,
    /// Distinguishes it from pods before and after it.
    pub(super) run: u64,
    pub(super) behaviour: Behaviour,
}

impl World {
    /// Lets the pods that a host has just started become ready, or fail.
    pub(super) fn play(self: &Arc<Self>, host: HostId) {
        for fresh in self.rig(host).fresh() {
            let world = Arc::clone(self);
            let (ready, fails) =
                self.chance(|chance| (chance.millis(20, 1200), chance.millis(50, 1700)));
            tokio::spawn(async move { world.live(host, fresh, ready, fails).await });
        }
    }

    async fn live(&self, host: HostId, fresh: Fresh, ready: Duration, fails: Duration) {
        let rig = self.rig(host);
        let be_ready = |unit: &mut UnitState| unit.status = running(fresh.revision, 1);
        sleep(ready).await;
        match fresh.behaviour {
            Behaviour::Good | Behaviour::NoImage => rig.show(&fresh, be_ready),
            Behaviour::Fails => rig.show(&fresh, fail),
            Behaviour::FailsSoon => {
                rig.show(&fresh, be_ready);
                sleep(fails).await;
                rig.show(&fresh, fail);
            }
            Behaviour::Unready => {}
        }
    }
}

impl Rig {
    /// Changes the unit, unless the pod is gone by now.
    fn show(&self, fresh: &Fresh, change: impl FnOnce(&mut UnitState)) {
        if self.plays(&fresh.workload, fresh.run) {
            self.change(&fresh.workload, change);
        }
    }
}

/// Shows a pod of this revision that is not ready yet, or is ready.
pub(super) fn running(revision: u64, healthy: u32) -> String {
    let health = Health {
        healthy,
        total: 1,
        restarts: 0,
    };
    Report::from(Status::Running { health, revision }).line()
}

fn fail(unit: &mut UnitState) {
    let reason = "it fails".into();
    (unit.active, unit.result) = ("failed".into(), "exit-code".into());
    unit.status = Report::from(Status::Failed { reason }).line();
}
