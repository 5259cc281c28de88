//! Real losses of power at critical moments, many times, beside the same with bare Podman.
//!
//! Shell. An operation begins on a host, and after a random time one host or all hosts lose power. They boot again and
//! must recover without a human: the acknowledged changes exist, and every host runs them. Bare Podman gets the same
//! pod as a Quadlet that systemd starts.

mod bare;
mod page;

use std::{
    fs, io,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use clap::{Args, ValueEnum};

use super::{
    clients::{self, FIRST_POD, name, yaml},
    round::runs_only,
};
use crate::{Chance, Cluster, Host, wait_for};

/// The number of hosts that lose power.
const HOSTS: usize = 3;
/// The number of power cuts before new hosts are booted: the damage of one cut stays for the next.
const CUTS_OF_HOSTS: usize = 14;
/// The time limit of the recovery: a repair reads all of Podman's storage.
const BACK_MAX: Duration = Duration::from_secs(240);
/// The number of 1 MiB writes after which a gateway takes a snapshot.
const FILLING: u64 = 66;

/// The operation in progress at the power cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Moment {
    /// A workload is applied for the first time.
    Apply,
    /// A workload gets another revision.
    Update,
    /// A workload is deleted.
    Delete,
    /// An image is loaded into Podman.
    ImageLoad,
    /// A host joins.
    Join,
    /// Gateways take snapshots.
    Snapshot,
    /// dnf reinstalls Beemesh, as in an upgrade to the same version.
    Upgrade,
}

/// Options.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Seed of all random choices
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Number of power cuts
    #[arg(long, default_value_t = 200)]
    pub cuts: usize,
    /// Number of power cuts on hosts of bare Podman
    #[arg(long, default_value_t = 50)]
    pub bare: usize,
    /// Only power cuts at these moments
    #[arg(long, value_delimiter = ',')]
    pub only: Vec<Moment>,
    /// File for the report
    #[arg(long)]
    pub report: Option<PathBuf>,
}

/// One power cut.
#[derive(Debug, Clone, Copy)]
struct Cut {
    moment: Moment,
    /// Whether all hosts lost power.
    all: bool,
    /// Whether the operation was acknowledged before the cut.
    acknowledged: bool,
    /// The number of hosts whose storage was repaired.
    repaired: usize,
    /// The time from the boot until every host ran everything.
    back: Duration,
}

/// Runs the power cuts and writes the report.
///
/// # Errors
/// If the report cannot be written.
///
/// # Panics
/// If something does not recover.
pub fn run(options: &Options) -> io::Result<()> {
    let moments: &[Moment] = if options.only.is_empty() {
        Moment::value_variants()
    } else {
        &options.only
    };
    let mut chance = Chance::new(options.seed, 3);
    let mut cuts = Vec::new();
    while cuts.len() < options.cuts {
        let next = moments[cuts.len() % moments.len()];
        if next == Moment::Join {
            cuts.push(said(cuts.len(), join(&mut chance)));
            continue;
        }
        let mut series = Series::begin(&mut chance);
        for _ in 0..CUTS_OF_HOSTS.min(options.cuts - cuts.len()) {
            let moment = moments[cuts.len() % moments.len()];
            // A host can join only once; other moments take its place here.
            if moment == Moment::Join && moments.len() > 1 {
                break;
            }
            cuts.push(said(cuts.len(), series.cut(moment)));
        }
    }
    let bare = bare::run(options.bare, &mut chance);
    let page = page::page(options, &cuts, &bare);
    eprint!("{page}");
    options
        .report
        .as_ref()
        .map_or(Ok(()), |path| fs::write(path, page))
}

fn said(number: usize, cut: Cut) -> Cut {
    eprintln!("{}: {cut:?}", number + 1);
    cut
}

/// Hosts that lose their power several times.
struct Series<'a> {
    cluster: Cluster,
    chance: &'a mut Chance,
    /// The last written contents of the two workloads.
    contents: [u64; 2],
    written: u64,
}

impl<'a> Series<'a> {
    fn begin(chance: &'a mut Chance) -> Self {
        let cluster = Cluster::formed("power-cuts", HOSTS);
        cluster.offer();
        cluster.each(|host| {
            let line = "mkdir -p /root/image/bin && cp /bin/busybox /root/image/bin";
            let _ = host.sh(line).ok();
        });
        let mut series = Self {
            cluster,
            chance,
            contents: [0; 2],
            written: 0,
        };
        series.settle(0, true);
        series
    }

    /// Makes a workload exist or not.
    fn settle(&mut self, which: usize, there: bool) {
        if (self.contents[which] != 0) == there {
            return;
        }
        let host = self.cluster.host(1);
        let settled = if there {
            self.written += 1;
            self.contents[which] = self.written;
            host.apply(&yaml(FIRST_POD + which, self.written))["settled"].clone()
        } else {
            self.contents[which] = 0;
            let path = format!("/v1/manifests/{}?wait=60", name(FIRST_POD + which));
            host.api("DELETE", &path, b"").1["settled"].clone()
        };
        assert_eq!(settled, true, "before the power goes");
    }

