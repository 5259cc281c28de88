//! Single containers end, and are restarted.

use beemesh_protocol::pod::{FailedProbe, LastExit};

use super::*;

const MEMBER: &str = "Member";

pub(super) fn trouble(healthy: u32, restarts: u32, words: &str) -> Effect {
    troubled(7, (healthy, 1), restarts, words)
}

pub(super) fn hold() -> Effect {
    Effect::Hold {
        container: MEMBER.into(),
        image: "image".into(),
        restart: Restart::Always,
    }
}

fn start() -> Effect {
    Effect::Start {
        container: MEMBER.into(),
        folders: Vec::new(),
        working_dir: None,
    }
}

/// The pod of revision 7. Its container was started at `started` and, if it does not run, ended at `exited` with code
/// 3.
pub(super) fn member(
    started: u64,
    exited: Option<u64>,
    podmans: u32,
    held: bool,
) -> Option<SeenPod> {
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

pub(super) fn sees(second: u64, pod: Option<SeenPod>) -> Event {
    saw_at(second, OLD, pod)
}

pub(super) fn attached() -> (u64, Event, Vec<Effect>) {
    (0, Event::Attached(vec![11, 12]), vec![])
}

#[test]
fn podman_restarts_once_and_then_the_pauses_grow() {
    let died = || Event::Died {
        container: "web-app".into(),
        code: 3,
    };
    let down = |times: u32, at: &str| format!("app: exit 3, {times} times, next try at {at} UTC");
    let once = "app: exit 3";
    let twice = "app: exit 3, 2 times";
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
        // It is down for ten seconds, and the clock starts at 13:46:40.
        (
            25,
            sees(25, member(20, Some(25), 1, true)),
            vec![trouble(0, 1, &down(2, "13:47:15"))],
        ),
        (34, sees(34, member(20, Some(25), 1, true)), vec![]),
        (35, sees(35, member(20, Some(25), 1, true)), vec![start()]),
        // A start by the API resets Podman's count to 0.
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
        // It runs for ten minutes, after which only its count is kept.
        (
            61,
            sees(61, member(60, None, 0, true)),
            vec![trouble(1, 3, "app: exit 3, 3 times")],
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
    let at_once = "app: exit 3, next try at once";
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
            vec![trouble(1, 1, "app: exit 3")],
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
            vec![trouble(0, 0, "app: exit 3, next try at once"), start()],
        ),
        (5, not(), vec![]),
        (
            6,
            sees(6, member(0, Some(4), 0, true)),
            vec![trouble(
                0,
                0,
                "app: cannot start: no such file, 2 times, next try at 13:46:55 UTC",
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
    let running = |healthy, words: &str| troubled(7, (healthy, 2), 0, words);
    let up = (Run::Running, 0);
    let failed = (Run::Exited, 1);
    let words = "app: exit 1, not started again";
    let ended = || {
        says(Status::Ended {
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
    // A container that failed before the pod was adopted was started. Both are asked for their last lines first.
    let both = || {
        says(Status::Ended {
            reason: format!("{words}; main: exit 1, not started again"),
        })
    };
    tell(vec![
        (0, saw(OLD, two(failed, failed)), vec![Effect::Look]),
        (
            0,
            saw(OLD, two(failed, failed)),
            vec![Effect::Ready, both(), Effect::Exit(70)],
        ),
    ]);
}

#[test]
fn a_job_that_failed_too_often_is_given_up() {
    let job = |podmans| {
        let mut pod = member(0, Some(9), podmans, true)?;
        (pod.restart, pod.failures_max) = (Restart::OnFailure, Some(1));
        Some(pod)
    };
    let first = || trouble(0, 0, "app: exit 3, next try at once");
    let given_up = "app: exit 3, 2 times, not started again; \
                    2 failures are more than the 1 that backoffLimit allows";
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
        // Its last line is requested first.
        (9, sees(9, job(1)), vec![Effect::Look]),
        (
            9,
            sees(9, job(1)),
            vec![
                Effect::Rest,
                says(Status::Ended {
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
    let effects = step(&mut second, sees(10, member(9, None, 0, true)), now);
    let effects: Vec<_> = effects.into_iter().map(shown).collect();
    assert!(
        effects.contains(&trouble(1, 1, "app: exit 3")),
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
    let words = "app: liveness probe failed";
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

/// The last report of these effects.
fn said(effects: &[Effect]) -> Report {
    let mut said = effects.iter().filter_map(|effect| match effect {
        Effect::Say(report) => Some(report.clone()),
        _ => None,
    });
    said.next_back().expect("something is said")
}

#[test]
fn what_a_probe_said_is_told_to_the_api_and_not_to_everybody() {
    let now = Instant::now();
    let mut supervisor = Supervisor::new("web", Ledger::default(), now);
    let _ = supervisor.step(sees(0, member(0, None, 0, false)), now);
    let probe = FailedProbe {
        failures: 3,
        threshold: 3,
        timed_out: true,
        output: "secret".into(),
        ..FailedProbe::default()
    };
    for event in [
        Event::Probed {
            id: MEMBER.into(),
            container: "web-app".into(),
            healthy: false,
        },
        Event::ProbeSaid {
            container: "web-app".into(),
            probe: Some(probe),
        },
    ] {
        let _ = supervisor.step(event, now);
    }
    let effects = supervisor.step(sees(20, member(20, None, 1, false)), now);
    let report = said(&effects);
    let words = "app: liveness probe failed 3 of 3, timed out";
    let line = format!("1/1 healthy · {words} · rev 7 · 1 restart");
    assert_eq!(report.line(), line);
    assert_eq!(report.message(), format!("{words}: secret"));
}

#[test]
fn a_crash_has_the_last_line_that_the_container_wrote_and_what_ended_it() {
    let now = Instant::now();
    let mut supervisor = Supervisor::new("web", Ledger::default(), now);
    let _ = supervisor.step(sees(0, member(0, None, 0, false)), now);
    let mut pod = member(0, Some(5), 0, true).unwrap();
    pod.out_of_memory.insert(MEMBER.into());
    let asked = supervisor.step(sees(5, Some(pod)), now);
    assert!(
        !asked.iter().any(|effect| matches!(effect, Effect::Say(_))),
        "a reader of the line finds the output: {asked:?}"
    );
    let heard = Event::Heard {
        container: "web-app".into(),
        message: String::new(),
        output: "no such metric".into(),
    };
    let report = said(&supervisor.step(heard, now));
    let words = "app: out of memory, exit 3, next try at once";
    assert_eq!(
        report.line(),
        format!("0/1 healthy · {words} · rev 7 · 0 restarts")
    );
    assert_eq!(report.message(), format!("{words}: no such metric"));
}

#[test]
fn a_probe_that_fails_less_often_than_it_may_is_followed() {
    let probed = |second, failures: Option<u32>| {
        let mut pod = member(0, None, 0, false).unwrap();
        pod.containers[1].probe = Probe::Healthy;
        let probe = |failures| FailedProbe {
            failures,
            threshold: 10,
            exit: Some(1),
            ..FailedProbe::default()
        };
        pod.failing = failures
            .map(|n| (MEMBER.into(), probe(n)))
            .into_iter()
            .collect();
        sees(second, Some(pod))
    };
    let run = || Event::Probed {
        id: MEMBER.into(),
        container: "web-app".into(),
        healthy: true,
    };
    let now = Instant::now();
    let at = |second| now + Duration::from_secs(second);
    let mut supervisor = Supervisor::new("web", Ledger::default(), now);
    let _ = supervisor.step(probed(0, None), at(0));
    let _ = supervisor.step(run(), at(5));
    assert_eq!(
        supervisor.wake_at(),
        Some(at(45)),
        "while all is well nobody looks"
    );
    let report = said(&supervisor.step(probed(45, Some(4)), at(45)));
    let line = "1/1 healthy · app: liveness probe failed 4 of 10, exit 1 · rev 7 · 0 restarts";
    assert_eq!(report.line(), line);
    assert_eq!(report.message(), "", "it counts as healthy");
    let _ = supervisor.step(run(), at(50));
    assert_eq!(supervisor.wake_at(), Some(at(50) + LOOK_DELAY));
    let report = said(&supervisor.step(probed(50, None), at(50)));
    assert_eq!(report.line(), "1/1 healthy · rev 7 · 0 restarts");
}

#[test]
fn a_failed_play_names_the_init_container_and_has_its_output() {
    let now = Instant::now();
    let mut supervisor = Supervisor::new("web", Ledger::default(), now);
    let _ = supervisor.step(saw(OLD, None), now);
    let zero = ContainerReport {
        name: "zero".into(),
        exit: Some(LastExit {
            output: "no route to db".into(),
            ..LastExit::default()
        }),
        ..ContainerReport::default()
    };
    let words = || "init container zero: exit 3".to_owned();
    let mut fail = |failure| {
        let zero = Box::new(zero.clone());
        let failed = said(&supervisor.step(Event::FailedFor(failure, zero), now));
        (failed, supervisor.step(saw(OLD, None), now))
    };
    let (report, again) = fail(Failure::Refused(words()));
    let line = "starting rev 7: init container zero: exit 3; trying again";
    assert_eq!(report.line(), line);
    let report = said(&again);
    let doing = "playing the pod again after: init container zero: exit 3";
    assert_eq!(report.line(), format!("starting rev 7: {doing}"));
    assert_eq!(report.message(), format!("{doing}: no route to db"));
    let (report, _) = fail(Failure::Hopeless(words()));
    assert_eq!(report.line(), "failed: init container zero: exit 3");
    assert_eq!(
        report.message(),
        "init container zero: exit 3: no route to db"
    );
}

#[test]
fn an_end_before_the_startup_probe_succeeded_is_told_as_one() {
    let starting = |exited: Option<u64>| {
        let mut pod = member(0, exited, 0, false)?;
        pod.containers[1].probe = Probe::Starting;
        Some(pod)
    };
    let words = "app: exit 3 before its startup probe succeeded, next try at once";
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
        (5, sees(5, starting(Some(5))), vec![ask, hold()]),
        (
            5,
            Event::ProbeSaid {
                container: "web-app".into(),
                probe: None,
            },
            vec![trouble(0, 0, words)],
        ),
    ]);
}

#[test]
fn restarts_are_podmans_again_when_beemesh_is_removed() {
    let removed = |second, held| match sees(second, member(20, None, 1, held)) {
        Event::Looked(sight) => Event::Looked(Box::new(Sight {
            released: true,
            ..*sight
        })),
        other => other,
    };
    let once = "app: exit 3";
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
