//! Carries out the reconciler's decisions: one task for each workload with work, which does one work at a time.
//!
//! Shell: owns the reconciler's loop and its tasks, and decides nothing. Input: the replicated state, and the unit
//! states from the agent. Output: calls to Podman, requests to the agent ([`flight`]), and this host's [`Standing`].

mod ended;
mod flight;
mod stopped;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use beemesh_protocol::{HostId, peer::WorkloadReport};
use beemesh_quadlet::{podman::Podman, supervisor::report_file};
use tokio::{
    sync::{Semaphore, mpsc, oneshot, watch},
    task::{Id, JoinSet},
    time::{Instant, sleep, sleep_until},
};

use crate::{
    agent_link::Link,
    clock::now_ms,
    cluster::consensus::Consensus,
    raft::View,
    workloads::plan::{Ending, Plan, Reconciler, Seen, Step, Work},
};
use flight::{Bounds, Flight, Landing};

/// Maximum number of progress messages that wait for the loop; a full queue only delays the works.
const PROGRESS_MAX: usize = 256;
/// Maximum number of pods that are played at the same time. Podman needs some time for each, so that more of them would
/// only delay all. A pod that takes long to stop does not count.
const PLAYS_MAX: usize = 8;
/// Maximum number of images that are pulled at the same time, not counting slow pulls.
const PULLS_MAX: usize = 4;
/// The pause before writing the end of a Job is retried.
const KEEP_PAUSE: Duration = Duration::from_secs(5);
/// Maximum number of images that are pulled at the same time, including slow pulls. Each holds connections and buffers
/// in Podman.
const ALL_PULLS_MAX: usize = 32;
/// How often this host is searched for missing images, which costs Podman a millisecond for each. Registries are asked
/// less often, with the pauses of other failures.
const IMAGES_PAUSE: Duration = Duration::from_secs(4);
/// Maximum time between two rounds of the loop.
const IDLE_MAX: Duration = Duration::from_secs(3600);

/// The parameters of the executor.
#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) host: HostId,
    /// The connection to the agent.
    pub(crate) link: Link,
    /// The host's Podman.
    pub(crate) podman: Podman,
    /// The folder of the workloads' Quadlets, which the executor only reads.
    pub(crate) units: PathBuf,
    /// The folder of the sockets, for locks that the supervisors see, and of what they report.
    pub(crate) run: PathBuf,
    /// The folder that records how attempts of Jobs ended.
    pub(crate) ended: PathBuf,
    /// The replicated state.
    pub(crate) view: watch::Receiver<Arc<View>>,
    /// The state of consensus, which shows when the replicated state has caught up after a start.
    pub(crate) consensus: watch::Receiver<Consensus>,
}

/// The state of this host's workloads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    /// The reports, ordered by workload.
    pub(crate) workloads: Vec<WorkloadReport>,
    /// The units and pods that this host should not have, as messages for the user.
    pub(crate) strange: Vec<String>,
}

/// A step that a work has reached.
#[derive(Debug)]
struct Progress {
    workload: String,
    step: Step,
}

struct Executor {
    settings: Settings,
    reconciler: Reconciler,
    works: JoinSet<Landing>,
    /// The workload of each task.
    names: HashMap<Id, String>,
    /// Cancels the work on a workload.
    cancels: HashMap<String, oneshot::Sender<()>>,
    /// The missing image that made the last work on a workload fail.
    lacking: BTreeMap<String, String>,
    /// The running search for missing images; at most one at a time.
    look_for_images: JoinSet<BTreeSet<String>>,
    progress: mpsc::Sender<Progress>,
    bounds: Arc<Bounds>,
    standing: watch::Sender<Arc<Standing>>,
}

