//! Workloads with `replicas`, whose hosts are known only when the leader has assigned them.

use super::*;

#[test]
fn a_revision_is_not_ready_before_its_pods_have_a_host() {
    let mut world = World::of(2);
    let first = world.put_on(Behaviour::Good, "", Some(1));
    assert_eq!(world.pass(3), [""; 0]);
    world.apply(Change::Assign {
        workload: "web".into(),
        ordinal: 0,
        index: first,
        from: None,
        host: Some(h(2)),
    });
    assert_eq!(world.pass(5), [format!("{first} ready")]);
}

#[test]
fn a_revision_without_pods_is_ready_at_once() {
    let mut world = World::of(2);
    let first = world.put_on(Behaviour::Good, "", Some(0));
    assert_eq!(world.pass(1), [format!("{first} ready")]);
}
