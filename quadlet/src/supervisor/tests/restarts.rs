//! Single containers end, and are started again.

use super::*;

const MEMBER: &str = "Member";

fn trouble(healthy: u32, restarts: u32, words: &str) -> Effect {
    Effect::Say(Status::Running {
        health: Health {
            healthy,
            total: 1,
            restarts,
        },
        revision: 7,
        trouble: words.into(),
    })
}

fn hold() -> Effect {
    Effect::Hold {
        container: MEMBER.into(),
        image: "image".into(),
        restart: Restart::Always,
    }
}

fn start() -> Effect {
    Effect::Start {
        container: MEMBER.into(),
    }
}

/// The pod of revision 7 whose container began at `started` and, if it does not run, ended at `exited` with code 3.
fn member(started: u64, exited: Option<u64>, podmans: u32, held: bool) -> Option<SeenPod> {
    let run = if exited.is_some() {
        Run::Exited
    } else {
        Run::Running
    };
    let mut pod = pod(Some(OLD), Run::Running, run, podmans)?;
    let second = |second: u64| i64::try_from(CLOCK + second).unwrap();
    for container in &mut pod.containers {
        if container.role == Role::Member {
            container.started_at = second(started);
            if let Some(exited) = exited {
                (container.exited_at, container.exit_code) = (second(exited), 3);
            }
        }
    }
    if held {
        pod.held.insert(MEMBER.into());
    }
    Some(pod)
}

fn sees(second: u64, pod: Option<SeenPod>) -> Event {
    saw_at(second, OLD, pod)
}

fn attached() -> (u64, Event, Vec<Effect>) {
    (0, Event::Attached(vec![11, 12]), vec![])
}

#[test]
fn podman_restarts_once_and_then_the_pauses_grow() {
    let died = || Event::Died {
        container: "web-app".into(),
        code: 3,
    };
    let down = |times: u32, at: &str| {
        format!("container web-app ended with code 3 ({times} times), next try at {at} UTC")
    };
    let once = "container web-app ended with code 3";
    let twice = "container web-app ended with code 3 (2 times)";
    tell(vec![
        adopted(OLD),
        attached(),
        (20, died(), vec![]),
        (
            20,
            sees(20, member(20, None, 1, false)),
            vec![trouble(1, 1, once), hold()],
        ),
        (21, sees(21, member(20, None, 1, true)), vec![]),
        // It is down for ten seconds, and the clock says 13:46:40 at the beginning.
        (
            25,
            sees(25, member(20, Some(25), 1, true)),
            vec![trouble(0, 1, &down(2, "13:47:15"))],
        ),
        (34, sees(34, member(20, Some(25), 1, true)), vec![]),
        (35, sees(35, member(20, Some(25), 1, true)), vec![start()]),
        // An API start sets Podman's count to 0.
        (
            35,
            sees(35, member(35, None, 0, true)),
            vec![trouble(1, 2, twice)],
        ),
        (
            40,
            sees(40, member(35, Some(40), 0, true)),
            vec![trouble(0, 2, &down(3, "13:47:40"))],
        ),
        (60, sees(60, member(35, Some(40), 0, true)), vec![start()]),
        // It runs for ten minutes: all is forgotten but the count.
        (
            61,
            sees(61, member(60, None, 0, true)),
            vec![trouble(
                1,
                3,
                "container web-app ended with code 3 (3 times)",
            )],
        ),
        (659, sees(659, member(60, None, 0, true)), vec![]),
        (
            660,
            sees(660, member(60, None, 0, true)),
            vec![
                running(7, 1, 3),
                Effect::Release {
                    container: MEMBER.into(),
                    restart: Restart::Always,
                    last: true,
                },
            ],
        ),
        (661, sees(661, member(60, None, 0, false)), vec![]),
    ]);
}

#[test]
fn a_container_that_was_stopped_by_hand_is_started_soon() {
    let at_once = "container web-app ended with code 3, next try at once";
    tell(vec![
        adopted(OLD),
        attached(),
        (
            5,
            sees(5, member(0, Some(5), 0, false)),
            vec![trouble(0, 0, at_once), hold()],
        ),
        (6, sees(6, member(0, Some(5), 0, true)), vec![start()]),
        (
            6,
            sees(6, member(6, None, 0, true)),
            vec![trouble(1, 1, "container web-app ended with code 3")],
        ),
    ]);
}

#[test]
fn a_pod_that_was_stopped_is_started_before_it_is_made_again() {
    let stopped = || pod(Some(OLD), Run::Exited, Run::Exited, 0);
    tell(vec![
        adopted(OLD),
        (5, sees(5, stopped()), vec![start()]),
        (6, sees(6, stopped()), play(7)),
    ]);
}

