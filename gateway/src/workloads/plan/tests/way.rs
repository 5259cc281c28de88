//! The life of one workload from its apply to its removal, in single looks.

use beemesh_protocol::pod::{ContainerReport, LastExit, Told};

use super::*;

#[test]
fn a_workload_goes_its_way_from_apply_to_delete() {
    let host = me();
    let mut state = State::default();
    let mut reconciler = Reconciler::default();
    let mut units = BTreeMap::new();
    let mut now = Instant::now();
    macro_rules! look {
        ($view:expr) => {
            reconciler.look(&Seen {
                now,
                host: HOST,
                view: $view,
                units: &units,
            })
        };
    }
    assert_eq!(
        look!(&View::default()),
        Plan::default(),
        "a host without a cluster does nothing"
    );
    view(
        &mut state,
        2,
        Change::Found {
            cluster: CLUSTER,
            host,
        },
    );
    let mut apply = |index, body| {
        view(
            &mut state,
            index,
            Change::Apply {
                manifest: "web".into(),
                objects: vec![object(body)],
                policy: None,
                keep: false,
                if_index: None,
            },
        )
    };

    let first = apply(9, "{1}");
    assert_eq!(look!(&first).begin, [("web".to_owned(), Work::Bring(9))]);
    let again = look!(&first);
    assert_eq!(
        (again.begin, again.cancel),
        (vec![], vec![]),
        "one work at a time"
    );
    let second = apply(10, "{22}");
    assert_eq!(
        look!(&second).cancel,
        ["web"],
        "images of a revision that nobody wants"
    );
    assert_eq!(
        look!(&second).cancel,
        Vec::<String>::new(),
        "once is enough"
    );
    reconciler.ended(now, "web", Ending::Cancelled);
    assert_eq!(look!(&second).begin, [("web".to_owned(), Work::Bring(10))]);

    reconciler.reached("web", Step::Put);
    let kube = format!(
        "[X-Beemesh]\nWorkload=web\nRevision=2\nIndex=10\nCluster={CLUSTER}\nFormat=3\n\n[Kube]\nYaml=beemesh-pod-web.10.yaml\n"
    );
    let status = "1/1 healthy · rev 2 · 0 restarts";
    let running = UnitState {
        kube,
        ..unit("active", true, status)
    };
    units.insert("web".to_owned(), running.clone());
    reconciler.reached("web", Step::Sync);
    let report = look!(&second).reports;
    assert_eq!(
        (report[0].phase, &*report[0].message),
        (Phase::Starting, "writing its storage to disk")
    );
    reconciler.reached("web", Step::Tidy);
    let expected = WorkloadReport {
        workload: "web".into(),
        revision: 2,
        index: 10,
        phase: Phase::Running,
        healthy: 1,
        total: 1,
        restarts: 0,
        message: String::new(),
        ended: false,
        containers: Told::default(),
        images: ResolvedImages::default(),
        number: 0,
    };
    let idle = Plan {
        reports: vec![expected],
        ..Plan::default()
    };
    assert_eq!(look!(&second), idle, "durable, so it counts");
    reconciler.ended(now, "web", Ending::Done);
    assert_eq!(look!(&second), idle, "identical: nothing at all");

    let broken = "failed: container web-app cannot start: no such file";
    units.insert(
        "web".to_owned(),
        UnitState {
            active: "failed".into(),
            status: broken.into(),
            ..running.clone()
        },
    );
    let plan = look!(&second);
    assert_eq!(
        (plan.begin, plan.due),
        (vec![], Some(now + FAILED_PAUSE_MIN))
    );
    now += FAILED_PAUSE_MIN;
    assert_eq!(look!(&second).begin, [("web".to_owned(), Work::Start(10))]);
    reconciler.reached("web", Step::Start);
    reconciler.ended(now, "web", Ending::Failed("job failed".into()));
    assert_eq!(
        look!(&second).due,
        Some(now + 2 * FAILED_PAUSE_MIN),
        "the pause grows"
    );
    units.insert("web".to_owned(), running);
    assert_eq!(look!(&second), idle, "repaired by somebody");

    let gone = view(
        &mut state,
        30,
        Change::DeleteWorkload {
            workload: "web".into(),
        },
    );
    assert_eq!(look!(&gone).begin, [("web".to_owned(), Work::Remove(10))]);
    units.clear();
    reconciler.ended(now, "web", Ending::Done);
    assert_eq!(look!(&gone), Plan::default());
}

