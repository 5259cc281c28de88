//! How often a failed operation is retried.

use super::*;

/// Revision 1 runs, and revision 2 of log index 10 replaces it.
fn updated() -> (View, BTreeMap<String, UnitState>, Reconciler) {
    let (mut state, mut reconciler) = (State::default(), Reconciler::default());
    let apply = |body: &str| Change::Apply {
        manifest: "web".into(),
        objects: vec![object(body)],
        policy: None,
        keep: false,
        if_index: None,
    };
    let host = me();
    let found = Change::Found {
        cluster: CLUSTER,
        host,
    };
    view(&mut state, 2, found);
    view(&mut state, 9, apply("{1}"));
    let second = view(&mut state, 10, apply("{22}"));
    let running = UnitState {
        kube: web_at_9(),
        ..unit("active", true, "1/1 healthy · rev 1 · 0 restarts")
    };
    let units = BTreeMap::from([("web".to_owned(), running)]);
    reconciler.memory.insert("web".to_owned(), settled(9));
    (second, units, reconciler)
}

#[test]
fn a_revision_that_cannot_come_is_tried_with_pauses_while_the_old_one_runs() {
    let (second, units, mut reconciler) = updated();
    let mut now = Instant::now();
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

#[test]
fn an_agent_that_was_not_there_makes_no_revision_fail() {
    let (second, units, mut reconciler) = updated();
    let now = Instant::now();
    let seen = Seen {
        now,
        host: HOST,
        view: &second,
        units: &units,
    };
    let lost = "the connection to the agent ended during writing a unit";
    for (ending, phase, index, message) in [
        (
            Ending::Interrupted(lost.into()),
            Phase::Running,
            9,
            format!("revision 2 is tried again after: {lost}; revision 1 keeps running"),
        ),
        (
            Ending::Failed("no space left".into()),
            Phase::Failed,
            10,
            "revision 2 cannot be started: no space left; revision 1 keeps running".into(),
        ),
    ] {
        reconciler.memory.insert("web".to_owned(), settled(9));
        let begin = reconciler.look(&seen).begin;
        assert_eq!(begin, [("web".to_owned(), Work::Bring(10))]);
        reconciler.ended(now, "web", ending);
        let plan = reconciler.look(&seen);
        assert_eq!((plan.begin, plan.due), (vec![], Some(now + PAUSE_MIN)));
        let said = &plan.reports[0];
        assert_eq!(
            (said.phase, said.index, &said.message),
            (phase, index, &message)
        );
    }
}
