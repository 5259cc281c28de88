//! Pure: the part of the supervisor that has probes and `postStart` hooks run, and acts on their results.
//!
//! The supervisor does this for pods whose containers it starts. Podman's own probes of such a pod are disabled, so what
//! [`Prober`] says takes the place of Podman's health of a container.

use std::collections::btree_map::Entry;
use std::time::{Duration, Instant};

use beemesh_protocol::pod::{FailedProbe, ProbeKind};

use super::probes::spec::ContainerSpec;
use super::probes::{Failing, Fault, Kind, Outcome, Prober, RunId, State, Ticket};
use super::stages::Hook;
use super::{Effect, LOOK_DELAY, SeenPod, Supervisor};
use crate::health::{Container, Probe, Restart, Run};

impl Supervisor {
    /// Tells the prober which containers run, and gives the containers the health that their probes say.
    pub(super) fn watch_probes(&mut self, pod: &mut SeenPod, now: Instant) -> Vec<Effect> {
        if pod.specs.is_empty() {
            self.prober = None;
            return Vec::new();
        }
        self.ledger.begin(&pod.id);
        let (id, mut prober) = match self.prober.take() {
            Some((id, prober)) if id == pod.id => (id, prober),
            _ => {
                let memory = self.ledger.probes.clone();
                let prober = Prober::new(&self.workload, pod.specs.to_vec(), memory);
                (pod.id.clone(), prober)
            }
        };
        let mut effects = Vec::new();
        for container in &mut pod.containers {
            let spec = prober.spec(&container.name).cloned();
            let Some(spec) = spec.filter(|_| container.role.is_in_manifest()) else {
                continue;
            };
            let is_posted = self.posts(container, &spec, &mut effects);
            match container.run {
                Run::Running if is_posted => {
                    let since = self.age(container);
                    let at = now.checked_sub(since).unwrap_or(now);
                    prober.started(&container.name, &run_of(container), at, now);
                }
                _ => prober.ended(&container.name),
            }
            let state = prober.state(&container.name);
            container.probe = health(container, &spec, &state, is_posted);
            if let Some(failing) = state.failing.filter(|failing| failing.failures > 0) {
                pod.failing.insert(container.id.clone(), failed(failing));
            }
        }
        self.ledger.probes = prober.memory();
        self.prober = Some((id, prober));
        effects
    }

    /// Whether the `postStart` hook of a container has ended in this run of the container, or it has none. Starts the
    /// hook if it has not.
    fn posts(
        &mut self,
        container: &Container,
        spec: &ContainerSpec,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let (Some(hook), Run::Running) = (&spec.post_start, container.run) else {
            return true;
        };
        let run = run_of(container);
        if self.ledger.posted.get(&container.name) == Some(&run) {
            return true;
        }
        let is_new = match self.posting.entry(container.name.clone()) {
            Entry::Occupied(mut known) => known.insert(run.clone()) != run,
            Entry::Vacant(free) => {
                free.insert(run.clone());
                true
            }
        };
        if is_new {
            effects.push(Effect::Post {
                container: container.name.clone(),
                run,
                hook: hook.clone(),
            });
        }
        false
    }

    /// The `postStart` hook of a container in its present run.
    pub(super) fn hook(&self, pod: &SeenPod, container: &Container) -> Hook {
        let spec = pod.specs.iter().find(|spec| spec.name == container.name);
        match spec.is_some_and(|spec| spec.post_start.is_some()) {
            false => Hook::Absent,
            true if self.ledger.posted.get(&container.name) == Some(&run_of(container)) => {
                Hook::Ended
            }
            true => Hook::Due,
        }
    }

    /// Whether a container runs and has passed its startup probe and its `postStart` hook, or has none.
    pub(super) fn has_started(&self, container: &Container) -> bool {
        let Some((_, prober)) = &self.prober else {
            return true;
        };
        prober.spec(&container.name).is_none() || prober.state(&container.name).started
    }

    /// The runs of probes that are due.
    pub(super) fn probes_due(&mut self, now: Instant) -> Vec<Effect> {
        let due = self.prober.as_mut().map(|(_, prober)| prober.due(now));
        due.into_iter().flatten().map(Effect::Probe).collect()
    }