#[test]
fn a_supervisor_is_heard_when_its_line_changes_and_believed_when_it_matches() {
    let host = me();
    let mut state = State::default();
    let cluster = CLUSTER;
    view(&mut state, 2, Change::Found { cluster, host });
    let change = Change::Apply {
        manifest: "web".into(),
        objects: vec![object("{1}")],
        policy: None,
        keep: false,
        if_index: None,
    };
    let view = view(&mut state, 9, change);
    let app = ContainerReport {
        name: "app".into(),
        ends: 3,
        restarts: 2,
        exit: Some(LastExit {
            code: Some(3),
            output: "no such metric".into(),
            ..LastExit::default()
        }),
        ..ContainerReport::default()
    };
    let health = health::Health {
        healthy: 1,
        total: 2,
        restarts: 2,
    };
    let calm = ContainerReport {
        name: "good".into(),
        healthy: true,
        ..ContainerReport::default()
    };
    let report = health::Report {
        containers: vec![calm, app.clone()],
        ..health::Status::Running {
            health,
            revision: 1,
        }
        .into()
    };
    let line = report.line();
    let units = |status: &str| {
        let unit = UnitState {
            kube: web_at_9(),
            ..unit("active", true, status)
        };
        BTreeMap::from([("web".to_owned(), unit)])
    };
    let mut reconciler = Reconciler::default();
    reconciler.memory.insert("web".to_owned(), settled(9));
    let said = |reconciler: &mut Reconciler, units: &BTreeMap<String, UnitState>| {
        let mut plan = reconciler.look(&Seen {
            now: Instant::now(),
            host: HOST,
            view: &view,
            units,
        });
        plan.reports.remove(0)
    };
    let reads = std::cell::Cell::new(0);
    let read = |written: PodReport| {
        let reads = &reads;
        move |workload: &str| {
            assert_eq!(workload, "web");
            reads.set(reads.get() + 1);
            Some(written.clone())
        }
    };
    // The report is newer than the status line that was received: the line counts.
    let later = health::Report::from(health::Status::Updating { from: 1, to: 2 });
    reconciler.hear(&units(&line), read(later.to_message()));
    let told = said(&mut reconciler, &units(&line));
    assert_eq!(told.message, "app: exit 3, 3 times");
    assert_eq!((told.healthy, told.containers), (1, Told::default()));
    // The report is read only when the line changes.
    let up = units(UP);
    reconciler.hear(&up, |_| None);
    assert_eq!(said(&mut reconciler, &up).message, "");
    for _ in 0..3 {
        reconciler.hear(&units(&line), read(report.to_message()));
        let told = said(&mut reconciler, &units(&line));
        assert_eq!(told.phase, Phase::Running);
        assert_eq!(told.message, "app: exit 3, 3 times: no such metric");
        assert_eq!(told.containers.0, std::slice::from_ref(&app));
    }
    assert_eq!(reads.get(), 2);
}

/// The containers of a pod that is being replaced say nothing of the revision that replaces it, whatever its supervisor says
/// last.
#[test]
fn what_a_supervisor_says_of_another_revision_is_not_told_of_the_present_one() {
    let host = me();
    let mut state = State::default();
    let cluster = CLUSTER;
    view(&mut state, 2, Change::Found { cluster, host });
    let change = Change::Apply {
        manifest: "web".into(),
        objects: vec![object("{1}")],
        policy: None,
        keep: false,
        if_index: None,
    };
    let view = view(&mut state, 9, change);
    let ended = ContainerReport {
        name: "zero".into(),
        ends: 4,
        exit: Some(LastExit {
            code: Some(3),
            ..LastExit::default()
        }),
        ..ContainerReport::default()
    };
    let starting = |revision| health::Status::Starting {
        revision,
        doing: "init container zero".to_owned(),
    };
    let waiting = |revision| health::Status::Waiting {
        revision,
        wait: "podman".to_owned(),
    };
    for (status, is_told) in [
        (starting(1), true),
        (starting(7), false),
        (waiting(1), true),
        (waiting(7), false),
    ] {
        let report = health::Report {
            containers: vec![ended.clone()],
            ..status.into()
        };
        let unit = UnitState {
            kube: web_at_9(),
            ..unit("active", true, &report.line())
        };
        let units = BTreeMap::from([("web".to_owned(), unit)]);
        let mut reconciler = Reconciler::default();
        reconciler.memory.insert("web".to_owned(), settled(9));
        reconciler.hear(&units, |_| Some(report.to_message()));
        let plan = reconciler.look(&Seen {
            now: Instant::now(),
            host: HOST,
            view: &view,
            units: &units,
        });
        let told = &plan.reports[0];
        assert_eq!(told.containers.0.len(), usize::from(is_told), "{told:?}");
    }
}

/// A revision that is wanted again, after a later one was played and before that was durable, is not taken for the one
/// that was durable: its Quadlet may be written and its pod not be played.
#[test]
fn what_was_durable_before_a_later_revision_was_written_is_played_again() {
    let mut reconciler = Reconciler::default();
    for work in [Work::Bring(10), Work::Bring(9)] {
        let memory = reconciler.memory.entry("web".to_owned());
        let memory = memory.or_insert_with(|| settled(9));
        memory.flight = Some(Flight {
            work,
            step: Step::Pull,
            cancelled: false,
        });
        reconciler.reached("web", Step::Put);
        reconciler.ended(
            Instant::now(),
            "web",
            Ending::Failed("interrupted".to_owned()),
        );
    }
    let mut state = State::default();
    let host = me();
    view(
        &mut state,
        2,
        Change::Found {
            cluster: CLUSTER,
            host,
        },
    );
    let applied = Change::Apply {
        manifest: "web".into(),
        objects: vec![object("{1}")],
        policy: None,
        keep: false,
        if_index: None,
    };
    let view = view(&mut state, 9, applied);
    let kube = format!(
        "[X-Beemesh]\nWorkload=web\nRevision=1\nIndex=9\nCluster={CLUSTER}\nFormat=3\n\n[Kube]\nYaml=beemesh-pod-web.9.yaml\n"
    );
    let unit = UnitState {
        kube,
        ..unit("active", true, "1/1 healthy · rev 2 · 0 restarts")
    };
    let plan = reconciler.look(&Seen {
        now: Instant::now() + Duration::from_secs(3600),
        host: HOST,
        view: &view,
        units: &BTreeMap::from([("web".to_owned(), unit)]),
    });
    assert_eq!(plan.begin, [("web".to_owned(), Work::Finish(9))]);
}
