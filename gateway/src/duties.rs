//! What a gateway does all the time beside answering: keeps the agent informed, takes what peers and strangers send,
//! and, as leader, keeps Raft's membership equal to the member list.
//!
//! Shell: each duty is a loop that waits for a change and passes it on. The one decision here, [`report_of`], is pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    env::consts::ARCH,
    sync::Arc,
    time::Duration,
};

use anyhow::anyhow;

use beemesh_protocol::{
    ClusterId, HostId,
    ipc::{Class, Member, Report, Welcome},
    mesh::{JoinAnswer, JoinRequest},
    peer::{HostReport, Phase},
    state::{Change, Command, Host},
};
use tokio::{
    sync::{Semaphore, mpsc, watch},
    time::{Instant, sleep, sleep_until},
};

use crate::{
    agent_link::{Inbound, Link},
    api,
    clock::{backoff::Backoff, now_ms},
    cluster::{labels, placement, state::State},
    context::Gateway,
    controllers,
    local::files::{Home, Joining},
    membership::{admit::admit, replace},
    raft::{Metrics, Node, Role, Wanted},
    workloads::observe::is_in_trouble,
};

/// A member that is demoted for a while is looked at after this pause.
const DEMOTED_PAUSE: Duration = Duration::from_secs(1);
/// A member that cannot be added or promoted now, because it is down or behind, is tried again after this pause.
const MEMBERSHIP_PAUSE: Duration = Duration::from_millis(200);
/// The pause grows up to this: an attempt may be an entry of the log, and the next one may find its host there.
const MEMBERSHIP_PAUSE_MAX: Duration = Duration::from_secs(5);
/// At most one look in this time at a state and metrics that every commit changes; the first after a quiet time is at once.
const PACE: Duration = Duration::from_millis(50);
/// A cluster of one commits in milliseconds; a slow disk gets this long.
const FOUND_MAX: Duration = Duration::from_secs(30);
/// The word for a host that has no part in its cluster any more.
const REMOVED: &str = "removed";
/// Applications that are decided at once: each costs one proposal.
const ADMISSIONS_MAX: usize = 8;

/// Makes a host that is in no cluster a cluster of its own, which works at once.
///
/// A host without a log is new. One that has a log, votes alone, leads, and has applied everything without meeting a
/// cluster was stopped between Raft's first entry and the first command.
pub(crate) async fn found(node: Node, link: Link, host: HostId) {
    let alone = BTreeSet::from([host]);
    let mut metrics = node.metrics();
    let in_no_cluster = |metrics: &Metrics| {
        metrics.role == Role::Leader
            && metrics.voters == alone
            && metrics.applied == metrics.last_log
    };
    if !node.is_pristine() && metrics.wait_for(in_no_cluster).await.is_err() {
        return;
    }
    let Some(welcome) = link.welcomed().await else {
        return;
    };
    let mut backoff = Backoff::of_proposals();
    while node.state().borrow().state.cluster().is_none() {
        let pause = backoff.tried(Instant::now());
        match found_once(&node, host, &welcome).await {
            Ok(cluster) => {
                tracing::info!(%cluster, "founded a cluster of this one host");
                controllers::begin(&node, Instant::now() + FOUND_MAX).await;
            }
            Err(error) => {
                tracing::error!("found a cluster: {error:#}");
                sleep(pause).await;
            }
        }
    }
}

async fn found_once(node: &Node, host: HostId, welcome: &Welcome) -> anyhow::Result<ClusterId> {
    let mut cluster = [0; 16];
    getrandom::fill(&mut cluster).map_err(|error| anyhow!("draw a cluster id: {error}"))?;
    let change = Change::Found {
        cluster: ClusterId(cluster),
        host: Host {
            id: host,
            name: welcome.name.clone(),
            addresses: welcome.addresses.clone(),
            labels: labels::of_machine(ARCH),
            drained: false,
            claims_as: None,
            votes_from_ms: 0,
        },
    };
    let command = Command::unasked(now_ms(), change);
    node.found(command, Instant::now() + FOUND_MAX).await?;
    Ok(ClusterId(cluster))
}

