//! A singleton runs only while its host has the lease of the workload.

use super::*;

/// A look at which so many seconds of the lease are left.
fn sees(second: u64, left: u64, pod: Option<SeenPod>) -> Event {
    with(second, left, pod, false)
}

fn with(second: u64, left: u64, pod: Option<SeenPod>, released: bool) -> Event {
    match saw_at(second, OLD, pod) {
        Event::Looked(sight) => Event::Looked(Box::new(Sight {
            lease: Some(Duration::from_secs(left)),
            released,
            ..*sight
        })),
        other => other,
    }
}

fn singleton(infra: Run, member: Run) -> Option<SeenPod> {
    pod(Some(OLD), infra, member, 0).map(|pod| SeenPod {
        needs_lease: true,
        ..pod
    })
}

fn runs() -> Option<SeenPod> {
    singleton(Run::Running, Run::Running)
}

fn waits() -> Effect {
    starting(7, "waits for its lease")
}

fn yields() -> Effect {
    Effect::Yield {
        within: Duration::from_secs(3),
    }
}

fn adopts() -> Vec<Effect> {
    let hold = Effect::Hold {
        container: "Member".into(),
        image: "image".into(),
        restart: Restart::Always,
    };
    vec![
        Effect::Attach(vec![11, 12]),
        running(7, 1, 0),
        Effect::Ready,
        hold,
    ]
}

#[test]
fn nothing_is_played_without_the_lease() {
    let created = || singleton(Run::Running, Run::Created);
    let dead = || singleton(Run::Exited, Run::Exited);
    for found in [None, created(), dead()] {
        tell(vec![
            (0, Event::LeaseEnds, vec![Effect::Await, Effect::Look]),
            (0, sees(0, 0, found.clone()), vec![waits()]),
            // Looks are for what Podman says; the lease is an event.
            (4, Event::Woken, vec![Effect::Look]),
            (5, sees(5, 10, found.clone()), vec![]),
            (900, sees(900, 10, found), vec![]),
            (901, Event::LeaseBegins, vec![]),
            (901, Event::Woken, vec![Effect::Look]),
            (901, sees(901, 11, None), play(7)),
            (902, Event::Played, vec![Effect::Look]),
            (903, sees(903, 15, runs()), adopts()),
        ]);
    }
}

#[test]
fn a_pod_ends_with_the_lease_and_comes_back_with_it() {
    tell(vec![
        (0, sees(0, 18, runs()), adopts()),
        (9, Event::LeaseEnds, vec![waits(), yields()]),
        // It is told once more, or the pod was not ended.
        (9, Event::LeaseEnds, vec![Effect::Look]),
        (13, sees(13, 6, None), vec![]),
        (20, Event::LeaseBegins, vec![]),
        (20, Event::Woken, vec![Effect::Look]),
        (20, sees(20, 18, None), play(7)),
        (21, Event::Played, vec![Effect::Look]),
    ]);
    // However often that is: the host has lost its peers, and not its pod.
    let mut story = vec![(0, sees(0, 18, runs()), adopts())];
    for round in 1..=20 {
        let second = 10 * round;
        let effects = vec![waits(), yields()];
        story.push((second, sees(second, 9, runs()), effects));
        story.push((second + 4, sees(second + 4, 18, None), play(7)));
        let effects = adopts()
            .into_iter()
            .filter(|effect| *effect != Effect::Ready);
        story.push((second + 5, sees(second + 5, 18, runs()), effects.collect()));
    }
    tell(story);
}

#[test]
fn a_pod_that_is_found_without_the_lease_is_ended() {
    for run in [Run::Running, Run::Paused, Run::Stopping] {
        let found = || singleton(Run::Running, run);
        tell(vec![
            (0, sees(0, 0, found()), vec![waits(), yields()]),
            (1, Event::Woken, vec![Effect::Look]),
            // Podman has not removed it.
            (1, sees(1, 0, found()), vec![yields()]),
            (2, sees(2, 0, None), vec![]),
        ]);
    }
    // That of another revision, too.
    let old = || {
        pod(Some(NEW), Run::Running, Run::Running, 0).map(|pod| SeenPod {
            needs_lease: true,
            ..pod
        })
    };
    tell(vec![(0, sees(0, 0, old()), vec![waits(), yields()])]);
    // That of somebody else is left alone.
    let foreign = pod(None, Run::Running, Run::Running, 0);
    let reason =
        "a pod named web exists that does not belong to Beemesh; `podman pod rm -f web` removes it";
    tell(vec![(
        0,
        sees(0, 0, foreign),
        vec![failed(reason), Effect::Exit(70)],
    )]);
}

#[test]
fn podman_never_restarts_a_singleton() {
    let held = || {
        runs().map(|pod| SeenPod {
            held: BTreeSet::from(["Member".to_owned()]),
            ..pod
        })
    };
    let adopted: Vec<Effect> = adopts().into_iter().take(3).collect();
    tell(vec![
        (0, sees(0, 18, held()), adopted),
        // It has not ended for long.
        (
            700,
            sees(700, 18, held()),
            vec![Effect::Attach(vec![11, 12])],
        ),
    ]);
}

#[test]
fn a_singleton_ends_when_beemesh_is_removed() {
    let reason = "Beemesh is being removed from this host, and a singleton runs only with it";
    for left in [0, 18] {
        let effects = vec![failed(reason), Effect::Down, Effect::Exit(70)];
        tell(vec![(0, with(0, left, runs(), true), effects)]);
    }
}

#[test]
fn another_workload_needs_no_lease() {
    tell(vec![
        adopted(OLD),
        (0, Event::Attached(vec![11, 12]), vec![]),
        (1, saw(OLD, up(OLD)), vec![]),
    ]);
}
