//! The hosts, the clients and the faults.

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

use beemesh_protocol::{HostId, peer::Outcome};
use harness::{Chance, History, Op};
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use super::{
    leader::{lead, misplaced},
    manifests::{at, change, content},
    net::{Net, Socket},
    rig::{Rig, execute},
};
use crate::{
    cluster::{consensus::Role, state::ASSIGNED},
    controllers::voters::keep_membership,
    raft::{Fault, Faulty, Node, ProposeError, Settings, VOTERS_MAX, View, tests::host},
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
        let seats = seats.map(|after| Instant::now() + Duration::from_secs(after));
        let machines = (1..=founders + newcomers).map(|number| (host(number), Machine::new()));
        let world = Arc::new(Self {
            net: Net::new(Chance::new(seed, 2)),
            chance: Mutex::new(chance),
            machines: machines.collect(),
            history: Mutex::default(),
            states: Mutex::default(),
            violations: Mutex::default(),
            members: AtomicUsize::new(founders.into()),
            values: AtomicU64::new(1),
            last: Mutex::default(),
            over: AtomicBool::new(false),
            begun: Instant::now(),
            seats,
            completed: Mutex::default(),
        });
        world.form().await;
        let mut clients = JoinSet::new();
        for number in 0..CLIENTS {
            let chance = Chance::new(seed, 10 + number);
            clients.spawn(Arc::clone(&world).client(chance));
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
        self.violations.lock().unwrap().clone()
    }

    pub(super) fn violated(&self, what: String) {
        self.say(&what);
        self.violations.lock().unwrap().push(what);
    }

    pub(super) fn rig(&self, host: HostId) -> &Rig {
        &self.machines[&host].rig
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

    fn hosts(&self) -> Vec<HostId> {
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
        });
        let node = match opened.await {
            Ok(node) => node,
            Err(error) => return self.violated(format!("{} does not start: {error}", name(host))),
        };
        *running = Some(node.clone());
        self.boot(host);
        self.net.begin(host, node.clone(), life);
        self.say(&format!("{} begins", name(host)));
        tokio::spawn(Arc::clone(self).watch(host, node.clone(), life));
        tokio::spawn(keep_membership(node.clone()));
        tokio::spawn(lead(Arc::clone(self), node.clone(), host, life));
        let chance = Chance::new(self.chance(Chance::draw), life);
        tokio::spawn(execute(Arc::clone(self), host, node.clone(), life, chance));
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
        self.net.end(host, power);
        if power {
            machine.rig.power();
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

    /// Makes one request after the other until the simulation is over.
    async fn client(self: Arc<Self>, mut chance: Chance) {
        while !self.over.load(Ordering::Relaxed) {
            sleep(chance.millis(0, 300)).await;
            let up = self.net.up();
            let Some((host, node, life)) = chance.pick(&up) else {
                continue;
            };
            let manifest = usize::try_from(chance.below(MANIFESTS)).unwrap_or(0);
            let deadline = Instant::now() + chance.millis(200, 5000);
            let op = match chance.below(10) {
                0 => Op::Write(0),
                1..5 => Op::Write(self.values.fetch_add(1, Ordering::Relaxed)),
                _ => Op::Read(0),
            };
            self.ask(*host, node, *life, manifest, op, deadline).await;
        }
    }

    async fn ask(
        &self,
        host: HostId,
        node: &Node,
        life: u64,
        manifest: usize,
        op: Op,
        deadline: Instant,
    ) {
        let call = self.history.lock().unwrap().call(manifest, op);
        let done = match op {
            Op::Write(content) => {
                let jump = self.chance(|chance| chance.below(1 << 40));
                let command = at(jump, change(manifest, content));
                match node.propose(vec![command], deadline).await {
                    // The manifest did not exist, so the delete acts like a read.
                    Ok(done) if matches!(done[0].outcome, Outcome::Refused(_)) => Some(Op::Read(0)),
                    Ok(_) => Some(op),
                    Err(ProposeError::NoQuorum { .. }) => {
                        self.history.lock().unwrap().refuse(call);
                        None
                    }
                    Err(_) => None,
                }
            }
            Op::Read(_) => {
                let read = node.read_index(deadline).await;
                let view = Arc::clone(&node.state().borrow());
                read.ok().map(|()| Op::Read(content(&view, manifest)))
            }
        };
        // A client whose gateway has ended got no answer.
        if let Some(op) = done.filter(|_| self.net.lives(host, life)) {
            self.history.lock().unwrap().answer(call, op);
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

    /// Causes one fault for a while.
    async fn strike(self: &Arc<Self>) {
        let hosts = self.hosts();
        let one = self.chance(|chance| *chance.pick(&hosts).expect("a host"));
        let victim = self
            .leader()
            .filter(|_| self.chance(|c| c.below(2)) == 0)
            .unwrap_or(one);
        let others: Vec<HostId> = hosts.into_iter().filter(|host| *host != victim).collect();
        let other = self.chance(|chance| *chance.pick(&others).expect("another host"));
        let long = self.chance(|chance| chance.millis(100, 5000));
        match self.chance(|chance| chance.below(12)) {
            0 => self.away(victim, false, long / 10).await,
            1 | 2 => self.away(victim, true, long).await,
            3 => {
                self.say(&format!("{} is cut off", name(victim)));
                for other in others {
                    self.net.cut(victim, other);
                    self.net.cut(other, victim);
                }
                self.healed_after(long).await;
            }
            4 => {
                self.say(&format!("{} does not reach {}", name(victim), name(other)));
                self.net.cut(victim, other);
                self.healed_after(long).await;
            }
            5 => {
                self.say(&format!("{} and {} are apart", name(victim), name(other)));
                self.net.cut(victim, other);
                self.net.cut(other, victim);
                self.healed_after(long).await;
            }
            6 => {
                self.say(&format!("{}'s disk is slow", name(victim)));
                let disk = self.machines[&victim].disk.lock().unwrap().clone();
                disk.set_flush(long / 4);
                sleep(long).await;
                disk.set_flush(FLUSH);
            }
            7 => {
                let fault = self.chance(|c| *c.pick(&[Fault::Error, Fault::Short]).expect("one"));
                self.say(&format!("{}'s disk: {fault:?}", name(victim)));
                self.machines[&victim].disk.lock().unwrap().fail_next(fault);
                sleep(long / 4).await;
            }
            8 => {
                self.say("the network is slow");
                self.net.set_latency(long / 8);
                sleep(long).await;
                self.net.set_latency(LATENCY);
            }
            9 => self.shorten(victim).await,
            _ => drop(self.join().await),
        }
        // Some faults overlap with others.
        if self.chance(|chance| chance.below(2)) == 0 {
            sleep(long / 2).await;
        }
    }

    async fn healed_after(self: &Arc<Self>, time: Duration) {
        if self.chance(|chance| chance.below(3)) == 0 {
            let world = Arc::clone(self);
            tokio::spawn(async move {
                sleep(time).await;
                world.net.heal();
                world.say("healed");
            });
        } else {
            sleep(time).await;
            self.net.heal();
            self.say("healed");
        }
    }

    /// Stops a gateway or a whole machine for a while.
    async fn away(self: &Arc<Self>, host: HostId, power: bool, time: Duration) {
        self.end(host, power).await;
        let world = Arc::clone(self);
        let back = async move {
            sleep(time).await;
            world.begin(host).await;
        };
        if self.chance(|chance| chance.below(3)) == 0 {
            tokio::spawn(back);
        } else {
            back.await;
        }
    }

    /// Makes a host take a snapshot and purge the entries before it.
    async fn shorten(&self, host: HostId) {
        let up = self.net.up();
        let Some((_, node, _)) = up.iter().find(|(up, ..)| *up == host) else {
            return;
        };
        self.say(&format!("{} takes a snapshot", name(host)));
        node.shorten().await;
    }

    /// Ends all faults. Then checks that all hosts agree soon, and that the clients' answers are consistent.
    async fn mend(self: &Arc<Self>) {
        self.net.heal();
        self.net.set_latency(LATENCY);
        for machine in self.machines.values() {
            machine.disk.lock().unwrap().set_flush(FLUSH);
        }
        for host in self.hosts() {
            self.begin(host).await;
        }
        self.say("mended");
        if timeout(AGREE_MAX, self.agree()).await.is_err() {
            let up = self.net.up();
            let said = up
                .iter()
                .map(|(host, node, _)| (name(*host), node.consensus().borrow().clone()));
            let said: Vec<_> = said.collect();
            let wrong = self.last.lock().unwrap().clone();
            self.violated(format!(
                "no agreement after {AGREE_MAX:?}: {wrong:?}; {said:?}"
            ));
        }
        let history = self.history.lock().unwrap();
        self.say(&format!("{} answers", history.answered()));
        for what in history.violations() {
            self.violated(what);
        }
    }

    /// Lets each host read and write, and waits until all have applied the same entries.
    async fn agree(self: &Arc<Self>) {
        while self.members.load(Ordering::Relaxed) < self.machines.len() {
            self.join().await;
        }
        for host in self.hosts() {
            loop {
                let up = self.net.up();
                let Some((_, node, life)) = up.iter().find(|(up, ..)| *up == host) else {
                    sleep(Duration::from_millis(50)).await;
                    continue;
                };
                let value = self.values.fetch_add(1, Ordering::Relaxed);
                let before = self.history.lock().unwrap().answered();
                for manifest in 0..3 {
                    let soon = Instant::now() + Duration::from_secs(5);
                    let read = Op::Read(0);
                    self.ask(host, node, *life, manifest, read, soon).await;
                }
                let (write, soon) = (Op::Write(value), Instant::now() + Duration::from_secs(5));
                self.ask(host, node, *life, 0, write, soon).await;
                if self.history.lock().unwrap().answered() == before + 4 {
                    break;
                }
            }
        }
        loop {
            let applied: BTreeSet<u64> = self
                .net
                .up()
                .iter()
                .map(|(_, node, _)| node.state().borrow().applied)
                .collect();
            let up = self.net.up();
            let wrong = up.iter().find_map(|(host, node, _)| {
                let view = Arc::clone(&node.state().borrow());
                let has_level = (view.state.level() >= ASSIGNED) == self.seats.is_some();
                let level = (!has_level).then(|| "another level".to_owned());
                let wanted = self.rig(*host).is_as_wanted(*host, &view);
                level.or(misplaced(&view.state)).or(wanted.err())
            });
            let voters = self.machines.len().min(VOTERS_MAX);
            let voting = |node: &Node| node.consensus().borrow().voters.len() == voters;
            let voted = up.iter().all(|(_, node, _)| voting(node));
            if applied.len() == 1 && voted && wrong.is_none() {
                return;
            }
            *self.last.lock().unwrap() = wrong;
            sleep(Duration::from_millis(50)).await;
        }
    }
}

/// The time of a flush on a healthy disk.
const FLUSH: Duration = Duration::from_millis(1);
/// The maximum latency of a healthy network.
const LATENCY: Duration = Duration::from_millis(2);

impl Machine {
    fn new() -> Self {
        let disk = Faulty::new(None);
        disk.set_flush(FLUSH);
        Self {
            dir: tempfile::tempdir().expect("a folder"),
            disk: Mutex::new(disk),
            rig: Rig::new(),
            life: AtomicU64::new(0),
            running: tokio::sync::Mutex::default(),
        }
    }
}

pub(super) fn name(host: HostId) -> String {
    format!("h{}", host.0[0])
}
