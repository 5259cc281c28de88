//! Pods beside others of their workload on one host.

use super::*;

fn world(hosts: u8) -> World {
    let mut world = World::of(hosts);
    for level in 2..=3 {
        world.apply(Change::RequireLevel { level });
    }
    world
}

/// A Deployment whose pods have this in their spec.
fn with_spec(replicas: u32, spec: &str) -> Object {
    let body = format!(r#"{{"spec":{{"template":{{"spec":{{{spec}}}}}}}}}"#);
    Object {
        replicas: Some(replicas),
        ..object(Kind::Deployment, "web", &body)
    }
}

const PORT: &str =
    r#""containers":[{"name":"a","image":"a","ports":[{"containerPort":80,"hostPort":8080}]}]"#;
const NETWORK: &str = r#""hostNetwork":true,"containers":[]"#;

/// A Deployment that differs from one with another number of replicas.
fn web(replicas: u32) -> Object {
    Object {
        hash: [100 + u8::try_from(replicas).unwrap(); 32],
        ..super::web(replicas)
    }
}

/// The same with a claim.
fn claiming(replicas: u32) -> Vec<Object> {
    let hash = [50; 32];
    with_claim(Object {
        hash,
        ..web(replicas)
    })
}

/// The places of the pods, such as `1/0 2/0 1/1`, by their ordinals; `-` for one without a host.
fn places(world: &World) -> String {
    let seats = world.state.seats("web").iter();
    let places = seats.map(|seat| match seat.place() {
        Some(place) => format!("{}/{}", place.host.0[0], place.number),
        None => "-".to_owned(),
    });
    places.collect::<Vec<_>>().join(" ")
}

/// The places of the pods that have a host.
fn taken(world: &World) -> BTreeSet<Place> {
    let seats = world.state.seats("web").iter();
    seats.filter_map(Assignment::place).collect()
}

/// The number of pods on each host.
fn counts(world: &World) -> Vec<usize> {
    let taken = Taken::of(world.state.seats("web"));
    let hosts = world.state.hosts().keys();
    hosts.map(|host| taken.on(*host)).collect()
}

#[test]
fn more_pods_than_hosts_are_spread_and_run_side_by_side() {
    let mut world = world(3);
    world.put(vec![web(7)]);
    assert_eq!(world.settle().len(), 7);
    let mut spread = counts(&world);
    spread.sort_unstable();
    assert_eq!(spread, [2, 2, 3]);
    let all: BTreeSet<_> = taken(&world);
    assert_eq!(
        all.len(),
        7,
        "each has a place of its own: {}",
        places(&world)
    );
    assert!(all.iter().all(|place| place.number < 3), "{all:?}");
    assert_eq!(world.waits("web"), "");
    // Those that stay keep their places, and a new one takes the first free one.
    let before: Vec<_> = world.state.seats("web").to_vec();
    world.put(vec![web(2)]);
    assert_eq!(world.settle(), [""; 0]);
    assert_eq!(world.state.seats("web"), &before[..2]);
    world.put(vec![web(4)]);
    world.settle();
    let mut spread = counts(&world);
    spread.sort_unstable();
    assert_eq!(spread, [1, 1, 2]);
}

#[test]
fn the_pods_of_a_lost_host_start_beside_others_and_no_other_pod_moves() {
    let mut world = world(2);
    world.put(vec![web(4)]);
    world.settle();
    assert_eq!(counts(&world), [2, 2]);
    let first: BTreeSet<_> = taken(&world);
    world.reachable.remove(&h(2));
    world.away.insert(h(2), Duration::from_secs(30));
    world.apply(Change::LoseHost {
        host: h(2),
        declared: false,
    });
    assert_eq!(world.settle().len(), 2);
    let now: BTreeSet<_> = taken(&world);
    let expected = (0..4).map(|number| Place { host: h(1), number });
    assert_eq!(now, expected.collect());
    let stayed = first.into_iter().filter(|place| place.host == h(1));
    assert!(stayed.into_iter().all(|place| now.contains(&place)));
}

#[test]
fn what_a_host_has_once_allows_one_pod_on_each() {
    let one_each = "waits for a host: every host that matches runs a pod of it already, and ";
    for (objects, why) in [
        (
            vec![with_spec(3, PORT)],
            "its host port allows one on each host",
        ),
        (
            vec![with_spec(3, NETWORK)],
            "the network of its host allows one on each host",
        ),
        (claiming(3), "its claim allows one on each host"),
    ] {
        let mut world = world(2);
        world.put(objects);
        assert_eq!(world.settle().len(), 2);
        assert_eq!(counts(&world), [1, 1]);
        assert_eq!(world.waits("web"), format!("{one_each}{why}"));
    }
    let mut old = World::of(2);
    old.put(vec![web(3)]);
    old.settle();
    assert_eq!(counts(&old), [1, 1]);
    let words = "each runs one until all hosts have run Beemesh 0.5.0 for ten minutes";
    assert_eq!(old.waits("web"), format!("{one_each}{words}"));
    for level in 2..=3 {
        old.apply(Change::RequireLevel { level });
    }
    old.settle();
    assert_eq!(counts(&old).iter().sum::<usize>(), 3);
}

#[test]
fn a_host_has_no_more_than_a_hundred_pods_of_a_workload() {
    let mut world = world(1);
    world.put(vec![web(101)]);
    assert_eq!(world.settle().len(), 100);
    let words = "waits for a host: every host that matches runs 100 pods of it already";
    assert_eq!(world.waits("web"), words);
}

#[test]
fn pods_that_may_no_longer_be_side_by_side_part() {
    let mut world = world(2);
    world.drain(2, true);
    world.put(vec![web(2)]);
    world.settle();
    assert_eq!(places(&world), "1/0 1/1");
    world.put(vec![with_spec(2, PORT)]);
    assert_eq!(world.settle(), [""; 0], "it keeps the revision before");
    let index = world.state.workload("web").unwrap().index;
    world.apply(Change::Roll {
        workload: "web".into(),
        index,
        to: index,
        hosts: vec![h(1), h(1)],
        numbers: vec![0, 1],
    });
    assert_eq!(world.settle(), ["web.1 to nobody"]);
    world.drain(2, false);
    assert_eq!(world.settle(), ["web.1 to 2"]);
    assert_eq!(places(&world), "1/0 2/0");
    // A claim takes the host from all but the first of them at once: they would share its volume.
    world.put(vec![web(4)]);
    world.settle();
    assert_eq!(counts(&world), [2, 2]);
    world.put(claiming(4));
    assert_eq!(places(&world), "1/0 2/0 - -");
}

#[test]
fn a_host_is_asked_for_no_more_pods_than_it_may_have() {
    let mut world = world(1);
    world.put(claiming(2));
    world.settle();
    let workload = world.state.workload("web").unwrap();
    let second = assign(workload, 1, None, Some(h(1)));
    let command = Command::unasked(1, second);
    let outcome = world.state.apply(99, &command);
    assert!(matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
}
