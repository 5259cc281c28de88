//! Faults that strike the hosts of a singleton, and their repair.
//!
//! Shell. Faults overlap: each lasts for a while, and the next one does not wait for its end, also on the same host. At most
//! a minority of the hosts is struck at a time, so that a majority is there all the time, except when all hosts lose their
//! power. A host is absent at most [`ABSENCES_MAX`] times in ten minutes, because one that comes and goes more often gets no
//! further pods.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt::Write as _,
    thread,
    time::Duration,
};

use harness::{Chance, Cluster, Host};
use nix::sys::signal::Signal;

use super::{
    beats::now,
    stays::{send, signal},
};

/// How long a host counts as struck after its repair: its programs start, and connect.
const RECOVERY: Duration = Duration::from_secs(15);
/// How often a host may be absent within [`STEADY`]: once less than what the leader allows.
const ABSENCES_MAX: usize = 2;
/// The time for which the leader remembers absences, and some more.
const STEADY: Duration = Duration::from_secs(660);
/// How long a fault lasts, in milliseconds: longer than a lease, or shorter.
const LASTS: (u64, u64) = (2_000, 35_000);
/// The same for connections between two hosts. The pod of a host that does not reach the leader but others waits.
const LINK_LASTS: (u64, u64) = (2_000, 30_000);
/// A cut that is no absence, in milliseconds.
const FLICKERS: (u64, u64) = (200, 2_500);
/// How long to look for a fault that is possible: longer than any fault, its repair and its recovery.
const DRAW_MAX: Duration = Duration::from_secs(180);

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// No packet reaches or leaves a host.
    CutOff,
    /// The same for the leader.
    LeaderCutOff,
    /// The same for about a second.
    Flicker,
    /// Two of the hosts hear each other, and none of the others.
    Halves,
    /// One host does not receive the packets of another one.
    OneWay,
    /// Two hosts do not receive each other's packets; the others receive those of both.
    Apart,
    /// The gateway of a host gets SIGSTOP, and later SIGCONT.
    GatewayPaused,
    /// The same for its agent.
    AgentPaused,
    /// The same for its supervisors.
    SupervisorPaused,
    /// The same for Podman's service and whatever else of Podman runs.
    PodmanPaused,
    /// The gateway of a host gets SIGKILL.
    GatewayKilled,
    /// The same for its agent.
    AgentKilled,
    /// The same for its supervisors.
    SupervisorKilled,
    /// The same for the gateway of the leader.
    LeaderKilled,
    /// A host loses power: unflushed data is lost.
    PowerLoss,
    /// All hosts lose power at once.
    PowerLossOfAll,
}

/// All kinds, with their relative frequency.
const KINDS: [(Kind, u64); 16] = [
    (Kind::CutOff, 6),
    (Kind::LeaderCutOff, 4),
    (Kind::Flicker, 4),
    (Kind::Halves, 3),
    (Kind::OneWay, 5),
    (Kind::Apart, 4),
    (Kind::GatewayPaused, 5),
    (Kind::AgentPaused, 4),
    (Kind::SupervisorPaused, 5),
    (Kind::PodmanPaused, 4),
    (Kind::GatewayKilled, 5),
    (Kind::AgentKilled, 5),
    (Kind::SupervisorKilled, 5),
    (Kind::LeaderKilled, 5),
    (Kind::PowerLoss, 5),
    (Kind::PowerLossOfAll, 1),
];

/// A part of the network that is down: hosts by number from 1.
#[derive(Debug, Clone, Copy)]
enum Wire {
    Off(usize),
    Mute(usize, usize),
    Apart(usize, usize),
}

#[derive(Debug)]
enum Mend {
    Nothing,
    Boot,
    Continue(Vec<u32>),
    Heal(Vec<Wire>),
}

/// One fault, until its hosts have recovered.
#[derive(Debug)]
struct Active {
    until: Duration,
    /// The hosts that it strikes.
    hosts: BTreeSet<usize>,
    mend: Mend,
    is_mended: bool,
}

/// The hosts and their faults.
#[derive(Debug)]
pub(crate) struct Faults<'a> {
    cluster: &'a Cluster,
    chance: Chance,
    active: Vec<Active>,
    /// When each host was absent, the latest last.
    absences: BTreeMap<usize, VecDeque<Duration>>,
    struck: BTreeMap<Kind, usize>,
}

impl<'a> Faults<'a> {
    pub(crate) fn new(cluster: &'a Cluster, chance: Chance) -> Self {
        Self {
            cluster,
            chance,
            active: Vec::new(),
            absences: BTreeMap::new(),
            struck: BTreeMap::new(),
        }
    }

    /// The hosts that a fault has struck, and that have not recovered.
    pub(crate) fn struck(&self) -> BTreeSet<usize> {
        let hosts = self.active.iter().flat_map(|active| &active.hosts);
        hosts.copied().collect()
    }

