use super::spec::Handler;
use super::*;

mod model;

const SECOND: Duration = Duration::from_secs(1);

pub(super) fn probe(delay: u32, period: u32, success: u32, failure: u32) -> Probe {
    Probe {
        handler: Handler::Tcp {
            host: None,
            port: 80,
        },
        initial_delay: SECOND * delay,
        period: SECOND * period,
        timeout: SECOND,
        success_threshold: success,
        failure_threshold: failure,
        grace: SECOND * 30,
    }
}

pub(super) fn container(name: &str) -> ContainerSpec {
    ContainerSpec {
        name: name.into(),
        startup: None,
        liveness: None,
        readiness: None,
        post_start: None,
        pre_stop: None,
        stop_signal: None,
        grace: SECOND * 30,
    }
}

pub(super) fn run(started_at: i64) -> RunId {
    RunId {
        id: "07c1".into(),
        started_at,
    }
}

pub(super) fn failure(output: &str) -> Outcome {
    Outcome::Failure(fault(output))
}

fn fault(output: &str) -> Fault {
    Fault {
        output: output.into(),
        ..Fault::default()
    }
}

/// A prober whose time is set by hand.
struct Bench {
    prober: Prober,
    began: Instant,
    now: Instant,
}

impl Bench {
    fn new(spec: ContainerSpec, memory: Memory) -> Self {
        let now = Instant::now();
        Self {
            prober: Prober::new("web", vec![spec], memory),
            began: now,
            now,
        }
    }

    fn start(&mut self, started_at: i64) {
        let run = run(started_at);
        self.prober.started("web-app", &run, self.now, self.now);
    }

    /// Lets time pass until the given number of seconds after the start, and answers each run. Returns the runs, with
    /// their times in milliseconds.
    fn until(&mut self, seconds: f64, answer: impl Fn(Kind) -> Outcome) -> Vec<(Kind, u128)> {
        let end = self.began + Duration::from_secs_f64(seconds);
        let mut runs = Vec::new();
        while let Some(at) = self.prober.wake_at().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            let due = self.prober.due(self.now);
            assert!(!due.is_empty(), "nothing is due at {at:?}");
            for due in due {
                runs.push((due.ticket.kind, (self.now - self.began).as_millis()));
                let answer = answer(due.ticket.kind);
                self.prober.finished(&due.ticket, &answer, self.now);
            }
        }
        self.now = end;
        runs
    }

    fn state(&self) -> State {
        self.prober.state("web-app")
    }
}

#[test]
fn a_container_without_probes_is_ready_while_it_runs() {
    let mut bench = Bench::new(container("web-app"), Memory::default());
    assert_eq!(bench.state(), State::default());
    bench.start(1);
    let state = bench.state();
    assert!(state.started && state.ready, "{state:?}");
    assert_eq!(bench.prober.wake_at(), None);
    assert_eq!(bench.prober.memory(), Memory::default());
    bench.prober.ended("web-app");
    assert_eq!(bench.state(), State::default());
    assert_eq!(bench.prober.state("other"), State::default());
}

#[test]
fn a_readiness_probe_runs_at_once_and_then_in_its_period() {
    let mut spec = container("web-app");
    spec.readiness = Some(probe(2, 10, 1, 2));
    let mut bench = Bench::new(spec, Memory::default());
    bench.start(1);
    assert!(bench.state().started);
    let early = bench.until(4.0, |_| failure("refused"));
    let early: Vec<u128> = early.into_iter().map(|(_, at)| at).collect();
    assert_eq!(early, [2000, 2250, 2750, 3750]);
    let state = bench.state();
    assert!(!state.ready);
    let failing = Failing {
        kind: Kind::Readiness,
        failures: 0,
        threshold: 2,
        fault: fault("refused"),
    };
    assert_eq!(state.failing, Some(failing));
    let runs = bench.until(26.0, |_| Outcome::Success);
    let at: Vec<u128> = runs.into_iter().map(|(_, at)| at).collect();
    assert_eq!(at, [5750, 15_750, 25_750]);
    assert_eq!((bench.state().ready, bench.state().failing), (true, None));
    // One failure is not enough, and further ones come in the period.
    let runs = bench.until(36.0, |_| failure("refused"));
    assert_eq!(runs, [(Kind::Readiness, 35_750)]);
    assert!(bench.state().ready);
    bench.until(46.0, |_| failure("refused"));
    assert!(!bench.state().ready);
    assert_eq!(bench.state().condemned, None);
    bench.until(56.0, |_| Outcome::Warning("redirected".into()));
    assert!(bench.state().ready);
}

