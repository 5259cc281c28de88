//! The agent's main loop: events in, effects out.
//!
//! Wiring: the loop owns all state of the agent. It receives events from the gateway, the mesh and systemd, runs the
//! requests of each workload in order, and updates the status line and the D-Bus properties. It never blocks on
//! anything except the next event.

mod jobs;
mod requests;
mod status;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    pin::pin,
    time::{Duration, Instant},
};

use anyhow::Context;
use beemesh_protocol::{
    HostId,
    ipc::{Done, FromAgent, Report, Request, UnitState, Welcome},
};
use tokio::{
    net::UnixListener,
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
    task::JoinSet,
};

use crate::{
    api_port::{self, ApiPort},
    config::{self, Config, Sources},
    dbus::{self, Shown},
    mesh::{
        self, Listening, Mesh, MeshEvent, addresses,
        identity::{self, Identity},
    },
    notify::{self, Notify},
    podman::{self, version::Verdict},
    ports::Ports,
    socket::{
        ipc::{self, IpcEvent},
        router::{Asked, Router},
    },
    systemd::{Order, Places, Systemd, SystemdEvent},
};

use jobs::{Pushed, Queues};
use requests::{carry_out, keyed};
use status::View;

/// Length of the queue of connections and messages from the gateway.
const IPC_EVENTS_MAX: usize = 256;
/// How long the agent, when it stops, waits for finite streams to end. The unit's stop timeout is longer.
const DRAIN_MAX: Duration = Duration::from_secs(5);

/// The queue of [`Request::Advertise`].
const ADVERTISE: &str = "/advertise";
/// The queue of requests that change the host's keys; no workload has this name. One queue ensures that `UseKey` takes
/// the key that the agent compared with the request.
const KEYS: &str = "/keys";

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The parameters of the agent.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) config: Config,
    pub(crate) sources: Sources,
    pub(crate) identity: Identity,
    /// The file with the identity.
    pub(crate) key: PathBuf,
    pub(crate) mesh: mesh::Settings,
    /// The service that keeps the ports bound while no agent runs.
    pub(crate) ports: Ports,
    pub(crate) api_port: api_port::Settings,
    pub(crate) places: Places,
    /// The path of the socket to bind if systemd passes none.
    pub(crate) socket: Option<PathBuf>,
    /// Podman's socket.
    pub(crate) podman: PathBuf,
}

/// Beemesh cannot work on this host until its administrator intervenes.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Unfit(String);

struct Agent {
    config: Config,
    sources: Sources,
    identity: Identity,
    key: PathBuf,
    mesh: Mesh,
    api_port: ApiPort,
    ports: Ports,
    systemd: Systemd,
    router: Router,
    units: BTreeMap<String, UnitState>,
    /// Whether `units` is complete: systemd has listed the units since the agent started.
    listed: bool,
    report: Report,
    gateway: String,
    /// Why systemd is unreachable, and why the agent is not on the bus; empty if there is no problem.
    systemd_trouble: String,
    bus_trouble: String,
    /// The ports that another process occupies, of the mesh and of the remote API; empty if there are none.
    port_troubles: [watch::Receiver<String>; 2],
    queues: Queues<Job>,
    running: JoinSet<Finished>,
    listening: Listening,
    advertised: Vec<String>,
    shown: watch::Sender<Shown>,
    notify: Notify,
    /// Whether the agent is published on the bus, and whether Podman has answered the query for its version or failed
    /// to.
    on_bus: bool,
    podman_asked: bool,
    ready: bool,
    /// Whether the host has another key now. The mesh reads the key only at a start.
    renamed: bool,
}

/// A request of the gateway that waits or runs.
#[derive(Debug)]
struct Job {
    control: u64,
    id: u64,
    request: Request,
}

/// The result of a job.
#[derive(Debug)]
struct Finished {
    queue: String,
    control: u64,
    id: u64,
    result: Result<Done, String>,
    /// The key of a [`Request::UseKey`]: the host's key from now on, if the job succeeded.
    key: Option<HostId>,
}

