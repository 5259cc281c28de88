use beemesh_protocol::{
    ClusterId,
    peer::{Outcome, WorkloadReport},
    state::{Command, Host, Kind, Object, Reference, TokenRecord},
};

use super::*;
use crate::cluster::placement::seats::{
    between_attempts, failed_for_good, move_without_data, waits,
};

mod beside;
mod lost;

/// The time after which attempts of Jobs are lost.
const LONG: Duration = Duration::from_secs(600);

fn h(n: u8) -> HostId {
    HostId([n; 32])
}

/// A cluster, the input of its leader, and the leader's proposals.
struct World {
    state: State,
    index: u64,
    reports: BTreeMap<HostId, Arc<HostReport>>,
    reachable: BTreeSet<HostId>,
    away: BTreeMap<HostId, Duration>,
    now_ms: u64,
}

impl World {
    /// Creates a world with this many hosts, all reachable. Host n has the label n=n.
    fn of(hosts: u8) -> Self {
        let mut world = Self {
            state: State::default(),
            index: 0,
            reports: BTreeMap::new(),
            reachable: (1..=hosts).map(h).collect(),
            away: BTreeMap::new(),
            now_ms: 1_000_000,
        };
        let host = |n: u8| Host {
            id: h(n),
            name: format!("h{n}"),
            addresses: Vec::new(),
            labels: BTreeMap::from([("n".to_owned(), n.to_string())]),
            drained: false,
            claims_as: None,
            votes_from_ms: 0,
            lost_at_ms: 0,
            declared_lost: false,
            steady_at_ms: 0,
        };
        let found = Change::Found {
            cluster: ClusterId([1; 16]),
            host: host(1),
        };
        let token = TokenRecord {
            id: [7; 8],
            secret_hash: [8; 32],
            expires_ms: u64::MAX,
            uses: 99,
        };
        world.apply(found);
        world.apply(Change::PutToken(token));
        for n in 2..=hosts {
            world.apply(Change::Admit {
                token: [7; 8],
                secret_hash: [8; 32],
                host: host(n),
                replaces: None,
            });
        }
        world.apply(Change::RaiseLevel { level: 1 });
        world
    }

    fn apply(&mut self, change: Change) -> u64 {
        self.index += 1;
        let command = Command::unasked(self.now_ms, change);
        let outcome = self.state.apply(self.index, &command);
        assert!(
            !matches!(outcome, Outcome::Refused(_)),
            "{command:?}: {outcome:?}"
        );
        self.index
    }

    fn put(&mut self, objects: Vec<Object>) {
        self.apply(Change::Apply {
            manifest: objects[0].name.clone(),
            objects,
            policy: None,
            keep: false,
            if_index: None,
        });
    }

    fn drain(&mut self, n: u8, drained: bool) {
        self.apply(Change::DrainHost {
            host: h(n),
            drained,
        });
    }

    fn plan(&self) -> Plan {
        plan(&Seen {
            state: &self.state,
            reports: &self.reports,
            reachable: &self.reachable,
            away: &self.away,
            job_lost_after: LONG,
            now_ms: self.now_ms,
        })
    }

    /// Applies plans until one has no changes. Returns the changes in the form `web.0 to 2`.
    fn settle(&mut self) -> Vec<String> {
        let mut made = Vec::new();
        for _ in 0..9 {
            let plan = self.plan();
            if plan.changes.is_empty() {
                return made;
            }
            for change in plan.changes {
                made.push(told(&change));
                self.apply(change);
            }
        }
        panic!("it does not end: {made:?}");
    }

    /// Makes the host report that its attempt of the Job has ended.
    fn ended(&mut self, n: u8, phase: Phase, index: u64) {
        let report = HostReport {
            workloads: vec![WorkloadReport {
                workload: "job".into(),
                index,
                phase,
                message: "exit code 3".into(),
                ended: true,
                ..WorkloadReport::default()
            }],
            ..HostReport::default()
        };
        self.reports.insert(h(n), Arc::new(report));
    }

    fn waits(&self, workload: &str) -> String {
        let there = There::new(&self.state, &self.reachable, &self.reports);
        waits(&there, self.state.workload(workload).unwrap()).join("; ")
    }

    fn at(&self, workload: &str) -> Vec<u8> {
        let workload = self.state.workload(workload).unwrap();
        placement::hosts(&self.state, workload)
            .iter()
            .map(|host| host.0[0])
            .collect()
    }

    fn attempt(&self) -> u64 {
        self.state.seats("job")[0].index
    }
}

