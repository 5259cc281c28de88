//! What this host looks like, and what the other hosts say they look like.
//!
//! Shell: owns the watch on Podman, this host's [`HostReport`] and the table of all hosts' last reports. Input: the
//! executor's [`Standing`], the replicated state, the link, Podman's pods and events. Output: [`Observer::reports`],
//! [`Cluster::all`], and the same report on a stream to every connected member ([`peers`]). Nothing is sent while
//! nothing changes.

mod peers;
mod pods;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use beemesh_protocol::{HostId, peer::HostReport};
use beemesh_quadlet::podman::Podman;
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use crate::{execute::Standing, link::Link, raft::View};
use pods::Pods;

/// A host reports at most once in this time. Short against what a person notices.
const REPORT_PAUSE: Duration = Duration::from_millis(20);
/// While nothing but `applied` changes, the pauses grow up to this: each commit of a long burst changes it, and whoever
/// waits for it notices no more than this.
const APPLIED_PAUSE_MAX: Duration = Duration::from_millis(320);

/// What an observer works with.
#[derive(Clone)]
pub(crate) struct Settings {
    /// This host.
    pub(crate) host: HostId,
    /// This program's version.
    pub(crate) version: String,
    /// The way to the agent and the peers.
    pub(crate) link: Link,
    /// The host's Podman.
    pub(crate) podman: Podman,
    /// The replicated state.
    pub(crate) view: watch::Receiver<Arc<View>>,
    /// What the executor says.
    pub(crate) standing: watch::Receiver<Arc<Standing>>,
    /// Where all hosts' reports go, this host's included.
    pub(crate) cluster: Cluster,
}

/// A handle on what this host reports.
#[derive(Debug, Clone)]
pub(crate) struct Observer {
    reports: watch::Receiver<Arc<HostReport>>,
}

/// The last report of every host that is a member.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cluster {
    reports: Arc<watch::Sender<Arc<BTreeMap<HostId, HostReport>>>>,
}

impl Cluster {
    /// Takes a host's report, which replaces what it said before.
    pub(crate) fn note(&self, host: HostId, report: HostReport) {
        self.reports.send_if_modified(|reports| {
            let changed = reports.get(&host) != Some(&report);
            if changed {
                Arc::make_mut(reports).insert(host, report);
            }
            changed
        });
    }

    /// All reports, by host.
    pub(crate) fn all(&self) -> watch::Receiver<Arc<BTreeMap<HostId, HostReport>>> {
        self.reports.subscribe()
    }

    /// Forgets hosts that are no members.
    fn keep(&self, is_member: impl Fn(&HostId) -> bool) {
        self.reports.send_if_modified(|reports| {
            let changed = !reports.keys().all(&is_member);
            if changed {
                Arc::make_mut(reports).retain(|host, _| is_member(host));
            }
            changed
        });
    }
}

impl Observer {
    /// Begins to observe, for as long as the runtime lives.
    pub(crate) fn start(settings: Settings) -> Self {
        let pods = pods::watch(settings.podman.clone(), settings.link.units());
        let (sender, reports) = watch::channel(Arc::default());
        tokio::spawn(peers::tell(settings.link.clone(), reports.clone()));
        tokio::spawn(observe(settings, pods, sender));
        Self { reports }
    }

    /// What this host says about itself.
    pub(crate) fn reports(&self) -> watch::Receiver<Arc<HostReport>> {
        self.reports.clone()
    }
}

async fn observe(
    mut settings: Settings,
    mut pods: watch::Receiver<Pods>,
    reports: watch::Sender<Arc<HostReport>>,
) {
    let mut trouble = settings.link.trouble();
    let mut pause = REPORT_PAUSE;
    let mut reported = Instant::now();
    loop {
        let view = settings.view.borrow_and_update().clone();
        let standing = settings.standing.borrow_and_update().clone();
        let report = compose(
            &settings.version,
            view.applied,
            &standing,
            &pods.borrow_and_update(),
            &trouble.borrow_and_update(),
        );
        settings
            .cluster
            .keep(|host| *host == settings.host || view.state.hosts().contains_key(host));
        let before = reports.borrow().clone();
        let report = HostReport {
            sequence: before.sequence,
            ..report
        };
        if report != *before {
            let only_applied = HostReport {
                applied: before.applied,
                ..report.clone()
            } == *before;
            let burst = only_applied && reported.elapsed() < 2 * APPLIED_PAUSE_MAX;
            pause = if burst {
                (pause * 2).min(APPLIED_PAUSE_MAX)
            } else {
                REPORT_PAUSE
            };
            reported = Instant::now();
            let report = HostReport {
                sequence: before.sequence + 1,
                ..report
            };
            reports.send_replace(Arc::new(report.clone()));
            settings.cluster.note(settings.host, report);
            sleep(REPORT_PAUSE).await;
            // A change of anything else does not wait for the end of a burst of commits.
            tokio::select! {
                () = sleep(pause - REPORT_PAUSE) => {}
                Ok(()) = settings.standing.changed() => {}
                Ok(()) = pods.changed() => {}
                Ok(()) = trouble.changed() => {}
            }
            continue;
        }
        let open = tokio::select! {
            changed = settings.view.changed() => changed.is_ok(),
            changed = settings.standing.changed() => changed.is_ok(),
            changed = pods.changed() => changed.is_ok(),
            changed = trouble.changed() => changed.is_ok(),
        };
        if !open {
            return;
        }
    }
}

/// Puts a report together; its sequence is left to the sender.
fn compose(
    version: &str,
    applied: u64,
    standing: &Standing,
    pods: &Pods,
    link: &str,
) -> HostReport {
    let troubles = [link, pods.trouble.as_str()]
        .into_iter()
        .filter(|trouble| !trouble.is_empty());
    let troubles = troubles.chain(
        standing
            .strange
            .iter()
            .chain(&pods.stray)
            .map(String::as_str),
    );
    HostReport {
        sequence: 0,
        applied,
        version: version.to_owned(),
        podman: pods.version.clone(),
        trouble: troubles.collect::<Vec<_>>().join("; "),
        workloads: standing.workloads.clone(),
    }
}
