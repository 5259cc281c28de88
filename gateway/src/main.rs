//! The gateway of one host: wires consensus, the API, the reconciler and the connection to the agent together.

#![cfg_attr(not(test), forbid(unsafe_code))]

mod agent_link;
mod api;
mod clock;
mod cluster;
mod config;
mod context;
mod controllers;
mod local;
mod membership;
mod pki;
mod raft;
#[cfg(test)]
mod simulation;
mod workloads;

use std::{
    collections::BTreeSet,
    fs, io,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::Path,
    process::{Command, ExitCode},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, anyhow};
use beemesh_protocol::{HostId, ipc::Class, peer::HostReport};
use beemesh_quadlet::podman::{Podman, served_events};
use clap::Parser as _;
use nix::sys::stat::{Mode, umask};
use tokio::{
    net::UnixListener,
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
};
use tokio_util::sync::CancellationToken;

use crate::{
    agent_link::{Inbound, Link, inbound},
    config::Config,
    context::{
        Gateway,
        views::{Sources, Views},
    },
    controllers::{leases::Shared as Leases, voters},
    local::{files::Home, lifecycle::store::Lifecycle},
    membership::{
        announce, applications, elsewhere, found, join, recover, removal_watch, rotate_key,
        tell_agent,
    },
    pki::sealing_keys,
    raft::Node,
    workloads::{
        leases,
        observe::{self, Observer, serve_events, tell},
        prepare::{self, Prepare},
    },
};

/// The socket to which the agent passes connections of remote users. It lies beside the socket for local users.
const REMOTE: &str = "remote.sock";

/// Why a run of the gateway ended.
enum Ending {
    /// The gateway was asked to stop.
    Stopped,
    /// The host joined another cluster or became a cluster of one. The gateway must restart with another log.
    Again,
}

