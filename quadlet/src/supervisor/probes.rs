//! Pure: decides when the probes of a pod's containers run, and what their results mean, as kubelet does.
//!
//! Input: the start and the end of each container, the results of runs, and the time. Output: the runs that are due
//! ([`Prober::due`]), the time at which to ask again ([`Prober::wake_at`]), and the state of each container
//! ([`Prober::state`]). The caller ends a container that is [`Condemned`], and starts it again by its restart policy.
//!
//! - A startup probe holds the other two back until it succeeds. A container without one counts as started at once.
//! - A container is ready if it runs, has started, and its readiness probe, if any, has succeeded last.
//! - A liveness or startup probe that fails too often condemns the container, and does not run again before the
//!   container is started again. A restart resets all counts.
//! - While the pod is being stopped, only readiness probes run.
//!
//! The first counted run comes between a half and a whole period after the initial delay, like that of kubelet, whose
//! clock ticks independently of the container. The fraction is a hash of the names, so that the probes of a host spread
//! over time. Before the first success of a startup or readiness probe there are further runs, first at once and then
//! after ever longer pauses. Their failures do not count: they only make a container ready sooner.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

pub mod run;
pub mod spec;
mod worker;

use spec::{ContainerSpec, Probe};
use worker::{Ended, Worker};

/// The three kinds of probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// `startupProbe`.
    Startup,
    /// `livenessProbe`.
    Liveness,
    /// `readinessProbe`.
    Readiness,
}

const KINDS: [Kind; 3] = [Kind::Startup, Kind::Liveness, Kind::Readiness];

/// One run of a container. Podman keeps the id when it starts a container again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunId {
    /// The container's id.
    pub id: String,
    /// When its process started, as Podman reports it.
    pub started_at: i64,
}

/// A run of a probe that is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// Identifies the run in [`Prober::finished`].
    pub ticket: Ticket,
    /// The container's id.
    pub id: String,
    /// What to run, and for how long at most.
    pub probe: Probe,
}

/// Identifies a run of a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    /// The name of the container on the host.
    pub container: String,
    /// The kind of the probe.
    pub kind: Kind,
    /// The run of the container, counted by the prober.
    life: u64,
    /// Whether a failure counts.
    counts: bool,
}

/// The result of a run of a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It succeeded.
    Success,
    /// It counts as successful, and an administrator should know this.
    Warning(String),
    /// It failed.
    Failure(Fault),
    /// It could not be run, or has no result. It does not count.
    Unknown(String),
}

/// How a run of a probe failed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fault {
    /// The exit code of its command.
    pub exit: Option<u32>,
    /// Whether it exceeded its time limit.
    pub timed_out: bool,
    /// The last line of its output, or the reason, as one line of limited length.
    pub output: String,
}

/// A container that has to be ended because of a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condemned {
    /// The kind of the probe: startup or liveness.
    pub kind: Kind,
    /// The number of consecutive failures.
    pub failures: u32,
    /// How its last run failed.
    pub fault: Fault,
    /// The time that the container has to end.
    pub grace: Duration,
}

/// A probe whose last run failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failing {
    /// Its kind.
    pub kind: Kind,
    /// The number of consecutive failures that count; 0 if only runs failed that do not count.
    pub failures: u32,
    /// The number of failures after which it has failed.
    pub threshold: u32,
    /// How its last run failed.
    pub fault: Fault,
}

/// What the probes of a container say about it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// It runs, and its startup probe has succeeded or it has none.
    pub started: bool,
    /// It runs, has started, and its readiness probe has succeeded or it has none.
    pub ready: bool,
    /// The probe that fails now: startup before liveness before readiness.
    pub failing: Option<Failing>,
    /// It has to be ended.
    pub condemned: Option<Condemned>,
}

/// What outlives the supervisor: which containers had started and were ready, by name. It changes only with their
/// state.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory(BTreeMap<String, Kept>);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    run: RunId,
    started: bool,
    ready: bool,
}

/// The probes of one pod.
#[derive(Debug)]
pub struct Prober {
    workload: String,
    containers: BTreeMap<String, Watched>,
    /// From the supervisor before this one.
    memory: Memory,
    lives: u64,
    is_stopping: bool,
}

#[derive(Debug)]
struct Watched {
    spec: ContainerSpec,
    life: Option<Life>,
}

