//! The workloads of a simulated host in a few fields, and the reconciler that works on them.
//!
//! Units outlive a gateway. A power cut ends what runs and keeps what was persisted, which the next boot starts. The
//! test checks that a host never acts on an older state than before, which would restore deleted workloads; that it
//! persists no uncommitted revision; and that in the end it has the workloads that the cluster wants.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use beemesh_protocol::{
    HostId,
    ipc::UnitState,
    workload::{pod_name, split_pod_name},
};
use beemesh_quadlet::{
    health::{Status, parse},
    render::{Revision, is_installed, read_quadlet, render},
};
use harness::Chance;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

use super::{
    invariants::Checks,
    jobs::{Jobs, is_job},
    pods::{Behaviour, Fresh, WEB, running},
    reports::Said,
    world::{World, name},
};
use crate::{
    cluster::placement,
    raft::{Node, View},
    workloads::{
        plan::{Ending, Reconciler, Seen, Step, Work},
        run::caught_up,
    },
};

/// Maximum time between two rounds of the reconciler.
const IDLE: Duration = Duration::from_secs(3600);
/// One in this many steps fails, before or after it takes effect.
const FAILURE: u64 = 20;

type Units = BTreeMap<String, UnitState>;

/// A host's units.
pub(super) struct Rig {
    units: watch::Sender<Units>,
    /// The workloads whose units the gateway itself has stopped, according to its marks.
    stopped: Mutex<BTreeSet<String>>,
    /// The last log index of the states that the host has acted on.
    acted: AtomicU64,
    jobs: Jobs,
    pods: Mutex<Pods>,
    said: Said,
    host: HostId,
    checks: Arc<Checks>,
}

/// The pods of the workload whose pods take a while to become ready.
#[derive(Default)]
struct Pods {
    /// How the pods of the revisions that were put on this host behave, by workload and log index.
    behaviours: BTreeMap<(String, u64), Behaviour>,
    /// The pod that runs, by workload.
    runs: BTreeMap<String, u64>,
    /// The number of pods that were started.
    started: u64,
    /// The pods that were started just now.
    fresh: Vec<Fresh>,
}

impl Rig {
    pub(super) fn new(host: HostId, checks: Arc<Checks>) -> Self {
        Self {
            units: watch::channel(Units::new()).0,
            stopped: Mutex::default(),
            acted: AtomicU64::new(0),
            jobs: Jobs::default(),
            pods: Mutex::default(),
            said: Said::default(),
            host,
            checks,
        }
    }

    pub(super) fn jobs(&self) -> &Jobs {
        &self.jobs
    }

    pub(super) fn said(&self) -> &Said {
        &self.said
    }

    /// Returns the pods that were started since the last call.
    pub(super) fn fresh(&self) -> Vec<Fresh> {
        std::mem::take(&mut self.pods.lock().unwrap().fresh)
    }

    /// Returns true if this pod has not been replaced or taken down.
    pub(super) fn plays(&self, workload: &str, run: u64) -> bool {
        self.pods.lock().unwrap().runs.get(workload) == Some(&run)
    }

    /// Returns true if the unit is up.
    pub(super) fn is_active(&self, workload: &str) -> bool {
        let units = self.units.borrow();
        units
            .get(workload)
            .is_some_and(|unit| unit.active == "active")
    }

    /// Changes a unit, if it exists.
    pub(super) fn change(&self, workload: &str, change: impl FnOnce(&mut UnitState)) {
        self.modify(|units| units.get_mut(workload).map_or((), change));
    }

    /// Changes the units, and checks what must hold.
    fn modify(&self, change: impl FnOnce(&mut Units)) {
        self.units.send_modify(change);
        self.checks.units(self.host, &self.units.borrow());
    }

