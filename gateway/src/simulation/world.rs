//! The hosts, the clients and the faults.

mod clients;
mod end;
mod faults;
mod membership;

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use beemesh_protocol::HostId;
use harness::{Chance, History};
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use super::{
    invariants::Checks,
    leader::lead,
    leases::Holder,
    net::{Net, Socket},
    reports::observe,
    rig::{Rig, execute},
};
use crate::{
    cluster::{
        consensus::Role,
        state::{ASSIGNED, LOSES, ROLLED},
    },
    controllers::voters::keep_membership,
    raft::{Faulty, Node, Settings, View, tests::host},
};

/// Number of manifests that the clients write.
const MANIFESTS: u64 = 3;
const CLIENTS: u64 = 5;
/// How long faults happen.
const TROUBLE: Duration = Duration::from_secs(20);
/// Timeout for lost voters; some faults last longer.
const LOST_AFTER: Duration = Duration::from_secs(5);
/// All hosts agree within this time after the last fault ends.
const AGREE_MAX: Duration = Duration::from_secs(60);

struct Machine {
    dir: TempDir,
    disk: Mutex<Faulty>,
    rig: Rig,
    life: AtomicU64,
    /// Held while its gateway starts or ends.
    running: tokio::sync::Mutex<Option<Node>>,
}

/// The whole simulation.
pub(super) struct World {
    chance: Mutex<Chance>,
    net: Arc<Net>,
    machines: BTreeMap<HostId, Machine>,
    history: Mutex<History>,
    /// Hashes of the states, by the index of their last entry.
    states: Mutex<BTreeMap<u64, [u8; 32]>>,
    violations: Mutex<Vec<String>>,
    /// Number of admitted hosts, which are the first ones of the map.
    members: AtomicUsize,
    values: AtomicU64,
    /// What was wrong at the last check.
    last: Mutex<Option<String>>,
    over: AtomicBool,
    begun: Instant,
    /// When the cluster gets the level at which pods have seats, if at all.
    seats: Option<Instant>,
    /// When the cluster gets the level at which workloads have rollouts, if at all.
    rolled: Option<Instant>,
    /// True if a cluster with rollouts gives up hosts.
    loses: bool,
    /// True if there is a singleton.
    single: bool,
    holders: BTreeMap<HostId, Holder>,
    seed: u64,
    checks: Arc<Checks>,
    /// The hosts on which a Job has completed, by its name and the log index that created it.
    pub(super) completed: Mutex<BTreeMap<(String, u64), Vec<HostId>>>,
}

impl World {
    /// Runs the simulation of a seed.
    pub(super) async fn run(seed: u64) -> Arc<Self> {
        let mut chance = Chance::new(seed, 1);
        let founders = if chance.below(3) == 0 { 5 } else { 3 };
        let newcomers = *chance.pick(&[0, 1, 2]).expect("a number");
        let seats = *chance.pick(&[None, Some(0), Some(8)]).expect("a time");
        // Half of the clusters have rollouts from the beginning, and some of those with seats get them later.
        let (seats, rolled) = match Chance::new(seed, 3).below(4) {
            0 | 1 => (Some(0), Some(0)),
            2 => (seats, seats.map(|_| 10)),
            _ => (seats, None),
        };
        let time = |after| Instant::now() + Duration::from_secs(after);
        let (seats, rolled) = (seats.map(time), rolled.map(time));
        let checks = Arc::new(Checks::new());
        let machine = |number| {
            let host = host(number);
            (host, Machine::new(host, Arc::clone(&checks)))
        };
        let machines: BTreeMap<_, _> = (1..=founders + newcomers).map(machine).collect();
        let loses = Chance::new(seed, 4).below(2) == 0;
        let mut drift = Chance::new(seed, 6);
        let holders = machines.keys();
        let holders = holders.map(|host| (*host, Holder::new(&mut drift)));
        let holders = holders.collect();
        let world = Arc::new(Self {
            net: Net::new(Chance::new(seed, 2)),
            chance: Mutex::new(chance),
            machines,
            history: Mutex::default(),
            states: Mutex::default(),
            violations: Mutex::default(),
            members: AtomicUsize::new(founders.into()),
            values: AtomicU64::new(1),
            last: Mutex::default(),
            over: AtomicBool::new(false),
            begun: Instant::now(),
            seats,
            rolled,
            loses,
            single: loses && rolled.is_some() && Chance::new(seed, 5).below(3) > 0,
            holders,
            seed,
            checks,
            completed: Mutex::default(),
        });
        world.form().await;
        let mut clients = JoinSet::new();
        for number in 0..CLIENTS {
            let chance = Chance::new(seed, 10 + number);
            clients.spawn(Arc::clone(&world).client(chance));
        }
        if world.rolled.is_some() {
            clients.spawn(Arc::clone(&world).user(Chance::new(seed, 4)));
        }
        if world.single {
            for host in world.hosts() {
                tokio::spawn(Arc::clone(&world).supervise(host));
            }
            clients.spawn(Arc::clone(&world).mover(Chance::new(seed, 7)));
        }
        while world.begun.elapsed() < TROUBLE && world.violations().is_empty() {
            world.strike().await;
        }
        world.over.store(true, Ordering::Relaxed);
        while clients.join_next().await.is_some() {}
        world.mend().await;
        world
    }

