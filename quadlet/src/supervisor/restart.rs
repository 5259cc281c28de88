//! Pure: the part of the supervisor that restarts single containers and kills probes that hang.

use std::time::{Duration, Instant};

use super::failure::{self, Failure};
use super::hung::Probe;
use super::ledger::Order;
use super::{Effect, LOOK_DELAY, Persisted, SeenPod, Supervisor};
use crate::health::{Health, Report, Status, has_ended, is_done};

impl Supervisor {
    /// Handles a look that shows a running pod: decides which of its containers to restart.
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
            let failures = self.ledger.failures();
            let reason =
                format!("{failures} failures are more than the {max} that backoffLimit allows");
            let ended = self.ended(&pod, reason, orders);
            let rest = (self.phase == super::Phase::Ended).then_some(Effect::Rest);
            return rest.into_iter().chain(ended).collect();
        }
        let health = Health {
            restarts: self.ledger.restarts(),
            ..health
        };
        let status = Status::Running {
            health,
            revision: labels.revision,
        };
        let (questions, orders) = questions(orders);
        let say = self.say_after(questions, status, &pod);
        let mut effects = self.up(&pod, labels, say, now);
        self.probes.watch(&pod.schedules, now);
        effects.extend(carry_out(orders, &pod));
        effects.extend(self.keep());
        self.look_when_due(&pod, now);
        self.pod = Some(pod);
        effects
    }

    /// Reports a status, or first asks these questions about the containers that have just ended.
    pub(super) fn say_after(
        &mut self,
        questions: Vec<Effect>,
        status: Status,
        pod: &SeenPod,
    ) -> Vec<Effect> {
        if !questions.is_empty() {
            self.unsaid = Some((status, questions.len()));
            return questions;
        }
        let containers = self.ledger.reports(pod, &self.workload);
        self.say(Report {
            containers,
            ..status.into()
        })
    }

    /// Whether starting the containers may bring back a pod that is down as a whole, without another play. This is so
    /// if its containers ended while the supervisor watched or it was only stopped, and if it was not tried yet.
    pub(super) fn may_revive(&self, pod: &SeenPod) -> bool {
        let mut members = pod.containers.iter();
        let all_ended =
            members.all(|container| !container.role.is_in_manifest() || has_ended(container));
        self.ready && all_ended && self.revived.as_ref() != Some(&pod.id)
    }

    /// Starts all containers that should run.
    pub(super) fn starts(&mut self, pod: &SeenPod, now: Instant) -> Vec<Effect> {
        self.look_at = Some(now + LOOK_DELAY);
        let members = pod.containers.iter();
        let members = members.filter(|container| {
            container.role.is_in_manifest() && !is_done(container, pod.restart)
        });
        let starts = members.map(|container| Effect::Start {
            container: container.id.clone(),
            folders: Vec::new(),
            working_dir: None,
        });
        let starts: Vec<Effect> = starts.collect();
        self.keep().into_iter().chain(starts).collect()
    }

    /// Handles a container that did not start. The others continue.
    pub(super) fn not_started(&mut self, id: &str, failure: Failure, now: Instant) -> Vec<Effect> {
        let Some(pod) = self.pod.take() else {
            // The start was to bring back the whole pod. The next look shows whether it must be played.
            self.look_at = Some(now + LOOK_DELAY);
            return Vec::new();
        };
        if let Some(first) = pod.first_start(id) {
            let reason = failure::first_start(failure, first);
            return self.failed(reason, now);
        }
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
            // A probe that has failed less often than its threshold needs looks, because Podman sends no event for it.
            let is_fine = |one: &crate::health::Container| {
                one.probe == crate::health::Probe::Healthy && !pod.failing.contains_key(&id)
            };
            containers.any(|one| one.id == id && is_fine(one))
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

    /// What is due: a look, or a request about a probe without events.
    pub(super) fn woken(&mut self, now: Instant) -> Vec<Effect> {
        let probes = self.probes.due(now).into_iter().map(|probe| match probe {
            Probe::Look(container) => Effect::Probing { container },
            Probe::End(container, sessions) => Effect::EndProbe {
                container,
                sessions,
            },
        });
        let mut effects: Vec<Effect> = probes.collect();
        effects.extend(self.probes_due(now));
        if effects.is_empty() || self.look_at.is_some_and(|at| at <= now) {
            effects.extend(self.look());
        }
        effects
    }

    /// Handles the answer to a question. The last answer releases the status that waited for it.
    pub(super) fn answered(&mut self) -> Vec<Effect> {
        let keep = self.keep();
        let say = match (self.unsaid.take(), &self.pod) {
            (Some((status, 0 | 1)), Some(pod)) => {
                let containers = self.ledger.reports(pod, &self.workload);
                self.say(Report {
                    containers,
                    ..status.into()
                })
            }
            (Some((status, more)), _) => {
                self.unsaid = Some((status, more.saturating_sub(1)));
                Vec::new()
            }
            (None, _) => Vec::new(),
        };
        keep.into_iter().chain(say).collect()
    }

    /// Handles the end of all containers, one of them with a failure: the unit fails, and the pod stays for its logs.
    /// The supervisor first requests the last output of those that have just ended, and looks again.
    pub(super) fn ended(
        &mut self,
        pod: &SeenPod,
        reason: String,
        orders: Vec<Order>,
    ) -> Vec<Effect> {
        let (questions, _) = questions(orders);
        if !questions.is_empty() {
            return questions.into_iter().chain([Effect::Look]).collect();
        }
        self.ledger.over = true;
        let keep = self.keep();
        self.phase = super::Phase::Ended;
        // The unit was up: its containers were started, and have ended since.
        let ready = (!self.ready).then_some(Effect::Ready);
        let report = Report {
            containers: self.ledger.reports(pod, &self.workload),
            ..Status::Ended { reason }.into()
        };
        let say = Effect::Say(report.cleaned());
        keep.into_iter()
            .chain(ready)
            .chain([say, Effect::Exit(super::EXIT_BEYOND_REPAIR)])
            .collect()
    }

    /// The host's clock at the last look, in seconds since 1970.
    pub(super) fn seconds(&self) -> i64 {
        i64::try_from(self.clock.as_secs()).unwrap_or(i64::MAX)
    }

    pub(super) fn look_when_due(&mut self, pod: &SeenPod, now: Instant) {
        let Some(due) = self.ledger.due(pod) else {
            return;
        };
        let due = Duration::from_secs(u64::try_from(due).unwrap_or_default());
        // An order that is already due was given, and its answer causes the next look.
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

/// Splits orders into questions and the rest.
pub(super) fn questions(orders: Vec<Order>) -> (Vec<Effect>, Vec<Order>) {
    let (questions, orders): (Vec<_>, Vec<_>) = orders
        .into_iter()
        .partition(|order| matches!(order, Order::Ask(..) | Order::Hear { .. }));
    let questions = questions.into_iter().filter_map(|order| match order {
        Order::Ask(id, container) => Some(Effect::TellProbe { id, container }),
        Order::Hear {
            id,
            container,
            file,
        } => Some(Effect::Hear {
            id,
            container,
            file,
        }),
        Order::Hold(_) | Order::Release(_) | Order::Start(_) => None,
    });
    (questions.collect(), orders)
}

pub(super) fn carry_out(orders: Vec<Order>, pod: &SeenPod) -> Vec<Effect> {
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
                last: held.is_empty() && !pod.needs_holder(),
            }
        }
        Order::Start(container) => Effect::Start {
            container,
            folders: Vec::new(),
            working_dir: None,
        },
        Order::Ask(id, container) => Effect::TellProbe { id, container },
        Order::Hear {
            id,
            container,
            file,
        } => Effect::Hear {
            id,
            container,
            file,
        },
    });
    effects.collect()
}