    /// Simulates the return of power: persisted units exist and are about to start.
    pub(super) fn power(&self) {
        self.stopped.lock().unwrap().clear();
        self.jobs.power();
        self.pods.lock().unwrap().runs.clear();
        self.modify(|units| {
            units.retain(|_, unit| !unit.kube.is_empty());
            for unit in units.values_mut() {
                let active = if is_installed(&unit.kube) {
                    "activating"
                } else {
                    "inactive"
                };
                (unit.active, unit.started) = (active.into(), false);
                unit.status = String::new();
            }
        });
    }

    /// Starts the units that systemd starts at boot.
    pub(super) fn boot(&self) {
        self.modify(|units| {
            for unit in units
                .values_mut()
                .filter(|unit| unit.active == "activating")
            {
                self.start(unit);
            }
        });
    }

    /// Makes a unit run the pod of its persisted revision.
    fn start(&self, unit: &mut UnitState) {
        let Some(quadlet) = read_quadlet(&unit.kube) else {
            return;
        };
        (unit.active, unit.result, unit.started) = ("active".into(), "success".into(), true);
        let revision = quadlet.revision;
        let mut pods = self.pods.lock().unwrap();
        let key = (quadlet.workload, quadlet.index);
        let Some(behaviour) = pods.behaviours.get(&key).copied() else {
            unit.status = running(revision, 1);
            return;
        };
        unit.status = running(revision, 0);
        pods.started += 1;
        let (run, (workload, _)) = (pods.started, key);
        pods.runs.insert(workload.clone(), run);
        pods.fresh.push(Fresh {
            workload,
            revision,
            run,
            behaviour,
        });
    }

    /// Checks that the host has exactly the workloads that the cluster wants on it.
    pub(super) fn is_as_wanted(&self, host: HostId, view: &View) -> Result<(), String> {
        let state = &view.state;
        let jobs: BTreeSet<&str> = state
            .workloads()
            .filter(|workload| workload.job.is_some())
            .map(|workload| workload.name.as_str())
            .collect();
        // An ended Job needs no unit.
        let here = state.workloads().filter(|one| one.job.is_none());
        let here = here.flat_map(|workload| {
            let all = placement::on_host(state, workload, host).into_iter();
            all.map(move |(number, runs)| {
                let (_, object, _) = state.contents(workload, runs.index);
                let pod = pod_name(&workload.name, number);
                (pod, runs.revision, Behaviour::of(&object, host))
            })
        });
        let here: Vec<_> = here.collect();
        let behaviour = |name: &str| {
            let found = here.iter().find(|(pod, ..)| pod == name);
            found.map_or(Behaviour::Good, |(.., behaviour)| *behaviour)
        };
        // Without its image, a revision leaves no trace.
        let wanted = here.iter().filter(|one| one.2 != Behaviour::NoImage);
        let wanted: BTreeMap<String, u64> = wanted
            .map(|(pod, revision, _)| (pod.clone(), *revision))
            .collect();
        let units = self.units.borrow();
        let runs = |unit: &UnitState| match parse(&unit.status).map(|report| report.status) {
            // A pod that fails is not expected to run.
            _ if behaviour(&unit.workload) != Behaviour::Good => {
                read_quadlet(&unit.kube).map_or(0, |quadlet| quadlet.revision)
            }
            Some(Status::Running { revision, health })
                if unit.active == "active" && health.healthy == health.total =>
            {
                revision
            }
            _ => 0,
        };
        let has: BTreeMap<String, u64> = units
            .iter()
            .filter(|(workload, _)| !jobs.contains(workload.as_str()))
            .filter(|(workload, _)| behaviour(workload) != Behaviour::NoImage)
            .map(|(workload, unit)| (workload.clone(), runs(unit)))
            .collect();
        if has == wanted {
            Ok(())
        } else {
            let units = units.iter().map(|(workload, unit)| {
                let index = read_quadlet(&unit.kube).map(|quadlet| quadlet.index);
                (workload, index, &unit.active, unit.started, &unit.status)
            });
            let units: Vec<_> = units.collect();
            Err(format!(
                "{} has {has:?} instead of {wanted:?}: {units:?}",
                name(host)
            ))
        }
    }

