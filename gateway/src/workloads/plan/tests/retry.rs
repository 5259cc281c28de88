//! How often a failed operation is retried.

use super::*;

#[test]
fn a_revision_that_cannot_come_is_tried_with_pauses_while_the_old_one_runs() {
    let mut state = State::default();
    let (mut reconciler, mut now) = (Reconciler::default(), Instant::now());
    let apply = |body: &str| Change::Apply {
        manifest: "web".into(),
        objects: vec![object(body)],
        policy: None,
        keep: false,
        if_index: None,
    };
    let host = me();
    view(
        &mut state,
        2,
        Change::Found {
            cluster: CLUSTER,
            host,
        },
    );
    view(&mut state, 9, apply("{1}"));
    let second = view(&mut state, 10, apply("{22}"));
    let kube = web_at_9();
    let running = UnitState {
        kube,
        ..unit("active", true, "1/1 healthy · rev 1 · 0 restarts")
    };
    let units = BTreeMap::from([("web".to_owned(), running)]);
    reconciler.memory.insert("web".to_owned(), settled(9));
    for pause in [PAUSE_MIN, 2 * PAUSE_MIN, 4 * PAUSE_MIN] {
        let seen = |now| Seen {
            now,
            host: HOST,
            view: &second,
            units: &units,
        };
        assert_eq!(
            reconciler.look(&seen(now)).begin,
            [("web".to_owned(), Work::Bring(10))]
        );
        reconciler.ended(now, "web", Ending::Failed("no such image".into()));
        let plan = reconciler.look(&seen(now));
        assert_eq!((plan.begin, plan.due), (vec![], Some(now + pause)));
        assert!(
            plan.reports[0].message.contains("no such image"),
            "{:?}",
            plan.reports
        );
        now += pause;
    }
}

#[test]
fn an_image_that_arrives_ends_the_wait_and_the_wait_says_when_it_ends() {
    const NOON: u64 = 1_800_014_400_000;
    let (mut state, mut reconciler) = (State::default(), Reconciler::default());
    let host = me();
    view(
        &mut state,
        2,
        Change::Found {
            cluster: CLUSTER,
            host,
        },
    );
    let apply = Change::Apply {
        manifest: "web".into(),
        objects: vec![object("{1}")],
        policy: None,
        keep: false,
        if_index: None,
    };
    let wanted = view(&mut state, 9, apply);
    let units = BTreeMap::new();
    let now = Instant::now();
    let seen = |now| Seen {
        now,
        host: HOST,
        view: &wanted,
        units: &units,
    };
    let bring = [("web".to_owned(), Work::Bring(9))];
    let fail = |reconciler: &mut Reconciler| {
        assert_eq!(reconciler.look(&seen(now)).begin, bring);
        reconciler.ended(now, "web", Ending::Failed("no such image".into()));
    };
    for pause in ["12:00:02", "12:00:04"] {
        fail(&mut reconciler);
        reconciler.lacks_image(now, NOON, "web");
        let said = format!(
            "no such image; tries again at {pause} UTC, and within 10 s once the image is on this host"
        );
        for later in [0, 500, 1000] {
            let plan = reconciler.look(&seen(now + Duration::from_millis(later)));
            assert_eq!((plan.begin, &plan.reports[0].message), (vec![], &said));
        }
        reconciler.arrived("web");
    }
    // Other failures are not retried at once.
    fail(&mut reconciler);
    reconciler.arrived("web");
    assert_eq!(reconciler.look(&seen(now)).begin, []);
}
