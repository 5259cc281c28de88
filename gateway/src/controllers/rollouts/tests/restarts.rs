//! Gateways that are restarted while their pods go on.

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