    /// Applies a step to the host, for the log index of a revision or of a Job's attempt. Returns the attempt that
    /// starts. Fails if that attempt has started before.
    fn carry_out(
        &self,
        step: Step,
        workload: &str,
        index: u64,
        view: &View,
    ) -> Result<Option<u64>, ()> {
        let mut begun = Ok(None);
        let rendered = || {
            let (of, of_number) = split_pod_name(workload)?;
            let wanted = view.state.workload(of)?;
            let (number, object, _) = view.state.contents(wanted, index);
            let revision = Revision {
                cluster: view.state.cluster()?,
                revision: number,
                index,
                object: &object,
                number: of_number,
                uses: &[],
            };
            if of == WEB {
                let key = (workload.to_owned(), index);
                let behaviour = Behaviour::of(&object, self.host);
                self.pods.lock().unwrap().behaviours.insert(key, behaviour);
            }
            Some(render(&revision).expect("it can be rendered").kube)
        };
        if step == Step::Stop {
            self.stopped.lock().unwrap().insert(workload.to_owned());
        }
        self.modify(|units| {
            let unit = units
                .entry(workload.to_owned())
                .or_insert_with(|| UnitState {
                    workload: workload.to_owned(),
                    active: "inactive".into(),
                    result: "success".into(),
                    ..UnitState::default()
                });
            match step {
                Step::Put => unit.kube = rendered().expect("a wanted workload"),
                Step::Replace | Step::Start if is_job(unit) => {
                    let index = read_quadlet(&unit.kube).map_or(0, |quadlet| quadlet.index);
                    begun = self
                        .jobs
                        .start(workload, index)
                        .map(|new| new.then_some(index));
                    if let Ok(Some(_)) = begun {
                        self.start(unit);
                    }
                }
                Step::Replace | Step::Start if !unit.kube.is_empty() => self.start(unit),
                Step::Stop => {
                    self.jobs.stop(workload);
                    self.pods.lock().unwrap().runs.remove(workload);
                    (unit.active, unit.result) = ("inactive".into(), "success".into());
                    unit.status = String::new();
                }
                Step::Forget => drop(units.remove(workload)),
                Step::Replace
                | Step::Start
                | Step::Pull
                | Step::Down
                | Step::Sync
                | Step::Tidy
                | Step::Collect
                | Step::Clear => {
                    if unit.kube.is_empty() {
                        units.remove(workload);
                    }
                }
            }
        });
        begun
    }
}

