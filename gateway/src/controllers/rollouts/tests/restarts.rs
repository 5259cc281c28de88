//! Gateways that are restarted while their pods go on, leaders that plan late, and pods that stay
//! because their successors cannot be started.

use super::*;

#[test]
fn a_gateway_that_has_just_started_loses_no_ready_pod() {
    let (mut world, _) = World::rolled_out(3, "");
    let new = world.put(Behaviour::Good, "");
    assert_eq!(world.pass(1), [format!("{new} to 1")]);
    world.starting.insert(h(3));
    assert_eq!(world.pass(4), [""; 0], "nobody knows whether it is ready");
    world.starting.clear();
    let log = world.pass(12);
    let expected = ["to 2", "to 3", "ready"].map(|what| format!("{new} {what}"));
    assert_eq!(log, expected);
    assert_eq!(world.lacking_most, 1);
}

#[test]
fn a_ready_pod_that_its_host_works_on_is_replaced_in_its_turn() {
    for stays_busy in [false, true] {
        let (mut world, _) = World::rolled_out(3, "");
        let new = world.put(Behaviour::Good, "");
        assert_eq!(world.pass(1), [format!("{new} to 1")]);
        world.busy.insert(h(3));
        assert_eq!(world.pass(1), [""; 0], "one is replaced already");
        if !stays_busy {
            world.busy.clear();
        }
        let log = world.pass(4);
        let next = if stays_busy { 3 } else { 2 };
        assert_eq!(log[0], format!("{new} to {next}"));
        world.busy.clear();
        world.pass(8);
        assert_eq!([1, 2, 3].map(|n| world.on(n)), [new; 3]);
        assert_eq!(world.lacking_most, 1);
    }
}

#[test]
fn the_time_of_a_ready_pod_does_not_count_for_the_pod_that_replaces_it() {
    let (mut world, _) = World::rolled_out(3, "");
    let new = world.put(Behaviour::Good, "");
    world.step();
    assert_eq!(world.log.last(), Some(&format!("{new} to 1")));
    // The leader plans again only when the new pod is ready.
    world.follow();
    world.now += 1500;
    assert_eq!(world.pass(1), [""; 0]);
    assert_eq!(world.pass(2), [format!("{new} to 2")]);
}

#[test]
fn a_pod_that_could_not_be_replaced_is_replaced_in_its_turn() {
    let two = r#""strategy":{"rollingUpdate":{"maxUnavailable":2}}"#;
    let (mut world, _) = World::rolled_out(3, two);
    let lost = world.put(Behaviour::NoImage, two);
    world.step();
    assert_eq!(world.log.last(), Some(&format!("{lost} to 1 2")));
    let new = world.put(Behaviour::Good, "");
    let log = world.pass(12);
    let expected = ["to 1", "to 2", "to 3", "ready"].map(|what| format!("{new} {what}"));
    assert_eq!(log, expected);
    assert_eq!(world.lacking_most, 1);
}
