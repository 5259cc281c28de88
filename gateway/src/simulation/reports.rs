//! What hosts report, and what a leader knows of it.
//!
//! A report is composed as in [`crate::workloads::observe`]: from the state that the gateway has applied, and from what
//! its executor has said last, which is nothing until the executor has looked for the first time. A leader gets a report
//! some time later, and keeps the last one of a host that it does not reach. A new leader begins with older ones.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use beemesh_protocol::{
    HostId,
    peer::{HostReport, WorkloadReport},
};
use harness::Chance;
use tokio::{sync::watch, time::Instant};

use super::world::World;
use crate::raft::Node;

/// The age that a report may have when a leader gets it.
const LAG_MAX_MS: u64 = 250;
/// The same for the first report that a new leader has.
const FIRST_LAG_MAX_MS: u64 = 1500;
/// How long earlier reports are kept: longer than any lag.
const KEPT: Duration = Duration::from_secs(2);

/// The reports of a host.
pub(super) struct Said {
    /// What the executor has said last.
    pub(super) standing: watch::Sender<Vec<WorkloadReport>>,
    /// The reports with their times, the latest last.
    reports: Mutex<Vec<(Instant, Arc<HostReport>)>>,
}

impl Default for Said {
    fn default() -> Self {
        Self {
            standing: watch::channel(Vec::new()).0,
            reports: Mutex::default(),
        }
    }
}

impl Said {
    fn add(&self, report: HostReport) {
        let mut reports = self.reports.lock().unwrap();
        if reports.last().is_some_and(|(_, last)| **last == report) {
            return;
        }
        let now = Instant::now();
        let old = reports.partition_point(|(at, _)| *at + KEPT < now);
        reports.drain(..old.saturating_sub(1));
        reports.push((now, Arc::new(report)));
    }

    /// The last report that is at least this old.
    fn before(&self, lag: Duration) -> Option<Arc<HostReport>> {
        let now = Instant::now();
        let reports = self.reports.lock().unwrap();
        let older = reports.partition_point(|(at, _)| *at + lag <= now);
        let at = older.checked_sub(1)?;
        Some(Arc::clone(&reports[at].1))
    }

    /// The last report.
    fn last(&self) -> Option<Arc<HostReport>> {
        self.before(Duration::ZERO)
    }
}

/// Composes the reports of a host until this life of its gateway ends.
pub(super) async fn observe(world: Arc<World>, host: HostId, node: Node, life: u64) {
    let said = world.rig(host).said();
    said.standing.send_replace(Vec::new());
    let (mut view, mut standing) = (node.state(), said.standing.subscribe());
    while world.lives(host, life) {
        said.add(HostReport {
            applied: view.borrow_and_update().applied,
            workloads: standing.borrow_and_update().clone(),
            ..HostReport::default()
        });
        let open = tokio::select! {
            changed = view.changed() => changed.is_ok(),
            changed = standing.changed() => changed.is_ok(),
        };
        if !open {
            return;
        }
    }
}

/// The reports that a leader has.
pub(super) struct Known {
    host: HostId,
    chance: Chance,
    lags: BTreeMap<HostId, Duration>,
    reports: BTreeMap<HostId, Arc<HostReport>>,
}

impl Known {
    pub(super) fn new(host: HostId, chance: Chance) -> Self {
        Self {
            host,
            chance,
            lags: BTreeMap::new(),
            reports: BTreeMap::new(),
        }
    }

    /// Takes what has arrived since the last call.
    pub(super) fn reports(&mut self, world: &World) -> BTreeMap<HostId, Arc<HostReport>> {
        for host in world.hosts() {
            let said = world.rig(host).said();
            let report = if host == self.host {
                said.last()
            } else if !world.lags() {
                world.is_up(host).then(|| said.last()).flatten()
            } else if let Some(lag) = self.lags.get(&host) {
                let reaches = world.is_up(host) && world.reaches(host, self.host);
                reaches.then(|| said.before(*lag)).flatten()
            } else {
                let first = self.chance.millis(0, FIRST_LAG_MAX_MS);
                self.lags.insert(host, self.chance.millis(1, LAG_MAX_MS));
                said.before(first)
            };
            if let Some(report) = report {
                self.reports.insert(host, report);
            }
        }
        self.reports.clone()
    }
}
