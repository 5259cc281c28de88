//! Faults of hosts, and their repair.
//!
//! Shell. Faults overlap: each lasts for a while, and the next one does not wait for its end. A host that is off, or
//! about to be, gets no other fault until it is back, and the network has one fault at a time.

use std::{
    collections::BTreeSet,
    fs,
    process::Command,
    time::{Duration, Instant},
};

use clap::ValueEnum;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::clients::{self, Clients, FIRST_POD, MANIFESTS};
use crate::{Chance, Cluster, Host, start_agent, wait_for};

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Kind {
    /// A host loses power: unflushed data is lost.
    PowerLoss,
    /// All hosts lose power.
    PowerLossOfAll,
    /// The agent of a host gets SIGKILL.
    AgentKilled,
    /// The gateway of a host gets SIGKILL.
    GatewayKilled,
    /// All supervisors of a host get SIGKILL.
    SupervisorsKilled,
    /// All processes of Podman on a host get SIGKILL, except the monitors of its containers.
    PodmanKilled,
    /// The agent of a host gets SIGSTOP, and later SIGCONT.
    AgentPaused,
    /// The gateway of a host gets SIGSTOP, and later SIGCONT.
    GatewayPaused,
    /// No packet reaches or leaves a host.
    CutOff,
    /// No packet reaches or leaves the leader.
    LeaderCutOff,
    /// One host does not receive the packets of another, which receives its packets.
    OneWay,
    /// Two hosts do not receive each other's packets; the others receive those of both.
    Apart,
    /// The disk of a host is full.
    DiskFull,
    /// The file system of a host becomes read-only until the host boots again.
    DiskReadOnly,
    /// The program in the gateway's image becomes empty, like an unflushed file, and then the host loses power.
    ImageDamaged,
    /// The monitors of containers get SIGKILL, except that of the pod that never changes.
    MonitorsKilled,
    /// The agent and the gateway of a host are restarted.
    Restarted,
    /// dnf reinstalls Beemesh, as in an upgrade to the same version.
    Upgraded,
    /// A host joins the cluster.
    Joins,
    /// A host is removed and joins again.
    Leaves,
    /// A host rotates its key, during any other fault.
    KeyChanged,
}

impl Kind {
    /// The description in the report.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Kind::PowerLoss => "power loss of a host",
            Kind::PowerLossOfAll => "power loss of all hosts at once",
            Kind::AgentKilled => "agent killed (SIGKILL)",
            Kind::GatewayKilled => "gateway killed",
            Kind::SupervisorsKilled => "all supervisors of a host killed",
            Kind::PodmanKilled => "Podman's API and whatever else of Podman runs killed",
            Kind::AgentPaused => "agent paused (SIGSTOP)",
            Kind::GatewayPaused => "gateway paused",
            Kind::CutOff => "host cut off",
            Kind::LeaderCutOff => "leader cut off",
            Kind::OneWay => "one host does not hear another, which hears it",
            Kind::Apart => "two hosts apart, the others hear both",
            Kind::DiskFull => "disk full",
            Kind::DiskReadOnly => "file system read-only until the next boot",
            Kind::ImageDamaged => "gateway's image damaged, then power loss",
            Kind::MonitorsKilled => "monitors of containers (conmon) killed",
            Kind::Restarted => "agent and gateway restarted",
            Kind::Upgraded => "upgrade by dnf, to the same version",
            Kind::Joins => "a host joins",
            Kind::Leaves => "a host is removed and joins again",
            Kind::KeyChanged => "a host changes its key",
        }
    }

    /// The relative frequency of the kind.
    fn weight(self) -> u64 {
        match self {
            Kind::PowerLoss | Kind::LeaderCutOff | Kind::GatewayKilled => 4,
            Kind::PowerLossOfAll | Kind::ImageDamaged | Kind::DiskReadOnly => 1,
            _ => 2,
        }
    }
}

/// One fault in effect.
#[derive(Debug)]
struct Active {
    until: Instant,
    /// Hosts that get no other fault meanwhile, by number from 0.
    hosts: Vec<usize>,
    mend: Mend,
}