    /// A host that no fault has struck.
    pub(crate) fn calm(&self) -> Option<&'a Host> {
        let struck = self.struck();
        let mut calm = (1..=self.cluster.hosts.len()).filter(|host| !struck.contains(host));
        calm.next().map(|host| self.cluster.host(host))
    }

    /// How often each kind has struck.
    pub(crate) fn summary(&self) -> String {
        let all: usize = self.struck.values().sum();
        let mut text = format!("{all} faults");
        for (kind, times) in &self.struck {
            let _ = write!(text, ", {kind:?} {times}");
        }
        text
    }

    /// Waits until at most this many hosts are struck, so that the next faults can strike another one.
    ///
    /// # Panics
    /// If that takes longer than all faults.
    pub(crate) fn calm_down(&mut self, most: usize) {
        let begun = now();
        self.mend_due();
        while self.struck().len() > most {
            let is_late = now() > begun + DRAW_MAX;
            assert!(!is_late, "faults do not end: {:?}", self.active);
            thread::sleep(Duration::from_millis(100));
            self.mend_due();
        }
    }

    /// Strikes once, often where the singleton runs. Repairs first what is due.
    ///
    /// # Panics
    /// If no fault is possible for a long time.
    pub(crate) fn strike(&mut self, runs_on: usize) -> Kind {
        let begun = now();
        while now() < begun + DRAW_MAX {
            self.mend_due();
            let kind = self.draw();
            let victim = self.victim(runs_on);
            if self.befall(kind, victim) {
                *self.struck.entry(kind).or_default() += 1;
                return kind;
            }
            thread::sleep(Duration::from_millis(20));
        }
        panic!("no fault is possible: {:?}", self.active);
    }

    fn draw(&mut self) -> Kind {
        let all: u64 = KINDS.iter().map(|(_, weight)| weight).sum();
        let mut at = self.chance.below(all);
        for (kind, weight) in KINDS {
            if at < weight {
                return kind;
            }
            at -= weight;
        }
        Kind::GatewayKilled
    }

    /// The host of the singleton, or in a third of the cases any one.
    fn victim(&mut self, runs_on: usize) -> usize {
        match self.chance.below(3) {
            0 => self.any_but(0),
            _ => runs_on,
        }
    }

    fn any_but(&mut self, but: usize) -> usize {
        let all: Vec<usize> = (1..=self.cluster.hosts.len()).collect();
        let others: Vec<usize> = all.into_iter().filter(|host| *host != but).collect();
        *self.chance.pick(&others).expect("there are hosts")
    }

    /// Begins a fault; returns whether it was possible.
    fn befall(&mut self, kind: Kind, victim: usize) -> bool {
        let victim = match kind {
            Kind::LeaderCutOff | Kind::LeaderKilled => match self.leader() {
                Some(leader) => leader,
                None => return false,
            },
            _ => victim,
        };
        let other = self.any_but(victim);
        let hosts: BTreeSet<usize> = match kind {
            Kind::Halves | Kind::OneWay | Kind::Apart => [victim, other].into(),
            Kind::PowerLossOfAll => (1..=self.cluster.hosts.len()).collect(),
            _ => [victim].into(),
        };
        if !self.may_strike(kind, &hosts) {
            return false;
        }
        let (from, to) = match kind {
            Kind::Flicker => FLICKERS,
            Kind::OneWay | Kind::Apart => LINK_LASTS,
            _ => LASTS,
        };
        let lasts = self.chance.millis(from, to);
        let Some(mend) = self.begin(kind, victim, other) else {
            return false;
        };
        let lasts = match mend {
            Mend::Nothing => Duration::ZERO,
            _ => lasts,
        };
        if is_absence(kind) {
            for host in &hosts {
                self.absences.entry(*host).or_default().push_back(now());
            }
        }
        say(&format!("{kind:?} {hosts:?} for {lasts:?}"));
        self.active.push(Active {
            until: now() + lasts,
            hosts,
            mend,
            is_mended: false,
        });
        true
    }

    fn may_strike(&mut self, kind: Kind, hosts: &BTreeSet<usize>) -> bool {
        if kind == Kind::PowerLossOfAll {
            return self.active.is_empty();
        }
        let off = |active: &Active| matches!(active.mend, Mend::Boot) && !active.is_mended;
        let mut off = self.active.iter().filter(|active| off(active));
        if off.any(|active| !active.hosts.is_disjoint(hosts)) {
            return false;
        }
        let struck: BTreeSet<usize> = &self.struck() | hosts;
        if struck.len() > (self.cluster.hosts.len() - 1) / 2 {
            return false;
        }
        let steady = now().saturating_sub(STEADY);
        let may_leave = |host: &usize| {
            let times = self.absences.entry(*host).or_default();
            while times.front().is_some_and(|at| *at < steady) {
                times.pop_front();
            }
            times.len() < ABSENCES_MAX
        };
        !is_absence(kind) || hosts.iter().all(may_leave)
    }

    /// `None` if there is nothing to strike.
    fn begin(&self, kind: Kind, victim: usize, other: usize) -> Option<Mend> {
        let host = self.cluster.host(victim);
        let paused = |program| Some(Mend::Continue(signal(host, program, Signal::SIGSTOP)));
        let killed =
            |program| (!signal(host, program, Signal::SIGKILL).is_empty()).then_some(Mend::Nothing);
        match kind {
            Kind::CutOff | Kind::LeaderCutOff | Kind::Flicker => {
                Some(self.unplug(vec![Wire::Off(victim)]))
            }
            Kind::Halves => {
                let pair = [victim, other];
                let rest = (1..=self.cluster.hosts.len()).filter(|host| !pair.contains(host));
                let between = |host| pair.map(|one| Wire::Apart(one, host));
                Some(self.unplug(rest.flat_map(between).collect()))
            }
            Kind::OneWay => Some(self.unplug(vec![Wire::Mute(victim, other)])),
            Kind::Apart => Some(self.unplug(vec![Wire::Apart(victim, other)])),
            Kind::GatewayPaused => paused("beemesh-gateway"),
            Kind::AgentPaused => paused("beemesh-agent"),
            Kind::SupervisorPaused => paused("beemesh-pod"),
            Kind::PodmanPaused => paused("podman"),
            Kind::GatewayKilled | Kind::LeaderKilled => killed("beemesh-gateway"),
            Kind::AgentKilled => killed("beemesh-agent"),
            Kind::SupervisorKilled => killed("beemesh-pod"),
            Kind::PowerLoss => {
                self.cluster.crash(&[host]);
                Some(Mend::Boot)
            }
            Kind::PowerLossOfAll => {
                self.cluster.crash(&self.cluster.all());
                self.cluster.boot(&self.cluster.all());
                Some(Mend::Nothing)
            }
        }
        .filter(|mend| !matches!(mend, Mend::Continue(pids) if pids.is_empty()))
    }

    fn unplug(&self, wires: Vec<Wire>) -> Mend {
        self.pull(&wires);
        Mend::Heal(wires)
    }

    fn pull(&self, wires: &[Wire]) {
        let host = |number: usize| self.cluster.host(number);
        for wire in wires {
            match *wire {
                Wire::Off(one) => self.cluster.isolate(host(one)),
                Wire::Mute(one, other) => self.cluster.mute(host(one), host(other)),
                Wire::Apart(one, other) => self.cluster.cut(host(one), host(other)),
            }
        }
    }

    /// The leader, if a host that no fault has struck knows it.
    pub(crate) fn leader(&self) -> Option<usize> {
        let status = self.calm()?.status();
        let name = status["leader"]["name"].as_str()?;
        let mut hosts = (1..).zip(&self.cluster.hosts);
        hosts
            .find(|(_, host)| host.name == name)
            .map(|found| found.0)
    }

    /// Repairs the faults that are due, and forgets those whose hosts have recovered.
    pub(crate) fn mend_due(&mut self) {
        let now = now();
        let is_due = |active: &Active| active.until <= now && !active.is_mended;
        while let Some(due) = self.active.iter().position(is_due) {
            self.mend(due);
        }
        self.active
            .retain(|active| !active.is_mended || active.until + RECOVERY > now);
    }

    fn mend(&mut self, at: usize) {
        let active = &mut self.active[at];
        active.is_mended = true;
        let (mend, hosts) = (
            std::mem::replace(&mut active.mend, Mend::Nothing),
            active.hosts.clone(),
        );
        match mend {
            Mend::Nothing => {}
            Mend::Boot => {
                let hosts: Vec<&Host> = hosts.iter().map(|host| self.cluster.host(*host)).collect();
                self.cluster.boot(&hosts);
            }
            Mend::Continue(pids) => send(&pids, Signal::SIGCONT),
            Mend::Heal(_) => {
                self.cluster.heal();
                // For a moment all was whole, as when a cable is replugged.
                let others = self.active.iter().filter_map(|active| match &active.mend {
                    Mend::Heal(wires) => Some(wires.clone()),
                    _ => None,
                });
                let others: Vec<Wire> = others.flatten().collect();
                self.pull(&others);
            }
        }
        self.active[at].until = now();
        say(&format!("mended {hosts:?}"));
    }

    /// Repairs everything.
    pub(crate) fn end(&mut self) {
        for at in 0..self.active.len() {
            if !self.active[at].is_mended {
                self.mend(at);
            }
        }
    }
}

/// Returns true if the leader sees the hosts of this fault leave and return.
fn is_absence(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::CutOff
            | Kind::LeaderCutOff
            | Kind::Halves
            | Kind::AgentPaused
            | Kind::PowerLoss
            | Kind::PowerLossOfAll
    )
}

pub(crate) fn say(what: &str) {
    eprintln!("  {:9.2} {what}", now().as_secs_f64());
}
