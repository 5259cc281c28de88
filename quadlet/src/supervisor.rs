//! Pure: decides what a workload's supervisor does next.
//!
//! Input: [`Event`]s from the shell ([`shell`]) and the time. Output: [`Effect`]s for the shell to carry out in order,
//! and the time at which it must be woken ([`Supervisor::wake_at`]). A look of the shell returns a [`Sight`]. Every
//! decision uses a new one, because Podman's events are only hints.
//!
//! ```text
//! Looking ── pod of the persisted revision runs ──────────────▶ Watching ── pod gone, newer revision ──▶ Updating
//!    │ ▲                                                          │    ▲                                   │  │
//!    │ └── pod gone or stopped, same revision ───────────────────┘    └── the new revision's pod runs ────┘  │
//!    └── no pod, or a dead one: take it down, play ◀──────────────────── none came within UPDATE_TIME_MAX ───┘
//! any ── a singleton without its lease: end the pod, wait ─▶ Looking
//! any ── beyond repair, or ended for good ──▶ Ended (70)      any ── host in trouble for too long ──▶ Ended (75)      SIGTERM ──▶ Ended (0)
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use beemesh_protocol::pod::ContainerReport;

use crate::health::{Report, Role, Run, Status, Verdict, judge};

mod acts;
mod burst;
mod conmon;
pub mod down;
pub mod failure;
mod guard;
pub mod hooks;
mod hung;
pub mod last_output;
mod leased;
mod ledger;
mod memory;
mod messages;
mod play;
pub mod probes;
mod probing;
pub mod release;
pub mod report_file;
mod restart;
mod seen;
pub mod shell;
mod sight;
mod stages;
mod start;
pub mod stop;
mod termination;
mod trouble;

use failure::Failure;
use hung::Probes;
pub use ledger::Ledger;
pub use messages::{Effect, Event};
use probes::{Prober, RunId};
use restart::questions;
pub use seen::{Persisted, SeenPod, Sight};
pub use termination::MessageFile;

/// Exit code if no restart will help the workload: its unit's `RestartPreventExitStatus=`.
pub const EXIT_BEYOND_REPAIR: i32 = 70;
/// Exit code if the host has a problem: systemd tries again after a pause.
pub const EXIT_TRY_AGAIN: i32 = 75;

/// Time limit for the gateway to play the new revision. It needs less than a second after it has taken the old pod
/// down, so a gateway that takes longer has died.
const UPDATE_TIME_MAX: Duration = Duration::from_secs(60);
/// How long the supervisor tries to start a pod before it leaves the next try to systemd. Longer than a registry or
/// Podman needs for a restart, and short enough not to delay a boot much.
const TROUBLE_TIME_MAX: Duration = Duration::from_secs(300);
/// Number of consecutive refusals before the next try is left to systemd, which makes longer pauses.
const REFUSALS_MAX: u32 = 3;
/// Number of plays within [`REPLAY_WINDOW`] after which a pod that repeatedly disappears is given up.
const REPLAYS_MAX: usize = 5;
const REPLAY_WINDOW: Duration = Duration::from_secs(600);
/// Interval of looks without an event.
const RESYNC: Duration = Duration::from_secs(45);
/// Minimum time between two looks that are caused by events. Events come in bursts.
const LOOK_SPACING: Duration = Duration::from_millis(500);
const LOOK_DELAY: Duration = Duration::from_millis(30);
/// Interval of looks while the supervisor expects a change.
const WAIT_STEP: Duration = Duration::from_secs(1);
const PAUSE_MIN: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Looking,
    Watching { runs: Persisted },
    Updating { from: Persisted, since: Instant },
    Ended,
}

/// The supervisor of one workload.
#[derive(Debug)]
pub struct Supervisor {
    workload: String,
    phase: Phase,
    persisted: Option<Persisted>,
    ready: bool,
    said: Option<Report>,
    /// The status to report after this number of answers, which have the last output of containers that just ended.
    unsaid: Option<(Status, usize)>,
    /// The container that failed the last play, with the reason.
    blamed: Vec<ContainerReport>,
    unplayed: Option<String>,
    attached: BTreeSet<u32>,
    look_at: Option<Instant>,
    looked_at: Option<Instant>,
    /// Since when the pod has been down although it should be up.
    trouble_since: Option<Instant>,
    /// Since when another process seems to be playing the pod.
    unstarted_since: Option<Instant>,
    ledger: Ledger,
    /// The ledger in its file.
    kept: Ledger,
    probes: Probes,
    /// The probes of the pod with this id, if the supervisor runs them.
    prober: Option<(String, Prober)>,
    /// The `postStart` hooks that run, by the container's name.
    posting: BTreeMap<String, RunId>,
    /// The pod at the last look, if it is the one that should run.
    pod: Option<SeenPod>,
    /// The time of the last look, by the host's clock.
    clock: Duration,
    /// Whether Beemesh is being removed, so that Podman does all restarts.
    released: bool,
    /// The pod whose containers were all started again, and which has not been up since.
    revived: Option<String>,
    plays: Vec<Instant>,
    refusals: u32,
    pause: Duration,
    /// The remains of a pod come from a play of this supervisor.
    own_debris: bool,
    repaired: bool,
}