#[derive(Debug)]
enum Mend {
    Nothing,
    Boot,
    CutPower,
    Continue(Vec<u32>),
    Heal,
    Empty,
}

/// The hosts and their faults.
#[derive(Debug)]
pub(crate) struct Faults<'a> {
    cluster: &'a Cluster,
    clients: &'a Clients,
    chance: Chance,
    active: Vec<Active>,
    /// The number of hosts in the cluster; they are the first ones.
    pub(crate) members: usize,
    /// The faults so far, in order.
    pub(crate) struck: Vec<Kind>,
    begun: Instant,
}

impl<'a> Faults<'a> {
    pub(crate) fn new(
        cluster: &'a Cluster,
        clients: &'a Clients,
        members: usize,
        chance: Chance,
    ) -> Self {
        Self {
            cluster,
            clients,
            chance,
            active: Vec::new(),
            members,
            struck: Vec::new(),
            begun: Instant::now(),
        }
    }

    fn say(&self, what: &str) {
        eprintln!("  {:7.2} {what}", self.begun.elapsed().as_secs_f64());
    }

    fn host(&self, number: usize) -> &'a Host {
        &self.cluster.hosts[number]
    }

    fn busy(&self) -> BTreeSet<usize> {
        let hosts = self.active.iter().flat_map(|active| &active.hosts);
        hosts.copied().collect()
    }

    /// Strikes once with one of these kinds and waits a little. Repairs first what is due.
    pub(crate) fn strike(&mut self, kinds: &[Kind]) {
        loop {
            self.mend_due(Instant::now());
            let kind = self.draw(kinds);
            let victim = self.victim();
            let long = self.chance.millis(300, 7000);
            let pause = self.chance.millis(100, 2500);
            if self.befall(kind, victim, long) {
                self.struck.push(kind);
                std::thread::sleep(pause);
                return;
            }
            // No fault is possible now; one may be when an active fault has ended.
            let next = self.active.iter().map(|active| active.until).min();
            if let Some(next) = next {
                std::thread::sleep(next.saturating_duration_since(Instant::now()));
            }
        }
    }

    fn draw(&mut self, kinds: &[Kind]) -> Kind {
        let all: u64 = kinds.iter().map(|kind| kind.weight()).sum();
        let mut at = self.chance.below(all.max(1));
        for kind in kinds {
            if at < kind.weight() {
                return *kind;
            }
            at -= kind.weight();
        }
        Kind::GatewayKilled
    }

    fn victim(&mut self) -> usize {
        let members: Vec<usize> = (0..self.members).collect();
        *self.chance.pick(&members).expect("there are members")
    }

    /// Starts a fault; returns whether it was possible.
    fn befall(&mut self, kind: Kind, victim: usize, long: Duration) -> bool {
        let busy = self.busy();
        let network = self
            .active
            .iter()
            .any(|active| matches!(active.mend, Mend::Heal));
        let further = usize::try_from(self.chance.below(2)).unwrap_or(0);
        let other = (victim + 1 + further) % self.members;
        let host = self.host(victim);
        let name = &host.name;
        let (hosts, mend) = match kind {
            Kind::CutOff | Kind::LeaderCutOff | Kind::OneWay | Kind::Apart => {
                if network || other == victim {
                    return false;
                }
                (Vec::new(), Mend::Heal)
            }
            Kind::Leaves => {
                if !busy.is_empty() || network || other == victim {
                    return false;
                }
                (vec![victim], Mend::Nothing)
            }
            Kind::PowerLossOfAll => {
                if !busy.is_empty() {
                    return false;
                }
                ((0..self.members).collect(), Mend::Boot)
            }
            Kind::Joins => {
                if self.members == self.cluster.hosts.len() || busy.contains(&0) || network {
                    return false;
                }
                (vec![0], Mend::Nothing)
            }
            _ if busy.contains(&victim) => return false,
            Kind::PowerLoss | Kind::ImageDamaged => (vec![victim], Mend::Boot),
            Kind::DiskReadOnly => (vec![victim], Mend::CutPower),
            Kind::DiskFull => (vec![victim], Mend::Empty),
            Kind::AgentPaused => (vec![victim], Mend::Continue(pids(host, "beemesh-agent"))),
            Kind::GatewayPaused => (vec![victim], Mend::Continue(pids(host, "beemesh-gateway"))),
            _ => (vec![victim], Mend::Nothing),
        };
        let millis = long.as_millis();
        self.say(&format!("{kind:?}: {name} (h{}), {millis} ms", other + 1));
        match kind {
            Kind::PowerLoss => self.power_off(&[victim]),
            Kind::PowerLossOfAll => self.power_off(&hosts),
            Kind::AgentKilled => signal(&pids(host, "beemesh-agent"), Signal::SIGKILL),
            Kind::GatewayKilled => signal(&pids(host, "beemesh-gateway"), Signal::SIGKILL),
            Kind::SupervisorsKilled => signal(&pids(host, "beemesh-pod"), Signal::SIGKILL),
            Kind::PodmanKilled => signal(&pids(host, "podman"), Signal::SIGKILL),
            Kind::AgentPaused | Kind::GatewayPaused => {
                if let Mend::Continue(pids) = &mend {
                    signal(pids, Signal::SIGSTOP);
                }
            }
            Kind::CutOff => self.cluster.isolate(host),
            Kind::LeaderCutOff => self.cluster.isolate(self.leader().unwrap_or(host)),
            Kind::OneWay => self.cluster.mute(host, self.host(other)),
            Kind::Apart => self.cluster.cut(host, self.host(other)),
            Kind::DiskFull => fill(host),
            Kind::DiskReadOnly => abort(host),
            Kind::ImageDamaged => {
                host.empty_gateway_image();
                self.power_off(&[victim]);
            }
            Kind::MonitorsKilled => signal(&monitors(host), Signal::SIGKILL),
            Kind::Upgraded => {
                // The reinstallation fails on a full disk. The disks of other hosts are not full.
                let _ = host.sh("timeout 120 dnf -y reinstall beemesh");
            }
            Kind::Restarted => {
                // Podman may have been killed during the restart; systemd tries again.
                let _ = host.sh("timeout 60 systemctl restart beemesh-agent beemesh-gateway");
            }
            Kind::Joins => self.join(),
            Kind::Leaves => self.leave(victim, self.host(other)),
            Kind::KeyChanged => {
                let _ = host.sh("setsid -f timeout 60 beemesh host rotate-key >/dev/null 2>&1");
            }
        }
        let until = Instant::now() + long;
        self.active.push(Active { until, hosts, mend });
        true
    }

    fn leader(&self) -> Option<&'a Host> {
        let busy = self.busy();
        let asked = (0..self.members).find(|host| !busy.contains(host))?;
        let status = self.host(asked).status();
        let name = status["leader"]["name"].as_str()?;
        self.cluster.hosts.iter().find(|host| host.name == name)
    }

    fn power_off(&self, hosts: &[usize]) {
        for host in hosts {
            self.clients.host(*host, None);
        }
        let hosts: Vec<&Host> = hosts.iter().map(|host| self.host(*host)).collect();
        self.cluster.crash(&hosts);
    }

    fn boot(&self, numbers: &[usize]) {
        let hosts: Vec<&Host> = numbers.iter().map(|host| self.host(*host)).collect();
        self.cluster.boot(&hosts);
        for number in numbers {
            self.clients.host(*number, self.host(*number).init_if_on());
        }
    }

    /// Repairs the faults that end by `now`.
    fn mend_due(&mut self, now: Instant) {
        let due: Vec<Active> = self
            .active
            .extract_if(.., |active| active.until <= now)
            .collect();
        for active in due {
            self.mend(active);
        }
    }

    fn mend(&self, active: Active) {
        match active.mend {
            Mend::Nothing => return,
            Mend::Boot => self.boot(&active.hosts),
            Mend::CutPower => {
                self.power_off(&active.hosts);
                self.boot(&active.hosts);
            }
            Mend::Continue(pids) => signal(&pids, Signal::SIGCONT),
            Mend::Heal => self.cluster.heal(),
            Mend::Empty => {
                for host in &active.hosts {
                    // With a sync: otherwise the disk is full again after a loss of power.
                    let line = "rm -f /filler /filler2 && sync -f /";
                    let _ = self.host(*host).sh(line).ok();
                }
            }
        }
        let hosts: Vec<&str> = active
            .hosts
            .iter()
            .map(|host| self.host(*host).name.as_str())
            .collect();
        self.say(&format!("mended: {}", hosts.join(", ")));
    }

    /// Repairs everything.
    pub(crate) fn end(&mut self) {
        for active in std::mem::take(&mut self.active) {
            self.mend(active);
        }
        self.say("all is mended");
    }

    /// Joins the next host to the cluster through the first one.
    fn join(&mut self) {
        let joining = self.host(self.members);
        start_agent(joining);
        self.admit(joining, self.host(0));
        self.clients.host(self.members, joining.init_if_on());
        self.members += 1;
    }

    /// Removes a member and joins it again.
    fn leave(&self, victim: usize, via: &Host) {
        let leaving = self.host(victim);
        self.clients.host(victim, None);
        for attempt in 1.. {
            let removed = via.run(&["timeout", "60", "beemesh", "host", "remove", &leaving.name]);
            if removed.code == 0 || removed.err.contains("not found") {
                break;
            }
            self.say(&format!("leave, attempt {attempt}: {}", removed.err.trim()));
            assert!(attempt < 5, "{} cannot leave: {removed}", leaving.name);
        }
        wait_for(
            "the host to know that it was removed",
            Duration::from_secs(60),
            || {
                let status = leaving.status();
                (status["role"] == "removed").then_some(()).ok_or(status)
            },
        );
        self.admit(leaving, via);
        self.clients.host(victim, leaving.init_if_on());
    }

    /// Joins a host with a token of another host.
    fn admit(&self, joining: &Host, via: &Host) {
        for attempt in 1.. {
            let token = via.run(&["timeout", "30", "beemesh", "token", "create"]);
            let joined = (token.code == 0)
                .then(|| joining.run(&["timeout", "60", "beemesh", "join", token.out.trim()]));
            match joined {
                Some(joined) if joined.code == 0 => break,
                failed => {
                    let why = failed.unwrap_or(token);
                    self.say(&format!("join, attempt {attempt}: {}", why.err.trim()));
                    assert!(attempt < 5, "{} cannot join: {why}", joining.name);
                }
            }
        }
    }
}

