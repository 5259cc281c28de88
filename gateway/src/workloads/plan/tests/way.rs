//! One workload from its apply to its removal, look by look.

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
        "[X-Beemesh]\nWorkload=web\nRevision=2\nIndex=10\nCluster={CLUSTER}\nFormat=2\n\n[Kube]\nYaml=beemesh-pod-web.10.yaml\n"
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
        containers: beemesh_protocol::pod::Told::default(),
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