/// Runs the agent until systemd stops it.
pub(crate) async fn run(settings: Settings) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("watch SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("watch SIGINT")?;
    let mut hangup = signal(SignalKind::hangup()).context("watch SIGHUP")?;
    let listener = socket(&settings).context("open the agent's socket")?;
    let identity = &settings.identity;
    let (mesh, mut mesh_events) = Mesh::start(identity, &settings.mesh)
        .await
        .context("start the mesh")?;
    let (systemd, mut systemd_events) = Systemd::start(settings.places.clone())
        .await
        .context("open the unit files")?;
    let (ipc_events_to, mut ipc_events) = mpsc::channel(IPC_EVENTS_MAX);
    let serving = tokio::spawn(ipc::serve(listener, ipc_events_to));

    let socket = settings.podman.clone();
    let mut podman = pin!(podman::ask(&socket));
    let mut agent = Agent::new(settings, mesh, systemd);
    let (bus, mut bus_trouble) = watch::channel("not asked yet".to_owned());
    tokio::spawn(dbus::keep(agent.shown.subscribe(), bus));
    tokio::spawn(agent.ports.clone().watch());
    let [mut mesh_trouble, mut api_port_trouble] = agent.port_troubles.clone();
    tracing::info!(host = %agent.identity.host, version = VERSION, "started");

    let watchdog = notify::watchdog();
    let mut alive = tokio::time::interval(watchdog.unwrap_or(Duration::from_secs(3600)));
    loop {
        agent.show();
        let due = agent.router.next_due();
        let mut due = pin!(async {
            match due {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        });
        tokio::select! {
            event = ipc_events.recv() => agent.on_ipc(event.context("the socket's task ended")?),
            event = mesh_events.recv() => agent.on_mesh(event.context("the mesh ended")?.context("the mesh ended")?),
            event = systemd_events.recv() => {
                agent.on_systemd(event.context("the watch of systemd ended")?);
            }
            Some(finished) = agent.running.join_next() => agent.on_finished(finished?),
            Ok(()) = agent.listening.changed() => agent.on_addresses(),
            Ok(()) = bus_trouble.changed() => {
                let trouble = bus_trouble.borrow_and_update().clone();
                agent.on_bus(&trouble);
            }
            Ok(()) = mesh_trouble.changed() => tell_ports(&mesh_trouble.borrow_and_update()),
            Ok(()) = api_port_trouble.changed() => tell_ports(&api_port_trouble.borrow_and_update()),
            answer = &mut podman, if !agent.podman_asked => agent.on_podman(answer)?,
            () = &mut due => agent.router.due(Instant::now()),
            _ = alive.tick() => agent.notify.alive(),
            _ = hangup.recv() => agent.reload(),
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
        if agent.renamed {
            tracing::info!("the host has a new key: restarting with it");
            break;
        }
    }
    agent.notify.stopping();
    tracing::info!("stopping");
    serving.abort();
    // Tasks that still open streams end when this channel closes.
    drop(ipc_events);
    agent.router.drain(DRAIN_MAX).await;
    Ok(())
}

fn tell_ports(trouble: &str) {
    match trouble {
        "" => tracing::info!("every port is open"),
        words => tracing::error!("{words}"),
    }
}

fn socket(settings: &Settings) -> anyhow::Result<UnixListener> {
    if let Some(listener) = ipc::inherited()? {
        return Ok(listener);
    }
    let path = settings.socket.as_ref();
    let path = path.context("systemd passed no socket: start beemesh-agent.socket")?;
    ipc::bind(path).with_context(|| format!("bind {}", path.display()))
}

impl Agent {
    fn new(settings: Settings, mesh: Mesh, systemd: Systemd) -> Self {
        let shown = Shown {
            peer_id: settings.identity.host,
            role: String::new(),
            leader: String::new(),
            peers: Vec::new(),
            workloads: Vec::new(),
            version: VERSION.to_owned(),
        };
        let api_port = ApiPort::new(settings.api_port);
        let mut agent = Self {
            port_troubles: [mesh.trouble(), api_port.trouble()],
            config: settings.config,
            sources: settings.sources,
            identity: settings.identity,
            key: settings.key,
            listening: mesh.listening(),
            router: Router::new(mesh.clone()),
            mesh,
            api_port,
            ports: settings.ports,
            systemd,
            units: BTreeMap::new(),
            listed: false,
            report: Report::default(),
            gateway: "not known yet".to_owned(),
            systemd_trouble: String::new(),
            bus_trouble: String::new(),
            queues: Queues::new(),
            running: JoinSet::new(),
            advertised: Vec::new(),
            shown: watch::Sender::new(shown),
            notify: Notify::default(),
            on_bus: false,
            podman_asked: false,
            ready: false,
            renamed: false,
        };
        agent.on_addresses();
        agent.api_port.keep(agent.config.api_port);
        agent
    }

    fn on_ipc(&mut self, event: IpcEvent) {
        match self.router.on_ipc(event) {
            None => {}
            Some(Asked::Everything) => {
                self.report = Report::default();
                self.welcome();
                // Before the first list, the gateway would take the missing units for removed workloads. It gets the
                // list when systemd has sent it.
                if self.listed {
                    self.tell_units(self.units.values().cloned().collect());
                }
            }
            Some(Asked::Show(report)) => self.report = report,
            Some(Asked::Request { id, request }) => {
                let Some(control) = self.router.control() else {
                    return;
                };
                let queue = queue(&request).to_owned();
                let job = Job {
                    control,
                    id,
                    request,
                };
                match self.queues.push(&queue, job) {
                    Pushed::Run(job) => self.begin(queue, job),
                    Pushed::Waits => {}
                    Pushed::Full(Job { id, .. }) => self.router.tell(FromAgent::Reply {
                        id,
                        result: Err("the agent is overloaded".to_owned()),
                    }),
                }
            }
        }
    }

    fn welcome(&mut self) {
        let welcome = Welcome {
            host: self.identity.host,
            name: self.config.name.clone(),
            addresses: self.advertised.clone(),
            version: VERSION.to_owned(),
            connected: self.router.connected().iter().copied().collect(),
            reserved_ports: self.config.reserved_ports(),
            name_is_set: self.config.name_is_set,
        };
        self.router.tell(FromAgent::Welcome(welcome));
    }

    fn tell_units(&mut self, units: Vec<UnitState>) {
        for part in FromAgent::units(units) {
            self.router.tell(part);
        }
    }

    fn begin(&mut self, queue: String, job: Job) {
        let Job {
            control,
            id,
            request,
        } = job;
        let (systemd, mesh, key) = (self.systemd.clone(), self.mesh.clone(), self.key.clone());
        let (ports, sources) = (self.ports.clone(), self.sources.clone());
        let taken = match &request {
            Request::UseKey { host } => Some(*host),
            _ => None,
        };
        self.running.spawn(async move {
            let result = match request {
                Request::MakeKey => keyed(move || identity::make_next(&key))
                    .await
                    .map(|host| Done::Key { host }),
                Request::UseKey { host } => keyed(move || identity::use_next(&key, host))
                    .await
                    .map(|()| Done::Key { host }),
                request => carry_out(systemd, mesh, ports, sources, request).await,
            };
            Finished {
                queue,
                control,
                id,
                result,
                key: taken,
            }
        });
    }

    fn on_finished(&mut self, finished: Finished) {
        let Finished {
            queue,
            control,
            id,
            result,
            key,
        } = finished;
        if let Err(reason) = &result {
            tracing::warn!(queue, reason, "request failed");
        } else if queue == ADVERTISE {
            // The gateway must learn the new addresses before the reply that they are stored.
            self.reload();
        }
        if let (Some(host), Ok(_)) = (key, &result) {
            self.renamed = host != self.identity.host;
        }
        // Request ids are unique per connection only. A reply to a request of an earlier connection could match another
        // request of this one.
        if self.router.control() == Some(control) {
            self.router.tell(FromAgent::Reply { id, result });
        }
        if let Some(job) = self.queues.done(&queue) {
            self.begin(queue, job);
        }
    }

    fn on_mesh(&mut self, event: MeshEvent) {
        self.router.on_mesh(event, Instant::now());
    }

    fn on_systemd(&mut self, event: SystemdEvent) {
        match event {
            SystemdEvent::Units(units) => {
                self.systemd_trouble.clear();
                units.iter().for_each(|unit| self.supervise(unit));
                let by_name = units.iter().cloned();
                self.units = by_name.map(|unit| (unit.workload.clone(), unit)).collect();
                self.listed = true;
                self.tell_units(units);
            }
            SystemdEvent::Unit(unit) => {
                self.units.insert(unit.workload.clone(), unit.clone());
                self.router.tell(FromAgent::Unit(unit));
            }
            SystemdEvent::UnitGone(workload) => {
                self.units.remove(&workload);
                self.router.tell(FromAgent::UnitGone { workload });
            }
            SystemdEvent::Gateway { active } => {
                if active == "active" && self.gateway != "active" {
                    self.sync_storage();
                }
                self.gateway = active;
            }
            SystemdEvent::Lost(reason) => self.systemd_trouble = reason,
        }
    }

    /// Starts the supervisor of a unit that runs without one. Such a unit is a plain Quadlet that was started while
    /// Beemesh was not installed, and nothing reports its health.
    fn supervise(&self, unit: &UnitState) {
        if unit.active != "active" || !unit.status.is_empty() {
            return;
        }
        let (systemd, workload) = (self.systemd.clone(), unit.workload.clone());
        tokio::spawn(async move {
            let order = Order::Supervise(workload.clone());
            if let Err(reason) = systemd.carry_out(order).await {
                tracing::warn!(workload, reason, "the unit runs without its supervisor");
            }
        });
    }

    /// Flushes Podman's storage, because Podman calls no fsync. Otherwise a power cut soon after the first start could
    /// destroy the gateway's image.
    fn sync_storage(&self) {
        let systemd = self.systemd.clone();
        tokio::spawn(async move {
            if let Err(reason) = systemd.carry_out(Order::SyncStorage).await {
                tracing::warn!(reason, "the sync of Podman's storage to the disk failed");
            }
        });
    }

    fn on_addresses(&mut self) {
        let listening = self.listening.borrow_and_update().clone();
        let told = addresses::advertised(&self.config.advertise, self.config.port, &listening);
        if told != self.advertised {
            tracing::info!(addresses = ?told, "other hosts reach this host at");
            self.advertised = told;
            self.welcome();
        }
    }

    fn on_bus(&mut self, trouble: &str) {
        if !trouble.is_empty() {
            tracing::warn!(trouble, "not on the system bus");
            self.bus_trouble = trouble.to_owned();
            return;
        }
        self.bus_trouble.clear();
        self.on_bus = true;
        self.get_ready();
    }

    fn on_podman(&mut self, answer: anyhow::Result<String>) -> Result<(), Unfit> {
        self.podman_asked = true;
        match answer.map(|version| podman::version::judge(&version)) {
            Ok(Verdict::Fine) => {}
            Ok(Verdict::Warned(words)) => tracing::warn!("{words}"),
            Ok(Verdict::Refused(words)) => {
                self.notify.status(words.clone());
                return Err(Unfit(words));
            }
            // Podman may still be starting. Every user of Podman waits for it and reports a failure.
            Err(error) => tracing::warn!("{error:#}"),
        }
        self.get_ready();
        Ok(())
    }

    fn get_ready(&mut self) {
        if self.ready || !self.on_bus || !self.podman_asked {
            return;
        }
        // The agent opened its identity, listeners and socket before the loop began.
        self.ready = true;
        self.show();
        self.notify.ready();
        let systemd = self.systemd.clone();
        tokio::spawn(async move {
            if let Err(reason) = systemd.start_gateway().await {
                tracing::warn!(reason, "the gateway did not start, will retry");
            }
        });
    }

    fn reload(&mut self) {
        self.notify.reloading();
        let loaded = config::host_name().and_then(|name| config::load(&self.sources, &name));
        match loaded {
            Ok(config) => {
                if config.port != self.config.port {
                    tracing::warn!(port = config.port, "a new port needs a restart");
                }
                if config.mdns != self.config.mdns {
                    tracing::warn!(mdns = config.mdns, "another `mdns` needs a restart");
                }
                let (port, mdns) = (self.config.port, self.config.mdns);
                self.config = Config {
                    port,
                    mdns,
                    ..config
                };
                tracing::info!(config = ?self.config, "configuration reloaded");
                self.on_addresses();
                self.welcome();
                self.ports.reserve(self.config.reserved_ports());
                self.api_port.keep(self.config.api_port);
            }
            Err(error) => tracing::error!("configuration not reloaded: {error:#}"),
        }
        self.notify.ready();
    }

    /// Updates the status line and the D-Bus properties.
    fn show(&mut self) {
        let connected = self.router.control().is_some();
        self.systemd.gateway_connected(connected);
        let troubles = [&self.bus_trouble, &self.systemd_trouble];
        let trouble = troubles.into_iter().find(|words| !words.is_empty());
        self.notify.status(status::status(&View {
            report: connected.then_some(&self.report),
            gateway: &self.gateway,
            connected: self.router.connected().len(),
            trouble: trouble.map_or("", |words| words),
            name: &self
                .router
                .name_trouble(self.identity.host, self.config.said()),
            ports: self
                .port_troubles
                .each_ref()
                .map(|words| words.borrow().clone()),
        }));
        let names = self.router.connected().iter();
        let mut peers: Vec<_> = names.map(|host| self.router.name(*host)).collect();
        peers.sort_unstable();
        let shown = Shown {
            peer_id: self.identity.host,
            role: self.report.role.word().to_owned(),
            leader: self.report.leader_name.clone(),
            peers,
            workloads: self.units.keys().cloned().collect(),
            version: VERSION.to_owned(),
        };
        self.shown.send_if_modified(|before| {
            let changed = *before != shown;
            *before = shown;
            changed
        });
    }
}

/// The name of the request's queue. Requests of one queue run one after the other.
fn queue(request: &Request) -> &str {
    match request {
        Request::PutUnit(files) => &files.workload,
        Request::RemoveUnit { workload }
        | Request::TidyUnit { workload }
        | Request::StartUnit { workload }
        | Request::StopUnit { workload } => workload,
        // No workload has a name with a slash.
        Request::SyncStorage => "/storage",
        Request::Join { .. } => "/join",
        Request::Check { .. } => "/check",
        Request::Advertise { .. } => ADVERTISE,
        Request::MakeKey | Request::UseKey { .. } => KEYS,
    }
}
