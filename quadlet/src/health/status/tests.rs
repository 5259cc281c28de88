use beemesh_protocol::pod::{ContainerState, FailedProbe, LastExit};

use super::*;

fn running(healthy: u32, revision: u64, restarts: u32, trouble: &str) -> Report {
    let health = Health {
        healthy,
        total: 2,
        restarts,
    };
    Report {
        trouble: trouble.into(),
        ..Status::Running { health, revision }.into()
    }
}

fn app(state: ContainerState, ends: u32) -> ContainerReport {
    let healthy = state == ContainerState::Running;
    ContainerReport {
        name: "app".into(),
        state,
        ready: healthy,
        healthy,
        ends,
        ..ContainerReport::default()
    }
}

fn crashed(output: &str) -> ContainerReport {
    ContainerReport {
        exit: Some(LastExit {
            code: Some(3),
            at: 100,
            output: output.into(),
            ..LastExit::default()
        }),
        next_try_at: Some(36_000),
        ..app(ContainerState::Exited, 3)
    }
}

/// The container of the issue that requested these reports.
fn failing() -> ContainerReport {
    ContainerReport {
        probe: Some(FailedProbe {
            failures: 7,
            threshold: 10,
            exit: Some(1),
            output: "wget: server returned error: HTTP/1.1 404 Not Found".into(),
            ..FailedProbe::default()
        }),
        ..app(ContainerState::Running, 0)
    }
}

#[test]
fn status_line_reads_well_and_comes_back_as_it_was() {
    for (report, line) in [
        (running(2, 1, 0, ""), "2/2 healthy · rev 1 · 0 restarts"),
        (running(1, 12, 1, ""), "1/2 healthy · rev 12 · 1 restart"),
        (
            running(1, 3, 27, "app: cannot start: a · b"),
            "1/2 healthy · app: cannot start: a · b · rev 3 · 27 restarts",
        ),
        (
            Status::Ended {
                reason: "app: exit 1, not started again".into(),
            }
            .into(),
            "ended: app: exit 1, not started again",
        ),
        (
            Status::Completed {
                revision: 3,
                restarts: 2,
            }
            .into(),
            "completed · rev 3 · 2 restarts",
        ),
        (
            Status::Updating { from: 7, to: 8 }.into(),
            "updating to rev 8 from rev 7",
        ),
        (
            Status::Starting {
                revision: 1,
                doing: "playing the pod".into(),
            }
            .into(),
            "starting rev 1: playing the pod",
        ),
        (
            Status::Waiting {
                revision: 1,
                wait: "podman.sock: connection refused".into(),
            }
            .into(),
            "waiting with rev 1: podman.sock: connection refused",
        ),
        (
            Status::Failed {
                reason: "container web-app cannot start: no such file".into(),
            }
            .into(),
            "failed: container web-app cannot start: no such file",
        ),
        (Status::Stopping.into(), "stopping"),
    ] {
        assert_eq!(report.line(), line);
        assert_eq!(parse(line), Some(report.clone()));
        assert_eq!(Report::from(report.to_message()).status, report.status);
    }
}

#[test]
fn a_line_of_release_0_2_is_read() {
    let old = "1/2 healthy · rev 3 · 27 restarts · container web-app ended with code 1 (5 times), next try at 10:00:00 UTC";
    let trouble = "container web-app ended with code 1 (5 times), next try at 10:00:00 UTC";
    assert_eq!(parse(old), Some(running(1, 3, 27, trouble)));
    let old =
        "1/2 healthy · rev 3 · 27 restarts · container web-app cannot start: a · rev 4 · 1 restart";
    let trouble = "container web-app cannot start: a · rev 4 · 1 restart";
    assert_eq!(parse(old), Some(running(1, 3, 27, trouble)));
}

