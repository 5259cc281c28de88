//! Pods of hosts that are lost.

use std::time::Instant;

use beemesh_protocol::state::{MoveReason, Moved};

use super::*;

fn world(hosts: u8) -> World {
    let mut world = World::of(hosts);
    for level in 2..=3 {
        world.apply(Change::RequireLevel { level });
    }
    world
}

/// A Deployment with these annotations.
fn annotated(replicas: u32, annotations: &str) -> Object {
    let body = format!(r#"{{"metadata":{{"annotations":{{{annotations}}}}}}}"#);
    Object {
        replicas: Some(replicas),
        ..object(Kind::Deployment, "web", &body)
    }
}

impl World {
    fn vanish(&mut self, n: u8, seconds: u64) {
        self.reachable.remove(&h(n));
        self.away.insert(h(n), Duration::from_secs(seconds));
    }

    fn lose(&mut self, n: u8, declared: bool) {
        self.vanish(n, 30);
        self.apply(Change::LoseHost {
            host: h(n),
            declared,
        });
    }

    /// Takes the host back.
    fn come_back(&mut self, n: u8, steady_at_ms: u64) {
        self.reachable.insert(h(n));
        self.away.remove(&h(n));
        self.apply(Change::ReturnHost {
            host: h(n),
            steady_at_ms,
        });
    }

    fn moved(&self) -> Option<Moved> {
        let mut seats = self.state.seats("web").iter();
        seats.find_map(|seat| seat.moved.clone())
    }
}

#[test]
fn the_pods_of_a_lost_host_move_once_and_stay() {
    let mut world = world(4);
    world.put(vec![web(2)]);
    world.settle();
    let before = world.at("web");
    let (lost, kept) = (before[0], before[1]);
    world.vanish(lost, 29);
    assert_eq!(world.settle(), [""; 0], "it may only restart");
    world.lose(lost, false);
    let made = world.settle();
    assert_eq!(made.len(), 1, "{made:?}");
    let after = world.at("web");
    assert!(after.contains(&kept) && !after.contains(&lost), "{after:?}");
    let moved = world.moved().unwrap();
    assert_eq!(
        (moved.from, moved.why),
        (format!("h{lost}"), MoveReason::Lost)
    );
    world.come_back(lost, 0);
    assert_eq!(world.settle(), [""; 0], "nothing moves back");
    assert_eq!(world.at("web"), after);
}

#[test]
fn a_workload_says_when_its_pods_move() {
    let mut world = world(3);
    let after = r#""beemesh.io/reschedule-after":"10s""#;
    world.put(vec![annotated(1, after)]);
    world.settle();
    let first = world.at("web")[0];
    world.vanish(first, 4);
    assert_eq!(world.settle(), [""; 0]);
    assert_eq!(world.plan().due, Some(world.now_ms + 6001));
    world.vanish(first, 10);
    assert_eq!(world.settle().len(), 1);
    assert_eq!(world.moved().unwrap().why, MoveReason::Unreachable);

    let second = world.at("web")[0];
    let later = r#""beemesh.io/reschedule-after":"5m""#;
    world.put(vec![annotated(1, later)]);
    world.lose(second, false);
    assert_eq!(world.settle(), [""; 0]);
    assert!(
        world
            .waits("web")
            .contains("has been unreachable for 300 s")
    );
    world.vanish(second, 300);
    assert_eq!(world.settle().len(), 1);
}

#[test]
fn a_pod_that_never_moves_waits_for_a_user() {
    let mut world = world(3);
    let never = r#""beemesh.io/reschedule-after":"never""#;
    world.put(vec![annotated(1, never)]);
    world.settle();
    let host = world.at("web")[0];
    world.lose(host, false);
    assert_eq!(world.settle(), [""; 0]);
    let words =
        format!("waits for host h{host}, which is lost: beemesh.io/reschedule-after is `never`");
    assert_eq!(world.waits("web"), words);
    world.lose(host, true);
    assert_eq!(world.settle().len(), 1);
}

#[test]
fn data_stays_with_its_host_unless_it_is_disposable() {
    let mut world = world(3);
    world.put(with_claim(annotated(1, "")));
    world.settle();
    let host = world.at("web")[0];
    world.lose(host, true);
    assert_eq!(world.settle(), [""; 0]);
    let words = format!("waits for host h{host}, which has its claim data and is lost");
    assert_eq!(world.waits("web"), words);
    world.put(with_claim(annotated(
        1,
        r#""beemesh.io/data":"disposable""#,
    )));
    assert_eq!(world.settle().len(), 1);
    let next = world.at("web")[0];
    assert_ne!(next, host);
    // Its data is on both hosts now, and one of them is there.
    world.come_back(host, 0);
    world.lose(next, false);
    assert_eq!(world.settle(), [format!("web.0 to {host}")]);
}

#[test]
fn a_host_that_comes_and_goes_gets_nothing_new() {
    let mut world = world(2);
    world.come_back(1, 2_000_000);
    world.come_back(2, 2_000_000);
    world.put(vec![web(2)]);
    assert_eq!(world.settle(), [""; 0]);
    assert_eq!(
        world.waits("web"),
        "waits for a host: h1 and h2 come and go"
    );
    world.come_back(1, 0);
    assert_eq!(world.settle(), ["web.0 to 1", "web.1 to 1"]);
    assert_eq!(world.waits("web"), "");
    world.come_back(1, 2_000_000);
    assert_eq!(world.settle(), [""; 0], "it keeps what it has");
}

#[test]
fn a_job_on_a_lost_host_has_failed_once() {
    let mut world = world(3);
    let job = r#"{"spec":{"backoffLimit":1,"template":{"spec":{"restartPolicy":"Never"}}}}"#;
    world.put(vec![object(Kind::Job, "job", job)]);
    world.settle();
    let host = world.at("job")[0];
    world.vanish(host, 29);
    assert_eq!(world.settle(), [""; 0]);
    world.lose(host, false);
    let made = world.settle();
    assert_eq!(made[0], "job.0 to nobody", "{made:?}");
    assert!(made[1].starts_with("job.0 false true"), "{made:?}");
}

#[test]
fn below_the_level_nothing_moves() {
    let mut world = World::of(3);
    world.put(vec![web(1)]);
    world.settle();
    let host = world.at("web")[0];
    world.vanish(host, 3600);
    assert_eq!(world.settle(), [""; 0]);
}

/// How long a plan takes after a death in the largest cluster that is planned for.
#[test]
fn a_death_in_a_large_cluster_moves_what_it_must() {
    let mut world = world(100);
    for n in 0..1000 {
        let body = format!(r#"{{"n":{n}}}"#);
        let one = Object {
            replicas: Some(3),
            hash: [u8::try_from(n % 251).unwrap(); 32],
            ..object(Kind::Deployment, &format!("w{n}"), &body)
        };
        world.put(vec![one]);
    }
    for _ in 0..60 {
        for change in world.plan().changes {
            world.apply(change);
        }
    }
    let on = |world: &World, host| {
        let all = world.state.workloads();
        let seats = all.flat_map(|one| world.state.seats(&one.name));
        seats.filter(|seat| seat.host == Some(host)).count()
    };
    let (before, lost) = (on(&world, h(7)), h(7));
    assert_eq!(before, 30, "the pods are spread evenly");
    world.lose(7, false);
    let begun = Instant::now();
    let plan = world.plan();
    let took = begun.elapsed();
    eprintln!("planned {} moves in {took:?}", plan.changes.len());
    assert_eq!(plan.changes.len(), before);
    let moves =
        |change: &Change| matches!(change, Change::Assign { from, .. } if *from == Some(lost));
    assert!(plan.changes.iter().all(moves));
    // A development build takes ten times as long as a release.
    assert!(took < Duration::from_millis(500), "{took:?}");
}
