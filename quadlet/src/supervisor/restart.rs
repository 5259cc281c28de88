//! Pure: the part of the supervisor that restarts single containers and ends probes that hang.

use std::time::{Duration, Instant};

use super::failure::Failure;
use super::hung::Probe;
use super::ledger::Order;
use super::{Effect, LOOK_DELAY, Persisted, SeenPod, Supervisor};
use crate::health::{Health, Restart, Role, Status, has_ended, is_done};

impl Supervisor {
    /// The pod runs: which of its containers are to be restarted, and by whom?
    pub(super) fn runs(
        &mut self,
        pod: SeenPod,
        labels: Persisted,
        health: Health,
        orders: Vec<Order>,
        now: Instant,
    ) -> Vec<Effect> {
        if let Some(max) = pod.failures_max
            && self.ledger.failures() > max
        {
            let trouble = self.ledger.trouble(&pod);
            let failures = self.ledger.failures();
            let mut effects = vec![Effect::Rest];
            effects.extend(self.ended(format!(
                "{trouble}; {failures} failures exceed the backoffLimit of {max}"
            )));
            return effects;
        }
        let health = Health {
            restarts: self.ledger.restarts(),
            ..health
        };
        let status = Status::Running {
            health,
            revision: labels.revision,
            trouble: self.ledger.trouble(&pod),
        };
        let mut effects = self.up(&pod, labels, status, now);
        self.probes.watch(&pod.schedules, now);
        effects.extend(carry_out(orders, &pod));
        effects.extend(self.keep());
        self.look_when_due(&pod, now);
        self.pod = Some(pod);
        effects
    }

    /// Whether a pod that is down as a whole need not be made again: its containers ended while we watched, or it has only been
    /// stopped, and starting them was not tried yet.
    pub(super) fn may_revive(&self, pod: &SeenPod) -> bool {
        let mut members = pod.containers.iter();
        let all_ended =
            members.all(|container| container.role != Role::Member || has_ended(container));
        self.ready && all_ended && self.revived.as_ref() != Some(&pod.id)
    }

    /// Starts all containers that should run.
    pub(super) fn starts(&mut self, pod: &SeenPod, now: Instant) -> Vec<Effect> {
        self.look_at = Some(now + LOOK_DELAY);
        let members = pod.containers.iter();
        let members = members
            .filter(|container| container.role == Role::Member && !is_done(container, pod.restart));
        let starts = members.map(|container| Effect::Start {
            container: container.id.clone(),
        });
        let starts: Vec<Effect> = starts.collect();
        self.keep().into_iter().chain(starts).collect()
    }

    /// A container did not start. The others go on.
    pub(super) fn not_started(&mut self, id: &str, failure: Failure, now: Instant) -> Vec<Effect> {
        let Some(pod) = self.pod.take() else {
            // The whole pod was to be revived: a look shows whether it has to be played.
            self.look_at = Some(now + LOOK_DELAY);
            return Vec::new();
        };
        match failure {
            // The next look tries again.
            Failure::Passing(_) => {}
            Failure::Damaged(words) | Failure::Refused(words) | Failure::Hopeless(words) => {
                self.ledger.not_started(&pod, id, &words, self.seconds());
            }
        }
        self.look_soon(now);
        self.keep().into_iter().collect()
    }

    pub(super) fn probed(
        &mut self,
        id: String,
        container: String,
        healthy: bool,
        now: Instant,
    ) -> Vec<Effect> {
        self.probes.heard(&id, now);
        self.ledger.probed(&container, healthy);
        let is_known = self.pod.as_ref().is_some_and(|pod| {
            let mut containers = pod.containers.iter();
            containers.any(|one| one.id == id && one.probe == crate::health::Probe::Healthy)
        });
        if healthy && is_known {
            return Vec::new();
        }
        self.look_soon(now);
        if healthy {
            return Vec::new();
        }
        let tell = Effect::TellProbe { id, container };
        [tell].into_iter().chain(self.keep()).collect()
    }

    /// What is due: a look, or a probe of which nothing is heard.
    pub(super) fn woken(&mut self, now: Instant) -> Vec<Effect> {
        let probes = self.probes.due(now).into_iter().map(|probe| match probe {
            Probe::Look(container) => Effect::Probing { container },
            Probe::End(container, sessions) => Effect::EndProbe {
                container,
                sessions,
            },
        });
        let mut effects: Vec<Effect> = probes.collect();
        if effects.is_empty() || self.look_at.is_some_and(|at| at <= now) {
            effects.extend(self.look());
        }
        effects
    }

    /// All containers have ended, one in failure: the unit fails, and the pod stays for its logs.
    pub(super) fn ended(&mut self, reason: String) -> Vec<Effect> {
        self.ledger.over = true;
        let keep = self.keep();
        self.phase = super::Phase::Ended;
        // The unit did start: its containers were started and have ended since.
        let ready = (!self.ready).then_some(Effect::Ready);
        let say = Effect::Say(Status::Ended { reason });
        keep.into_iter()
            .chain(ready)
            .chain([say, Effect::Exit(super::EXIT_BEYOND_REPAIR)])
            .collect()
    }

    /// The host's clock at the last look, in seconds since 1970.
    pub(super) fn seconds(&self) -> i64 {
        i64::try_from(self.clock.as_secs()).unwrap_or(i64::MAX)
    }

    fn look_when_due(&mut self, pod: &SeenPod, now: Instant) {
        let Some(due) = self.ledger.due(pod) else {
            return;
        };
        let due = Duration::from_secs(u64::try_from(due).unwrap_or_default());
        // What is due already was ordered, and is seen to when it is answered.
        let wait = due.saturating_sub(self.clock).max(LOOK_DELAY);
        self.look_at = self.look_at.map(|at| at.min(now + wait));
    }

    pub(super) fn keep(&mut self) -> Option<Effect> {
        let is_new = self.ledger != self.kept;
        is_new.then(|| {
            self.kept.clone_from(&self.ledger);
            Effect::Keep(self.ledger.clone())
        })
    }
}

fn carry_out(orders: Vec<Order>, pod: &SeenPod) -> Vec<Effect> {
    let mut held = pod.held.clone();
    let effects = orders.into_iter().map(|order| match order {
        Order::Hold(container) => {
            held.insert(container.clone());
            Effect::Hold {
                container,
                image: pod.image.clone(),
                restart: pod.restart,
            }
        }
        Order::Release(container) => {
            held.remove(&container);
            Effect::Release {
                container,
                restart: pod.restart,
                last: held.is_empty() && pod.restart != Restart::Never,
            }
        }
        Order::Start(container) => Effect::Start { container },
        Order::Ask(id, container) => Effect::TellProbe { id, container },
    });
    effects.collect()
}