impl Supervisor {
    /// Creates a supervisor with the ledger of the previous one. Its first effect is a look.
    pub fn new(workload: &str, ledger: Ledger, now: Instant) -> Self {
        Self {
            workload: workload.to_owned(),
            phase: Phase::Looking,
            persisted: None,
            ready: false,
            said: None,
            unsaid: None,
            blamed: Vec::new(),
            unplayed: None,
            attached: BTreeSet::new(),
            look_at: Some(now),
            looked_at: None,
            trouble_since: None,
            unstarted_since: None,
            kept: ledger.clone(),
            ledger,
            probes: Probes::default(),
            prober: None,
            posting: BTreeMap::new(),
            pod: None,
            clock: Duration::ZERO,
            released: false,
            revived: None,
            plays: Vec::new(),
            refusals: 0,
            pause: PAUSE_MIN,
            own_debris: false,
            repaired: false,
        }
    }

    /// When to send [`Event::Woken`].
    pub fn wake_at(&self) -> Option<Instant> {
        match self.phase {
            Phase::Watching { .. } | Phase::Looking => {
                let prober = self.prober.as_ref();
                let probe = prober.and_then(|(_, prober)| prober.wake_at());
                let times = [self.look_at, self.probes.wake_at(), probe];
                times.into_iter().flatten().min()
            }
            Phase::Updating { .. } | Phase::Ended => self.look_at,
        }
    }

    /// Whether systemd has been told that the unit is up.
    pub fn is_ready(&self) -> bool {
        self.ready
    }

    /// Returns the next effects. It accepts every event in every phase; an event that does not matter has no effects.
    pub fn step(&mut self, event: Event, now: Instant) -> Vec<Effect> {
        if self.phase == Phase::Ended {
            return Vec::new();
        }
        match event {
            Event::Looked(sight) => self.looked(*sight, now),
            Event::Blind { persisted, failure } => {
                self.persisted = persisted.or(self.persisted);
                self.blind(failure, now)
            }
            Event::Hint => {
                self.look_soon(now);
                Vec::new()
            }
            Event::Died { container, code } => {
                self.ledger.died(&container, code);
                self.look_at = Some(now + LOOK_DELAY);
                Vec::new()
            }
            Event::Probed {
                id,
                container,
                healthy,
            } => self.probed(id, container, healthy, now),
            Event::Probing { id, sessions } => {
                self.probes.running(&id, sessions, now);
                Vec::new()
            }
            Event::ProbeSaid { container, probe } => {
                if let Some(probe) = probe {
                    self.ledger.probe_said(&container, probe);
                }
                self.answered()
            }
            Event::Heard {
                container,
                message,
                output,
            } => {
                self.ledger.heard(&container, message, output);
                self.answered()
            }
            Event::ProbeRan { ticket, outcome } => self.probe_ran(&ticket, &outcome, now),
            Event::Posted {
                container,
                run,
                outcome,
            } => self.posted(container, run, outcome, now),
            Event::Started => self.started(now),
            Event::NotStarted { id, failure } => self.not_started(&id, failure, now),
            Event::Played => {
                self.own_debris = false;
                self.look()
            }
            Event::Failed(failure) => self.failed(failure, now),
            Event::FailedFor(failure, container) => {
                self.blamed = vec![*container];
                self.unplayed = Some(failure.reason().to_owned());
                self.failed(failure, now)
            }
            Event::Repaired(outcome) => self.after_repair(outcome, now),
            Event::Attached(conmons) => {
                self.attached.extend(conmons);
                Vec::new()
            }
            Event::LeaseEnds => self.lease_ends(now),
            Event::LeaseBegins => self.lease_begins(now),
            Event::Woken => self.woken(now),
            Event::Terminated => {
                self.phase = Phase::Ended;
                vec![
                    Effect::Say(Status::Stopping.into()),
                    Effect::Down,
                    Effect::Exit(0),
                ]
            }
        }
    }

    fn look(&mut self) -> Vec<Effect> {
        self.look_at = None;
        // The unit is started, or its pod replaced, while the gateway plays the pod. A look before the end of the play
        // would show nothing.
        let played = self.looked_at.is_none() || matches!(self.phase, Phase::Updating { .. });
        let wait = played.then_some(Effect::Await);
        wait.into_iter().chain([Effect::Look]).collect()
    }