fn pids(host: &Host, program: &str) -> Vec<u32> {
    host.processes().remove(program).unwrap_or_default()
}

/// The monitors of the containers of workloads that change.
fn monitors(host: &Host) -> Vec<u32> {
    let is_of_change = |pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut words = line.split(|byte| *byte == 0);
        let name = words.find(|word| *word == b"-n").and_then(|_| words.next());
        let pods = (FIRST_POD..MANIFESTS).map(|manifest| format!("{}-", clients::name(manifest)));
        name.is_some_and(|name| pods.into_iter().any(|pod| name.starts_with(pod.as_bytes())))
    };
    let mut monitors = pids(host, "conmon");
    monitors.retain(is_of_change);
    monitors
}

fn signal(pids: &[u32], signal: Signal) {
    for pid in pids {
        // It may have ended already.
        let _ = kill(Pid::from_raw(pid.cast_signed()), signal);
    }
}

fn fill(host: &Host) {
    let _ = host.sh(
        "fallocate -l $(($(df --output=avail -B1 / | tail -n1) - 65536)) /filler; dd if=/dev/zero of=/filler2 bs=4k 2>/dev/null",
    );
}

/// Makes the host's file system meet an internal error, for which the kernel remounts it read-only.
fn abort(host: &Host) {
    let disk = host.root().with_file_name("disk");
    let remounted = Command::new("mount")
        .args(["-o", "remount,errors=remount-ro"])
        .arg(disk)
        .status();
    assert!(remounted.is_ok_and(|status| status.success()), "remounted");
    let device = host.device();
    let name = device.file_name().unwrap_or_default().to_string_lossy();
    let trigger = format!("/sys/fs/ext4/{name}/trigger_fs_error");
    fs::write(&trigger, "torture").unwrap_or_else(|error| panic!("{trigger}: {error}"));
}
