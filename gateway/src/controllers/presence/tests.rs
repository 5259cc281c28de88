use beemesh_protocol::{
    ClusterId,
    state::{Command, TokenRecord},
};

use super::*;

const TIMES: Times = Times {
    lost_after: Duration::from_secs(30),
    job_lost_after: Duration::from_secs(600),
};

fn h(n: u8) -> HostId {
    HostId([n; 32])
}

/// A cluster of three, and its leader.
struct World {
    state: State,
    index: u64,
    seconds: u64,
    begin: Instant,
    presence: Presence,
    reachable: BTreeSet<HostId>,
    /// The hosts that each host does not reach.
    unreached: BTreeMap<HostId, Vec<HostId>>,
}

impl World {
    fn new(level: u32) -> Self {
        let mut world = Self {
            state: State::default(),
            index: 0,
            seconds: 0,
            begin: Instant::now(),
            presence: Presence::default(),
            reachable: (1..=3).map(h).collect(),
            unreached: BTreeMap::new(),
        };
        let host = |n: u8| Host {
            id: h(n),
            name: format!("h{n}"),
            addresses: Vec::new(),
            labels: BTreeMap::new(),
            drained: false,
            claims_as: None,
            votes_from_ms: 0,
            lost_at_ms: 0,
            declared_lost: false,
            steady_at_ms: 0,
        };
        world.apply(Change::Found {
            cluster: ClusterId([1; 16]),
            host: host(1),
        });
        world.apply(Change::PutToken(TokenRecord {
            id: [7; 8],
            secret_hash: [8; 32],
            expires_ms: u64::MAX,
            uses: 99,
        }));
        for n in 2..=3 {
            world.apply(Change::Admit {
                token: [7; 8],
                secret_hash: [8; 32],
                host: host(n),
                replaces: None,
            });
        }
        for level in 1..=level {
            world.apply(Change::RequireLevel { level });
        }
        world
    }

    fn now_ms(&self) -> u64 {
        1_000_000 + self.seconds * 1000
    }

    fn apply(&mut self, change: Change) {
        self.index += 1;
        let command = Command::unasked(self.now_ms(), change);
        let _ = self.state.apply(self.index, &command);
    }

    /// Looks at this second, and applies the changes. Returns them, such as `lost 2` and `back 2 600`, and when to look
    /// again.
    fn at(&mut self, seconds: u64) -> (Vec<String>, Option<u64>) {
        self.seconds = seconds;
        let report = |host: &HostId| HostReport {
            unreached: self.unreached.get(host).cloned(),
            ..HostReport::default()
        };
        let all = self.state.hosts().keys();
        let reports: BTreeMap<_, _> = all.map(|host| (*host, Arc::new(report(host)))).collect();
        let seen = Seen {
            state: &self.state,
            reports: &reports,
            reachable: &self.reachable,
            now: self.begin + Duration::from_secs(seconds),
            now_ms: self.now_ms(),
        };
        let looked = self.presence.look(&seen, &TIMES);
        let told = looked.changes.iter().map(|change| match change {
            Change::LoseHost { host, declared } => {
                assert!(!declared);
                format!("lost {}", host.0[0])
            }
            Change::ReturnHost { host, steady_at_ms } => {
                let after = steady_at_ms.saturating_sub(self.now_ms()) / 1000;
                format!("back {} {after}", host.0[0])
            }
            other => panic!("{other:?}"),
        });
        let told: Vec<_> = told.collect();
        let due = looked.due.map(|due| (due - self.begin).as_secs());
        for change in looked.changes {
            self.apply(change);
        }
        (told, due)
    }
}

#[test]
fn a_host_that_nobody_reaches_is_lost_and_is_taken_back() {
    let mut world = World::new(3);
    assert_eq!(world.at(0), (vec![], None));
    world.reachable.remove(&h(2));
    assert_eq!(world.at(5), (vec![], Some(35)));
    assert_eq!(world.at(34), (vec![], Some(35)));
    assert_eq!(world.at(35), (vec!["lost 2".to_owned()], None));
    assert_eq!(world.at(90), (vec![], None), "once");
    world.reachable.insert(h(2));
    assert_eq!(world.at(100), (vec!["back 2 0".to_owned()], None));
    assert_eq!(world.at(101), (vec![], None));
}

