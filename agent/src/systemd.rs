//! Carries out the gateway's orders to systemd and to the unit files, and reports systemd's state.
//!
//! Shell. Input: [`Order`]s; signals of `org.freedesktop.systemd1`. Output: [`SystemdEvent`]s. [`lifecycle`] decides
//! what to request next, [`table`] what to report, and [`units`] what is on disk. Callers may call every method many
//! times at once: changes of files and reloads run one at a time, and jobs run in parallel as systemd orders them.

mod generate;
mod lifecycle;
mod manager;
mod room;
mod table;
mod units;
mod watch;

use std::{
    fs::File,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use beemesh_protocol::{
    ipc::{UnitFiles, UnitState},
    workload::{GATEWAY_UNIT, is_pod_name, unit_name},
};
use tokio::sync::{mpsc, watch as cell};
use zbus::Connection;

use self::{
    generate::Generate,
    lifecycle::Reloads,
    manager::{ManagerProxy, StartError},
    units::{Units, UnitsError},
    watch::Watch,
};

/// The receiver of the events also handles messages of the mesh. The table keeps further changes, one per unit.
const EVENTS_MAX: usize = 64;
/// One note for each changed file that the watch has not read.
const NOTES_MAX: usize = 64;
/// A broken bus usually recovers within a second. The gateway repeats a failed order.
const BUS_SECONDS_MAX: u64 = 10;
/// Generators of other packages may be slow; systemd itself limits them to 90 s in total.
const RELOAD_SECONDS_MAX: u64 = 120;
/// A start may have to pull an image. Its unit has a shorter limit (15 min); this one is for a lost signal.
const JOB_SECONDS_MAX: u64 = 20 * 60;

/// An order to systemd or to the unit files. Names are workloads.
#[derive(Debug)]
pub(crate) enum Order {
    /// Write the Quadlet pair; done when it is durable.
    Put(UnitFiles),
    /// Stop the unit, remove its files, reload and reset its failed state.
    Remove(String),
    /// Remove the YAML files that the Quadlet does not name, after the reload that covers its files. The unit that
    /// systemd has loaded may still name them.
    Tidy(String),
    /// Start the unit. For a new unit, the agent generates the unit file first. A loaded unit starts as systemd has
    /// loaded it, and its supervisor reads the Quadlet itself.
    Start(String),
    /// Stop the unit.
    Stop(String),
    /// Replace the main process of a unit that runs as a plain Quadlet by the supervisor, which adopts the pod.
    Supervise(String),
    /// Call `syncfs` on the file system of Podman's storage.
    SyncStorage,
}

/// A report about systemd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SystemdEvent {
    /// All workload units: the first event, repeated after [`SystemdEvent::Lost`].
    Units(Vec<UnitState>),
    /// A new or changed unit.
    Unit(UnitState),
    /// A unit of which neither a file nor a loaded unit is left.
    UnitGone(String),
    /// The state of the gateway's unit.
    Gateway {
        /// The `ActiveState`, as systemd writes it.
        active: String,
    },
    /// systemd cannot be reached, with the reason. The agent retries.
    Lost(String),
}

/// The paths of the files.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    /// `/etc/containers/systemd/beemesh`.
    pub(crate) units: PathBuf,
    /// `/var/lib/containers/storage`.
    pub(crate) storage: PathBuf,
}

/// A handle on systemd and the unit files.
#[derive(Debug, Clone)]
pub(crate) struct Systemd(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    units: Units,
    generate: Generate,
    storage: PathBuf,
    bus: cell::Receiver<Option<Connection>>,
    reloads: cell::Sender<Reloads>,
    notes: mpsc::Sender<Note>,
    connected: cell::Sender<bool>,
}

/// A message from a handle to the watch.
#[derive(Debug)]
enum Note {
    /// The text of a workload's `.kube`; empty after a removal.
    Kube(String, String),
    /// The result of a start of the gateway.
    GatewayStart(Result<(), String>),
}