    /// Returns the violations found so far.
    pub(super) fn violations(&self) -> Vec<String> {
        let mut all = self.violations.lock().unwrap().clone();
        all.extend(self.checks.violations());
        all
    }

    pub(super) fn checks(&self) -> &Checks {
        &self.checks
    }

    /// Returns a stream of random numbers of this seed.
    pub(super) fn stream(&self, number: u64) -> Chance {
        Chance::new(self.seed, 1000 + number)
    }

    pub(super) fn violated(&self, what: String) {
        self.say(&what);
        self.violations.lock().unwrap().push(what);
    }

    pub(super) fn rig(&self, host: HostId) -> &Rig {
        &self.machines[&host].rig
    }

    pub(super) fn holder(&self, host: HostId) -> &Holder {
        &self.holders[&host]
    }

    pub(super) fn holders(&self) -> &BTreeMap<HostId, Holder> {
        &self.holders
    }

    /// Returns true if there is a singleton.
    pub(super) fn has_single(&self) -> bool {
        self.single
    }

    /// Returns the running gateways.
    pub(super) fn up_nodes(&self) -> Vec<Node> {
        let up = self.net.up().into_iter();
        up.map(|(_, node, _)| node).collect()
    }

    /// Returns true if this life of a host's gateway has not ended.
    pub(super) fn lives(&self, host: HostId, life: u64) -> bool {
        self.net.lives(host, life)
    }

    /// Returns the hosts with a running gateway.
    pub(super) fn up(&self) -> BTreeSet<HostId> {
        self.net.up().iter().map(|(host, ..)| *host).collect()
    }

