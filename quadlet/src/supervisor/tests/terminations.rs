//! What a container that has ended leaves behind: its exit code and its termination message.

use beemesh_protocol::pod::LastExit;

use super::*;

const VOLUME: &str = "beemesh__OWN__web__c__app";

/// The pod of revision 7 with the restart policy `OnFailure`. Its container was started at `started` and, if it does not
/// run, ended at the second and with the code in `exited`.
fn member(started: u64, exited: Option<(u64, i32)>, podmans: u32) -> SeenPod {
    let run = exited.map_or(Run::Running, |_| Run::Exited);
    let mut pod = pod(Some(OLD), Run::Running, run, podmans).unwrap();
    let second = |second: u64| i64::try_from(CLOCK + second).unwrap();
    let container = &mut pod.containers[1];
    container.started_at = second(started);
    if let Some((at, code)) = exited {
        (container.exited_at, container.exit_code) = (second(at), code);
    }
    pod.restart = Restart::OnFailure;
    pod
}

/// The same with a file for the message.
fn declaring(pod: SeenPod) -> SeenPod {
    SeenPod {
        messages: [("Member".to_owned(), VOLUME.to_owned())].into(),
        ..pod
    }
}

fn sees(second: u64, pod: SeenPod) -> Event {
    saw_at(second, OLD, Some(pod))
}

fn heard(message: &str, output: &str) -> Event {
    Event::Heard {
        container: "web-app".into(),
        message: message.into(),
        output: output.into(),
    }
}

fn adopts() -> (Supervisor, Instant) {
    let now = Instant::now();
    let mut supervisor = Supervisor::new("web", Ledger::default(), now);
    let _ = supervisor.step(sees(0, declaring(member(0, None, 0))), now);
    (supervisor, now)
}

/// The files that the supervisor asks for.
fn asked(effects: &[Effect]) -> Vec<Option<MessageFile>> {
    let files = effects.iter().filter_map(|effect| match effect {
        Effect::Hear { file, .. } => Some(file.clone()),
        _ => None,
    });
    files.collect()
}

fn file(began: u64, next: Option<u64>) -> MessageFile {
    let second = |second: u64| i64::try_from(CLOCK + second).unwrap();
    let run = EndedRun {
        began: second(began),
        next: next.map(second),
    };
    run.message_file(VOLUME.to_owned())
}

/// The line of the last report, and its container.
fn said(effects: &[Effect]) -> Option<(String, ContainerReport)> {
    let mut said = effects.iter().filter_map(|effect| match effect {
        Effect::Say(report) => Some((report.line(), report.containers[0].clone())),
        _ => None,
    });
    said.next_back()
}

#[test]
fn a_container_that_is_done_has_an_exit_and_no_end() {
    let now = Instant::now();
    let mut supervisor = Supervisor::new("web", Ledger::default(), now);
    let _ = supervisor.step(sees(0, member(0, None, 0)), now);
    let effects = supervisor.step(sees(5, member(0, Some((5, 0)), 0)), now);
    assert!(asked(&effects).is_empty(), "nobody asked for its output");
    assert!(effects.iter().any(|one| matches!(one, Effect::Keep(_))));
    let (line, app) = said(&effects).unwrap();
    assert_eq!(line, "completed · rev 7 · 0 restarts");
    let exit = LastExit {
        code: Some(0),
        at: CLOCK + 5,
        ..LastExit::default()
    };
    assert_eq!(app.exit, Some(exit));
    assert!(app.healthy && app.ends == 0 && app.restarts == 0 && app.next_try_at.is_none());
    assert_eq!(app.reason(), None);
    assert_eq!(supervisor.ledger.failures(), 0);
    let effects = supervisor.step(sees(50, member(0, Some((5, 0)), 0)), now);
    assert_eq!(said(&effects), None);
    // A user starts it again.
    let effects = supervisor.step(sees(60, member(60, None, 0)), now);
    let (line, app) = said(&effects).unwrap();
    assert_eq!(line, "1/1 healthy · rev 7 · 0 restarts");
    assert_eq!(app.exit, None);
}

