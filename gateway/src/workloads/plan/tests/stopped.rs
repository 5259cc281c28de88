//! A unit that an operation has stopped is started again, whether or not the operation succeeded or the gateway
//! restarted.

use super::*;

/// The removal of a workload was interrupted, and the workload is wanted again.
#[test]
fn a_removal_that_was_not_finished_does_not_keep_the_unit_stopped() {
    let mut state = State::default();
    let host = me();
    let cluster = CLUSTER;
    let empty = view(&mut state, 12, Change::Found { cluster, host });
    let (manifest, objects) = ("web".to_owned(), vec![object("{22}")]);
    let change = Change::Apply {
        manifest,
        objects,
        policy: None,
        keep: false,
        if_index: None,
    };
    let again = view(&mut state, 20, change);
    let kube = web_at_9();
    let of = |active: &str, status: &str| {
        let kube = kube.clone();
        let unit = UnitState {
            kube,
            ..unit(active, true, status)
        };
        BTreeMap::from([("web".to_owned(), unit)])
    };
    let now = Instant::now();
    let look = |reconciler: &mut Reconciler, view: &View, units: &BTreeMap<String, UnitState>| {
        reconciler.look(&Seen {
            now,
            host: HOST,
            view,
            units,
        })
    };

    let mut first = Reconciler::default();
    let plan = look(&mut first, &empty, &of("active", UP));
    assert_eq!(plan.begin, [("web".into(), Work::Remove(9))]);
    first.reached("web", Step::Stop);
    first.ended(now, "web", Ending::Failed("no Podman".into()));
    // The marks that a starting gateway reads.
    let second = Reconciler::after(BTreeSet::from(["web".to_owned()]), BTreeMap::new());
    for mut reconciler in [first, second] {
        let stopped = of("inactive", "");
        let plan = look(&mut reconciler, &again, &stopped);
        assert_eq!(plan.begin, [("web".into(), Work::Bring(20))]);
        assert_eq!(
            (plan.reports[0].phase, plan.unmark.len()),
            (Phase::Starting, 0)
        );
        reconciler.ended(now, "web", Ending::Done);
        let plan = look(&mut reconciler, &again, &of("active", UP));
        assert_eq!(plan.unmark, ["web"], "it runs");
        // This time the administrator stopped the unit.
        let plan = look(&mut reconciler, &again, &stopped);
        assert_eq!(plan.begin, [("web".into(), Work::Persist(20))]);
        assert_eq!(plan.unmark, [""; 0]);
    }

    let mut gone = Reconciler::after(BTreeSet::from(["web".to_owned()]), BTreeMap::new());
    let plan = look(&mut gone, &empty, &BTreeMap::new());
    assert_eq!(plan.unmark, ["web"], "nothing is left of it");
}
