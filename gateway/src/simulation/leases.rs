//! A singleton on simulated hosts: the leases that their gateways renew, and the supervisors that obey them.
//!
//! The clock of each host is a little fast or slow. All times of the leases are a twentieth of the real ones, because faults
//! are short here. A supervisor lives on when its gateway ends. A power cut ends the pod and its lease.
//!
//! The test checks at every moment that the lease of no two hosts lasts, and that no two hosts run the pod; and in the end
//! that one host runs it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use beemesh_protocol::{
    HostId,
    state::{Change, Kind, Object},
};
use beemesh_quadlet::{lease, manifest::SINGLETON};
use harness::Chance;
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::time::{Instant, sleep, sleep_until};

use super::{
    manifests::at,
    pods::applied,
    world::{World, name},
};
use crate::{
    cluster::state::{LOSES, State},
    controllers::leases::{Leases, Shared},
    raft::{Asking, Grant, Node},
    workloads::leases::own,
};

/// The name of the singleton.
pub(super) const SINGLE: &str = "single";
/// The label of the hosts that may run it.
const LABEL: &str = "single";
/// The real times are this many times longer.
const SCALE: u32 = 20;
/// How often a gateway renews the lease, and how long it waits for an answer: slow answers shall count.
const RENEW: Duration = Duration::from_millis(100);
const ASK_MAX: Duration = Duration::from_secs(1);
/// The pause after a request without success.
const RETRY: Duration = Duration::from_millis(25);
/// How often a supervisor looks at its lease.
const LOOK: Duration = Duration::from_millis(5);
/// The clocks of two hosts drift apart by at most one in [`lease::DRIFT`]: each by half of that, in millionths.
const DRIFT_MAX: u64 = 4975;

/// The clock of a host.
#[derive(Debug, Clone, Copy)]
struct Clock {
    begun: Instant,
    /// Its rate, in millionths.
    rate: u64,
}

impl Clock {
    fn now(self) -> Duration {
        let real = u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(real * self.rate / 1_000_000)
    }

    /// When this clock has the time.
    fn when(self, time: Duration) -> Instant {
        let own = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.begun + Duration::from_micros(own * 1_000_000 / self.rate)
    }
}

/// What a host has of the singleton, apart from its unit.
pub(super) struct Holder {
    clock: Clock,
    /// The end of its lease, on its clock.
    lease: Mutex<Option<Duration>>,
    runs: Mutex<bool>,
}

impl Holder {
    pub(super) fn new(chance: &mut Chance) -> Self {
        let rate = 1_000_000 - DRIFT_MAX + chance.below(2 * DRIFT_MAX + 1);
        let begun = Instant::now();
        Self {
            clock: Clock { begun, rate },
            lease: Mutex::default(),
            runs: Mutex::default(),
        }
    }

    /// The time of the host's clock, for its gateway.
    pub(super) fn now(&self) -> Instant {
        self.clock.begun + self.clock.now()
    }

    fn left(&self) -> Duration {
        let end = *self.lease.lock().unwrap();
        end.map_or(Duration::ZERO, |end| end.saturating_sub(self.clock.now()))
    }

    /// Simulates a power cut.
    pub(super) fn power(&self) {
        *self.lease.lock().unwrap() = None;
        *self.runs.lock().unwrap() = false;
    }
}