/// Starts the executor, which runs as long as the runtime.
pub(crate) fn start(settings: Settings) -> watch::Receiver<Arc<Standing>> {
    let (standing, receiver) = watch::channel(Arc::default());
    let (progress, progress_from) = mpsc::channel(PROGRESS_MAX);
    let executor = Executor {
        reconciler: Reconciler::after(stopped::marked(&settings.run), ended::kept(&settings.ended)),
        settings,
        works: JoinSet::new(),
        names: HashMap::new(),
        cancels: HashMap::new(),
        lacking: BTreeMap::new(),
        look_for_images: JoinSet::new(),
        progress,
        bounds: Arc::new(Bounds {
            pulls: Semaphore::new(PULLS_MAX),
            all_pulls: Semaphore::new(ALL_PULLS_MAX),
            plays: Semaphore::new(PLAYS_MAX),
            ports: tokio::sync::Mutex::default(),
        }),
        standing,
    };
    tokio::spawn(executor.run(progress_from));
    receiver
}

/// Waits until the replicated state includes everything that this host had applied before the gateway restarted. Acting
/// on an older state would restore workloads that have been deleted since. Each entry of the log was applied, or will
/// be applied soon, or will be removed by a new leader, which shortens the log.
pub(crate) async fn caught_up(
    view: &mut watch::Receiver<Arc<View>>,
    consensus: &mut watch::Receiver<Consensus>,
) {
    let mut floor = 0;
    loop {
        let applied = view.borrow_and_update().applied;
        let last = consensus.borrow_and_update().last_log;
        if floor == 0 {
            floor = last;
        }
        if last > 0 && applied >= floor.min(last) {
            return;
        }
        tokio::select! {
            Ok(()) = view.changed() => {}
            Ok(()) = consensus.changed() => {}
            else => return,
        }
    }
}

impl Executor {
    async fn run(mut self, mut progress: mpsc::Receiver<Progress>) {
        let (mut units, mut synced) = (self.settings.link.units(), self.settings.link.synced());
        caught_up(&mut self.settings.view, &mut self.settings.consensus).await;
        loop {
            let due = if *synced.borrow_and_update() {
                let (view, units) = {
                    let view = self.settings.view.borrow_and_update().clone();
                    (view, units.borrow_and_update().clone())
                };
                let seen = Seen {
                    now: Instant::now(),
                    host: self.settings.host,
                    view: &view,
                    units: &units,
                };
                let run = &self.settings.run;
                self.reconciler
                    .hear(&units, |workload| report_file::read(run, workload));
                let plan = self.reconciler.look(&seen);
                self.carry_out(plan, &view)
            } else {
                None
            };
            self.look_for_images();
            let idle = Instant::now() + IDLE_MAX;
            let open = tokio::select! {
                changed = self.settings.view.changed() => changed.is_ok(),
                changed = units.changed() => changed.is_ok(),
                changed = synced.changed() => changed.is_ok(),
                Some(Progress { workload, step }) = progress.recv() => {
                    self.reconciler.reached(&workload, step);
                    true
                }
                Some(ended) = self.works.join_next_with_id() => {
                    // The last message of a work precedes its end.
                    while let Ok(Progress { workload, step }) = progress.try_recv() {
                        self.reconciler.reached(&workload, step);
                    }
                    self.ended(ended);
                    true
                }
                Some(Ok(images)) = self.look_for_images.join_next() => {
                    self.arrived(&images);
                    true
                }
                () = sleep_until(due.unwrap_or(idle)) => true,
            };
            if !open {
                return;
            }
        }
    }