fn told(change: &Change) -> String {
    match change {
        Change::Assign {
            workload,
            ordinal,
            host,
            ..
        } => {
            let host = host.map_or_else(|| "nobody".to_owned(), |host| host.0[0].to_string());
            format!("{workload}.{ordinal} to {host}")
        }
        Change::EndJob {
            workload,
            ordinal,
            succeeded,
            reason,
            again,
            ..
        } => format!("{workload}.{ordinal} {succeeded} {again} {reason}"),
        other => format!("{other:?}"),
    }
}

fn object(kind: Kind, name: &str, body: &str) -> Object {
    Object {
        kind,
        namespace: "default".into(),
        name: name.into(),
        body: body.into(),
        hash: [u8::try_from(body.len()).unwrap(); 32],
        references: Vec::new(),
        replicas: None,
        selector: BTreeMap::new(),
    }
}

fn web(replicas: u32) -> Object {
    Object {
        replicas: Some(replicas),
        ..object(Kind::Deployment, "web", "{}")
    }
}

fn with_claim(object: Object) -> Vec<Object> {
    let claim = Reference {
        kind: Kind::PersistentVolumeClaim,
        name: "data".into(),
        optional: false,
    };
    let user = Object {
        references: vec![claim],
        ..object
    };
    vec![user, self::object(Kind::PersistentVolumeClaim, "data", "c")]
}

fn selecting(n: u8, object: Object) -> Object {
    Object {
        selector: BTreeMap::from([("n".to_owned(), n.to_string())]),
        ..object
    }
}

fn job(body: &str) -> Object {
    object(Kind::Job, "job", body)
}

#[test]
fn as_many_as_are_asked_for_get_hosts_that_are_there_and_fit_one_each() {
    for (replicas, reachable, drained, expected, waits) in [
        (2, &[1, 2, 3][..], &[][..], 2, ""),
        (0, &[1, 2, 3], &[], 0, ""),
        (3, &[1, 2, 3], &[], 3, ""),
        (
            5,
            &[1, 2, 3],
            &[],
            3,
            "every host that matches runs a pod of it already",
        ),
        (3, &[1, 3], &[], 2, "h2 is not reachable"),
        (3, &[1], &[], 1, "h2 and h3 are not reachable"),
        (1, &[1], &[1], 0, "h2 and h3 are not reachable"),
        (2, &[1, 2, 3], &[1, 2], 1, "every host that matches"),
        (
            1,
            &[1, 2, 3],
            &[1, 2, 3],
            0,
            "a host that matches and is not drained",
        ),
        (u32::MAX, &[1, 2, 3], &[], 3, "every host that matches"),
    ] {
        let mut world = World::of(3);
        world.reachable = reachable.iter().map(|n| h(*n)).collect();
        for n in drained {
            world.drain(*n, true);
        }
        world.put(vec![web(replicas)]);
        let made = world.settle();
        assert_eq!(made.len(), expected, "{made:?}");
        let at = world.at("web");
        assert_eq!(at.len(), expected);
        assert!(
            at.iter()
                .all(|n| reachable.contains(n) && !drained.contains(n)),
            "{at:?}"
        );
        let said = world.waits("web");
        assert!(
            said.contains(waits) && said.is_empty() == waits.is_empty(),
            "{said}"
        );
    }
}

#[test]
fn what_runs_is_moved_for_nothing_but_a_drain_and_never_to_a_host_that_is_away() {
    let mut world = World::of(4);
    world.put(vec![web(2)]);
    world.settle();
    let before = world.at("web");
    world.reachable = before[..1].iter().map(|n| h(*n)).collect();
    assert!(world.settle().is_empty(), "one is away");
    world.reachable = (1..=4).map(h).collect();
    world.away = before.iter().map(|n| (h(*n), LONG)).collect();
    assert!(world.settle().is_empty(), "or was for long");
    let gone = before[0];
    let rest: Vec<u8> = (1..=4).filter(|n| !before.contains(n)).collect();
    world.reachable.remove(&h(rest[0]));
    world.drain(gone, true);
    assert_eq!(
        world.settle(),
        [format!("web.{} to {}", ordinal(&world, gone), rest[1])]
    );
    world.reachable.insert(h(rest[0]));
    world.drain(gone, false);
    assert!(world.settle().is_empty(), "an undrain moves nothing back");
    world.apply(Change::RemoveHost { host: h(rest[1]) });
    assert_eq!(world.settle().len(), 1);
    assert_eq!(world.at("web").len(), 2);
}

/// Returns the ordinal of the pod that was on this host before the move.
fn ordinal(world: &World, _gone: u8) -> u32 {
    let latest = world
        .state
        .seats("web")
        .iter()
        .max_by_key(|seat| seat.index);
    latest.unwrap().ordinal
}

