//! The report of this host, and the reports of the other hosts.
//!
//! Shell: owns the watch on Podman, this host's [`HostReport`] and the table of all hosts' last reports. Input: the
//! executor's [`Standing`], the replicated state, the link, Podman's pods and events. Output: [`Observer::reports`],
//! [`Cluster::all`], and the same reports on streams to other members ([`peers`]). Nothing is sent while nothing
//! changes.

mod fan_out;
mod pace;
mod peers;
mod pods;
pub(crate) mod serve_events;
mod source;
pub(crate) mod tell;

use std::{collections::BTreeSet, sync::Arc};

use beemesh_protocol::{
    HostId,
    ipc::Welcome,
    peer::{HostReport, Reported},
};
use beemesh_quadlet::podman::Podman;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use crate::{
    agent_link::Link,
    cluster::{consensus::Consensus, host_name::name_trouble, reports::Reports},
    raft::View,
    workloads::{capacity, run::Standing},
};
use pace::Pace;
use peers::Telling;
use pods::Pods;
use source::is_only_applied;

/// The inputs of an observer.
#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) host: HostId,
    /// The version of this program.
    pub(crate) version: String,
    /// The connection to the agent and the other members.
    pub(crate) link: Link,
    /// The host's Podman.
    pub(crate) podman: Podman,
    /// The replicated state.
    pub(crate) view: watch::Receiver<Arc<View>>,
    /// The leader and the term.
    pub(crate) consensus: watch::Receiver<Consensus>,
    /// The results of the executor.
    pub(crate) standing: watch::Receiver<Arc<Standing>>,
    /// The table of all hosts' reports, including this host's.
    pub(crate) cluster: Cluster,
}

/// A handle on the report of this host.
#[derive(Debug, Clone)]
pub(crate) struct Observer {
    reports: watch::Receiver<Arc<HostReport>>,
}

/// The last report of every host that is a member.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cluster {
    reports: Arc<watch::Sender<Reports>>,
}

impl Cluster {
    /// Adds reports of hosts, which replace their previous reports.
    pub(crate) fn note(&self, said: Vec<Reported>) {
        self.reports.send_if_modified(|reports| {
            let mut changed = false;
            for Reported { host, report } in said {
                if reports.get(&host).is_none_or(|before| **before != report) {
                    Arc::make_mut(reports).insert(host, Arc::new(report));
                    changed = true;
                }
            }
            changed
        });
    }

    /// All reports, by host.
    pub(crate) fn all(&self) -> watch::Receiver<Reports> {
        self.reports.subscribe()
    }

    /// Removes the reports of hosts that are no members.
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
    /// Starts to observe. The task runs as long as the runtime.
    pub(crate) fn start(settings: Settings) -> Self {
        let pods = pods::watch(settings.podman.clone(), settings.link.units());
        let (sender, reports) = watch::channel(Arc::default());
        let telling = Telling {
            host: settings.host,
            link: settings.link.clone(),
            consensus: settings.consensus.clone(),
            mine: reports.clone(),
            all: settings.cluster.all(),
        };
        tokio::spawn(telling.run());
        tokio::spawn(observe(settings, pods, sender));
        Self { reports }
    }

    /// The report of this host.
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
    let mut welcome = settings.link.welcome();
    let mut connected = settings.link.connected();
    let has = capacity::of_this_host().unwrap_or_default();
    let mut pace = Pace::new();
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
        let report = with_welcome(
            report,
            settings.host,
            &view,
            welcome.borrow_and_update().as_ref(),
        );
        let report = HostReport {
            unreached: Some(unreached(
                settings.host,
                &view,
                &connected.borrow_and_update(),
            )),
            cpu_millis: u32::try_from(has.millis).unwrap_or(u32::MAX),
            memory_bytes: u64::try_from(has.bytes).unwrap_or(u64::MAX),
            ..report
        };
        settings
            .cluster
            .keep(|host| *host == settings.host || view.state.hosts().contains_key(host));
        let before = reports.borrow().clone();
        let report = HostReport {
            sequence: before.sequence,
            ..report
        };
        if report != *before {
            let only_applied = is_only_applied(Some(&before), &report);
            let now = Instant::now();
            if let Some(due) = pace.due(only_applied).filter(|due| *due > now) {
                // A burst of commits does not delay other changes.
                tokio::select! {
                    () = sleep_until(due) => {}
                    Ok(()) = settings.standing.changed() => {}
                    Ok(()) = pods.changed() => {}
                    Ok(()) = trouble.changed() => {}
                    Ok(()) = connected.changed() => {}
                }
                continue;
            }
            pace.sent(only_applied, now);
            let report = HostReport {
                sequence: before.sequence + 1,
                ..report
            };
            reports.send_replace(Arc::new(report.clone()));
            let host = settings.host;
            settings.cluster.note(vec![Reported { host, report }]);
        }
        let open = tokio::select! {
            changed = settings.view.changed() => changed.is_ok(),
            changed = settings.standing.changed() => changed.is_ok(),
            changed = pods.changed() => changed.is_ok(),
            changed = trouble.changed() => changed.is_ok(),
            changed = welcome.changed() => changed.is_ok(),
            changed = connected.changed() => changed.is_ok(),
        };
        if !open {
            return;
        }
    }
}

/// The members that the agent is not connected to, sorted.
fn unreached(host: HostId, view: &View, connected: &BTreeSet<HostId>) -> Vec<HostId> {
    let members = view.state.hosts().keys();
    let unreached = members.filter(|other| **other != host && !connected.contains(*other));
    unreached.copied().collect()
}

/// Adds the agent's own data to the report.
fn with_welcome(
    report: HostReport,
    host: HostId,
    view: &View,
    welcome: Option<&Welcome>,
) -> HostReport {
    let Some(welcome) = welcome else {
        return report;
    };
    let name = name_trouble(host, welcome, &view.state);
    let troubles = [report.trouble, name].into_iter();
    let troubles: Vec<_> = troubles.filter(|trouble| !trouble.is_empty()).collect();
    HostReport {
        trouble: troubles.join("; "),
        reserved_ports: welcome.reserved_ports.clone(),
        ..report
    }
}

/// Composes a report; the sender sets its sequence number.
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
        takes_reports: true,
        reserved_ports: Vec::new(),
        unreached: None,
        cpu_millis: 0,
        memory_bytes: 0,
    }
}