    fn look_soon(&mut self, now: Instant) {
        let spaced = self
            .looked_at
            .map_or(now, |looked_at| looked_at + LOOK_SPACING);
        let soon = spaced.max(now + LOOK_DELAY);
        self.look_at = Some(self.look_at.map_or(soon, |at| at.min(soon)));
    }

    fn looked(&mut self, sight: Sight, now: Instant) -> Vec<Effect> {
        self.looked_at = Some(now);
        self.look_at = Some(now + RESYNC);
        self.clock = sight.clock;
        self.released = sight.released;
        self.pod = None;
        let Some(persisted) = sight.persisted.or(self.persisted) else {
            return self.end(format!(
                "the Quadlet of workload {} is missing",
                self.workload
            ));
        };
        self.persisted = Some(persisted);
        if let Some(effects) = self.without_lease(&sight, now) {
            return effects;
        }
        let Some(pod) = sight.pod else {
            return self.absent(persisted, now);
        };
        let Some(labels) = pod.labels else {
            return self.end(format!(
                "a pod named {0} exists that does not belong to Beemesh; `podman pod rm -f {0}` removes it",
                self.workload
            ));
        };
        self.attached.retain(|pid| pod.conmons.contains(pid));
        if labels.index == persisted.index {
            let mut pod = pod;
            let hooks = self.watch_probes(&mut pod, now);
            let effects = self.present(pod, labels, now);
            hooks.into_iter().chain(effects).collect()
        } else {
            self.outdated(pod, labels, now)
        }
    }

    /// Handles a look that shows the pod of the persisted revision.
    fn present(&mut self, pod: SeenPod, labels: Persisted, now: Instant) -> Vec<Effect> {
        // The unit was started again after it had failed.
        if self.ledger.over && self.ledger.pod == pod.id && !self.ready {
            return self.play(labels, now);
        }
        if let Some(stage) = self.stage(&pod) {
            return self.starts_by(stage, pod, labels, now);
        }
        let unstarted = pod
            .containers
            .iter()
            .any(|container| container.run == Run::Created && container.role != Role::Holder);
        // A play that was interrupted by a power cut leaves an incomplete pod, which Podman still starts at the next
        // boot.
        let unfinished = unstarted || pod.missing.is_some();
        if unstarted && pod.staged.is_some() {
            // The pod is of an earlier boot, or its creation was interrupted: otherwise its start would continue.
            return self.play(labels, now);
        }
        if unfinished && !self.own_debris {
            let since = *self.unstarted_since.get_or_insert(now);
            if now < since + pod.patience(UPDATE_TIME_MAX) {
                self.look_at = Some(now + WAIT_STEP);
                let doing = match &pod.missing {
                    Some(name) if !unstarted => format!("container {name} is missing"),
                    _ => "the pod is being played".to_owned(),
                };
                return self.say_starting(labels.revision, &doing);
            }
        }
        let verdict = judge(&pod.containers, pod.restart);
        let orders = self.ledger.look(&pod, self.seconds(), self.released);
        match verdict {
            Verdict::Broken => self.ended(&pod, String::new(), orders),
            Verdict::Completed(_) => {
                let status = Status::Completed {
                    revision: labels.revision,
                    restarts: self.ledger.restarts(),
                };
                let (questions, _) = questions(orders);
                let say = self.say_after(questions, status, &pod);
                let mut effects = self.up(&pod, labels, say, now);
                let rests = pod.is_kept() || pod.has_sidecars();
                effects.extend(rests.then_some(Effect::Rest));
                effects.extend(self.keep());
                self.pod = Some(pod);
                effects
            }
            Verdict::Running(health) if !unfinished => self.runs(pod, labels, health, orders, now),
            Verdict::Stopped if !unfinished && self.may_revive(&pod) => {
                self.revived = Some(pod.id.clone());
                self.starts(&pod, now)
            }
            Verdict::Running(_) | Verdict::Stopped => self.play(labels, now),
        }
    }

    /// Handles a look that shows the pod of another revision.
    fn outdated(&mut self, pod: SeenPod, labels: Persisted, now: Instant) -> Vec<Effect> {
        let to = self.persisted.unwrap_or(labels);
        let dead = judge(&pod.containers, pod.restart) == Verdict::Stopped;
        let since = match self.phase {
            Phase::Updating { since, .. } => since,
            // After a boot no process is replacing it.
            Phase::Looking if dead => return self.play(to, now),
            Phase::Looking | Phase::Watching { .. } | Phase::Ended => now,
        };
        self.wait_for_update(labels, to, since, now)
    }

