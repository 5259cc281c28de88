//! Carries out what the gateway asks of systemd and of the unit files, and tells what systemd says.
//!
//! Shell. Input: [`Order`]s; signals of `org.freedesktop.systemd1`. Output: [`SystemdEvent`]s. What to ask next is
//! decided by [`lifecycle`], what to tell by [`table`], what is on disk by [`units`]. Every method may be called many times at once: files are
//! written one change at a time, reloads run one at a time, jobs side by side as systemd arranges them.

mod generate;
mod lifecycle;
mod manager;
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
    workload::{GATEWAY_UNIT, is_workload_name, unit_name},
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

/// The reader of the events also carries messages of the mesh; what it has not taken is kept here, one per unit.
const EVENTS_MAX: usize = 64;
/// One per file change whose news the watch has not taken.
const NOTES_MAX: usize = 64;
/// A broken bus is usually back in a second. The gateway repeats an order that fails.
const BUS_SECONDS_MAX: u64 = 10;
/// Generators of other packages may be slow; systemd itself gives all of them 90 s.
const RELOAD_SECONDS_MAX: u64 = 120;
/// A start may have to pull an image. Its unit has its own, shorter limit (15 min); this one is for a signal that never comes.
const JOB_SECONDS_MAX: u64 = 20 * 60;

/// Something systemd or the disk must do. Names are workloads.
#[derive(Debug)]
pub(crate) enum Order {
    /// Write the Quadlet pair; done when it is durable.
    Put(UnitFiles),
    /// Stop the unit, remove its files, reload and reset its failed state.
    Remove(String),
    /// Remove the YAML files that the Quadlet does not name, after the reload that covers its files: the unit that systemd
    /// has loaded may name them still.
    Tidy(String),
    /// Start the unit. One that is new to systemd is generated first; one that it has loaded runs by what it has loaded,
    /// and its supervisor reads the Quadlet itself.
    Start(String),
    /// Stop the unit.
    Stop(String),
    /// Make a unit that runs as a plain Quadlet run its supervisor, which adopts the pod.
    Supervise(String),
    /// `syncfs` on the file system of Podman's storage.
    SyncStorage,
}

/// What systemd says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SystemdEvent {
    /// All workload units: first, and again after [`SystemdEvent::Lost`].
    Units(Vec<UnitState>),
    /// A unit is new or changed.
    Unit(UnitState),
    /// A unit is gone from disk and from systemd.
    UnitGone(String),
    /// The gateway's unit is in this `ActiveState`.
    Gateway {
        /// As systemd writes it.
        active: String,
    },
    /// systemd cannot be reached, with the reason; it is being tried again.
    Lost(String),
}

/// Where the files are.
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

/// News from a handle to the watch.
#[derive(Debug)]
enum Note {
    /// The workload's `.kube` has this text now; empty when it is gone.
    Kube(String, String),
    /// The gateway's start was tried.
    GatewayStart(Result<(), String>),
}

impl Systemd {
    /// Opens the folder of unit files and begins to watch systemd. Does not wait for D-Bus: the first event is the list
    /// of units, or that systemd cannot be reached.
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
        // The agent may have ended between a change on disk and its reload.
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

    /// Carries out one order; the error is words for a person.
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
                // With the drop-in loaded, the death of the main process takes nothing along, and what is started in its
                // place is the supervisor.
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

    /// Starts the gateway's unit if it is not active. From then on it is started again, after growing pauses, when its
    /// start fails or systemd gives up on it.
    pub(crate) async fn start_gateway(&self) -> Result<(), String> {
        let attempt = async {
            let bus = connected(&self.0.bus).await?;
            Ok(manager::start(&bus, GATEWAY_UNIT).await?)
        };
        let result = attempt.await;
        self.note(Note::GatewayStart(result.clone())).await;
        result
    }

    /// Whether the gateway is connected now. Its unit is started anew when it is active for long without.
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
        // A unit whose files are gone has lost what cleans up after it: it must not run when they go.
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

    /// Waits until systemd has read every change of a unit that it may have loaded, in the middle of an order.
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
        // The watch ends when nobody takes its events any more: then there is nobody to tell.
        self.0.notes.send(note).await.ok();
    }
}

/// Reloads systemd whenever there is something to read, for as long as the process runs.
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

/// The connection to the bus, waiting a moment for a new one when it was lost.
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
    if is_workload_name(workload) {
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