#[test]
fn a_container_that_does_not_start_is_tried_again_and_the_others_go_on() {
    let not = || Event::NotStarted {
        id: MEMBER.into(),
        failure: Failure::Hopeless("no such file".into()),
    };
    tell(vec![
        adopted(OLD),
        attached(),
        (
            5,
            sees(5, member(0, Some(4), 0, true)),
            vec![
                trouble(
                    0,
                    0,
                    "container web-app ended with code 3, next try at once",
                ),
                start(),
            ],
        ),
        (5, not(), vec![]),
        (
            6,
            sees(6, member(0, Some(4), 0, true)),
            vec![trouble(
                0,
                0,
                "container web-app cannot start: no such file (2 times), next try at 13:46:55 UTC",
            )],
        ),
    ]);
}

#[test]
fn a_helper_that_fails_does_not_end_the_others() {
    let two = |helper: (Run, i32), main: (Run, i32)| {
        let mut pod = pod(Some(OLD), Run::Running, Run::Running, 0)?;
        let mut other = pod.containers[1].clone();
        (other.id, other.name) = ("Main".into(), "web-main".into());
        pod.containers.push(other);
        for (at, (run, code)) in [(1, helper), (2, main)] {
            let container = &mut pod.containers[at];
            (container.run, container.exit_code) = (run, code);
            container.exited_at = if run == Run::Exited { 200 } else { -1 };
        }
        pod.restart = Restart::Never;
        Some(pod)
    };
    let running = |healthy, words: &str| {
        Effect::Say(Status::Running {
            health: Health {
                healthy,
                total: 2,
                restarts: 0,
            },
            revision: 7,
            trouble: words.into(),
        })
    };
    let up = (Run::Running, 0);
    let failed = (Run::Exited, 1);
    let words = "container web-app ended with code 1 and its restart policy is Never";
    let ended = || {
        Effect::Say(Status::Ended {
            reason: words.into(),
        })
    };
    tell(vec![
        (
            0,
            saw(OLD, two(up, up)),
            vec![Effect::Attach(vec![11, 12]), running(2, ""), Effect::Ready],
        ),
        attached(),
        (3, saw(OLD, two(failed, up)), vec![running(1, words)]),
        (40, saw(OLD, two(failed, up)), vec![]),
        (
            45,
            saw(OLD, two(failed, (Run::Exited, 0))),
            vec![ended(), Effect::Exit(70)],
        ),
    ]);
    // One that failed before it was adopted did start.
    tell(vec![(
        0,
        saw(OLD, two(failed, failed)),
        vec![Effect::Ready, ended(), Effect::Exit(70)],
    )]);
}

#[test]
fn a_job_that_failed_too_often_is_given_up() {
    let job = |podmans| {
        let mut pod = member(0, Some(9), podmans, true)?;
        (pod.restart, pod.failures_max) = (Restart::OnFailure, Some(1));
        Some(pod)
    };
    let first = || {
        trouble(
            0,
            0,
            "container web-app ended with code 3, next try at once",
        )
    };
    let given_up = "container web-app ended with code 3 (2 times); \
                    2 failures exceed the backoffLimit of 1";
    tell(vec![
        (
            9,
            sees(9, job(0)),
            vec![
                Effect::Attach(vec![11, 12]),
                first(),
                Effect::Ready,
                start(),
            ],
        ),
        attached(),
        (
            9,
            sees(9, job(1)),
            vec![
                Effect::Rest,
                Effect::Say(Status::Ended {
                    reason: given_up.into(),
                }),
                Effect::Exit(70),
            ],
        ),
    ]);
}

#[test]
fn a_unit_that_is_started_again_after_its_pod_ended_plays_it_again() {
    let mut pod = pod(Some(OLD), Run::Exited, Run::Exited, 0).unwrap();
    pod.restart = Restart::Never;
    pod.containers[1].exit_code = 1;
    let over = Ledger {
        pod: "pod".into(),
        over: true,
        ..Ledger::default()
    };
    let now = Instant::now();
    let mut supervisor = Supervisor::new("web", over, now);
    assert_eq!(supervisor.step(saw(OLD, Some(pod)), now), play(7));
}

