//! A host that was removed leaves all workloads as they are.

use super::*;

#[test]
fn a_removed_host_touches_nothing_that_it_runs() {
    let mut state = State::default();
    let host = me();
    let cluster = CLUSTER;
    let member = view(&mut state, 12, Change::Found { cluster, host });
    let removed = view(&mut state, 13, Change::RemoveHost { host: HOST });
    let kube = web_at_9();
    let web = UnitState {
        kube,
        ..unit("active", true, UP)
    };
    let units = BTreeMap::from([("web".to_owned(), web)]);
    let look = |view: &View| {
        Reconciler::default().look(&Seen {
            now: Instant::now(),
            host: HOST,
            view,
            units: &units,
        })
    };
    // The cluster does not want the workload, so a member removes it.
    assert_eq!(look(&member).begin, [("web".into(), Work::Remove(9))]);
    assert_eq!(look(&removed), Plan::default());
}

#[test]
fn what_was_made_before_a_recovery_is_the_clusters_own() {
    let mut state = State::default();
    let (host, cluster) = (me(), CLUSTER);
    let before = view(&mut state, 12, Change::Found { cluster, host });
    let web = UnitState {
        kube: web_at_9(),
        ..unit("active", true, UP)
    };
    let units = BTreeMap::from([("web".to_owned(), web)]);
    let look = |state: State| {
        let view = View {
            applied: 20,
            state: Arc::new(state),
        };
        Reconciler::default().look(&Seen {
            now: Instant::now(),
            host: HOST,
            view: &view,
            units: &units,
        })
    };
    let recovered = before.state.recovered(ClusterId([8; 16]), me());
    assert_eq!(look(recovered).begin, [("web".into(), Work::Remove(9))]);
    let mut another = State::default();
    let cluster = ClusterId([8; 16]);
    let another = view(
        &mut another,
        12,
        Change::Found {
            cluster,
            host: me(),
        },
    );
    assert_eq!(look(State::clone(&another.state)).begin, []);
}