fn main() -> ExitCode {
    let config = Config::parse();
    // The log contains Secrets.
    umask(Mode::from_bits_truncate(0o077));
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("BEEMESH_LOG")
                .unwrap_or_else(|_| "info,openraft=off".into()),
        )
        .without_time()
        .with_ansi(false)
        .with_target(false)
        .init();
    match run(config) {
        Ok(Ending::Stopped) => ExitCode::SUCCESS,
        Ok(Ending::Again) => {
            let error = Command::new("/proc/self/exe")
                .args(std::env::args_os().skip(1))
                .exec();
            tracing::error!(%error, "begin again");
            ExitCode::FAILURE
        }
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn run(config: Config) -> anyhow::Result<Ending> {
    let home = Home::open(&config.dir)?;
    let life = Lifecycle::open(&home)?;
    let (link, inbound) = Link::start(&config.agent, env!("CARGO_PKG_VERSION"));
    let rotating = rotate_key::finish(&home, &life, &link)
        .await
        .context("change the key")?;
    join::finish(&home, &life).context("begin a join")?;
    let host = identify(&home, &link).await?;
    recover::finish(&home, &life, host)
        .await
        .context("recover")?;
    let (gateway, mine, leases) = open(&config, &home, &life, &link, host).await?;
    let listener = listen(&config.api)?;
    let stop = CancellationToken::new();
    let remote = config.api.with_file_name(REMOTE);
    let remote =
        api::listen_remote(&remote).with_context(|| format!("listen on {}", remote.display()))?;
    let hash_key = pki::authority::random().context("draw a key")?;
    let prepare = Prepare::new(prepare::Settings {
        podman: gateway.podman.clone(),
        link: link.clone(),
        units: config.quadlets.clone(),
    });
    let shared = api::Shared::new(gateway.clone(), prepare, hash_key);
    tokio::spawn(api::serve_remote(remote, shared.clone(), stop.clone()));
    tokio::spawn(sealing_keys::keep(gateway.clone()));
    let api = tokio::spawn(api::serve(listener, shared.clone(), stop.clone()));
    let fresh = life.now().joining().is_none();
    tokio::spawn(removal_watch::notice_removal(gateway.clone()));
    let (served_in, served) = watch::channel(None);
    tokio::spawn(tell_agent::tell_members(gateway.clone(), served_in));
    tokio::spawn(take_inbound(shared, gateway.clone(), inbound, served));
    if let Some(host) = rotating {
        tokio::spawn(rotate_key::settle(gateway.clone(), host));
    }
    start_duties(&gateway, mine, leases, &config);
    if fresh {
        tokio::spawn(found::found(gateway.node.clone(), link, host));
    }
    tracing::info!(%host, api = %config.api.display(), "the gateway is ready");
    let ending = tokio::select! {
        () = life.begins_again() => Ok(Ending::Again),
        asked = stop_signal() => asked.map(|()| Ending::Stopped),
        reason = gateway.node.failed() => Err(anyhow!("consensus stopped: {reason}")),
    };
    stop.cancel();
    api.await.context("end the API")?;
    gateway.node.close().await;
    ending
}

/// Returns the identity of this host from the folder. If the folder has none, asks the agent and records its answer.
async fn identify(home: &Home, link: &Link) -> anyhow::Result<HostId> {
    if let Some(host) = home.host()? {
        return Ok(host);
    }
    tracing::info!("waiting for the agent to tell the identity of this host");
    let host = link
        .welcomed()
        .await
        .context("the connection to the agent ended")?
        .host;
    home.set_host(host)?;
    Ok(host)
}

/// Opens consensus and the parts that build on it. The second value is this host's report about itself, and the third one
/// the leases that it grants.
async fn open(
    config: &Config,
    home: &Home,
    life: &Lifecycle,
    link: &Link,
    host: HostId,
) -> anyhow::Result<(Gateway, watch::Receiver<Arc<HostReport>>, Leases)> {
    let podman = Podman::new(&config.podman);
    let cluster = observe::Cluster::default();
    let noted = cluster.clone();
    let (leases, grant) = controllers::leases();
    let node = Node::open(raft::Settings {
        dir: home.raft(),
        disk: Arc::new(raft::System),
        host,
        dial: Arc::new(link.clone()),
        lost_after: Duration::from_secs(config.replace_voter_after),
        observe: Arc::new(move |said| noted.note(said)),
        grant,
    });
    let node = node.await.context("open the log")?;
    let run = config.api.parent().map(Path::to_owned).unwrap_or_default();
    let standing = workloads::run::start(workloads::run::Settings {
        host,
        link: link.clone(),
        podman: podman.clone(),
        units: config.quadlets.clone(),
        run: run.clone(),
        ended: home.ended(),
        view: node.state(),
        consensus: node.consensus(),
    });
    let observer = Observer::start(observe::Settings {
        host,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        link: link.clone(),
        podman: podman.clone(),
        view: node.state(),
        consensus: node.consensus(),
        standing,
        cluster: cluster.clone(),
    });
    serve_events::start(&podman, served_events::socket(&run));
    let (elsewhere_in, elsewhere) = watch::channel(None);
    let views = Views::new(Sources {
        host,
        node: node.clone(),
        link: link.clone(),
        reports: cluster.all(),
        life: life.clone(),
        elsewhere,
    });
    let gateway = Gateway {
        host,
        node,
        link: link.clone(),
        reports: cluster.all(),
        podman,
        home: home.clone(),
        life: life.clone(),
        views,
        run: run.into(),
    };
    tokio::spawn(elsewhere::keep(gateway.clone(), elsewhere_in));
    Ok((gateway, observer.reports(), leases))
}

/// Serves streams from members, and answers applications of strangers.
async fn take_inbound(
    shared: api::Shared,
    gateway: Gateway,
    inbound: mpsc::Receiver<Inbound>,
    served: watch::Receiver<Option<BTreeSet<HostId>>>,
) {
    let (link, applied) = (gateway.link.clone(), gateway.clone());
    let serve = move |host, class, stream| {
        let (gateway, shared) = (gateway.clone(), shared.clone());
        async move {
            match class {
                Class::Api => api::serve_stream(shared, host, stream).await,
                _ => gateway.node.serve(host, class, stream).await,
            }
        }
    };
    let decide = move |host, request| {
        let gateway = applied.clone();
        async move { applications::answer(&gateway, host, request).await }
    };
    inbound::take(link, inbound, served, serve, decide).await;
}

fn start_duties(
    gateway: &Gateway,
    mine: watch::Receiver<Arc<HostReport>>,
    granted: Leases,
    config: &Config,
) {
    let Gateway {
        host, node, link, ..
    } = gateway.clone();
    tokio::spawn(tell::tell_report(
        node.clone(),
        link.clone(),
        mine,
        gateway.life.watch(),
    ));
    tokio::spawn(announce::keep_address(gateway.clone()));
    tokio::spawn(announce::keep_labels(gateway.clone()));
    tokio::spawn(tell_agent::check_identity(link, host));
    tokio::spawn(leases::renew(leases::Settings {
        node: node.clone(),
        run: gateway.run.to_path_buf(),
    }));
    tokio::spawn(voters::keep_membership(node));
    let handles = controllers::Handles {
        node: gateway.node.clone(),
        link: gateway.link.clone(),
        reports: gateway.reports.clone(),
        leases: granted,
    };
    let times = controllers::Times {
        presence: controllers::presence::Times {
            lost_after: Duration::from_secs(config.reschedule_after),
            job_lost_after: Duration::from_secs(config.replace_voter_after),
        },
        raise_after: Duration::from_secs(config.raise_rules_after),
    };
    tokio::spawn(controllers::lead(handles, times));
}

/// Creates the API's socket, for root and the group of its folder.
fn listen(path: &Path) -> anyhow::Result<UnixListener> {
    let open = || {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o660))?;
        Ok(listener)
    };
    open().with_context(|| format!("listen on {}", path.display()))
}

async fn stop_signal() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("catch SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("catch SIGINT")?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