impl World {
    /// Creates the leases of a gateway that starts, and what answers the hosts that ask for them.
    pub(super) fn leases(self: &Arc<Self>, host: HostId) -> (Shared, Grant) {
        let leases = Shared::new(Leases::new(lease::term_of_leader() / SCALE));
        let (asked, world) = (leases.clone(), Arc::clone(self));
        let grant = move |asking: &Asking<'_>| {
            let mut leases = asked.lock();
            let view = Arc::clone(&asking.view.borrow());
            let whom = (asking.term, asking.host);
            let now = world.holder(host).now();
            leases.grant(whom, asking.workloads, &view, now)
        };
        (leases, Arc::new(grant))
    }

    /// Renews the lease of a host until this life of its gateway ends.
    pub(super) async fn renew(self: Arc<Self>, host: HostId, node: Node, life: u64) {
        let mut view = node.state();
        while self.lives(host, life) {
            let names = own(&view.borrow_and_update().state, host);
            let mut pause = RENEW;
            if !names.is_empty() {
                let sent = self.holder(host).clock.now();
                let names = names.into_iter().collect();
                let granted = node.lease(names, Instant::now() + ASK_MAX).await;
                if !self.lives(host, life) {
                    return;
                }
                match granted.is_some_and(|all| all.iter().any(|one| one == SINGLE)) {
                    true => self.granted(host, sent + lease::TERM / SCALE),
                    false => pause = RETRY,
                }
            }
            let next = Instant::now() + pause;
            tokio::select! {
                biased;
                () = sleep_until(next) => {}
                Ok(()) = view.changed() => {}
            }
        }
    }

    /// Writes the lease of a host. The lease of no other host may last.
    fn granted(&self, host: HostId, end: Duration) {
        let own = self.holder(host);
        {
            let mut lease = own.lease.lock().unwrap();
            *lease = (*lease).max(Some(end));
        }
        let is_over = own.left().is_zero();
        for (other, holder) in self.holders() {
            let ends = *holder.lease.lock().unwrap();
            let until = ends.map(|ends| holder.clock.when(ends));
            if *other != host && !is_over && until.is_some_and(|until| until > Instant::now()) {
                let words = format!("{} and {} have the lease", name(*other), name(host));
                self.violated(words);
            }
        }
    }

    /// Obeys the lease of a host: runs the pod while its unit is up and the lease is long enough.
    pub(super) async fn supervise(self: Arc<Self>, host: HostId) {
        loop {
            sleep(LOOK).await;
            let (holder, is_up) = (self.holder(host), self.rig(host).is_active(SINGLE));
            let left = holder.left();
            let runs = *holder.runs.lock().unwrap();
            // Its containers may live until they are killed.
            let least = if runs { lease::KILL_AT } else { lease::STOP_AT };
            let shall = is_up && left > least / SCALE;
            if runs == shall {
                continue;
            }
            *holder.runs.lock().unwrap() = shall;
            let verb = if shall { "runs" } else { "ends" };
            self.say(&format!("{} {verb} {SINGLE}", name(host)));
            let running = self.running();
            if running.len() > 1 {
                let names: Vec<_> = running.iter().map(|host| name(*host)).collect();
                self.violated(format!("{names:?} run {SINGLE}"));
            }
        }
    }

    /// The hosts that run the singleton.
    fn running(&self) -> BTreeSet<HostId> {
        let all = self.holders().iter();
        let runs = all.filter(|(_, holder)| *holder.runs.lock().unwrap());
        runs.map(|(host, _)| *host).collect()
    }

    /// Checks after a quiet time that the host of its seat alone runs the singleton. Returns the difference as a message.
    pub(super) fn is_single(&self, state: &State) -> Option<String> {
        let seats = state.seats(SINGLE).iter();
        let seated: BTreeSet<HostId> = seats.filter_map(|seat| seat.host).collect();
        let running = self.running();
        let names = |hosts: &BTreeSet<HostId>| hosts.iter().copied().map(name).collect::<Vec<_>>();
        (self.has_single() && running != seated).then(|| {
            let (running, seated) = (names(&running), names(&seated));
            format!("{running:?} run {SINGLE}, which is to run on {seated:?}")
        })
    }

    /// Creates the singleton, and moves and deletes it, until the simulation is over.
    pub(super) async fn mover(self: Arc<Self>, mut chance: Chance) {
        while !self.is_over() {
            sleep(chance.millis(100, 2000)).await;
            let up = self.up_nodes();
            let Some(node) = chance.pick(&up) else {
                continue;
            };
            let state = node.state().borrow().state.clone();
            if state.level() < LOSES {
                continue;
            }
            let members: Vec<HostId> = state.hosts().keys().copied().collect();
            let to = *chance.pick(&members).expect("a member");
            let workload = SINGLE.to_owned();
            let (fate, keep) = (chance.below(8), chance.below(4) == 0);
            let mut changes: Vec<Change> = members
                .iter()
                .filter(|host| **host == to || !keep)
                .map(|host| label(*host, *host == to))
                .collect();
            if state.workload(SINGLE).is_none() {
                changes.push(single());
            } else if fate == 0 {
                changes = vec![Change::DeleteWorkload { workload }];
            }
            self.say(&format!("{SINGLE} is to go to {}: {fate}", name(to)));
            self.change(node, changes).await;
        }
    }

    /// Lets all hosts run the singleton.
    pub(super) async fn let_all_run_it(&self) {
        while self.has_single() {
            if let Some(node) = self.up_nodes().first() {
                let hosts = self.hosts().into_iter();
                let members = node.state().borrow().state.clone();
                let there = hosts.filter(|host| members.hosts().contains_key(host));
                let changes = there.map(|host| label(host, true)).collect();
                if self.change(node, changes).await {
                    return;
                }
            }
            sleep(RENEW).await;
        }
    }

    async fn change(&self, node: &Node, changes: Vec<Change>) -> bool {
        let now_ms = self.clock_ms();
        let commands = changes.into_iter().map(|change| at(now_ms, change));
        let soon = Instant::now() + Duration::from_secs(2);
        node.propose(commands.collect(), soon).await.is_ok()
    }
}

fn label(host: HostId, set: bool) -> Change {
    let labels = BTreeMap::from([(LABEL.to_owned(), "yes".to_owned())]);
    Change::LabelHost {
        host,
        set: if set { labels } else { BTreeMap::new() },
        remove: if set {
            Vec::new()
        } else {
            vec![LABEL.to_owned()]
        },
    }
}

fn single() -> Change {
    let container = json!({"image": "localhost/single:1", "name": "main"});
    let body = json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": SINGLE, "annotations": {SINGLETON: "true"}},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"app": SINGLE}},
            "template": {
                "metadata": {"labels": {"app": SINGLE}},
                "spec": {"containers": [container], "nodeSelector": {LABEL: "yes"}},
            },
        },
    });
    let body = body.to_string().into_bytes();
    applied(Object {
        kind: Kind::Deployment,
        namespace: "default".into(),
        name: SINGLE.into(),
        hash: Sha256::digest(&body).into(),
        body,
        references: Vec::new(),
        replicas: Some(1),
        selector: BTreeMap::from([(LABEL.to_owned(), "yes".to_owned())]),
    })
}
