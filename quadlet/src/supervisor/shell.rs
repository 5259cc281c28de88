//! Carries out the decisions of [`super::Supervisor`] with Podman, D-Bus and systemd's notify socket. Decides nothing.
//!
//! It carries out one effect at a time. Meanwhile it feeds the watchdog and handles SIGTERM.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use beemesh_protocol::pod::ContainerReport;
use beemesh_protocol::workload::unit_name;
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use super::down::{self, STOP_PATIENCE};
use super::failure::classify;
use super::guard::{self, Guard};
use super::hooks::Place;
use super::play::play;
use super::probes::run::{Finished, Runner};
use super::sight::Eye;
use super::{Effect, Event, Supervisor};
use super::{acts, memory, report_file};
use crate::health::{Report, Status};
use crate::journal_backfill::Backfill;
use crate::podman::{self, Change, Events, LABEL_WORKLOAD, Podman};
use crate::{adopt, play_lock, repair};

/// Interval of the keep-alive messages if `WATCHDOG_USEC` is not set. Each of them extends the time limit of the start.
const BEAT: Duration = Duration::from_secs(10);
/// The extension by each keep-alive message. A supervisor that hangs in its start is killed after this time.
const START_EXTENSION: Duration = Duration::from_secs(60);
/// How long the end of a lease waits for what the supervisor does. Podman may still do it, and the next look shows that.
const LEASE_PATIENCE: Duration = Duration::from_millis(500);
/// Time limit of a stop. A longer stop is left to the unit's `TimeoutStopSec=`, so that a Podman that does not respond
/// cannot block a shutdown for ever.
const STOP_TIME_MAX: Duration = Duration::from_secs(300);
/// Interval of the checks whether Podman waits for systemd in a shutdown. Most stops end before the first check.
const FREE_STEP: Duration = Duration::from_secs(3);
/// Time limit of a `postStart` hook. Kubernetes has none.
const POST_TIME_MAX: Duration = Duration::from_secs(3600);
/// Results of hooks that wait for the supervisor.
const HOOKS_MAX: usize = 16;
/// Time limit of a play: longer than the gateway's limit for one play and one take-down, with some before it in the
/// queue.
const PLAY_TIME_MAX: Duration = Duration::from_secs(1800);

/// The workload and the paths that its supervisor uses.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The workload.
    pub workload: String,
    /// The path of Podman's socket.
    pub socket: PathBuf,
    /// The directory of the Quadlets.
    pub folder: PathBuf,
    /// The directory of the locks that are held while a pod is played or Podman's storage is repaired.
    pub run: PathBuf,
}

/// Supervises a workload until its unit is stopped or it is given up. Returns the exit code.
pub async fn run(settings: Settings) -> std::io::Result<i32> {
    let mut shell = Shell::open(settings)?;
    if shell.eye.leased().0 {
        shell.watch_lease()?;
    }
    let ledger = memory::recall(&shell.settings);
    let mut supervisor = Supervisor::new(&shell.settings.workload, ledger, Instant::now());
    loop {
        let event = shell.next(supervisor.wake_at()).await;
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            for effect in supervisor.step(event, Instant::now()) {
                if let Effect::Exit(code) = effect {
                    return Ok(code);
                }
                events.extend(shell.perform(effect).await?);
            }
        }
        shell.extend_start = !supervisor.is_ready();
    }
}

struct Shell {
    settings: Settings,
    podman: Podman,
    eye: Eye,
    backfill: Backfill,
    events: Events,
    runner: Runner,
    guard: Guard,
    /// The ended runs of probes.
    probed: mpsc::Receiver<Finished>,
    /// The ended `postStart` hooks.
    posted: mpsc::Receiver<Event>,
    post: mpsc::Sender<Event>,
    /// Events that count even if they came before a look.
    facts: VecDeque<Event>,
    /// When the last look began. It has seen earlier changes.
    look_began: SystemTime,
    terminate: Signal,
    beat: tokio::time::Interval,
    extend_start: bool,
    terminated: bool,
}

