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
        if pod.missing.is_some() || is_dead(pod) {
            return None;
        }
        let has_started = |container: &Container| self.has_started(container);
        let stage = stages::next(staged, &self.workload, &pod.containers, has_started);
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
        effects.extend(asks);
        match stage {
            Stage::Start(ids) => {
                effects.extend(self.say_starting(labels.revision, "starting the containers"));
                let starts = ids.into_iter().map(|container| Effect::Start { container });
                effects.extend(starts);
            }
            Stage::Remove(container) => effects.push(Effect::Remove { container }),
            Stage::Wait(name) => {
                self.trouble_since = None;
                effects.extend(self.say_waiting(&pod, &name, labels));
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

    /// A container was started or removed: the next step is due.
    pub(super) fn started(&mut self, now: Instant) -> Vec<Effect> {
        if self.phase == Phase::Looking {
            self.look_at = Some(now + LOOK_DELAY);
        } else {
            self.look_soon(now);
        }
        Vec::new()
    }

    fn say_waiting(&mut self, pod: &SeenPod, name: &str, labels: Persisted) -> Vec<Effect> {
        let containers = self.ledger.reports(pod, &self.workload);
        let troubled = containers.iter().filter(|one| !one.is_calm());
        let troubles = reasons(troubled, false);
        let is_sidecar = pod
            .staged
            .as_ref()
            .is_some_and(|staged| staged.sidecars.contains(name));
        let doing = match (troubles.is_empty(), is_sidecar) {
            (false, _) => format!("init container {}", troubles.join("; init container ")),
            (true, true) => format!("waiting until sidecar {name} has started"),
            (true, false) => format!("waiting until init container {name} has ended"),
        };
        let status = Status::Starting {
            revision: labels.revision,
            doing,
        };
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

/// Whether the pod was started before and is down as a whole, as after a boot.
fn is_dead(pod: &SeenPod) -> bool {
    let containers = || pod.containers.iter();
    let is_up = |one: &Container| one.role == Role::Infra && one.run == Run::Running;
    let was_started = |one: &Container| one.role.is_in_manifest() && one.run != Run::Created;
    !containers().any(is_up) && containers().any(was_started)
}