    fn absent(&mut self, persisted: Persisted, now: Instant) -> Vec<Effect> {
        self.unstarted_since = None;
        self.attached.clear();
        match self.phase {
            Phase::Watching { runs } if runs.index != persisted.index => {
                self.wait_for_update(runs, persisted, now, now)
            }
            Phase::Updating { from, since } => self.wait_for_update(from, persisted, since, now),
            Phase::Looking | Phase::Watching { .. } | Phase::Ended => self.play(persisted, now),
        }
    }

    fn wait_for_update(
        &mut self,
        from: Persisted,
        to: Persisted,
        since: Instant,
        now: Instant,
    ) -> Vec<Effect> {
        if now >= since + UPDATE_TIME_MAX {
            return self.play(to, now);
        }
        let is_new = !matches!(self.phase, Phase::Updating { .. });
        self.phase = Phase::Updating { from, since };
        let mut effects = self.say_status(Status::Updating {
            from: from.revision,
            to: to.revision,
        });
        if is_new {
            effects.extend(self.look());
        }
        // The gateway may not have started to replace it yet.
        self.look_at = Some(now + WAIT_STEP);
        effects
    }

    fn play(&mut self, persisted: Persisted, now: Instant) -> Vec<Effect> {
        self.phase = Phase::Looking;
        self.unstarted_since = None;
        self.trouble_since.get_or_insert(now);
        self.plays.retain(|at| now < *at + REPLAY_WINDOW);
        if self.ready && self.plays.len() >= REPLAYS_MAX {
            let minutes = REPLAY_WINDOW.as_secs() / 60;
            return self.end(format!(
                "the pod went away {REPLAYS_MAX} times within {minutes} minutes"
            ));
        }
        self.plays.push(now);
        self.own_debris = true;
        self.look_at = None;
        let doing = match &self.unplayed {
            None => "playing the pod".to_owned(),
            Some(reason) => format!("playing the pod again after: {reason}"),
        };
        let mut effects = self.say_starting(persisted.revision, &doing);
        effects.push(Effect::Play {
            revision: persisted.revision,
        });
        effects
    }

    fn up(
        &mut self,
        pod: &SeenPod,
        labels: Persisted,
        say: Vec<Effect>,
        now: Instant,
    ) -> Vec<Effect> {
        self.phase = Phase::Watching { runs: labels };
        self.trouble_since = None;
        self.unstarted_since = None;
        self.revived = None;
        self.blamed.clear();
        self.unplayed = None;
        self.refusals = 0;
        self.pause = PAUSE_MIN;
        self.own_debris = false;
        self.plays.retain(|at| now < *at + REPLAY_WINDOW);
        let mut effects: Vec<Effect> = self.attach(pod).into_iter().collect();
        effects.extend(say);
        if !self.ready {
            self.ready = true;
            effects.push(Effect::Ready);
        }
        effects
    }

    /// Moves the processes that monitor the pod's containers into the unit, unless they are there.
    fn attach(&self, pod: &SeenPod) -> Option<Effect> {
        let all = pod.conmons.iter().copied();
        let strangers: Vec<u32> = all.filter(|pid| !self.attached.contains(pid)).collect();
        (!strangers.is_empty()).then_some(Effect::Attach(strangers))
    }

    fn say_starting(&mut self, revision: u64, doing: &str) -> Vec<Effect> {
        let doing = doing.to_owned();
        self.say_status(Status::Starting { revision, doing })
    }

    /// Reports a status that concerns no container, or the container that failed the play.
    fn say_status(&mut self, status: Status) -> Vec<Effect> {
        let report = self.of_pod(status);
        self.say(report)
    }

    fn of_pod(&self, status: Status) -> Report {
        Report {
            containers: self.blamed.clone(),
            ..status.into()
        }
    }

    fn say(&mut self, report: Report) -> Vec<Effect> {
        self.unsaid = None;
        let report = report.cleaned();
        if self.said.as_ref() == Some(&report) {
            return Vec::new();
        }
        self.said = Some(report.clone());
        vec![Effect::Say(report)]
    }

    fn end(&mut self, reason: String) -> Vec<Effect> {
        self.give_up(reason, EXIT_BEYOND_REPAIR)
    }

    fn leave_to_systemd(&mut self, reason: String) -> Vec<Effect> {
        self.give_up(reason, EXIT_TRY_AGAIN)
    }

    fn give_up(&mut self, reason: String, code: i32) -> Vec<Effect> {
        self.phase = Phase::Ended;
        let report = self.of_pod(Status::Failed { reason });
        vec![Effect::Say(report.cleaned()), Effect::Exit(code)]
    }
}

#[cfg(test)]
mod tests;