    fn carry_out(&mut self, plan: Plan, view: &Arc<View>) -> Option<Instant> {
        let Plan {
            begin,
            cancel,
            reports,
            unmark,
            strange,
            record,
            forget,
            mut due,
        } = plan;
        for workload in forget {
            ended::forget(&self.settings.ended, &workload);
        }
        for (workload, end) in record {
            // The end is reported only after it is stored: otherwise the host could report a different end after a
            // restart.
            let again = match ended::keep(&self.settings.ended, &workload, &end) {
                Ok(()) => {
                    self.reconciler.recorded(&workload, end.index);
                    Instant::now()
                }
                Err(error) => {
                    tracing::warn!(workload, %error, "the end of a job was not saved, will retry");
                    Instant::now() + KEEP_PAUSE
                }
            };
            due = Some(due.map_or(again, |due| due.min(again)));
        }
        for workload in unmark {
            stopped::unmark(&self.settings.run, &workload);
        }
        for workload in cancel {
            if let Some(cancel) = self.cancels.remove(&workload) {
                // A work that has just ended needs no cancelling.
                let _ = cancel.send(());
            }
        }
        let standing = Standing {
            workloads: reports,
            strange,
        };
        self.standing.send_if_modified(|present| {
            let changed = **present != standing;
            if changed {
                *present = Arc::new(standing);
            }
            changed
        });
        for (workload, work) in begin {
            self.begin(workload, work, view);
        }
        due
    }

    fn begin(&mut self, workload: String, work: Work, view: &Arc<View>) {
        tracing::info!(workload, ?work, "work begins");
        self.lacking.remove(&workload);
        let (cancel, cancelled) = oneshot::channel();
        let flight = Flight {
            host: self.settings.host,
            workload: workload.clone(),
            work,
            view: Arc::clone(view),
            link: self.settings.link.clone(),
            podman: self.settings.podman.clone(),
            units: self.settings.units.clone(),
            run: self.settings.run.clone(),
            bounds: Arc::clone(&self.bounds),
            progress: self.progress.clone(),
        };
        let task = self.works.spawn(flight.run(cancelled));
        self.names.insert(task.id(), workload.clone());
        self.cancels.insert(workload, cancel);
    }

    /// Starts a search for the images that works are missing, unless one is running.
    fn look_for_images(&mut self) {
        if self.lacking.is_empty() || !self.look_for_images.is_empty() {
            return;
        }
        let images: BTreeSet<String> = self.lacking.values().cloned().collect();
        let podman = self.settings.podman.clone();
        self.look_for_images.spawn(async move {
            sleep(IMAGES_PAUSE).await;
            let mut here = BTreeSet::new();
            for image in images {
                // If Podman does not answer, the next search asks again.
                if podman.image_exists(&image).await.unwrap_or(false) {
                    here.insert(image);
                }
            }
            here
        });
    }

    fn arrived(&mut self, images: &BTreeSet<String>) {
        let reconciler = &mut self.reconciler;
        self.lacking.retain(|workload, image| {
            let here = images.contains(image);
            if here {
                tracing::info!(workload, image, "image has arrived");
                reconciler.arrived(workload);
            }
            !here
        });
    }

    fn ended(&mut self, ended: Result<(Id, Landing), tokio::task::JoinError>) {
        let (id, landing) = match ended {
            Ok(ended) => ended,
            Err(error) => (
                error.id(),
                Landing {
                    ending: Ending::Failed(format!("a bug in Beemesh: {error}")),
                    lacks: None,
                    played: None,
                },
            ),
        };
        let Landing {
            ending,
            lacks,
            played,
        } = landing;
        let Some(workload) = self.names.remove(&id) else {
            return;
        };
        self.cancels.remove(&workload);
        match &ending {
            Ending::Done => tracing::info!(workload, "work done"),
            Ending::Cancelled => tracing::info!(
                workload,
                "work on a workload cancelled for a newer revision"
            ),
            Ending::Waits(what) => tracing::info!(workload, what, "work waits"),
            Ending::Interrupted(error) => {
                tracing::warn!(workload, error, "work interrupted, will retry");
            }
            Ending::Failed(error) => tracing::warn!(workload, error, "work failed, will retry"),
        }
        let now = Instant::now();
        self.reconciler.ended(now, &workload, ending);
        if let Some(played) = played {
            self.reconciler.played(&workload, played);
        }
        if let Some(image) = lacks {
            self.reconciler.lacks_image(now, now_ms(), &workload);
            self.lacking.insert(workload, image);
        }
    }
}