#[test]
fn a_supervisor_that_was_killed_goes_on_counting() {
    let now = Instant::now();
    let mut first = Supervisor::new("web", Ledger::default(), now);
    let _ = first.step(sees(0, member(0, None, 0, false)), now);
    let effects = first.step(sees(9, member(0, Some(9), 0, true)), now);
    let kept = effects.into_iter().find_map(|effect| match effect {
        Effect::Keep(ledger) => Some(ledger),
        _ => None,
    });
    let kept = serde_json::to_vec(&kept.unwrap()).unwrap();
    let kept = serde_json::from_slice(&kept).unwrap();
    let mut second = Supervisor::new("web", kept, now);
    let effects = second.step(sees(10, member(9, None, 0, true)), now);
    assert!(
        effects.contains(&trouble(1, 1, "container web-app ended with code 3")),
        "{effects:?}"
    );
}

#[test]
fn a_probe_that_fails_is_the_reason_and_its_kill_is_no_exit_code() {
    let probed = Event::Probed {
        id: MEMBER.into(),
        container: "web-app".into(),
        healthy: false,
    };
    let tell_probe = Effect::TellProbe {
        id: MEMBER.into(),
        container: "web-app".into(),
    };
    let words = "container web-app was ended because its liveness probe failed";
    tell(vec![
        adopted(OLD),
        attached(),
        (20, probed, vec![tell_probe]),
        (
            21,
            sees(21, member(20, None, 1, false)),
            vec![trouble(1, 1, words), hold()],
        ),
    ]);
}

#[test]
fn a_probe_of_which_nothing_is_heard_is_looked_for() {
    let probing = || {
        let mut pod = up(OLD)?;
        let schedule = Schedule {
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(2),
        };
        pod.schedules.insert(MEMBER.into(), schedule);
        Some(pod)
    };
    let container = || MEMBER.to_owned();
    let sessions = || vec!["s".to_owned()];
    tell(vec![
        (
            0,
            saw(OLD, probing()),
            vec![
                Effect::Attach(vec![11, 12]),
                running(7, 1, 0),
                Effect::Ready,
            ],
        ),
        (
            7,
            Event::Woken,
            vec![Effect::Probing {
                container: container(),
            }],
        ),
        (
            7,
            Event::Probing {
                id: container(),
                sessions: sessions(),
            },
            vec![],
        ),
        (
            9,
            Event::Woken,
            vec![Effect::EndProbe {
                container: container(),
                sessions: sessions(),
            }],
        ),
    ]);
}

#[test]
fn what_a_probe_said_is_told_to_the_api_and_not_to_everybody() {
    let now = Instant::now();
    let mut supervisor = Supervisor::new("web", Ledger::default(), now);
    let _ = supervisor.step(sees(0, member(0, None, 0, false)), now);
    for event in [
        Event::Probed {
            id: MEMBER.into(),
            container: "web-app".into(),
            healthy: false,
        },
        Event::ProbeSaid {
            container: "web-app".into(),
            late: true,
            output: "secret".into(),
        },
    ] {
        let _ = supervisor.step(event, now);
    }
    let effects = supervisor.step(sees(20, member(20, None, 1, false)), now);
    let words = "container web-app was ended because its liveness probe did not answer in time";
    assert!(effects.contains(&trouble(1, 1, words)), "{effects:?}");
    assert_eq!(
        supervisor.ledger.outputs(),
        "the probe of web-app said: secret"
    );
}

#[test]
fn an_end_before_the_startup_probe_succeeded_is_told_as_one() {
    let starting = |exited: Option<u64>| {
        let mut pod = member(0, exited, 0, false)?;
        pod.containers[1].probe = Probe::Starting;
        Some(pod)
    };
    let words =
        "container web-app ended with code 3 before its startup probe succeeded, next try at once";
    let ask = Effect::TellProbe {
        id: MEMBER.into(),
        container: "web-app".into(),
    };
    tell(vec![
        (
            0,
            sees(0, starting(None)),
            vec![
                Effect::Attach(vec![11, 12]),
                trouble(0, 0, ""),
                Effect::Ready,
            ],
        ),
        attached(),
        (
            5,
            sees(5, starting(Some(5))),
            vec![trouble(0, 0, words), ask, hold()],
        ),
    ]);
}

#[test]
fn restarts_are_podmans_again_when_beemesh_is_removed() {
    let removed = |second, held| match sees(second, member(20, None, 1, held)) {
        Event::Looked(sight) => Event::Looked(Sight {
            released: true,
            ..sight
        }),
        other => other,
    };
    let once = "container web-app ended with code 3";
    let died = Event::Died {
        container: "web-app".into(),
        code: 3,
    };
    let release = Effect::Release {
        container: MEMBER.into(),
        restart: Restart::Always,
        last: true,
    };
    tell(vec![
        adopted(OLD),
        attached(),
        (20, died, vec![]),
        (20, removed(20, false), vec![trouble(1, 1, once)]),
        (21, removed(21, true), vec![release]),
    ]);
}