    /// Handles the result of a run of a probe.
    pub(super) fn probe_ran(
        &mut self,
        ticket: &Ticket,
        outcome: &Outcome,
        now: Instant,
    ) -> Vec<Effect> {
        let Some((_, prober)) = &mut self.prober else {
            return Vec::new();
        };
        let name = ticket.container.as_str();
        let before = prober.state(name);
        let condemned = prober.finished(ticket, outcome, now);
        let is_changed = prober.state(name) != before;
        self.ledger.probes = prober.memory();
        if is_changed {
            self.look_after_change(now);
        }
        let mut effects = Vec::new();
        if let Some(condemned) = condemned {
            if condemned.kind == Kind::Liveness {
                self.ledger.probed(name, false);
            }
            let last = match condemned.fault.timed_out {
                true => "timed out",
                false => condemned.fault.output.as_str(),
            };
            let reason = format!(
                "its {} probe has failed {} times: {last}",
                word(condemned.kind),
                condemned.failures,
            );
            let failing = Failing {
                kind: condemned.kind,
                failures: condemned.failures,
                threshold: condemned.failures,
                fault: condemned.fault,
            };
            self.ledger.probe_said(name, failed(failing));
            effects.extend(self.condemn(name, reason, Some(condemned.grace)));
        }
        effects.extend(self.keep());
        effects
    }

    /// Handles the end of a `postStart` hook. If it failed, the container is ended, as in Kubernetes.
    pub(super) fn posted(
        &mut self,
        container: String,
        run: RunId,
        outcome: Result<(), String>,
        now: Instant,
    ) -> Vec<Effect> {
        if self.posting.get(&container) != Some(&run) {
            return Vec::new();
        }
        self.posting.remove(&container);
        self.ledger.posted.insert(container.clone(), run);
        self.look_after_change(now);
        let mut effects = Vec::new();
        if let Err(reason) = outcome {
            self.ledger.hook_failed(&container, &reason);
            let reason = format!("its postStart hook has failed: {reason}");
            effects.extend(self.condemn(&container, reason, None));
        }
        effects.extend(self.keep());
        effects
    }

    /// Begins to end a container of the pod at the last look.
    fn condemn(&mut self, name: &str, reason: String, grace: Option<Duration>) -> Option<Effect> {
        self.ledger.condemn(name);
        let pod = self.pod.as_ref()?;
        let container = pod.containers.iter().find(|one| one.name == name)?;
        let spec = pod.specs.iter().find(|one| one.name == name)?;
        let restart = container.role.restart(pod.restart);
        Some(Effect::Condemn {
            container: container.id.clone(),
            reason,
            grace: grace.unwrap_or(spec.grace),
            spec: Box::new(spec.clone()),
            holder: (restart != Restart::Never).then(|| pod.image.clone()),
            restart,
        })
    }

    fn look_after_change(&mut self, now: Instant) {
        let soon = now + LOOK_DELAY;
        self.look_at = Some(self.look_at.map_or(soon, |at| at.min(soon)));
    }

    /// How long a container has been running.
    fn age(&self, container: &Container) -> Duration {
        let started = u64::try_from(container.started_at).unwrap_or_default();
        self.clock.saturating_sub(Duration::from_secs(started))
    }
}

fn run_of(container: &Container) -> RunId {
    RunId {
        id: container.id.clone(),
        started_at: container.started_at,
    }
}

/// The health of a container whose probes the supervisor runs.
fn health(container: &Container, spec: &ContainerSpec, state: &State, is_posted: bool) -> Probe {
    if container.run != Run::Running {
        return Probe::Absent;
    }
    match (is_posted && state.started, state.ready) {
        (false, _) => Probe::Starting,
        (true, true) if spec.has_probes() => Probe::Healthy,
        (true, true) => Probe::Absent,
        (true, false) if state.failing.is_some() => Probe::Unhealthy,
        (true, false) => Probe::Starting,
    }
}

fn failed(failing: Failing) -> FailedProbe {
    let Fault {
        exit,
        timed_out,
        output,
    } = failing.fault;
    FailedProbe {
        kind: match failing.kind {
            Kind::Startup => ProbeKind::Startup,
            Kind::Liveness => ProbeKind::Liveness,
            Kind::Readiness => ProbeKind::Readiness,
        },
        failures: failing.failures.min(failing.threshold),
        threshold: failing.threshold,
        exit,
        timed_out,
        output,
    }
}

fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Startup => "startup",
        Kind::Liveness => "liveness",
        Kind::Readiness => "readiness",
    }
}
