use beemesh_protocol::api::Rollout;

use super::*;

const WIDE: Size = Size {
    columns: 120,
    rows: 24,
};

fn at(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn on(n: u8, phase: Phase, revision: u64, message: &str) -> WorkloadHost {
    WorkloadHost {
        host: format!("h{n}"),
        id: HostId([n; 32]),
        phase,
        revision,
        healthy: u32::from(phase == Phase::Running && message.is_empty()),
        total: 1,
        restarts: 0,
        message: message.into(),
        reachable: true,
        containers: Vec::new(),
        moved: None,
        pod: String::new(),
    }
}

fn web(phase: Option<RolloutPhase>, hosts: Vec<WorkloadHost>) -> Workload {
    Workload {
        name: "web".into(),
        namespace: "default".into(),
        kind: "Deployment".into(),
        manifest: "web".into(),
        revision: 7,
        index: 41,
        applied_at_ms: 0,
        settled: false,
        stuck: false,
        stopped: false,
        asked: u32::try_from(hosts.len()).unwrap(),
        ready: 1,
        reason: "revision 7 is being rolled back to revision 6: h1: app: exit 3".into(),
        rollout: phase.map(|phase| Rollout {
            phase,
            from: 6,
            updated: 1,
            max_unavailable: 1,
        }),
        min_ready_seconds: 0,
        hosts,
        object: None,
        identity: None,
    }
}

fn rolling(hosts: [WorkloadHost; 3]) -> Workload {
    web(Some(RolloutPhase::Rolling), hosts.into())
}

const PROBE: &str = "app: readiness probe failed 2 of 3: connection refused";

/// The states of a rollout, each with its time.
fn course() -> Vec<(u64, Workload)> {
    use Phase::{Running, Starting};
    let old = |n| on(n, Running, 6, "");
    vec![
        (50, rolling([old(1), old(2), old(3)])),
        (
            100,
            rolling([on(1, Starting, 6, "starting its pod"), old(2), old(3)]),
        ),
        (1500, rolling([on(1, Running, 7, PROBE), old(2), old(3)])),
        (2000, rolling([on(1, Running, 7, ""), old(2), old(3)])),
        (
            4400,
            rolling([on(1, Running, 7, ""), on(2, Running, 7, PROBE), old(3)]),
        ),
    ]
}

#[test]
fn a_terminal_shows_every_host_of_a_rollout() {
    let mut course_of_all = Course::default();
    let mut drawn = String::new();
    let mut last = None;
    for (now, web) in course() {
        course_of_all.look(at(now), [&web]);
        drawn = course_of_all.drawn(&[&web], at(now), WIDE);
        last = Some(web);
    }
    let expected = "\
web   revision 7   rolling out, 1 host at a time   4.4 s
  h1  ready in 1.9 s   h2  starting (app: readiness probe failed 2 of 3: connection refused)   h3  revision 6, waits
";
    assert_eq!(drawn, expected);
    let narrow = Size {
        columns: 80,
        rows: 24,
    };
    let web = last.unwrap();
    let expected = "\
web   revision 7   rolling out, 1 host at a time   4.4 s
  h1  ready in 1.9 s
  h2  starting (app: readiness probe failed 2 of 3: connection refused)
  h3  revision 6, waits
";
    assert_eq!(course_of_all.drawn(&[&web], at(4400), narrow), expected);
}

#[test]
fn no_more_lines_are_drawn_than_the_terminal_has() {
    let old = |n| on(n, Phase::Running, 6, "");
    let mut hosts: Vec<_> = (1..=40).map(old).collect();
    hosts[30] = on(31, Phase::Starting, 6, "starting its pod");
    hosts[35] = on(36, Phase::Running, 7, "");
    let web = web(Some(RolloutPhase::Rolling), hosts);
    let size = Size {
        columns: 80,
        rows: 6,
    };
    let drawn = Course::default().drawn(&[&web], at(2000), size);
    let lines: Vec<&str> = drawn.lines().collect();
    assert_eq!(lines.len(), 5, "{drawn}");
    assert_eq!(lines[1], "  h31  starting (starting its pod)");
    assert_eq!(lines[4], "  and 37 more pods: 1 ready, 36 waiting");
    let two = Course::default().drawn(&[&web, &web], at(2000), size);
    assert!(two.lines().count() < size.rows, "{two}");
}

#[test]
fn a_log_gets_a_line_when_a_host_comes_to_another_stage() {
    let mut course_of_all = Course::default();
    let mut told = Vec::new();
    for (now, web) in course() {
        course_of_all.look(at(now), [&web]);
        for line in course_of_all.lines(&[&web], at(now)) {
            told.push((now, line));
        }
    }
    let expected = [
        (1500, "web   revision 7   rolling out, 1 host at a time"),
        (
            1500,
            "web on h1: starting (app: readiness probe failed 2 of 3: connection refused)",
        ),
        (2000, "web on h1: ready in 1.9 s"),
        (
            4400,
            "web on h2: starting (app: readiness probe failed 2 of 3: connection refused)",
        ),
    ];
    assert_eq!(told, expected.map(|(now, line)| (now, line.to_owned())));
}

#[test]
fn a_log_is_not_filled_by_reasons_that_change_or_by_many_hosts() {
    let mut course = Course::default();
    let mut told = 0;
    for second in 1..=60 {
        let message = format!("pulling layer {second}");
        let hosts = (1..=3).map(|n| on(n, Phase::Starting, 0, &message));
        let web = web(None, hosts.collect());
        course.look(at(second * 1000), [&web]);
        told += course.lines(&[&web], at(second * 1000)).len();
    }
    assert_eq!(told, 1 + 3 * 12);
    let mut course = Course::default();
    let hosts = (1..=200).map(|n| on(n, Phase::Starting, 0, ""));
    let web = web(None, hosts.collect());
    let mut told = Vec::new();
    for tenth in 10..=200 {
        course.look(at(tenth * 100), [&web]);
        told.push(course.lines(&[&web], at(tenth * 100)).len());
    }
    assert!(
        told.chunks(10)
            .all(|second| second.iter().sum::<usize>() <= LINES_MAX)
    );
    assert_eq!(
        told.iter().sum::<usize>(),
        201,
        "every host is told in the end"
    );
}

#[test]
fn what_hosts_say_stays_in_its_line() {
    let mut bad = on(1, Phase::Failed, 7, "no\n\x1b[2Jimage\u{202e}");
    bad.host = "h\x1b[31m1\n".into();
    let one = web(Some(RolloutPhase::RollingBack), vec![bad]);
    let mut course = Course::default();
    course.look(at(2000), [&one]);
    let drawn = course.drawn(&[&one], at(2000), WIDE);
    let expected = "\
web   revision 7 is being rolled back to revision 6: h1: app: exit 3   2.0 s
  h[31m1  failed: no [2Jimage
";
    assert_eq!(drawn, expected);
    let lines = course.lines(&[&one], at(2000));
    assert_eq!(lines[1], "web on h[31m1: failed: no [2Jimage");
}

#[test]
fn a_host_that_is_away_or_has_nothing_left_is_shown_so() {
    let away = WorkloadHost {
        reachable: false,
        ..on(2, Phase::Running, 6, "")
    };
    let one = web(
        None,
        vec![on(1, Phase::Removing, 7, "taking its pod down"), away],
    );
    let stopped = Workload {
        stopped: true,
        ..one
    };
    let drawn = Course::default().drawn(&[&stopped], at(300), WIDE);
    let expected = "\
web   revision 7   stopping   0.3 s
  h1  stopping (taking its pod down)   h2  unknown: host unreachable (last: running 1/1 healthy (revision 6))
";
    assert_eq!(drawn, expected);
    let gone = Workload {
        hosts: Vec::new(),
        ..stopped
    };
    let drawn = Course::default().drawn(&[&gone], at(300), WIDE);
    assert_eq!(drawn, "web   revision 7   stopping   0.3 s\n  stopped\n");
}
