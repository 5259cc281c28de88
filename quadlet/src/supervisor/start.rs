//! Pure: the part of the supervisor that starts the containers of a pod one by one.

use std::time::Instant;

use beemesh_protocol::pod::reasons;

use super::restart::{carry_out, questions};
use super::stages::{self, Stage};
use super::{Effect, LOOK_DELAY, Persisted, Phase, SeenPod, Supervisor};
use crate::health::{Container, Report, Restart, Role, Run, Status, has_ended};

impl Supervisor {
    /// The next step of the start of a pod; `None` if all its containers have been started, or Podman starts them.
    pub(super) fn stage(&self, pod: &SeenPod) -> Option<Stage> {
        let staged = pod.staged.as_ref()?;
        if pod.missing.is_some() || is_down(pod) || pod.is_unprepared(self.own_debris) {
            return None;
        }
        let has_started = |container: &Container| self.has_started(container);
        let hook = |container: &Container| self.hook(pod, container);
        let stage = stages::next(staged, &self.workload, &pod.containers, has_started, hook);
        (stage != Stage::Up).then_some(stage)
    }

    /// Takes the next step of the start of a pod.
    pub(super) fn starts_by(
        &mut self,
        stage: Stage,
        pod: SeenPod,
        labels: Persisted,
        now: Instant,
    ) -> Vec<Effect> {
        self.phase = Phase::Looking;
        self.unstarted_since = None;
        let orders = self.ledger.look(&pod, self.seconds(), self.released);
        if let Some(reason) = self.gives_up(&pod) {
            return self.ended(&pod, reason, orders);
        }
        let mut effects: Vec<Effect> = self.attach(&pod).into_iter().collect();
        let (asks, orders) = questions(orders);
        let asked = asks.len();
        effects.extend(asks);
        match stage {
            Stage::Start(ids) => {
                effects.extend(self.say_starting(labels.revision, "starting the containers"));
                let starts = ids.into_iter().map(|id| self.first_start(&pod, id));
                let starts: Vec<Effect> = starts.collect();
                effects.extend(starts);
            }
            Stage::Remove(container) => effects.push(Effect::Remove { container }),
            Stage::Wait(_) | Stage::WaitForHook(_) => {
                self.trouble_since = None;
                effects.extend(self.say_waiting(&pod, &stage, labels, asked));
                // An init container may run for hours, and one that fails is started again and again.
                if !self.ready {
                    self.ready = true;
                    effects.push(Effect::Ready);
                }
                effects.extend(carry_out(orders, &pod));
                self.look_when_due(&pod, now);
            }
            Stage::Up => {}
        }
        effects.extend(self.keep());
        self.pod = Some(pod);
        effects
    }

    /// Starts a container for the first time, with the folders that it needs.
    fn first_start(&self, pod: &SeenPod, id: String) -> Effect {
        let (mut folders, mut working_dir) = (Vec::new(), None);
        if let (Some(staged), Some(container)) = (&pod.staged, pod.first_start(&id)) {
            let name = super::ledger::short_name(&container.name, &self.workload);
            folders = staged.late_folders(name);
            working_dir = staged.working_dirs.get(name).cloned();
        }
        Effect::Start {
            container: id,
            folders,
            working_dir,
        }
    }

    /// A container was started or removed: the next step is due.
    pub(super) fn started(&mut self, now: Instant) -> Vec<Effect> {
        if self.phase == Phase::Looking {
            self.look_at = Some(now + LOOK_DELAY);
        } else {
            self.look_soon(now);
        }
        Vec::new()
    }

    /// Reports what the start waits for. After an end the report waits for the answers to the questions about it.
    fn say_waiting(
        &mut self,
        pod: &SeenPod,
        stage: &Stage,
        labels: Persisted,
        asked: usize,
    ) -> Vec<Effect> {
        let containers = self.ledger.reports(pod, &self.workload);
        let troubled = containers.iter().filter(|one| !one.is_calm());
        let troubles = reasons(troubled, false);
        let is_sidecar = |name: &String| {
            let staged = pod.staged.as_ref();
            staged.is_some_and(|staged| staged.sidecars.contains(name))
        };
        let doing = match stage {
            Stage::WaitForHook(name) if troubles.is_empty() => {
                format!("waiting until the postStart hook of container {name} has ended")
            }
            Stage::Wait(name) if troubles.is_empty() && is_sidecar(name) => {
                format!("waiting until sidecar {name} has started")
            }
            Stage::Wait(name) if troubles.is_empty() => {
                format!("waiting until init container {name} has ended")
            }
            Stage::Wait(_) => format!("init container {}", troubles.join("; init container ")),
            _ => troubles.join("; "),
        };
        let status = Status::Starting {
            revision: labels.revision,
            doing,
        };
        if asked > 0 {
            self.unsaid = Some((status, asked));
            return Vec::new();
        }
        self.say(Report {
            containers,
            ..status.into()
        })
    }

    /// Why the start cannot go on, if so.
    fn gives_up(&self, pod: &SeenPod) -> Option<String> {
        let mut init = pod.containers.iter().filter(|one| one.role == Role::Init);
        let failed = init.find(|one| has_ended(one) && one.exit_code != 0)?;
        if pod.restart == Restart::Never {
            let name = super::ledger::short_name(&failed.name, &self.workload);
            return Some(format!(
                "init container {name} is not started again, because the restart policy is Never"
            ));
        }
        let max = pod.failures_max?;
        let failures = self.ledger.failures();
        (failures > max).then(|| {
            format!("{failures} failures are more than the {max} that backoffLimit allows")
        })
    }
}

/// Whether the pod is down as a whole: it is of an earlier boot, or its creation was interrupted.
fn is_down(pod: &SeenPod) -> bool {
    let is_up = |one: &Container| one.role == Role::Infra && one.run == Run::Running;
    !pod.containers.iter().any(is_up)
}