impl Systemd {
    /// Opens the folder of unit files and begins to watch systemd, without waiting for D-Bus. The first event is the
    /// list of units, or [`SystemdEvent::Lost`].
    pub(crate) async fn start(
        places: Places,
    ) -> Result<(Self, mpsc::Receiver<SystemdEvent>), UnitsError> {
        let generate = Generate::new(&places.units);
        let units = blocking(move || Units::open(&places.units)).await?;
        let (events, received) = mpsc::channel(EVENTS_MAX);
        let (notes, noted) = mpsc::channel(NOTES_MAX);
        let (found, bus) = cell::channel(None);
        let (connected, heard) = cell::channel(false);
        let mut reloads = Reloads::default();
        // The agent may have exited between a change on disk and its reload.
        reloads.stale(Instant::now());
        reloads.hurry(Instant::now());
        let reloads = cell::Sender::new(reloads);
        let storage = places.storage;
        let systemd = Self(Arc::new(Inner {
            units: units.clone(),
            generate,
            storage,
            bus: bus.clone(),
            reloads: reloads.clone(),
            notes,
            connected,
        }));
        tokio::spawn(Watch::new(units, events, noted, found, heard).run());
        tokio::spawn(reload(reloads, bus));
        Ok((systemd, received))
    }

    /// Carries out one order. The error is a message for the user.
    pub(crate) async fn carry_out(&self, order: Order) -> Result<(), String> {
        self.0.reloads.send_modify(Reloads::order_begins);
        let outcome = self.act(order).await;
        self.0.reloads.send_modify(Reloads::order_ends);
        outcome
    }

    async fn act(&self, order: Order) -> Result<(), String> {
        match order {
            Order::Put(files) => self.put(files).await,
            Order::Remove(workload) => self.remove(workload).await,
            Order::Tidy(workload) => {
                self.loaded().await?;
                self.files(move |units| units.tidy(&workload)).await
            }
            Order::Start(workload) => self.start_unit(&unit_of(&workload)?).await,
            Order::Stop(workload) => {
                manager::stop(&connected(&self.0.bus).await?, &unit_of(&workload)?).await
            }
            Order::Supervise(workload) => {
                let unit = unit_of(&workload)?;
                // With the drop-in loaded, the death of the main process leaves the pod alone, and the supervisor
                // starts in its place.
                self.loaded().await?;
                manager::kill_watcher(&connected(&self.0.bus).await?, &unit).await
            }
            Order::SyncStorage => {
                let storage = self.0.storage.clone();
                let sync = move || {
                    let folder = File::open(&storage)
                        .map_err(|err| format!("open {}: {err}", storage.display()))?;
                    nix::unistd::syncfs(folder)
                        .map_err(|err| format!("sync {}: {err}", storage.display()))
                };
                blocking(sync).await
            }
        }
    }

    /// Returns why Podman makes no unit of a Quadlet that has not been written, as a message; `None` if it makes one.
    pub(crate) async fn refuses(&self, workload: &str, kube: &str) -> Option<String> {
        match unit_of(workload) {
            Ok(_) => self.0.generate.refuses(workload, kube).await,
            Err(reason) => Some(reason),
        }
    }

    /// Starts the gateway's unit if it is not active. From then on, the agent starts the unit again, after growing
    /// pauses, if its start fails or systemd gives up on it.
    pub(crate) async fn start_gateway(&self) -> Result<(), String> {
        let attempt = async {
            let bus = connected(&self.0.bus).await?;
            Ok(manager::start(&bus, GATEWAY_UNIT).await?)
        };
        let result = attempt.await;
        self.note(Note::GatewayStart(result.clone())).await;
        result
    }

    /// Sets whether the gateway is connected. The agent restarts the unit if it is active for long without a
    /// connection.
    pub(crate) fn gateway_connected(&self, connected: bool) {
        self.0.connected.send_if_modified(|before| {
            let changed = *before != connected;
            *before = connected;
            changed
        });
    }

    async fn start_unit(&self, unit: &str) -> Result<(), String> {
        let generated = self.0.generate.ensure(unit).await;
        if generated.is_ok() {
            match manager::start(&connected(&self.0.bus).await?, unit).await {
                Err(StartError::Unknown(_)) => {}
                outcome => return Ok(outcome?),
            }
        }
        let reason = generated.err().unwrap_or_default();
        tracing::info!(unit, reason, "systemd has not loaded a new unit");
        self.changed(Reloads::stale);
        self.loaded().await?;
        Ok(manager::start(&connected(&self.0.bus).await?, unit).await?)
    }

    async fn put(&self, files: UnitFiles) -> Result<(), String> {
        let (workload, kube) = (files.workload.clone(), files.kube.clone());
        let unit = unit_of(&workload)?;
        let units = self.0.units.clone();
        let storage = self.0.storage.clone();
        let is_written = (workload.clone(), files.index);
        // A revision whose pod may be there is written again as it is asked for.
        blocking(move || match units.has(&is_written.0, is_written.1) {
            true => Ok(()),
            false => room::check(&storage),
        })
        .await?;
        self.files(move |units| units.put(&files)).await?;
        let is_made = self.0.generate.is_made(&unit).await;
        self.changed(if is_made {
            Reloads::stale
        } else {
            Reloads::fresh
        });
        self.note(Note::Kube(workload, kube)).await;
        Ok(())
    }