#[test]
fn a_selector_that_changes_moves_the_pods_that_no_longer_fit() {
    let mut world = World::of(3);
    world.put(vec![selecting(1, web(1))]);
    assert_eq!(world.settle(), ["web.0 to 1"]);
    let changed = Object {
        body: b"{ }".to_vec(),
        hash: [9; 32],
        ..selecting(3, web(1))
    };
    world.put(vec![changed]);
    assert_eq!(world.at("web"), [] as [u8; 0]);
    assert_eq!(world.settle(), ["web.0 to 3"]);
}

#[test]
fn data_stays_and_the_pod_waits_for_the_host_that_has_it() {
    let mut world = World::of(3);
    world.put(with_claim(web(1)));
    world.settle();
    let home = world.at("web")[0];
    world.drain(home, true);
    assert!(world.settle().is_empty());
    assert!(world.at("web").is_empty(), "it stops");
    let words = format!("waits for host h{home}, which has its claim data and is drained");
    assert_eq!(world.waits("web"), words);
    world.drain(home, false);
    assert_eq!((world.settle(), world.at("web")), (vec![], vec![home]));
    // A workload that is deleted and applied again finds its data, or waits for it.
    let delete = Change::DeleteWorkload {
        workload: "web".into(),
    };
    world.apply(delete);
    world.reachable.remove(&h(home));
    world.put(with_claim(web(1)));
    assert!(world.settle().is_empty());
    let words = format!("waits for host h{home}, which has its claim data and is not reachable");
    assert_eq!(world.waits("web"), words);
    world.reachable.insert(h(home));
    assert_eq!(world.settle(), [format!("web.0 to {home}")]);
    // An additional pod has no data to wait for.
    let three = Object {
        hash: [9; 32],
        ..web(3)
    };
    world.put(with_claim(three));
    assert_eq!(world.settle().len(), 2);
    // On request a pod moves without its data. Data that is lost with its host binds no pod.
    world.drain(home, true);
    let there = There::new(&world.state, &world.reachable, &world.reports);
    assert!(
        move_without_data(&there, h(home)).is_empty(),
        "each has one"
    );
    let one = Object {
        hash: [8; 32],
        ..web(1)
    };
    world.put(with_claim(one));
    let there = There::new(&world.state, &world.reachable, &world.reports);
    let moves = move_without_data(&there, h(home));
    assert_eq!(moves.len(), 1);
    world.apply(moves[0].clone());
    assert_ne!(world.at("web"), [home]);
    assert!(world.settle().is_empty());
    assert_eq!(world.waits("web"), "");
}

#[test]
fn workloads_that_share_a_claim_share_the_host_of_its_data() {
    for n in 0..9 {
        let mut world = World::of(9);
        let second = Object {
            name: format!("user-{n}"),
            ..web(1)
        };
        let mut objects = with_claim(web(1));
        objects.push(with_claim(second).remove(0));
        world.put(objects);
        assert_eq!(world.settle().len(), 2);
        assert_eq!(world.at("web"), world.at(&format!("user-{n}")), "{n}");
    }
}

#[test]
fn a_lost_home_binds_no_replica() {
    let mut world = World::of(2);
    world.put(with_claim(web(1)));
    world.settle();
    let home = world.at("web")[0];
    world.reachable.remove(&h(home));
    world.away.insert(h(home), LONG);
    assert!(world.settle().is_empty());
    world.apply(Change::RemoveHost { host: h(home) });
    assert_eq!(world.settle(), [format!("web.0 to {}", 3 - home)]);
}

