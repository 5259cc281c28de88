//! Compares the prober with a simple model over random sequences of events.

use proptest::prelude::*;

use super::super::*;
use super::{container, failure, probe, run};

#[derive(Debug, Clone, Copy)]
enum Step {
    /// Time passes, and all runs that are due then begin.
    Pass(u64),
    /// The oldest run that has not ended ends.
    Succeed,
    Fail,
    Fade,
    /// The container ends and is started again.
    Restart,
    Stop,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (1_u64..4000).prop_map(Step::Pass),
        4 => Just(Step::Succeed),
        5 => Just(Step::Fail),
        1 => Just(Step::Fade),
        1 => Just(Step::Restart),
        1 => prop_oneof![20 => Just(Step::Pass(1)), 1 => Just(Step::Stop)],
    ]
}

fn some_probe(success: u32) -> impl Strategy<Value = Option<Probe>> {
    let fields = (0_u32..4, 1_u32..6, 1..=success, 1_u32..4);
    let one =
        fields.prop_map(|(delay, period, success, failure)| probe(delay, period, success, failure));
    prop::option::of(one)
}

/// The results that count, in the words of Kubernetes' documentation.
#[derive(Debug, Default)]
struct Counts {
    successes: u32,
    failures: u32,
    /// When the last run began that counts or succeeded.
    last: Option<Instant>,
    succeeded: bool,
}

#[derive(Debug)]
struct Model {
    /// Since when the probes may run that run now.
    base: Instant,
    counts: BTreeMap<Kind, Counts>,
    started: bool,
    ready: bool,
    condemned: Option<Kind>,
}

impl Model {
    fn new(spec: &ContainerSpec, base: Instant) -> Self {
        Self {
            base,
            counts: BTreeMap::new(),
            started: spec.startup.is_none(),
            ready: spec.readiness.is_none(),
            condemned: None,
        }
    }

    fn finished(
        &mut self,
        due: &Due,
        outcome: &Outcome,
        began: Instant,
        now: Instant,
        stops: bool,
    ) {
        let Ticket { kind, counts, .. } = due.ticket;
        let one = self.counts.entry(kind).or_default();
        match outcome {
            Outcome::Success | Outcome::Warning(_) => {
                one.failures = 0;
                one.successes += 1;
                one.succeeded = true;
                one.last = Some(began);
            }
            Outcome::Failure(_) => {
                one.successes = 0;
                one.failures += u32::from(counts);
            }
            Outcome::Unknown(_) => return,
        }
        let has_passed = one.successes >= due.probe.success_threshold;
        let has_failed = counts && one.failures >= due.probe.failure_threshold;
        let is_held = self.condemned.is_some() || stops;
        match kind {
            Kind::Readiness if has_passed => self.ready = true,
            Kind::Readiness if has_failed => self.ready = false,
            Kind::Startup if has_passed && !is_held => {
                self.started = true;
                self.base = now;
            }
            Kind::Startup | Kind::Liveness if has_failed && !is_held => {
                self.condemned = Some(kind);
            }
            _ => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_prober_does_what_the_model_says(
        startup in some_probe(1),
        liveness in some_probe(1),
        readiness in some_probe(3),
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut spec = container("web-app");
        spec.startup = startup;
        spec.liveness = liveness;
        spec.readiness = readiness;
        let mut prober = Prober::new("web", vec![spec.clone()], Memory::default());
        let mut now = Instant::now();
        let mut model = Model::new(&spec, now);
        let (mut at, mut starts, mut stops) = (now, 1_i64, false);
        prober.started("web-app", &run(starts), at, now);
        let mut running: Vec<(Due, Instant)> = Vec::new();
        for step in steps {
            match step {
                Step::Pass(millis) => {
                    let wake = prober.wake_at();
                    now += Duration::from_millis(millis);
                    let due = prober.due(now);
                    prop_assert_eq!(due.is_empty(), wake.is_none_or(|wake| wake > now));
                    for due in due {
                        let kind = due.ticket.kind;
                        let is_twice = running.iter().any(|(one, _)| one.ticket.kind == kind);
                        prop_assert!(!is_twice, "{:?} runs twice", kind);
                        prop_assert!(now >= at + due.probe.initial_delay, "{:?} is early", kind);
                        prop_assert_eq!(kind != Kind::Startup, model.started);
                        let is_held = stops || model.condemned.is_some();
                        prop_assert!(kind == Kind::Readiness || !is_held, "{:?} is held", kind);
                        let counts = due.ticket.counts;
                        let period = due.probe.period;
                        let base = model.base.max(at + due.probe.initial_delay);
                        let one = model.counts.entry(kind).or_default();
                        let begins = one.last.map_or(base + period / 2, |last| last + period);
                        let must_count = one.last.map_or(base, |last| last) + period;
                        prop_assert!(!counts || now >= begins, "{:?} counts too soon", kind);
                        let may_be_eager = kind != Kind::Liveness && !one.succeeded;
                        prop_assert!(counts || may_be_eager, "{:?} does not count", kind);
                        prop_assert!(counts || now < must_count, "{:?} does not count", kind);
                        if counts || one.succeeded {
                            one.last = Some(now);
                        }
                        running.push((due, now));
                    }
                }
                Step::Succeed | Step::Fail | Step::Fade => {
                    if running.is_empty() {
                        continue;
                    }
                    let (due, began) = running.remove(0);
                    let outcome = match step {
                        Step::Succeed => Outcome::Success,
                        Step::Fail => failure("no"),
                        _ => Outcome::Unknown("no answer".into()),
                    };
                    let before = model.condemned;
                    model.finished(&due, &outcome, began, now, stops);
                    let condemned = prober.finished(&due.ticket, &outcome, now);
                    let is_new = before.is_none() && model.condemned.is_some();
                    prop_assert_eq!(condemned.is_some(), is_new);
                }
                Step::Restart => {
                    prober.ended("web-app");
                    prop_assert_eq!(prober.state("web-app"), State::default());
                    prop_assert_eq!(prober.wake_at(), None);
                    (starts, at) = (starts + 1, now);
                    prober.started("web-app", &run(starts), at, now);
                    for (due, _) in running.drain(..) {
                        prober.finished(&due.ticket, &failure("stale"), now);
                    }
                    model = Model::new(&spec, now);
                }
                Step::Stop => {
                    prober.stopping();
                    stops = true;
                }
            }
            let state = prober.state("web-app");
            prop_assert_eq!(state.started, model.started);
            prop_assert_eq!(state.ready, model.started && model.ready);
            prop_assert_eq!(state.condemned.map(|one| one.kind), model.condemned);
        }
    }
}