    /// Returns the common clock of all hosts, in milliseconds.
    pub(super) fn clock_ms(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Returns true if the cluster has seats before clients write.
    pub(super) fn begins_with_seats(&self) -> bool {
        self.seats.is_some_and(|at| at <= self.begun)
    }

    /// Returns true if the cluster should have seats by now.
    pub(super) fn has_seats(&self) -> bool {
        self.seats.is_some_and(|at| at <= Instant::now())
    }

    /// Returns true if workloads have rollouts, now or later, and reports need time.
    pub(super) fn lags(&self) -> bool {
        self.rolled.is_some()
    }

    /// Returns the level that the cluster should have by now.
    pub(super) fn level(&self) -> u32 {
        match (self.rolled, self.has_seats()) {
            (Some(at), _) if at <= Instant::now() => match self.loses {
                true => LOSES,
                false => ROLLED,
            },
            (_, true) => ASSIGNED,
            (_, false) => 0,
        }
    }

    /// Draws the time until a gateway that has started knows the units of its host.
    pub(super) fn sync_time(&self) -> Duration {
        match self.lags() {
            true => self.chance(|chance| chance.millis(1, 400)),
            false => Duration::ZERO,
        }
    }

    /// Returns true if the gateway of this host runs.
    pub(super) fn is_up(&self, host: HostId) -> bool {
        self.net.is_up(host)
    }

    /// Returns true if messages of a host reach the other one.
    pub(super) fn reaches(&self, from: HostId, to: HostId) -> bool {
        self.net.is_open(from, to) && self.net.is_open(to, from)
    }

    /// Returns true if the time of faults is over.
    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    pub(super) fn say(&self, what: &str) {
        eprintln!("at {:.6}: {what}", self.begun.elapsed().as_secs_f64());
    }

    pub(super) fn chance<T>(&self, draw: impl FnOnce(&mut Chance) -> T) -> T {
        draw(&mut self.chance.lock().unwrap())
    }

    pub(super) fn hosts(&self) -> Vec<HostId> {
        self.machines.keys().copied().collect()
    }

    /// Starts a host's gateway, unless it is running.
    async fn begin(self: &Arc<Self>, host: HostId) {
        let machine = &self.machines[&host];
        let mut running = machine.running.lock().await;
        if running.is_some() {
            return;
        }
        let life = machine.life.fetch_add(1, Ordering::Relaxed) + 1;
        let disk = {
            let mut disk = machine.disk.lock().unwrap();
            // A fault that has not happened yet is dropped.
            disk.end_life();
            disk.clone()
        };
        let (leases, grant) = self.leases(host);
        let opened = Node::open(Settings {
            dir: machine.dir.path().to_owned(),
            disk: Arc::new(disk),
            host,
            dial: Arc::new(Socket {
                host,
                life,
                net: Arc::clone(&self.net),
            }),
            lost_after: LOST_AFTER,
            observe: Arc::new(|_| {}),
            grant,
        });
        let node = match opened.await {
            Ok(node) => node,
            Err(error) => return self.violated(format!("{} does not start: {error}", name(host))),
        };
        *running = Some(node.clone());
        self.boot(host);
        self.net.begin(host, node.clone(), life);
        self.checks.begins(host);
        self.say(&format!("{} begins", name(host)));
        tokio::spawn(Arc::clone(self).watch(host, node.clone(), life));
        tokio::spawn(keep_membership(node.clone()));
        tokio::spawn(lead(Arc::clone(self), node.clone(), host, life, leases));
        if self.single {
            tokio::spawn(Arc::clone(self).renew(host, node.clone(), life));
        }
        let chance = Chance::new(self.chance(Chance::draw), life);
        tokio::spawn(execute(Arc::clone(self), host, node.clone(), life, chance));
        tokio::spawn(observe(Arc::clone(self), host, node.clone(), life));
        tokio::spawn(Arc::clone(self).restart(host, node, life));
    }

    /// Makes systemd start a host's persisted units, if the host has just got power.
    fn boot(self: &Arc<Self>, host: HostId) {
        let (world, after) = (
            Arc::clone(self),
            self.chance(|chance| chance.millis(1, 800)),
        );
        tokio::spawn(async move {
            sleep(after).await;
            world.rig(host).boot();
            world.play(host);
        });
    }

    /// Ends a host's gateway, with or without a power cut.
    async fn end(&self, host: HostId, power: bool) {
        let machine = &self.machines[&host];
        let mut running = machine.running.lock().await;
        let Some(node) = running.take() else { return };
        let seed = self.chance(Chance::draw) | 1;
        {
            let mut disk = machine.disk.lock().unwrap();
            if power {
                disk.power_cut_by(seed);
            } else {
                disk.end_life();
            }
        }
        self.checks.ends(host);
        self.net.end(host, power);
        if power {
            machine.rig.power();
            self.holders[&host].power();
        }
        let how = if power { "loses power" } else { "ends" };
        self.say(&format!("{} {how}", name(host)));
        node.close().await;
    }

    /// Restarts a gateway that has failed, as systemd does. It is unknown which of the last writes reached the disk.
    fn restart(
        self: Arc<Self>,
        host: HostId,
        node: Node,
        life: u64,
    ) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            let reason = node.failed().await;
            if self.net.lives(host, life) {
                let dir = self.machines[&host].dir.path().display().to_string();
                let reason = reason.replace(&dir, "");
                self.say(&format!("{} gives up: {reason}", name(host)));
                self.end(host, true).await;
                sleep(Duration::from_millis(100)).await;
                self.begin(host).await;
            }
        })
    }

    /// Compares the state of a node with that of the others.
    async fn watch(self: Arc<Self>, host: HostId, node: Node, life: u64) {
        let (mut view, mut consensus) = (node.state(), node.consensus());
        let (mut applied, mut led) = (0, None);
        loop {
            let now = Arc::clone(&view.borrow_and_update());
            let said = consensus.borrow_and_update().clone();
            if !self.net.lives(host, life) {
                return;
            }
            if now.applied < applied {
                self.violated(format!("{} went back from {applied}", name(host)));
            }
            applied = now.applied;
            self.compare(host, &now);
            self.checks.state(&now);
            if said.role == Role::Leader && led != Some(said.term) {
                led = Some(said.term);
                self.say(&format!("{} leads in term {}", name(host), said.term));
            }
            let changed = tokio::select! {
                changed = view.changed() => changed,
                changed = consensus.changed() => changed,
            };
            if changed.is_err() {
                return;
            }
        }
    }

    fn compare(&self, host: HostId, view: &View) {
        let hash: [u8; 32] = Sha256::digest(view.state.to_snapshot().encode()).into();
        let mut states = self.states.lock().unwrap();
        let known = *states.entry(view.applied).or_insert(hash);
        drop(states);
        if known != hash {
            let index = view.applied;
            self.violated(format!("{} has another state at {index}", name(host)));
        }
    }

    fn leader(&self) -> Option<HostId> {
        let up = self.net.up();
        let mut leading = up.iter().filter(|(_, node, _)| {
            let consensus = node.consensus();
            consensus.borrow().role == Role::Leader
        });
        leading.next().map(|(host, ..)| *host)
    }
}

/// The time of a flush on a healthy disk.
const FLUSH: Duration = Duration::from_millis(1);
/// The maximum latency of a healthy network.
const LATENCY: Duration = Duration::from_millis(2);

impl Machine {
    fn new(host: HostId, checks: Arc<Checks>) -> Self {
        let disk = Faulty::new(None);
        disk.set_flush(FLUSH);
        Self {
            dir: tempfile::tempdir().expect("a folder"),
            disk: Mutex::new(disk),
            rig: Rig::new(host, checks),
            life: AtomicU64::new(0),
            running: tokio::sync::Mutex::default(),
        }
    }
}

pub(super) fn name(host: HostId) -> String {
    format!("h{}", host.0[0])
}