#[test]
fn a_job_is_attempted_again_after_pauses_until_its_limit() {
    let mut world = World::of(3);
    world.put(vec![job(r#"{"spec":{"backoffLimit":2}}"#)]);
    assert_eq!(world.settle().len(), 1);
    let home = world.at("job")[0];
    for (pause, again) in [(10_000, true), (20_000, true), (0, false)] {
        world.ended(home, Phase::Failed, world.attempt() - 1);
        assert!(world.settle().is_empty(), "that was another attempt");
        world.ended(home, Phase::Failed, world.attempt());
        let failed = format!("job.0 false {again} exit code 3");
        assert_eq!(world.settle(), [failed]);
        if again {
            let due = world.now_ms + pause;
            assert_eq!(world.plan().due, Some(due));
            assert_eq!(world.waits("job"), "", "its host tells");
            let words = match pause {
                10_000 => "1 attempt failed: why; the next attempt starts after 00:16:50 UTC",
                _ => "2 attempts failed, the last: why; the next attempt starts after 00:17:10 UTC",
            };
            let seat = &world.state.seats("job")[0];
            assert_eq!(between_attempts(seat, "why").as_deref(), Some(words));
            assert_eq!(failed_for_good(seat), None);
            world.now_ms = due - 1;
            assert!(world.settle().is_empty());
            world.now_ms = due;
            assert_eq!(world.settle(), [format!("job.0 to {home}")]);
        }
    }
    let words = "3 attempts failed, the last: exit code 3";
    let seat = &world.state.seats("job")[0];
    assert_eq!(failed_for_good(seat).as_deref(), Some(words));
    assert_eq!(between_attempts(seat, ""), None);
    world.now_ms += 10_000_000;
    world.away.insert(h(home), LONG);
    assert!(world.settle().is_empty(), "never again");
    assert_eq!(
        (world.plan().due, world.waits("job")),
        (None, String::new())
    );
    assert_eq!(
        [1, 2, 6, 7, 99].map(pause_ms),
        [10_000, 20_000, 320_000, 360_000, 360_000]
    );
}

#[test]
fn a_job_ends_once_and_a_host_that_is_lost_with_it_is_a_failed_attempt() {
    for (limit, again) in [(0, false), (1, true)] {
        let mut world = World::of(3);
        world.put(vec![job(&format!(
            r#"{{"spec":{{"backoffLimit":{limit}}}}}"#
        ))]);
        world.settle();
        let home = world.at("job")[0];
        world.drain(home, true);
        world.reachable.remove(&h(home));
        assert!(world.settle().is_empty(), "it may come back");
        world.away.insert(h(home), LONG);
        let reason = format!("h{home}, which ran it, has been away for too long");
        let lost = [
            "job.0 to nobody".to_owned(),
            format!("job.0 false {again} {reason}"),
        ];
        assert_eq!(world.settle(), lost);
        assert!(
            world.at("job").is_empty(),
            "it is to stop what it may still run"
        );
        let words = "1 attempt failed; the next attempt starts after 00:16:50 UTC";
        assert_eq!(world.waits("job"), if again { words } else { "" });
        world.now_ms += 10_000;
        assert_eq!(world.settle().len(), usize::from(again));
        assert!(!world.at("job").contains(&home));
    }
    let mut world = World::of(2);
    world.put(vec![job("{}")]);
    world.settle();
    let (home, attempt) = (world.at("job")[0], world.attempt());
    world.apply(Change::RemoveHost { host: h(home) });
    assert_eq!(
        world.settle(),
        ["job.0 false true the host that ran it is no longer a member"]
    );
    world.now_ms += 10_000;
    assert_eq!(world.settle(), [format!("job.0 to {}", 3 - home)]);
    world.ended(3 - home, Phase::Succeeded, attempt);
    assert!(world.settle().is_empty());
    world.ended(3 - home, Phase::Succeeded, world.attempt());
    assert_eq!(world.settle(), ["job.0 true false "]);
    world.drain(3 - home, true);
    world.reports.clear();
    assert!(world.settle().is_empty());
    assert_eq!(world.at("job"), [3 - home], "it stays where it ended");
}

#[test]
fn a_job_for_every_host_runs_on_each_that_fits_and_comes() {
    let body = r#"{"metadata":{"annotations":{"beemesh.io/every-host":"true"}}}"#;
    let mut world = World::of(3);
    world.reachable.remove(&h(2));
    world.drain(3, true);
    world.put(vec![job(body)]);
    assert_eq!(world.settle(), ["job.0 to 1"]);
    world.reachable.insert(h(2));
    world.drain(3, false);
    let mut made = world.settle();
    made.sort();
    assert_eq!(made.len(), 2, "{made:?}");
    assert_eq!(world.at("job"), [1, 2, 3]);
    world.ended(1, Phase::Failed, world.attempt());
    assert_eq!(world.settle(), ["job.0 false true exit code 3"]);
    world.now_ms += 10_000;
    world.reachable.remove(&h(1));
    world.away = [(h(1), LONG), (h(2), LONG)].into();
    assert!(world.settle().is_empty(), "each waits for its own host");
    world.reachable.insert(h(1));
    assert_eq!(world.settle(), ["job.0 to 1"]);
}

#[test]
fn a_clock_that_was_set_back_puts_no_attempt_off() {
    let mut world = World::of(1);
    world.put(vec![job("{}")]);
    world.settle();
    world.ended(1, Phase::Failed, world.attempt());
    world.settle();
    world.now_ms -= 900_000;
    assert_eq!(world.settle(), ["job.0 to 1"]);
}

#[test]
fn a_reason_is_bounded_and_ends_between_characters() {
    let long = "ü".repeat(REASON_MAX);
    assert_eq!(short(&long).len(), REASON_MAX);
    assert_eq!(short("plain"), "plain");
}
