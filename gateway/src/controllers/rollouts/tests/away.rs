//! Hosts that cannot be reached.

use super::*;

#[test]
fn a_host_that_is_away_is_named_and_follows_when_it_returns() {
    let (mut world, first) = World::rolled_out(3, "");
    world.reachable.remove(&h(2));
    let new = world.put(Behaviour::Good, "");
    let log = world.pass(10);
    assert_eq!(
        log.last().unwrap(),
        &format!("{new} ready h2 is unreachable and follows when it returns")
    );
    assert_eq!([1, 2, 3].map(|n| world.on(n)), [new, first, new]);
    world.reachable.insert(h(2));
    world.pass(1);
    assert_eq!(world.on(2), new);
}

/// A gateway that was killed goes on with the update of its host when it is back.
#[test]
fn a_host_that_vanishes_during_its_update_counts_for_some_time() {
    for new_leader in [false, true] {
        let (mut world, first) = World::rolled_out(3, "");
        let new = world.put(Behaviour::Good, "");
        // The pod of the first host is being replaced.
        world.step();
        assert_eq!(world.log.last().unwrap(), &format!("{new} to 1"));
        world.reachable.remove(&h(1));
        if new_leader {
            world.watch = Watch::default();
        }
        assert!(world.pass(8).is_empty());
        world.reachable.insert(h(1));
        assert_eq!(world.pass(1), [""; 0]);
        assert_eq!([1, 2, 3].map(|n| world.on(n)), [new, first, first]);
        world.pass(10);
        assert_eq!([1, 2, 3].map(|n| world.on(n)), [new; 3]);
        assert_eq!(world.lacking_most, 1);
    }
    // One that does not come back is not waited for, nor is one whose pod was ready.
    let (mut world, _) = World::rolled_out(3, "");
    let new = world.put(Behaviour::Good, "");
    world.step();
    world.reachable.remove(&h(1));
    let log = world.pass(20);
    let words = format!("{new} ready h1 is unreachable and follows when it returns");
    assert_eq!(log, [format!("{new} to 2"), format!("{new} to 3"), words]);
    let (mut world, _) = World::rolled_out(3, "");
    let new = world.put(Behaviour::Good, "");
    world.pass(4);
    world.reachable.remove(&h(1));
    assert_eq!(world.pass(4), [format!("{new} to 3")]);
}

/// A host that has returned may still run a pod of an earlier revision, and be about to replace it. That pod is ready.
#[test]
fn a_host_that_catches_up_is_not_replaced_beside_another_one() {
    let (mut world, _) = World::rolled_out(3, "");
    world.reachable.remove(&h(1));
    world.put(Behaviour::Good, "");
    world.pass(10);
    let new = world.put(Behaviour::Good, "");
    world.step();
    assert_eq!(world.log.last().unwrap(), &format!("{new} to 2"));
    world.pulling.insert(h(1));
    world.reachable.insert(h(1));
    assert_eq!(world.pass(2), [""; 0], "the pod of h2 is not available yet");
    world.pulling.clear();
    world.pass(20);
    assert_eq!([1, 2, 3].map(|n| world.on(n)), [new; 3]);
    assert_eq!(world.lacking_most, 1);
}