/// A running container.
#[derive(Debug)]
struct Life {
    run: RunId,
    number: u64,
    /// When its initial delays began.
    at: Instant,
    started: bool,
    ready: bool,
    condemned: Option<Condemned>,
    startup: Option<Worker>,
    liveness: Option<Worker>,
    readiness: Option<Worker>,
}

impl Life {
    fn worker(&mut self, kind: Kind) -> &mut Option<Worker> {
        match kind {
            Kind::Startup => &mut self.startup,
            Kind::Liveness => &mut self.liveness,
            Kind::Readiness => &mut self.readiness,
        }
    }

    /// The probes that may run.
    fn active(&mut self, is_stopping: bool) -> impl Iterator<Item = (Kind, &mut Worker)> {
        let condemned = self.condemned.is_some() || is_stopping;
        let workers = [
            (Kind::Startup, &mut self.startup),
            (Kind::Liveness, &mut self.liveness),
            (Kind::Readiness, &mut self.readiness),
        ];
        workers.into_iter().filter_map(move |(kind, worker)| {
            let is_held = condemned && kind != Kind::Readiness;
            worker.as_mut().filter(|_| !is_held).map(|one| (kind, one))
        })
    }

    fn failing(&self) -> Option<Failing> {
        let workers = [&self.startup, &self.liveness, &self.readiness];
        let mut all = KINDS.into_iter().zip(workers);
        all.find_map(|(kind, worker)| worker.as_ref()?.failing(kind))
    }
}

impl Watched {
    fn probe(&self, kind: Kind) -> Option<&Probe> {
        match kind {
            Kind::Startup => self.spec.startup.as_ref(),
            Kind::Liveness => self.spec.liveness.as_ref(),
            Kind::Readiness => self.spec.readiness.as_ref(),
        }
    }
}

impl Prober {
    /// A prober of the pod of a workload, none of whose containers runs yet. `memory` is what the prober of an earlier
    /// supervisor kept, or empty.
    #[must_use]
    pub fn new(workload: &str, containers: Vec<ContainerSpec>, memory: Memory) -> Self {
        let containers = containers.into_iter().map(|spec| {
            let watched = Watched { spec, life: None };
            (watched.spec.name.clone(), watched)
        });
        Self {
            workload: workload.to_owned(),
            containers: containers.collect(),
            memory,
            lives: 0,
            is_stopping: false,
        }
    }

    /// The probes and hooks of a container.
    #[must_use]
    pub fn spec(&self, container: &str) -> Option<&ContainerSpec> {
        Some(&self.containers.get(container)?.spec)
    }

    /// Records that a container runs since `at`. If it is known to be in this run, the call changes nothing. Call it
    /// after the container's `postStart` hook: until then Kubernetes does not run probes, either.
    pub fn started(&mut self, container: &str, run: &RunId, at: Instant, now: Instant) {
        let Some(watched) = self.containers.get_mut(container) else {
            return;
        };
        let is_known = |life: &Life| life.run == *run;
        if watched.life.as_ref().is_some_and(is_known) {
            return;
        }
        self.lives += 1;
        // It is used once: a later run with the same time of start is another one.
        let kept = self.memory.0.remove(container);
        let kept = kept.filter(|kept| kept.run == *run);
        let (started, ready) = kept.map_or((false, false), |kept| (kept.started, kept.ready));
        watched.life = Some(Life {
            run: run.clone(),
            number: self.lives,
            at,
            started: started || watched.spec.startup.is_none(),
            ready,
            condemned: None,
            startup: None,
            liveness: None,
            readiness: None,
        });
        watched.begin(&self.workload, now);
    }

    /// Records that a container does not run.
    pub fn ended(&mut self, container: &str) {
        if let Some(watched) = self.containers.get_mut(container) {
            watched.life = None;
        }
    }

    /// Records that the pod is being stopped.
    pub fn stopping(&mut self) {
        self.is_stopping = true;
    }

    /// The runs that are due. Until [`Prober::finished`] is called for a run, the same probe does not run again.
    pub fn due(&mut self, now: Instant) -> Vec<Due> {
        let mut due = Vec::new();
        for (name, watched) in &mut self.containers {
            let Some(life) = &mut watched.life else {
                continue;
            };
            let (id, number) = (life.run.id.clone(), life.number);
            for (kind, worker) in life.active(self.is_stopping) {
                let Some(counts) = worker.begin(now) else {
                    continue;
                };
                due.push(Due {
                    ticket: Ticket {
                        container: name.clone(),
                        kind,
                        life: number,
                        counts,
                    },
                    id: id.clone(),
                    probe: worker.probe.clone(),
                });
            }
        }
        due
    }