#[test]
fn a_container_that_is_done_is_reported_with_its_message() {
    for (message, output, expected) in [
        ("FILE", "", "FILE"),
        // Its log is no message after a success.
        ("", "a line of its log", ""),
    ] {
        let (mut supervisor, now) = adopts();
        let done = || declaring(member(0, Some((5, 0)), 0));
        let effects = supervisor.step(sees(5, done()), now);
        assert_eq!(asked(&effects), [Some(file(0, None))]);
        assert_eq!(
            said(&effects),
            None,
            "a reader of the line finds the message"
        );
        let effects = supervisor.step(heard(message, output), now);
        let (line, app) = said(&effects).unwrap();
        assert_eq!(line, "completed · rev 7 · 0 restarts");
        let exit = app.exit.unwrap();
        assert_eq!((exit.code, exit.output.as_str()), (Some(0), expected));
        let effects = supervisor.step(sees(9, done()), now);
        assert!(asked(&effects).is_empty(), "it is asked once");
    }
}

#[test]
fn a_failure_is_reported_with_its_message_or_its_last_line() {
    for (message, output, expected) in [("FILE", "", "FILE"), ("", "a line", "a line")] {
        let (mut supervisor, now) = adopts();
        let effects = supervisor.step(sees(5, declaring(member(0, Some((5, 3)), 0))), now);
        assert_eq!(asked(&effects), [Some(file(0, None))]);
        let (_, app) = said(&supervisor.step(heard(message, output), now)).unwrap();
        let exit = app.exit.unwrap();
        assert_eq!((exit.code, exit.output.as_str()), (Some(3), expected));
        assert_eq!(app.ends, 1);
    }
}

#[test]
fn the_message_is_of_the_run_before_a_restart() {
    let (mut supervisor, now) = adopts();
    let died = Event::Died {
        container: "web-app".into(),
        code: 3,
    };
    let _ = supervisor.step(died, now);
    // Podman has started it again before the look.
    let effects = supervisor.step(sees(7, declaring(member(6, None, 1))), now);
    assert_eq!(asked(&effects), [Some(file(0, Some(6)))]);
    let (_, app) = said(&supervisor.step(heard("FIRST", ""), now)).unwrap();
    assert_eq!(app.exit.unwrap().output, "FIRST");
    // It succeeds, which is no further end, and the earlier failure stays counted.
    let effects = supervisor.step(sees(9, declaring(member(6, Some((9, 0)), 1))), now);
    assert_eq!(asked(&effects), [Some(file(6, None))]);
    let (line, app) = said(&supervisor.step(heard("SECOND", ""), now)).unwrap();
    assert_eq!(line, "completed · rev 7 · 1 restart");
    let exit = app.exit.unwrap();
    assert_eq!((exit.code, exit.at), (Some(0), CLOCK + 9));
    assert_eq!(exit.output, "SECOND");
    assert_eq!((app.ends, app.restarts), (0, 1));
    assert_eq!(supervisor.ledger.failures(), 1);
}

#[test]
fn a_container_that_its_probe_ended_has_a_message_and_no_line() {
    for (message, output, expected) in [("FILE", "", "FILE"), ("", "a line", "")] {
        let (mut supervisor, now) = adopts();
        let probed = Event::Probed {
            id: "Member".into(),
            container: "web-app".into(),
            healthy: false,
        };
        let _ = supervisor.step(probed, now);
        let effects = supervisor.step(sees(5, declaring(member(0, Some((5, 137)), 0))), now);
        assert_eq!(asked(&effects), [Some(file(0, None))]);
        let (_, app) = said(&supervisor.step(heard(message, output), now)).unwrap();
        let exit = app.exit.unwrap();
        assert!(exit.by_probe);
        assert_eq!(exit.output, expected);
    }
}

#[test]
fn the_messages_of_a_failed_pod_are_asked_for_before_it_ends() {
    let (mut supervisor, now) = adopts();
    let never = |pod| SeenPod {
        restart: Restart::Never,
        ..declaring(pod)
    };
    let pod = || never(member(0, Some((5, 1)), 0));
    let effects = supervisor.step(sees(5, pod()), now);
    assert_eq!(asked(&effects), [Some(file(0, None))]);
    let _ = supervisor.step(heard("", "LOG"), now);
    let effects = supervisor.step(sees(5, pod()), now);
    let (line, app) = said(&effects).unwrap();
    assert_eq!(line, "ended: app: exit 1, not started again");
    assert_eq!(app.exit.unwrap().output, "LOG");
}
