//! The images that revisions ran.

use super::*;

fn image(id: Option<u8>, digest: Option<u8>) -> ResolvedImage {
    ResolvedImage {
        reference: "app:latest".into(),
        id: id.map(|n| [n; 32]),
        digest: digest.map(|n| [n; 32]),
    }
}

/// The images of the revision, and whether it must run them.
fn of(world: &World, index: u64) -> (Vec<ResolvedImage>, bool) {
    let revision = world.state.revision_at("web", index).unwrap();
    (revision.images.0.clone(), revision.pinned)
}

fn must_run(world: &World, index: u64) -> usize {
    let workload = world.state.workload("web").unwrap();
    world.state.pinned_images(workload, index).len()
}

#[test]
fn a_return_must_run_what_the_revision_ran() {
    let mut world = World::of(2);
    let red = image(Some(7), Some(8));
    world.images = [1, 2].map(|n| (h(n), red.clone())).into();
    let first = world.put(Behaviour::Good, "");
    world.pass(5);
    assert_eq!(of(&world, first), (vec![red.clone()], false));
    assert_eq!(
        must_run(&world, first),
        0,
        "the latest one follows its tags"
    );
    // The hosts have different builds of one image from a registry.
    world.images = [
        (h(1), image(Some(1), Some(9))),
        (h(2), image(Some(2), Some(9))),
    ]
    .into();
    let second = world.put(Behaviour::Good, "");
    world.pass(10);
    assert_eq!(of(&world, second).0, [image(None, Some(9))]);
    assert_eq!(
        must_run(&world, first),
        1,
        "hosts that still have it, or get it again"
    );
    // They have nothing in common.
    world.images = [
        (h(1), image(Some(1), None)),
        (h(2), image(Some(2), Some(3))),
    ]
    .into();
    let third = world.put(Behaviour::Good, "");
    world.pass(10);
    assert_eq!(of(&world, third).0, []);
    let undone = world.apply(Change::Undo {
        workload: "web".into(),
        revision: 1,
        policy: None,
    });
    world.behaviours.insert(undone, Behaviour::Good);
    world.pass(10);
    assert!(world.end(undone).outcome == RevisionOutcome::Ready);
    assert_eq!(of(&world, undone), (vec![red], true));
    assert_eq!(must_run(&world, undone), 1);
    let after = world.put(Behaviour::Good, "");
    assert_eq!(must_run(&world, after), 0);
}

#[test]
fn a_revision_that_failed_has_no_images() {
    let (mut world, _) = World::rolled_out(2, "");
    world.images = [1, 2].map(|n| (h(n), image(Some(7), None))).into();
    let bad = world.put(Behaviour::Loops, "");
    world.pass(20);
    assert_eq!(world.end(bad).outcome, RevisionOutcome::RolledBack);
    assert_eq!(of(&world, bad).0, []);
}