#[test]
fn the_line_has_the_reason_and_the_message_has_the_output_too() {
    let with = |report: Report, container| Report {
        containers: vec![container],
        ..report
    };
    let ended = |reason: &str| {
        Report::from(Status::Ended {
            reason: reason.into(),
        })
    };
    let zero = ContainerReport {
        name: "zero".into(),
        ..crashed("no route to db")
    };
    let failed = Status::Failed {
        reason: "init container zero: exit 3".into(),
    };
    let next = "next try at 10:00:00 UTC";
    for (report, line, message) in [
        (
            with(running(1, 3, 3, ""), failing()),
            "1/2 healthy · app: liveness probe failed 7 of 10, exit 1 · rev 3 · 3 restarts".to_owned(),
            String::new(),
        ),
        (
            with(running(1, 3, 3, ""), ContainerReport { healthy: false, ready: false, ..failing() }),
            "1/2 healthy · app: liveness probe failed 7 of 10, exit 1 · rev 3 · 3 restarts".to_owned(),
            "app: liveness probe failed 7 of 10, exit 1: wget: server returned error: HTTP/1.1 404 Not Found".to_owned(),
        ),
        (
            with(running(1, 3, 2, ""), crashed("no such metric")),
            format!("1/2 healthy · app: exit 3, 3 times, {next} · rev 3 · 2 restarts"),
            format!("app: exit 3, 3 times, {next}: no such metric"),
        ),
        (
            with(ended("2 failures are more than the 1 that backoffLimit allows"), crashed("no such metric")),
            format!("ended: app: exit 3, 3 times, {next}; 2 failures are more than the 1 that backoffLimit allows"),
            format!("app: exit 3, 3 times, {next}: no such metric; 2 failures are more than the 1 that backoffLimit allows"),
        ),
        (
            with(failed.into(), zero),
            "failed: init container zero: exit 3".to_owned(),
            "init container zero: exit 3: no route to db".to_owned(),
        ),
    ] {
        assert_eq!(report.line(), line);
        assert_eq!(report.message(), message);
        let heard_of = heard(&line, Some(report.to_message())).unwrap();
        assert_eq!(heard_of, report, "the report is of the moment of the line");
        let of_line = heard(&line, None).unwrap();
        assert_eq!(of_line.line(), line, "without a report the line says the same");
        let other = with(running(0, 9, 9, ""), failing()).to_message();
        assert_eq!(heard(&line, Some(other)), Some(of_line), "a report of another moment");
    }
    assert_eq!(heard("up", None), None);
}

#[test]
fn foreign_lines_are_no_status() {
    for line in [
        "",
        "running",
        "2/2 healthy",
        "2/2 healthy · rev 1",
        "2/2 healthy · rev 1 · 1 restarts",
        "2/2 healthy · app: exit 1 · rev 1",
        "completed · rev 1 · 0 restarts · more",
        "x/2 healthy · rev 1 · 0 restarts",
        "updating to rev 8",
        "starting rev x: y",
    ] {
        assert_eq!(parse(line), None, "{line:?}");
    }
}

#[test]
fn line_is_one_line_and_bounded() {
    let failed = Report::from(Status::Failed {
        reason: "a\nSTATUS=b \u{7}c\t d ".to_owned() + &"word ".repeat(1000),
    });
    let line = failed.line();
    assert!(
        line.starts_with("failed: a STATUS=b c d word word"),
        "{line}"
    );
    assert!(
        line.ends_with("word…") && line.len() <= LINE_BYTES_MAX,
        "{} bytes",
        line.len()
    );
    let cleaned = failed.cleaned();
    assert!(PodReport::from_bytes(&cleaned.to_message().encode()).is_ok());
    // However long the reasons are, the line contains the counts and the revision.
    let long = ContainerReport {
        start_error: "äöü ".repeat(60),
        ..crashed("")
    };
    let full = Report {
        containers: vec![long; 9],
        ..running(u32::MAX, u64::MAX, u32::MAX, "")
    };
    let line = full.line();
    assert!(line.len() <= LINE_BYTES_MAX, "{} bytes", line.len());
    assert_eq!(
        parse(&line).map(|report| report.status),
        Some(full.status.clone())
    );
    assert!(full.message().len() <= MESSAGE_BYTES_MAX);
}