/// Tells the agent who the members are, and `removed` whether this host was one. While a join is under way the members are
/// the ones that the admission named; a host that was removed has none. `served` hears of them, too.
pub(crate) async fn tell_members(
    gateway: Gateway,
    home: Home,
    mut joining: Option<Joining>,
    removed: watch::Sender<bool>,
    served: watch::Sender<Option<BTreeSet<HostId>>>,
) {
    let Gateway {
        host, node, link, ..
    } = gateway;
    let mut view = node.state();
    let mut is_removed = removed.subscribe();
    let mut told: Option<Vec<Member>> = None;
    loop {
        let state = view.borrow_and_update().state.clone();
        if state.hosts().contains_key(&host) && joining.is_some() {
            match home.joined() {
                Ok(()) => joining = None,
                Err(error) => tracing::error!(%error, "the end of the join cannot be remembered"),
            }
        }
        if joining.is_none() && state.is_without(host) {
            removed.send_if_modified(|removed| !std::mem::replace(removed, true));
        }
        let gone = *is_removed.borrow_and_update();
        let members = match &joining {
            Some(joining) => joining.members.iter().cloned().map(Into::into).collect(),
            None if gone => Vec::new(),
            None => state.members(),
        };
        if gone && told.as_ref() != Some(&members) {
            tracing::warn!("this host was removed from its cluster; its workloads stay as units");
        }
        if told.as_ref() != Some(&members) {
            served.send_replace(Some(members.iter().map(|member| member.host).collect()));
            link.members(members.clone());
            told = Some(members);
        }
        let changed = tokio::select! {
            changed = view.changed() => changed,
            changed = is_removed.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
    }
}

/// Tells the agent what to show on D-Bus and in `systemctl status beemesh-agent`.
pub(crate) async fn tell_report(gateway: Gateway, mut reports: watch::Receiver<Arc<HostReport>>) {
    let Gateway {
        host, node, link, ..
    } = gateway;
    let mut removed = gateway.removed;
    let mut view = node.state();
    let mut metrics = node.metrics();
    let mut told = None;
    loop {
        let report = {
            let view = view.borrow_and_update();
            let metrics = metrics.borrow_and_update();
            let mut report = report_of(host, &view.state, &metrics, &reports.borrow_and_update());
            if *removed.borrow_and_update() {
                REMOVED.clone_into(&mut report.role);
            }
            report
        };
        if told.as_ref() != Some(&report) {
            link.report(report.clone());
            told = Some(report);
        }
        sleep(PACE).await;
        let changed = tokio::select! {
            changed = view.changed() => changed,
            changed = metrics.changed() => changed,
            changed = reports.changed() => changed,
            changed = removed.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
    }
}

/// What the agent should show.
fn report_of(host: HostId, state: &State, metrics: &Metrics, mine: &HostReport) -> Report {
    let wanted = state
        .workloads()
        .filter(|workload| placement::runs(state, workload, host).is_some());
    let phases: BTreeMap<&str, bool> = mine
        .workloads
        .iter()
        .map(|one| {
            let well = matches!(one.phase, Phase::Running | Phase::Succeeded);
            let well = well && one.healthy == one.total;
            (one.workload.as_str(), well && !is_in_trouble(one))
        })
        .collect();
    let (mut workloads, mut healthy) = (0, 0);
    for workload in wanted {
        workloads += 1;
        healthy += u32::from(phases.get(workload.name.as_str()) == Some(&true));
    }
    let leader = metrics.leader.filter(|_| metrics.quorum);
    Report {
        role: role_name(state, metrics).to_owned(),
        leader,
        leader_name: leader
            .and_then(|leader| state.hosts().get(&leader))
            .map(|host| host.name.clone())
            .unwrap_or_default(),
        hosts: u32::try_from(state.hosts().len()).unwrap_or(u32::MAX),
        workloads,
        healthy,
    }
}

/// The word for this host's part in its cluster.
fn role_name(state: &State, metrics: &Metrics) -> &'static str {
    match metrics.role {
        _ if state.cluster().is_none() => "joining",
        Role::Leader => "leader",
        Role::Follower => "follower",
        Role::Candidate => "candidate",
        Role::Learner => "learner",
        Role::Stopped => "stopped",
    }
}

/// Takes what the agent passes on: streams from members and applications from strangers.
///
/// A gateway that begins again as that of another cluster may know other members than the agent does, which was told of them before:
/// nobody but those that it knows itself is `served`.
pub(crate) async fn take_inbound(
    gateway: Gateway,
    mut inbound: mpsc::Receiver<Inbound>,
    mut served: watch::Receiver<Option<BTreeSet<HostId>>>,
) {
    let admissions = Arc::new(Semaphore::new(ADMISSIONS_MAX));
    if served.wait_for(Option::is_some).await.is_err() {
        return;
    }
    while let Some(next) = inbound.recv().await {
        match next {
            Inbound::Stream {
                host,
                class,
                stream,
            } => {
                let members = served.borrow();
                if !members
                    .as_ref()
                    .is_some_and(|members| members.contains(&host))
                {
                    tracing::info!(%host, ?class, "stream closed: that host is no member");
                    continue;
                }
                drop(members);
                let gateway = gateway.clone();
                tokio::spawn(async move {
                    match class {
                        Class::Api => api::serve_stream(gateway, host, stream).await,
                        _ => gateway.node.serve(host, class, stream).await,
                    }
                });
            }
            Inbound::Join { id, host, request } => {
                let Ok(permit) = admissions.clone().try_acquire_owned() else {
                    tracing::warn!(%host, "application dropped: {ADMISSIONS_MAX} are being decided");
                    continue;
                };
                let gateway = gateway.clone();
                tokio::spawn(async move {
                    let answer = answer(&gateway, host, request).await;
                    gateway.link.join_answer(id, answer);
                    drop(permit);
                });
            }
        }
    }
}

async fn answer(gateway: &Gateway, host: HostId, request: JoinRequest) -> JoinAnswer {
    if *gateway.removed.borrow() {
        let reason = "that host was removed from the cluster itself".into();
        return JoinAnswer::Refused { reason };
    }
    let replaces = match &request.replace {
        None => None,
        Some(replace) => match replace::lost(gateway, host, &request, replace).await {
            Ok(lost) => Some(lost),
            Err(reason) => return JoinAnswer::Refused { reason },
        },
    };
    admit(&gateway.node, host, request, replaces).await
}

/// Says loudly when the agent is not the one this gateway's folder belongs to: the mesh would speak under another name.
pub(crate) async fn check_identity(link: Link, host: HostId) {
    let mut welcome = link.welcome();
    loop {
        if let Some(agent) = welcome
            .borrow_and_update()
            .as_ref()
            .map(|welcome| welcome.host)
            && agent != host
        {
            tracing::error!(
                %agent, folder = %host,
                "the agent has another identity than the gateway's folder: restore /var/lib/beemesh/agent/identity, or \
                 remove the gateway's folder and join again"
            );
        }
        if welcome.changed().await.is_err() {
            return;
        }
    }
}

/// While this host leads, brings Raft's membership to the member list, one change at a time.
pub(crate) async fn keep_membership(node: Node) {
    let mut view = node.state();
    let mut metrics = node.metrics();
    let mut backoff = Backoff::new(MEMBERSHIP_PAUSE, MEMBERSHIP_PAUSE_MAX);
    let (mut wanted, mut failed) = (Wanted::default(), false);
    loop {
        let leads = metrics.borrow_and_update().role == Role::Leader;
        let now = Wanted::of(&view.borrow_and_update().state, now_ms());
        // What failed is tried again by the back-off alone, and something else at once.
        failed &= wanted == now;
        wanted = now;
        if leads && (!failed || backoff.allows(Instant::now())) {
            let changed = node.reconcile_members(&wanted).await;
            failed = changed.is_err();
            if let Err(error) = changed {
                let pause = backoff.tried(Instant::now());
                tracing::debug!(%error, ?pause, "membership not changed now");
            }
        }
        let due = match (leads, failed) {
            (true, true) => backoff.due(),
            (true, false) if !wanted.demoted.is_empty() => Some(Instant::now() + DEMOTED_PAUSE),
            _ => None,
        };
        sleep(PACE).await;
        let changed = tokio::select! {
            changed = view.changed() => changed,
            changed = metrics.changed() => changed,
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => Ok(()),
        };
        if changed.is_err() {
            return;
        }
    }
}
