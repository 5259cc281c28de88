//! A workload that is stopped and started: no host waits for another, and no host runs a revision that was stopped.

use super::*;

impl World {
    /// Applies `web` with these contents, and stopped or not.
    fn set(&mut self, contents: &str, stopped: bool, behaviour: Behaviour) -> u64 {
        let stop = match stopped {
            true => r#","metadata":{"annotations":{"beemesh.io/stopped":"true"}}"#,
            false => "",
        };
        let body = format!(r#"{{"v":"{contents}","spec":{{}}{stop}}}"#);
        let index = self.apply(Change::Apply {
            manifest: "web".into(),
            objects: vec![Object {
                kind: Kind::Deployment,
                namespace: "default".into(),
                name: "web".into(),
                hash: Sha256::digest(&body).into(),
                body: body.into(),
                references: Vec::new(),
                replicas: stopped.then_some(0),
                selector: BTreeMap::new(),
            }],
            policy: None,
            keep: true,
            if_index: None,
        });
        self.behaviours.insert(index, behaviour);
        index
    }
}

#[test]
fn a_stop_and_a_start_reach_all_hosts_at_once() {
    let mut world = World::of(3);
    let _ = world.set("one", false, Behaviour::Good);
    let _ = world.pass(5);
    let stop = world.set("one", true, Behaviour::Good);
    world.step();
    assert!(world.pods.is_empty(), "{:?}", world.pods);
    assert_eq!(world.log.last(), Some(&format!("{stop} ready")));
    assert!(world.state.rollout("web").is_none());
    let start = world.set("one", false, Behaviour::Good);
    world.step();
    assert_eq!([1, 2, 3].map(|n| world.on(n)), [start; 3]);
    assert_eq!(world.pass(5), [format!("{start} ready")]);
    assert!(world.state.rollout("web").is_none());
}

#[test]
fn a_stop_does_not_wait_for_a_rollout_and_a_failed_start_goes_back_to_what_was_ready() {
    let mut world = World::of(3);
    let first = world.set("one", false, Behaviour::Good);
    let _ = world.pass(5);
    let second = world.set("two", false, Behaviour::Unready);
    let _ = world.pass(3);
    assert_eq!([1, 2, 3].map(|n| world.on(n)), [second, first, first]);
    let _ = world.set("two", true, Behaviour::Good);
    world.step();
    assert!(world.pods.is_empty(), "{:?}", world.pods);
    let start = world.set("two", false, Behaviour::Loops);
    world.step();
    assert_eq!([1, 2, 3].map(|n| world.on(n)), [start; 3]);
    let log = world.pass(40);
    assert!(
        log[0].starts_with(&format!("{start} RolledBack h1: app: exit 127")),
        "{log:?}"
    );
    assert_eq!([1, 2, 3].map(|n| world.on(n)), [first; 3]);
}

#[test]
fn a_start_that_fails_with_the_contents_that_were_ready_changes_nothing_more() {
    let mut world = World::of(3);
    let _ = world.set("one", false, Behaviour::Good);
    let _ = world.pass(5);
    let _ = world.set("one", true, Behaviour::Good);
    let _ = world.pass(1);
    let start = world.set("one", false, Behaviour::Loops);
    let log = world.pass(40);
    assert_eq!(log.len(), 1, "{log:?}");
    assert!(log[0].starts_with(&format!("{start} Failed")), "{log:?}");
    assert_eq!([1, 2, 3].map(|n| world.on(n)), [start; 3]);
}
