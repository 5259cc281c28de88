//! The same pod as a Quadlet of bare Podman, on hosts without Beemesh.

use std::{
    thread,
    time::{Duration, Instant},
};

use super::super::{
    clients::{FIRST_POD, yaml},
    round::runs_only,
};
use crate::{Chance, Cluster, Host};

/// The number of hosts that lose their power at the same time.
const HOSTS: usize = 3;
/// The time limit of the recovery: systemd gives a unit up after five starts.
const BACK_MAX: Duration = Duration::from_secs(60);

/// The result on one host.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bare {
    /// Whether `systemctl start` had returned before the cut.
    pub(super) acknowledged: bool,
    /// Whether the pod ran again after the boot, with the last started content.
    pub(super) back: bool,
}

/// Runs this many power cuts, on new hosts after each one without a full recovery.
pub(super) fn run(cuts: usize, chance: &mut Chance) -> Vec<Bare> {
    let mut all = Vec::new();
    while all.len() < cuts {
        let cluster = Cluster::booted("power-bare", HOSTS);
        for content in 1.. {
            let bare = cut(&cluster, content, chance);
            eprintln!("bare: {bare:?}");
            let well = bare.iter().all(|bare| bare.back);
            all.extend(bare);
            if !well || all.len() >= cuts {
                break;
            }
        }
    }
    all
}

/// Cuts the power of all hosts some time after they began to start this content.
fn cut(cluster: &Cluster, content: u64, chance: &mut Chance) -> Vec<Bare> {
    let starts: Vec<_> = cluster
        .hosts
        .iter()
        .map(|host| {
            let host = host.clone();
            thread::spawn(move || start(&host, content))
        })
        .collect();
    thread::sleep(chance.millis(500, 15_000));
    let hosts: Vec<&Host> = cluster.hosts.iter().collect();
    cluster.crash(&hosts);
    cluster.boot(&hosts);
    let booted = Instant::now();
    let acknowledged = starts
        .into_iter()
        .map(|start| start.join().expect("it does not panic"));
    let acknowledged: Vec<bool> = acknowledged.collect();
    let runs = |host: &Host, acknowledged: bool| {
        let there = |content| runs_only(host, FIRST_POD, content).is_ok();
        there(content) || (!acknowledged && there(content - 1))
    };
    let each = hosts.iter().zip(acknowledged);
    each.map(|(host, acknowledged)| {
        while !runs(host, acknowledged) && booted.elapsed() < BACK_MAX {
            thread::sleep(Duration::from_millis(200));
        }
        let back = runs(host, acknowledged);
        Bare { acknowledged, back }
    })
    .collect()
}

/// Starts the content as a careful administrator would; returns whether systemd reports that it runs.
fn start(host: &Host, content: u64) -> bool {
    let kube =
        "[Kube]\nYaml=/etc/containers/systemd/bare.yaml\n\n[Install]\nWantedBy=multi-user.target\n";
    let write = |path: &str, text: &str| {
        let line =
            format!("cat >{path}.new && sync {path}.new && mv {path}.new {path} && sync -f {path}");
        host.run_with(&["sh", "-c", &line], text.as_bytes()).code == 0
    };
    write(
        "/etc/containers/systemd/bare.yaml",
        &yaml(FIRST_POD, content),
    ) && write("/etc/containers/systemd/bare.kube", kube)
        && host
            .sh("systemctl daemon-reload && systemctl restart bare.service")
            .code
            == 0
}