impl Shell {
    fn open(settings: Settings) -> std::io::Result<Self> {
        let podman = Podman::new(&settings.socket);
        let label = format!("{LABEL_WORKLOAD}={}", settings.workload);
        let events = podman.events_by_gateway(&label, &settings.run);
        let (runner, probed) = Runner::new(podman.clone(), &settings.run);
        let (post, posted) = mpsc::channel(HOOKS_MAX);
        let period = sd_notify::watchdog_enabled().map_or(BEAT, |watchdog| watchdog / 3);
        Ok(Self {
            eye: Eye::new(&settings),
            guard: Guard::new(&settings),
            backfill: Backfill::default(),
            podman,
            events,
            runner,
            probed,
            posted,
            post,
            facts: VecDeque::new(),
            look_began: SystemTime::UNIX_EPOCH,
            terminate: signal(SignalKind::terminate())?,
            beat: beats(period),
            extend_start: true,
            terminated: false,
            settings,
        })
    }

    async fn next(&mut self, wake_at: Option<Instant>) -> Event {
        if std::mem::take(&mut self.terminated) {
            return Event::Terminated;
        }
        if let Some(fact) = self.facts.pop_front() {
            return fact;
        }
        loop {
            let wake = async {
                match wake_at {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                _ = self.terminate.recv() => return Event::Terminated,
                _ = self.beat.tick() => live(&self.guard, self.extend_start),
                event = self.guard.changed() => return event,
                change = self.events.next() => match change {
                    Change::Connected | Change::Lost(_) => return Event::Hint,
                    Change::Event(event) if is_seen(&event, self.look_began) => {}
                    Change::Event(event) => return hint(event),
                },
                Some(Finished { ticket, outcome }) = self.probed.recv() => {
                    return Event::ProbeRan { ticket, outcome };
                }
                Some(posted) = self.posted.recv() => return posted,
                () = wake => return Event::Woken,
            }
        }
    }

    /// Starts what takes its time and must not delay the supervisor, or gives the effect back.
    fn begin(&mut self, effect: Effect) -> Option<Effect> {
        let address = self.eye.address();
        let podman = self.podman.clone();
        match effect {
            Effect::Probe(due) => self.runner.start(due, address),
            Effect::Post {
                container,
                run,
                hook,
            } => {
                let post = self.post.clone();
                tokio::spawn(async move {
                    let place = Place {
                        podman: &podman,
                        container: &run.id,
                        address,
                    };
                    let outcome = place.post_start(&hook, POST_TIME_MAX).await;
                    let posted = Event::Posted {
                        container,
                        run,
                        outcome,
                    };
                    // The supervisor is ending if nobody receives it.
                    let _ = post.send(posted).await;
                });
            }
            effect @ Effect::Condemn { .. } => {
                let workload = self.settings.workload.clone();
                tokio::spawn(async move {
                    acts::condemn(&podman, &workload, address, effect).await;
                });
            }
            effect => return Some(effect),
        }
        None
    }

    /// Begins a look. It sees all changes up to now, so earlier hints are dropped. Deaths and results of probes still
    /// count.
    fn begin_look(&mut self) {
        self.look_began = SystemTime::now();
        while let Some(change) = self.events.waiting() {
            if let Change::Event(event) = change
                && is_fact(&event)
            {
                self.facts.push_back(hint(event));
            }
        }
    }

    /// Has the guard watch the lease if the workload is a singleton. From then on the loop beats for the guard.
    fn watch_lease(&mut self) -> std::io::Result<()> {
        let (needed, groups) = self.eye.leased();
        if self.guard.watch(needed, groups)? {
            self.beat = beats(guard::BEAT);
        }
        Ok(())
    }

    /// Carries out one effect.
    async fn perform(&mut self, effect: Effect) -> std::io::Result<Option<Event>> {
        let Some(effect) = self.begin(effect) else {
            return Ok(None);
        };
        // The look that decided it may be old.
        if matches!(effect, Effect::Start { .. }) && self.guard.is_short() {
            return Ok(Some(Event::LeaseEnds));
        }
        if effect == Effect::Look {
            self.begin_look();
        }
        let outcome = self.work(effect).await;
        // Before the supervisor decides anything by this look.
        if matches!(outcome, Some(Event::Looked(_))) {
            self.watch_lease()?;
        }
        Ok(outcome)
    }

    /// Carries out one effect, while the process sends keep-alive messages.
    async fn work(&mut self, effect: Effect) -> Option<Event> {
        let Self {
            settings,
            podman,
            eye,
            backfill,
            terminate,
            beat,
            extend_start,
            terminated,
            guard,
            facts,
            ..
        } = self;
        let stopping = effect == Effect::Down;
        let is_patient = is_patient(&effect);
        let patience = if effect == Effect::Await {
            Duration::ZERO
        } else {
            STOP_PATIENCE
        };
        let guard: &Guard = guard;
        let work = carry_out(settings, podman, eye, backfill, guard, effect);
        tokio::pin!(work);
        let began = Instant::now();
        let mut deadline: Option<tokio::time::Instant> = None;
        let mut free = tokio::time::interval_at(tokio::time::Instant::now() + FREE_STEP, FREE_STEP);
        free.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let impatience = async {
                match deadline {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                outcome = &mut work => return outcome,
                _ = beat.tick() => {
                    live(guard, *extend_start || stopping && began.elapsed() < STOP_TIME_MAX);
                }
                event = guard.changed() => {
                    if event == Event::LeaseEnds && !is_patient {
                        let soon = tokio::time::Instant::now() + LEASE_PATIENCE;
                        deadline = Some(deadline.map_or(soon, |at| at.min(soon)));
                    }
                    facts.push_back(event);
                }
                _ = terminate.recv(), if !stopping && !*terminated => {
                    *terminated = true;
                    let end = tokio::time::Instant::now() + patience;
                    deadline = Some(deadline.map_or(end, |at| at.min(end)));
                }
                _ = free.tick(), if stopping || *terminated => {
                    adopt::free(&unit_name(&settings.workload)).await;
                }
                () = impatience => return None,
            }
        }
    }
}

/// Whether a look that began at this time has seen the change that an event hints at. If the clock was set back, the
/// result is wrong until the next look, which also comes without an event.
fn is_seen(event: &podman::Event, look_began: SystemTime) -> bool {
    !is_fact(event) && event.at.is_some_and(|at| at < look_began)
}

fn is_fact(event: &podman::Event) -> bool {
    is_death(event) || event.action == PROBED
}

fn is_death(event: &podman::Event) -> bool {
    event.action == "died" || event.action == "die"
}

/// The action of Podman's event after a probe has run.
const PROBED: &str = "health_status";

fn hint(event: podman::Event) -> Event {
    let code = event
        .attributes
        .get("containerExitCode")
        .and_then(|code| code.parse().ok());
    match (event.action.as_str(), code, event.attributes.get("name")) {
        ("died" | "die", Some(code), Some(name)) => Event::Died {
            container: name.clone(),
            code,
        },
        (PROBED, _, Some(name)) => Event::Probed {
            container: name.clone(),
            healthy: event.health != "unhealthy",
            id: event.container,
        },
        _ => Event::Hint,
    }
}

async fn carry_out(
    settings: &Settings,
    podman: &Podman,
    eye: &mut Eye,
    backfill: &mut Backfill,
    guard: &Guard,
    effect: Effect,
) -> Option<Event> {
    match effect {
        Effect::Await => {
            let wait = play_lock::wait(&settings.run, &settings.workload);
            if tokio::time::timeout(PLAY_TIME_MAX, wait).await.is_err() {
                tracing::warn!(
                    "the gateway has been playing the pod for too long: supervising it now"
                );
            }
            None
        }
        Effect::Look => Some(match eye.look().await {
            Ok(sight) => {
                if eye.may_have_lost_lines() {
                    backfill.begin(unit_name(&settings.workload), eye.sources());
                }
                Event::Looked(Box::new(sight))
            }
            Err(error) => {
                let persisted = eye.persisted().map(|(persisted, _)| persisted);
                Event::Blind {
                    persisted,
                    failure: classify(&error),
                }
            }
        }),
        Effect::Play { revision } => Some(
            match play(podman, eye, backfill, settings, revision).await {
                Ok(()) => Event::Played,
                Err((failure, None)) => Event::Failed(failure),
                Err((failure, Some(container))) => Event::FailedFor(failure, container),
            },
        ),
        Effect::Start { .. } => {
            let event = acts::act(podman, &settings.workload, effect).await;
            if event == Some(Event::Started) {
                backfill.begin(unit_name(&settings.workload), eye.sources());
            }
            event
        }
        Effect::Hold { .. } => {
            // A container that ends at once is never adopted.
            backfill.begin(unit_name(&settings.workload), eye.sources());
            acts::act(podman, &settings.workload, effect).await
        }
        Effect::Release { .. }
        | Effect::Remove { .. }
        | Effect::Probing { .. }
        | Effect::EndProbe { .. }
        | Effect::Hear { .. }
        | Effect::TellProbe { .. } => acts::act(podman, &settings.workload, effect).await,
        Effect::Rest => {
            let yaml = eye.persisted().map(|(_, yaml)| yaml);
            acts::rest(podman, &settings.workload, yaml.as_deref()).await;
            None
        }
        Effect::Keep(ledger) => {
            memory::keep(settings, &ledger);
            None
        }
        Effect::Repair => Some(Event::Repaired(repair::repair(&settings.run).await)),
        Effect::Attach(conmons) => {
            let unit = unit_name(&settings.workload);
            let attached = adopt::attach(&unit, &conmons).await;
            if !attached.is_empty() {
                backfill.begin(unit, eye.sources());
            }
            Some(Event::Attached(attached))
        }
        Effect::Down => {
            match down::end(eye, settings).await {
                Ok(()) => {
                    memory::forget(settings);
                    guard.forget();
                    report_file::forget(&settings.run, &settings.workload);
                }
                Err(error) => tracing::error!(%error, "the pod was not taken down"),
            }
            None
        }
        Effect::Yield { within } => {
            down::yield_pod(eye, settings, guard, within).await;
            None
        }
        Effect::Ready => {
            notify(&[NotifyState::Ready]);
            None
        }
        Effect::Say(report) => {
            if matches!(report.status, Status::Failed { .. } | Status::Ended { .. }) {
                // The last output of the containers helps the administrator.
                backfill
                    .finish(&unit_name(&settings.workload), &eye.sources())
                    .await;
            }
            say(settings, &report);
            None
        }
        // The shell has begun them.
        Effect::Probe(_) | Effect::Post { .. } | Effect::Condemn { .. } => None,
        Effect::Exit(_) => None,
    }
}

/// Returns true if an effect goes on when the lease ends: it ends the pod itself, or starts no container.
fn is_patient(effect: &Effect) -> bool {
    matches!(
        effect,
        Effect::Down | Effect::Yield { .. } | Effect::Play { .. } | Effect::Repair
    )
}

fn beats(period: Duration) -> tokio::time::Interval {
    let mut beat = tokio::time::interval(period);
    beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    beat
}

/// Sends the keep-alive messages. A guard feeds the watchdog itself, while the loop beats.
fn live(guard: &Guard, extend_start: bool) {
    guard.beat();
    let mut states = Vec::new();
    if !guard.runs() {
        states.push(NotifyState::Watchdog);
    }
    if extend_start {
        let extension = u32::try_from(START_EXTENSION.as_micros()).unwrap_or(u32::MAX);
        states.push(NotifyState::ExtendTimeoutUsec(extension));
    }
    if !states.is_empty() {
        notify(&states);
    }
}

/// Writes the report first, so that a process that reads the line finds the report that belongs to it.
pub(super) fn say(settings: &Settings, report: &Report) {
    report_file::write(&settings.run, &settings.workload, report);
    let line = report.line();
    let is_calm = report.containers.iter().all(ContainerReport::is_calm);
    match &report.status {
        Status::Failed { .. } | Status::Ended { .. } => tracing::error!("{line}"),
        Status::Running { .. } if !is_calm => tracing::warn!("{line}"),
        Status::Waiting { .. } => tracing::warn!("{line}"),
        Status::Running { .. }
        | Status::Completed { .. }
        | Status::Updating { .. }
        | Status::Starting { .. }
        | Status::Stopping => tracing::info!("{line}"),
    }
    let mut states = vec![NotifyState::Status(&line)];
    if report.status == Status::Stopping {
        states.push(NotifyState::Stopping);
    }
    notify(&states);
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the notification to systemd failed");
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::{hint, is_seen, podman};
    use crate::supervisor::Event;

    #[test]
    fn what_happened_before_a_look_is_no_hint_but_a_death_counts() {
        let event = |action: &str, at| podman::Event {
            action: action.to_owned(),
            container: "c".to_owned(),
            health: "unhealthy".to_owned(),
            attributes: [("name", "web-app"), ("containerExitCode", "3")]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
            at,
        };
        let before = SystemTime::UNIX_EPOCH + Duration::from_nanos(999);
        let look = before + Duration::from_nanos(1);
        for (action, at, seen) in [
            ("start", Some(before), true),
            ("start", Some(look), false),
            ("start", None, false),
            ("died", Some(before), false),
            ("health_status", Some(before), false),
        ] {
            assert_eq!(is_seen(&event(action, at), look), seen, "{action} {at:?}");
        }
        let died = Event::Died {
            container: "web-app".to_owned(),
            code: 3,
        };
        assert_eq!(hint(event("died", None)), died);
        let probed = Event::Probed {
            id: "c".to_owned(),
            container: "web-app".to_owned(),
            healthy: false,
        };
        assert_eq!(hint(event("health_status", None)), probed);
    }
}