    /// Records the result of a run. Returns the sentence if the container has to be ended because of it. A result of an
    /// earlier run of the container, or of a probe that may not run now, changes nothing.
    pub fn finished(
        &mut self,
        ticket: &Ticket,
        outcome: &Outcome,
        now: Instant,
    ) -> Option<Condemned> {
        let is_stopping = self.is_stopping;
        let watched = self.containers.get_mut(&ticket.container)?;
        let life = watched.life.as_mut()?;
        if life.number != ticket.life {
            return None;
        }
        let worker = life.worker(ticket.kind).as_mut()?;
        let ended = worker.finish(outcome, now);
        let is_held = life.condemned.is_some() || is_stopping;
        match (ticket.kind, ended) {
            (Kind::Readiness, Some(Ended::Passed)) => life.ready = true,
            (Kind::Readiness, Some(Ended::Failed(_))) => life.ready = false,
            (_, _) if is_held => {}
            (Kind::Startup, Some(Ended::Passed)) => {
                life.started = true;
                life.startup = None;
                watched.begin(&self.workload, now);
            }
            (kind, Some(Ended::Failed(fault))) => {
                life.condemned = life.worker(kind).as_ref().map(|worker| Condemned {
                    kind,
                    failures: worker.failures,
                    fault,
                    grace: worker.probe.grace,
                });
                return life.condemned.clone();
            }
            (_, _) => {}
        }
        None
    }

    /// When [`Prober::due`] next has a run, unless a result or another event comes first.
    #[must_use]
    pub fn wake_at(&self) -> Option<Instant> {
        let lives = self.containers.values().filter_map(|one| one.life.as_ref());
        let times = lives.filter_map(|life| {
            let is_held = life.condemned.is_some() || self.is_stopping;
            let held = [&life.startup, &life.liveness];
            let held = held.into_iter().filter(|_| !is_held);
            let workers = held.chain([&life.readiness]).flatten();
            workers.filter_map(Worker::wake_at).min()
        });
        times.min()
    }

    /// What the probes of a container say about it. A container that does not run is neither started nor ready.
    #[must_use]
    pub fn state(&self, container: &str) -> State {
        let watched = self.containers.get(container);
        let Some((watched, life)) = watched.and_then(|one| Some((one, one.life.as_ref()?))) else {
            return State::default();
        };
        State {
            started: life.started,
            ready: life.started && (life.ready || watched.spec.readiness.is_none()),
            failing: life.failing(),
            condemned: life.condemned.clone(),
        }
    }

    /// What the next supervisor needs to go on without an interruption of readiness.
    #[must_use]
    pub fn memory(&self) -> Memory {
        let lives = self.containers.iter().filter_map(|(name, watched)| {
            let life = watched
                .life
                .as_ref()
                .filter(|_| watched.spec.has_probes())?;
            let kept = Kept {
                run: life.run.clone(),
                started: life.started,
                ready: life.ready,
            };
            Some((name.clone(), kept))
        });
        // Containers that this prober has not seen yet stay as they were.
        let mut memory = self.memory.clone();
        memory.0.extend(lives);
        memory
    }
}

impl Watched {
    /// Sets the probes going that may run from now on.
    fn begin(&mut self, workload: &str, now: Instant) {
        let kinds: &[Kind] = match &self.life {
            Some(life) if life.started => &[Kind::Liveness, Kind::Readiness],
            Some(_) => &[Kind::Startup],
            None => &[],
        };
        for &kind in kinds {
            let Some(probe) = self.probe(kind).cloned() else {
                continue;
            };
            let share = share(workload, &self.spec.name, kind);
            if let Some(life) = &mut self.life {
                let from = now.max(life.at + probe.initial_delay);
                let is_eager = match kind {
                    Kind::Startup => true,
                    Kind::Liveness => false,
                    Kind::Readiness => !life.ready,
                };
                *life.worker(kind) = Some(Worker::new(probe, from, share, is_eager));
            }
        }
    }
}

/// A part of a period, between a half and one, that differs from probe to probe.
fn share(workload: &str, container: &str, kind: Kind) -> f64 {
    let hash = Sha256::digest(format!("{workload}\n{container}\n{kind:?}"));
    let number = u16::from_be_bytes([hash[0], hash[1]]);
    0.5 + f64::from(number) / f64::from(u16::MAX) / 2.0
}

#[cfg(test)]
mod tests;
