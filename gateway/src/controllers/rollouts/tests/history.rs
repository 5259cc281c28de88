//! The revisions that are kept.

use super::*;

#[test]
fn no_more_revisions_are_kept_than_the_manifest_says() {
    let spec = r#""revisionHistoryLimit":2"#;
    let (mut world, _) = World::rolled_out(1, spec);
    for _ in 0..5 {
        world.put(Behaviour::Good, spec);
        world.pass(5);
    }
    let numbers = world.state.revisions("web").iter().map(|one| one.number);
    assert_eq!(numbers.collect::<Vec<_>>(), [4, 5, 6]);
    world.apply(Change::DeleteWorkload {
        workload: "web".into(),
    });
    assert!(world.state.revisions("web").is_empty() && world.state.rollout("web").is_none());
}

#[test]
fn a_revision_that_no_host_is_to_run_any_longer_is_forgotten_at_once() {
    let spec = r#""revisionHistoryLimit":0"#;
    let (mut world, first) = World::rolled_out(3, spec);
    let second = world.put(Behaviour::Good, spec);
    assert_eq!(world.pass(1), [format!("{second} to 1")]);
    let third = world.put(Behaviour::Good, spec);
    let kept = |world: &World| -> Vec<u64> {
        let all = world.state.revisions("web").iter();
        all.map(|one| one.index).collect()
    };
    assert_eq!(kept(&world), [first, second, third], "host 1 runs it");
    assert_eq!(world.pass(1), [format!("{third} to 1")]);
    assert_eq!(kept(&world), [first, third]);
}