#[test]
fn a_new_leader_waits_anew() {
    let mut world = World::new(3);
    world.reachable.remove(&h(2));
    world.at(0);
    world.presence = Presence::default();
    assert_eq!(world.at(20), (vec![], Some(50)));
    assert_eq!(world.at(49).0, [""; 0]);
    assert_eq!(world.at(50).0, ["lost 2"]);
}

#[test]
fn a_host_that_another_member_reaches_is_not_lost() {
    let mut world = World::new(3);
    world.at(0);
    world.reachable.remove(&h(2));
    world.unreached.insert(h(3), vec![]);
    assert_eq!(world.at(60).0, [""; 0]);
    world.unreached.insert(h(3), vec![h(2)]);
    world.at(61);
    assert_eq!(world.at(91).0, ["lost 2"]);
    // A report of a host that is unreachable itself says nothing.
    world.reachable.remove(&h(3));
    world.unreached.insert(h(3), vec![]);
    assert_eq!(world.at(92).0, [""; 0]);
    world.at(93);
    assert_eq!(world.at(123).0, ["lost 3"]);
}

#[test]
fn a_lost_host_returns_when_the_leader_reaches_it() {
    let mut world = World::new(3);
    world.at(0);
    world.reachable.remove(&h(2));
    world.apply(Change::LoseHost {
        host: h(2),
        declared: true,
    });
    // Another member has not noticed yet that the host is gone.
    world.unreached.insert(h(3), vec![]);
    assert_eq!(world.at(1).0, [""; 0]);
    world.unreached.insert(h(3), vec![h(2)]);
    assert_eq!(world.at(4).0, [""; 0]);
    world.reachable.insert(h(2));
    assert_eq!(world.at(50).0, ["back 2 0"]);
    assert!(!world.state.hosts()[&h(2)].declared_lost);
}

#[test]
fn a_host_that_comes_and_goes_is_held_back() {
    let mut world = World::new(3);
    world.at(0);
    for (seconds, there) in [
        (20, false),
        (40, true),
        (60, false),
        (80, true),
        (100, false),
    ] {
        match there {
            true => world.reachable.insert(h(2)),
            false => world.reachable.remove(&h(2)),
        };
        assert_eq!(world.at(seconds).0, [""; 0], "{seconds}");
    }
    world.reachable.insert(h(2));
    assert_eq!(world.at(120), (vec!["back 2 600".to_owned()], Some(720)));
    assert_eq!(world.at(400), (vec![], Some(720)));
    assert_eq!(world.at(720), (vec!["back 2 0".to_owned()], None));
    assert_eq!(world.state.hosts()[&h(2)].steady_at_ms, 0);
}

#[test]
fn a_connection_that_breaks_for_a_moment_is_no_absence() {
    let mut world = World::new(3);
    world.at(0);
    for seconds in 1..=9 {
        world.reachable.remove(&h(2));
        world.at(seconds * 4);
        world.reachable.insert(h(2));
        assert_eq!(world.at(seconds * 4 + 2).0, [""; 0], "{seconds}");
    }
}

#[test]
fn absences_long_ago_do_not_count() {
    let mut world = World::new(3);
    world.at(0);
    for n in 1..=5 {
        world.reachable.remove(&h(2));
        world.at(n * 400);
        world.reachable.insert(h(2));
        assert_eq!(world.at(n * 400 + 20).0, [""; 0], "{n}");
    }
}

#[test]
fn below_the_level_no_host_is_lost() {
    let mut world = World::new(2);
    world.at(0);
    world.reachable.remove(&h(2));
    assert_eq!(world.at(10), (vec![], Some(610)));
    assert_eq!(world.at(700).0, [""; 0]);
}