    async fn remove(&self, workload: String) -> Result<(), String> {
        let unit = unit_of(&workload)?;
        // Stopped before its files are removed, because they describe the unit's cleanup.
        manager::stop(&connected(&self.0.bus).await?, &unit).await?;
        let name = workload.clone();
        self.files(move |units| units.remove(&name)).await?;
        self.changed(Reloads::stale);
        self.note(Note::Kube(workload, String::new())).await;
        self.loaded().await?;
        manager::reset_failed(&connected(&self.0.bus).await?, &unit).await
    }

    async fn files<F>(&self, change: F) -> Result<(), String>
    where
        F: FnOnce(&Units) -> Result<(), UnitsError> + Send + 'static,
    {
        let units = self.0.units.clone();
        blocking(move || change(&units))
            .await
            .map_err(|err| err.to_string())
    }

    fn changed(&self, how: fn(&mut Reloads, Instant)) {
        self.0
            .reloads
            .send_modify(|reloads| how(reloads, Instant::now()));
    }

    /// Waits, within an order, until systemd has read every change of a unit that it may have loaded.
    async fn loaded(&self) -> Result<(), String> {
        self.0.reloads.send_modify(Reloads::order_ends);
        let outcome = self.reloaded().await;
        self.0.reloads.send_modify(Reloads::order_begins);
        outcome
    }

    async fn reloaded(&self) -> Result<(), String> {
        let mut reloads = self.0.reloads.subscribe();
        let mut change = None;
        self.0
            .reloads
            .send_modify(|reloads| change = Some(reloads.hurry(Instant::now())));
        let Some(change) = change else { return Ok(()) };
        let wait = reloads.wait_for(|reloads| reloads.covers(change));
        let waited = tokio::time::timeout(Duration::from_secs(RELOAD_SECONDS_MAX), wait)
            .await
            .is_ok();
        if waited {
            return Ok(());
        }
        let reloads = self.0.reloads.borrow();
        Err(match reloads.trouble() {
            "" => format!("daemon-reload is not done after {RELOAD_SECONDS_MAX} s"),
            trouble => trouble.to_owned(),
        })
    }

    async fn note(&self, note: Note) {
        // The watch ends when the receiver of its events is dropped; then the note has no receiver either.
        self.0.notes.send(note).await.ok();
    }
}

/// Reloads systemd whenever it has changes to read, for as long as the process runs.
async fn reload(reloads: cell::Sender<Reloads>, bus: cell::Receiver<Option<Connection>>) {
    let mut changes = reloads.subscribe();
    loop {
        let due = changes.borrow_and_update().due(Instant::now());
        tokio::select! {
            changed = changes.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
            () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now).into()), if due.is_some() => {}
        }
        reloads.send_modify(Reloads::begin);
        let result = async {
            let manager = ManagerProxy::new(&connected(&bus).await?)
                .await
                .map_err(manager::words)?;
            manager
                .reload()
                .await
                .map_err(|err| format!("daemon-reload: {}", manager::words(err)))
        };
        let result = result.await;
        if let Err(trouble) = &result {
            tracing::warn!(trouble, "systemd did not reload, will retry");
        }
        let mut pause = None;
        reloads.send_modify(|reloads| pause = reloads.finish(result, Instant::now()));
        if let Some(pause) = pause {
            tokio::time::sleep(pause).await;
        }
    }
}

/// Returns the connection to the bus. If it was lost, waits a moment for a new one.
async fn connected(bus: &cell::Receiver<Option<Connection>>) -> Result<Connection, String> {
    let mut bus = bus.clone();
    let found = tokio::time::timeout(
        Duration::from_secs(BUS_SECONDS_MAX),
        bus.wait_for(Option::is_some),
    )
    .await;
    found
        .ok()
        .and_then(Result::ok)
        .and_then(|found| found.clone())
        .ok_or_else(|| "systemd cannot be reached over D-Bus".to_owned())
}

fn unit_of(workload: &str) -> Result<String, String> {
    if is_pod_name(workload) {
        Ok(unit_name(workload))
    } else {
        Err(UnitsError::Name(workload.to_owned()).to_string())
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(err) => std::panic::resume_unwind(err.into_panic()),
    }
}