#[test]
fn several_successes_can_be_needed() {
    let mut spec = container("web-app");
    spec.readiness = Some(probe(0, 4, 3, 1));
    let mut bench = Bench::new(spec, Memory::default());
    bench.start(1);
    assert_eq!(bench.until(7.9, |_| Outcome::Success).len(), 2);
    assert!(!bench.state().ready);
    bench.until(8.0, |_| Outcome::Success);
    assert!(bench.state().ready);
}

#[test]
fn a_liveness_probe_condemns_after_its_threshold_and_waits_for_the_restart() {
    let mut spec = container("web-app");
    let mut liveness = probe(5, 10, 1, 3);
    liveness.grace = SECOND * 4;
    spec.liveness = Some(liveness);
    let mut bench = Bench::new(spec, Memory::default());
    bench.start(1);
    let runs = bench.until(24.9, |_| failure("404"));
    // The first run is in the second half of the first period.
    assert_eq!(runs.len(), 2, "{runs:?}");
    assert!((10_000..=15_000).contains(&runs[0].1), "{runs:?}");
    assert_eq!(runs[1].1, runs[0].1 + 10_000);
    assert_eq!(bench.state().condemned, None);
    assert_eq!(bench.state().failing.map(|one| one.failures), Some(2));
    let runs = bench.until(200.0, |_| failure("404"));
    assert_eq!(runs.len(), 1, "{runs:?}");
    let condemned = Condemned {
        kind: Kind::Liveness,
        failures: 3,
        fault: fault("404"),
        grace: SECOND * 4,
    };
    assert_eq!(bench.state().condemned, Some(condemned));
    assert!(bench.state().ready);
    // The same run of the container is not another one.
    bench.start(1);
    assert!(bench.state().condemned.is_some());
    bench.prober.ended("web-app");
    bench.began = bench.now;
    bench.start(2);
    assert_eq!(
        (bench.state().condemned, bench.state().failing),
        (None, None)
    );
    let runs = bench.until(29.9, |_| failure("404"));
    assert!(runs[0].1 >= 10_000, "{runs:?}");
    assert_eq!(bench.state().condemned, None);
}

#[test]
fn a_success_resets_the_count_and_no_result_does_not() {
    for (results, is_condemned) in [
        ("fff", true),
        ("ffsff", false),
        ("ff?f", true),
        ("ff??", false),
        ("ffsfff", true),
    ] {
        let mut spec = container("web-app");
        spec.liveness = Some(probe(0, 1, 1, 3));
        let mut bench = Bench::new(spec, Memory::default());
        bench.start(1);
        for (second, result) in results.chars().enumerate() {
            let outcome = match result {
                'f' => failure("no"),
                's' => Outcome::Success,
                _ => Outcome::Unknown("Podman does not answer".into()),
            };
            let runs = bench.until(second as f64 + 1.0, |_| outcome.clone());
            assert_eq!(runs.len(), 1, "{results}");
        }
        let condemned = bench.state().condemned.is_some();
        assert_eq!(condemned, is_condemned, "{results}");
    }
}

#[test]
fn a_startup_probe_holds_the_others_back() {
    let mut spec = container("web-app");
    spec.startup = Some(probe(0, 10, 1, 30));
    spec.liveness = Some(probe(0, 10, 1, 1));
    spec.readiness = Some(probe(30, 10, 1, 1));
    let mut bench = Bench::new(spec, Memory::default());
    bench.start(1);
    let runs = bench.until(20.0, |_| failure("not yet"));
    assert!(runs.iter().all(|(kind, _)| *kind == Kind::Startup));
    assert_eq!(runs[0].1, 0);
    let state = bench.state();
    assert!(!state.started && !state.ready, "{state:?}");
    assert_eq!(state.failing.map(|one| one.kind), Some(Kind::Startup));
    let passed = bench.until(29.9, |_| Outcome::Success);
    assert_eq!(passed[0].0, Kind::Startup);
    let state = bench.state();
    assert!(state.started && !state.ready, "{state:?}");
    let runs = bench.until(31.0, |_| Outcome::Success);
    assert!(runs.contains(&(Kind::Readiness, 30_000)), "{runs:?}");
    let all = [passed, runs].concat();
    let startups = all.iter().filter(|(kind, _)| *kind == Kind::Startup);
    assert_eq!(startups.count(), 1);
    assert!(bench.state().ready);
}

#[test]
fn a_startup_probe_condemns_after_its_threshold() {
    let mut spec = container("web-app");
    spec.startup = Some(probe(0, 10, 1, 3));
    let mut bench = Bench::new(spec, Memory::default());
    bench.start(1);
    bench.until(24.9, |_| failure("not yet"));
    assert_eq!(bench.state().condemned, None);
    bench.until(30.0, |_| failure("not yet"));
    let condemned = bench.state().condemned;
    assert_eq!(condemned.map(|one| one.kind), Some(Kind::Startup));
    assert_eq!(bench.until(100.0, |_| Outcome::Success), []);
}