/// Carries out the reconciler's decisions until this life of the host's gateway ends.
pub(super) async fn execute(
    world: Arc<World>,
    host: HostId,
    node: Node,
    life: u64,
    mut chance: Chance,
) {
    let rig = world.rig(host);
    let (mut view, mut consensus) = (node.state(), node.consensus());
    caught_up(&mut view, &mut consensus).await;
    // The agent may not have told the units yet.
    sleep(world.sync_time()).await;
    let mut units = rig.units.subscribe();
    let stopped = rig.stopped.lock().unwrap().clone();
    let mut reconciler = Reconciler::after(stopped, rig.jobs.ends());
    let (tell, mut reached) = mpsc::channel(64);
    let mut works: JoinSet<(String, Ending)> = JoinSet::new();
    let mut cancels: BTreeMap<String, Arc<AtomicBool>> = BTreeMap::new();
    while world.lives(host, life) {
        let (state, there) = (
            Arc::clone(&view.borrow_and_update()),
            units.borrow_and_update().clone(),
        );
        world.checks().state(&state);
        let plan = reconciler.look(&Seen {
            now: Instant::now(),
            host,
            view: &state,
            units: &there,
        });
        for workload in plan.unmark {
            rig.stopped.lock().unwrap().remove(&workload);
        }
        for workload in plan.forget {
            rig.jobs.forget(&workload);
        }
        let again = !plan.record.is_empty();
        for (workload, end) in plan.record {
            reconciler.recorded(&workload, end.index);
            rig.jobs.keep(&workload, end);
        }
        rig.said.standing.send_replace(plan.reports);
        for workload in plan.cancel {
            cancels[&workload].store(true, Ordering::Relaxed);
        }
        for (workload, work) in plan.begin {
            let before = rig.acted.fetch_max(state.applied, Ordering::Relaxed);
            if state.applied < before {
                let what = format!("{work:?} by entry {}, after {before}", state.applied);
                world.violated(format!("{}: {workload}: {what}", name(host)));
            }
            let cancelled = Arc::<AtomicBool>::default();
            cancels.insert(workload.clone(), Arc::clone(&cancelled));
            let flight = Flight {
                world: Arc::clone(&world),
                host,
                life,
                workload,
                work,
                view: Arc::clone(&state),
                cancelled,
                tell: tell.clone(),
                chance: Chance::new(chance.draw(), 0),
            };
            works.spawn(flight.run());
        }
        if again {
            continue;
        }
        let open = tokio::select! {
            changed = view.changed() => changed.is_ok(),
            changed = units.changed() => changed.is_ok(),
            Some((workload, step)) = reached.recv() => {
                reconciler.reached(&workload, step);
                true
            }
            Some(Ok((workload, ending))) = works.join_next() => {
                while let Ok((workload, step)) = reached.try_recv() {
                    reconciler.reached(&workload, step);
                }
                reconciler.ended(Instant::now(), &workload, ending);
                true
            }
            () = sleep_until(plan.due.unwrap_or_else(|| Instant::now() + IDLE)) => true,
        };
        if !open {
            return;
        }
    }
}

/// A work in progress.
struct Flight {
    world: Arc<World>,
    host: HostId,
    life: u64,
    workload: String,
    work: Work,
    view: Arc<View>,
    cancelled: Arc<AtomicBool>,
    tell: mpsc::Sender<(String, Step)>,
    chance: Chance,
}

impl Flight {
    async fn run(mut self) -> (String, Ending) {
        let ending = self.steps().await;
        (self.workload, ending)
    }

    async fn steps(&mut self) -> Ending {
        for step in self.work.steps() {
            // The receiver may have ended.
            let _ = self.tell.send((self.workload.clone(), *step)).await;
            sleep(self.chance.millis(1, 60)).await;
            let fate = self.chance.below(2 * FAILURE);
            let fails = fate < 2 && !self.world.is_over();
            if *step == Step::Pull && self.cancelled.load(Ordering::Relaxed) {
                return Ending::Cancelled;
            }
            if !self.world.lives(self.host, self.life) || (fails && fate == 0) {
                return Ending::Failed("before it had its effect".into());
            }
            if *step == Step::Pull && self.lacks_image() {
                return Ending::Failed("its image is missing".into());
            }
            let rig = self.world.rig(self.host);
            let (workload, index) = (&self.workload, self.work.index());
            let begun = rig.carry_out(*step, workload, index, &self.view);
            self.world.play(self.host);
            match begun {
                Ok(None) => {}
                Ok(Some(index)) => {
                    let made = self
                        .view
                        .state
                        .workload(workload)
                        .map_or(0, |one| one.index);
                    self.world.begun(self.host, workload, index, made);
                }
                Err(()) => {
                    let what = format!("{workload}: attempt {index} begins again");
                    self.world.violated(format!("{}: {what}", name(self.host)));
                }
            }
            if fails {
                return Ending::Failed("after it had its effect".into());
            }
        }
        Ending::Done
    }

    fn lacks_image(&self) -> bool {
        let Work::Bring(index) = self.work else {
            return false;
        };
        let workload = self.view.state.workload(&self.workload);
        workload.is_some_and(|workload| {
            let (_, object, _) = self.view.state.contents(workload, index);
            Behaviour::of(&object, self.host) == Behaviour::NoImage
        })
    }
}