    fn cut(&mut self, moment: Moment) -> Cut {
        let all = self.chance.below(2) == 0;
        let hosts: Vec<usize> = (1..=HOSTS).collect();
        let victim = *self.chance.pick(&hosts).expect("a host");
        let other = *self.chance.pick(&hosts).expect("a host");
        match moment {
            Moment::Apply => self.settle(1, false),
            Moment::Delete => self.settle(1, true),
            _ => {}
        }
        self.written += 1;
        let (which, content) = match moment {
            Moment::Apply => (1, self.written),
            Moment::Update => (0, self.written),
            Moment::Delete => (1, 0),
            _ => (0, self.contents[0]),
        };
        let act = Act {
            moment,
            // A write through the host that loses power, or through another one.
            host: self.cluster.host(other).clone(),
            manifest: FIRST_POD + which,
            content,
            once: self.written,
        };
        let after = self.chance.millis(0, act.longest());
        let under_way = thread::spawn(move || act.go());
        thread::sleep(after);
        let victims: Vec<&Host> = if all {
            self.cluster.hosts.iter().collect()
        } else {
            vec![self.cluster.host(victim)]
        };
        self.cluster.crash(&victims);
        self.cluster.boot(&victims);
        let booted = Instant::now();
        let acknowledged = under_way.join().expect("it does not panic");
        self.cluster.ready();
        let there = self.content(which);
        let may = if acknowledged {
            vec![content]
        } else {
            vec![content, self.contents[which]]
        };
        assert!(
            may.contains(&there),
            "{moment:?}: {there} instead of {may:?}"
        );
        self.contents[which] = there;
        for (which, content) in self.contents.iter().enumerate() {
            for host in &self.cluster.hosts {
                back(host, FIRST_POD + which, *content, booted);
            }
        }
        Cut {
            moment,
            all,
            acknowledged,
            repaired: victims.iter().filter(|host| was_repaired(host)).count(),
            back: booted.elapsed(),
        }
    }

    fn content(&self, which: usize) -> u64 {
        let path = format!("/v1/workloads/{}", name(FIRST_POD + which));
        let (code, shown) = self.cluster.host(1).api("GET", &path, b"");
        match code {
            200 => clients::content(shown.to_string().as_bytes()),
            404 => 0,
            _ => panic!("{path}: {code}: {shown}"),
        }
    }
}

/// An operation on a host.
struct Act {
    moment: Moment,
    host: Host,
    manifest: usize,
    content: u64,
    once: u64,
}

impl Act {
    /// The latest moment of the power cut after the start, in milliseconds.
    fn longest(&self) -> u64 {
        match self.moment {
            Moment::Snapshot => 6000,
            Moment::ImageLoad => 800,
            Moment::Upgrade => 7000,
            _ => 2000,
        }
    }

    /// Runs the operation; returns whether it was acknowledged.
    fn go(&self) -> bool {
        let Self {
            moment,
            host,
            manifest,
            content,
            once,
        } = self;
        match moment {
            Moment::Apply | Moment::Update => {
                let body = yaml(*manifest, *content);
                host.api("POST", "/v1/apply", body.as_bytes()).0 == 200
            }
            Moment::Delete => {
                let path = format!("/v1/manifests/{}", name(*manifest));
                host.api("DELETE", &path, b"").0 == 200
            }
            Moment::ImageLoad => {
                let line = format!(
                    "cd /root/image && echo {once} >once && tar -c . | podman import -q - localhost/once:{once}"
                );
                host.sh(&line).code == 0
            }
            Moment::Snapshot => (0..FILLING).all(|turn| fill(host, turn)),
            Moment::Upgrade => {
                let line = ["timeout", "120", "dnf", "-y", "reinstall", "beemesh"];
                host.run(&line).code == 0
            }
            Moment::Join => unreachable!("a series has no host that joins"),
        }
    }
}

fn fill(host: &Host, turn: u64) -> bool {
    let half = "x".repeat(500 << 10);
    let yaml = format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: filling\ndata:\n  turn: \"{turn}\"\n  one: {half}\n  two: {half}\n"
    );
    host.api("POST", "/v1/apply", yaml.as_bytes()).0 == 200
}

/// Waits until a host runs exactly one pod of a manifest, with this content.
#[track_caller]
fn back(host: &Host, manifest: usize, content: u64, since: Instant) {
    let what = format!("{} with content {content} on {}", name(manifest), host.name);
    let left = BACK_MAX.saturating_sub(since.elapsed());
    wait_for(&what, left, || runs_only(host, manifest, content));
}

/// Whether the host's storage was repaired since the boot.
fn was_repaired(host: &Host) -> bool {
    host.unit("beemesh-repair.service", "ExecMainStartTimestampMonotonic") != "0"
}

/// One host or both lose power while one joins the other. Afterwards the join is complete or can be completed.
fn join(chance: &mut Chance) -> Cut {
    let cluster = Cluster::booted("power-join", 2);
    cluster.each(crate::start_agent);
    let [one, other] = [cluster.host(1), cluster.host(2)];
    let answer = one.apply(&yaml(FIRST_POD, 1));
    assert_eq!(answer["settled"], true, "{answer}");
    let token = one.beemesh(&["token", "create"]).ok();
    let joining = other.clone();
    let again = token.clone();
    let under_way = thread::spawn(move || joining.beemesh(&["join", token.trim()]).code == 0);
    thread::sleep(chance.millis(0, 600));
    let victims = match chance.below(3) {
        0 => vec![one],
        1 => vec![other],
        _ => vec![one, other],
    };
    cluster.crash(&victims);
    cluster.boot(&victims);
    let booted = Instant::now();
    let acknowledged = under_way.join().expect("it does not panic");
    if !acknowledged {
        wait_for("the join, again", BACK_MAX, || {
            let answer = other.run(&["timeout", "30", "beemesh", "join", again.trim()]);
            if answer.code == 0 {
                Ok(())
            } else {
                Err(answer.to_string())
            }
        });
    }
    cluster.ready();
    for host in &cluster.hosts {
        back(host, FIRST_POD, 1, booted);
    }
    Cut {
        moment: Moment::Join,
        all: victims.len() == 2,
        acknowledged,
        repaired: victims.iter().filter(|host| was_repaired(host)).count(),
        back: booted.elapsed(),
    }
}