#[test]
fn a_run_that_takes_longer_than_its_period_is_followed_at_once() {
    let mut spec = container("web-app");
    spec.liveness = Some(probe(0, 2, 1, 9));
    let mut bench = Bench::new(spec, Memory::default());
    bench.start(1);
    let began = bench.prober.wake_at().unwrap();
    let due = bench.prober.due(began);
    assert_eq!(bench.prober.wake_at(), None);
    assert_eq!(bench.prober.due(began + SECOND * 9), []);
    bench
        .prober
        .finished(&due[0].ticket, &failure("late"), began + SECOND * 5);
    assert!(bench.prober.wake_at().unwrap() <= began + SECOND * 5);
    let next = bench.prober.due(began + SECOND * 5);
    assert_eq!(next.len(), 1);
    bench
        .prober
        .finished(&next[0].ticket, &Outcome::Success, began + SECOND * 6);
    assert_eq!(bench.prober.wake_at(), Some(began + SECOND * 7));
}

#[test]
fn results_of_an_earlier_run_of_the_container_change_nothing() {
    let mut spec = container("web-app");
    spec.readiness = Some(probe(0, 10, 1, 1));
    let mut bench = Bench::new(spec, Memory::default());
    bench.start(1);
    let due = bench.prober.due(bench.now);
    bench.prober.ended("web-app");
    let ended = bench
        .prober
        .finished(&due[0].ticket, &Outcome::Success, bench.now);
    assert_eq!((ended, bench.state()), (None, State::default()));
    bench.start(2);
    bench
        .prober
        .finished(&due[0].ticket, &Outcome::Success, bench.now);
    assert!(!bench.state().ready);
}

#[test]
fn while_the_pod_is_stopped_only_readiness_is_probed() {
    let mut spec = container("web-app");
    spec.liveness = Some(probe(0, 1, 1, 1));
    spec.readiness = Some(probe(0, 1, 1, 1));
    let mut bench = Bench::new(spec, Memory::default());
    bench.start(1);
    bench.until(0.1, |_| Outcome::Success);
    let at = bench.prober.wake_at().unwrap().max(bench.now + SECOND);
    let due = bench.prober.due(at);
    assert_eq!(due.len(), 2);
    bench.prober.stopping();
    for due in due {
        let condemned = bench.prober.finished(&due.ticket, &failure("down"), at);
        assert_eq!(condemned, None);
    }
    assert!(!bench.state().ready);
    bench.now = at;
    let runs = bench.until(9.0, |_| failure("down"));
    assert!(runs.len() > 5, "{runs:?}");
    assert!(runs.iter().all(|(kind, _)| *kind == Kind::Readiness));
    assert_eq!(bench.state().condemned, None);
}

#[test]
fn the_next_supervisor_goes_on_where_the_last_one_was() {
    let mut spec = container("web-app");
    spec.startup = Some(probe(0, 1, 1, 3));
    spec.readiness = Some(probe(0, 10, 1, 3));
    let mut bench = Bench::new(spec.clone(), Memory::default());
    bench.start(1);
    bench.until(5.0, |_| Outcome::Success);
    assert!(bench.state().ready);
    let memory = bench.prober.memory();
    let text = serde_json::to_string(&memory).unwrap();
    let memory: Memory = serde_json::from_str(&text).unwrap();
    let mut next = Bench::new(spec.clone(), memory.clone());
    // Nothing is lost before the first look.
    assert_eq!(next.prober.memory(), memory);
    next.start(1);
    assert!(next.state().started && next.state().ready);
    assert_eq!(next.prober.memory(), memory);
    let runs = next.until(10.0, |_| Outcome::Success);
    assert_eq!(runs.len(), 1, "{runs:?}");
    assert!(runs[0].1 >= 5000, "{runs:?}");
    // It was started again meanwhile.
    let mut other = Bench::new(spec, memory);
    other.start(2);
    assert!(!other.state().started && !other.state().ready);
}

#[test]
fn the_probes_of_different_workloads_spread() {
    let first = |workload: &str| {
        let mut spec = container("app");
        spec.liveness = Some(probe(0, 100, 1, 1));
        let now = Instant::now();
        let mut prober = Prober::new(workload, vec![spec], Memory::default());
        prober.started("app", &run(1), now, now);
        prober.wake_at().unwrap() - now
    };
    let mut all: Vec<Duration> = (0..40).map(|n| first(&format!("web-{n}"))).collect();
    all.sort();
    assert!(all[0] >= SECOND * 50 && all[39] <= SECOND * 100, "{all:?}");
    assert!(all[39] - all[0] > SECOND * 35, "{all:?}");
}
