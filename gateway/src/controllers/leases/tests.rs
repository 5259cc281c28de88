use std::collections::BTreeMap;

use beemesh_protocol::{
    ClusterId,
    peer::Outcome,
    state::{Command, Host, Kind, Object, TokenRecord},
};

use super::*;

const WAIT: Duration = Duration::from_secs(20);

fn h(n: u8) -> HostId {
    HostId([n; 32])
}

/// A cluster of three hosts with the singletons `db` and `web`.
struct World {
    view: View,
    leases: Leases,
    begun: Instant,
}

impl World {
    /// A leader of term 4 for a long time, of a state where `db` has host 1.
    fn new() -> Self {
        let begun = Instant::now();
        let mut world = Self {
            view: View::default(),
            leases: Leases::new(WAIT),
            begun,
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
        let cluster = ClusterId([1; 16]);
        world.apply(Change::Found {
            cluster,
            host: host(1),
        });
        let (token, secret_hash) = ([7; 8], [8; 32]);
        world.apply(Change::PutToken(TokenRecord {
            id: token,
            secret_hash,
            expires_ms: u64::MAX,
            uses: 9,
        }));
        for n in [2, 3] {
            world.apply(Change::Admit {
                token,
                secret_hash,
                host: host(n),
                replaces: None,
            });
        }
        world.apply(Change::RaiseLevel { level: 3 });
        for name in ["db", "web"] {
            world.put(name, true);
        }
        world.put("plain", false);
        world.apply(world.to("db", None, 1));
        world.lead(4, 0, 0);
        world
    }

    fn apply(&mut self, change: Change) -> u64 {
        self.view.applied += 1;
        let state = Arc::make_mut(&mut self.view.state);
        let outcome = state.apply(self.view.applied, &Command::unasked(1, change));
        assert!(!matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
        self.view.applied
    }

    fn put(&mut self, name: &str, is_single: bool) {
        let body =
            format!(r#"{{"metadata":{{"annotations":{{"beemesh.io/singleton":"{is_single}"}}}}}}"#);
        self.apply(Change::Apply {
            manifest: name.into(),
            objects: vec![Object {
                kind: Kind::Deployment,
                namespace: "default".into(),
                name: name.into(),
                hash: [u8::from(is_single); 32],
                body: body.into_bytes(),
                references: Vec::new(),
                replicas: Some(1),
                selector: BTreeMap::new(),
            }],
            policy: None,
            keep: false,
            if_index: None,
        });
    }

    /// The assignment of a workload's pod to this host.
    fn to(&self, workload: &str, from: Option<u8>, host: u8) -> Change {
        Change::Assign {
            workload: workload.into(),
            ordinal: 0,
            index: self.view.state.workload(workload).unwrap().index,
            from: from.map(h),
            host: Some(h(host)),
        }
    }

    fn at(&self, seconds: u64) -> Instant {
        self.begun + Duration::from_secs(seconds)
    }

    fn lead(&mut self, term: u64, since: u64, floor: u64) {
        let since = self.at(since);
        self.leases.lead(Some(Leads { term, since, floor }));
    }

    /// Asks for all leases as this host.
    fn ask(&mut self, term: u64, host: u8, at: u64) -> Vec<String> {
        let names = ["web", "db", "plain", "none", "db"].map(str::to_owned);
        let at = self.at(at);
        self.leases.grant((term, h(host)), &names, &self.view, at)
    }

    /// Returns when the change may be proposed, in seconds.
    fn held(&mut self, change: &Change, at: u64) -> Option<u64> {
        let (begun, at) = (self.begun, self.at(at));
        let mut changes = vec![change.clone()];
        let due = self.leases.hold(&mut changes, &self.view, at);
        assert_eq!(due.is_some(), changes.is_empty());
        due.map(|due| (due - begun).as_secs())
    }

    fn begin(&mut self, change: &Change, at: u64) -> Vec<Change> {
        let at = self.at(at);
        let mut changes = vec![change.clone()];
        self.leases.begin(&mut changes, &self.view.state, 4, at)
    }
}

#[test]
fn only_the_host_of_the_pod_gets_its_lease() {
    let mut world = World::new();
    assert_eq!(world.ask(4, 1, 1), ["db"]);
    for host in [2, 3, 9] {
        assert_eq!(world.ask(4, host, 1), Vec::<String>::new(), "{host}");
    }
    assert_eq!(world.ask(4, 1, 500), ["db"], "again and again");
    let drained = true;
    world.apply(Change::DrainHost {
        host: h(1),
        drained,
    });
    assert_eq!(world.ask(4, 1, 501), Vec::<String>::new());
}

#[test]
fn a_pod_moves_when_its_lease_is_over() {
    let mut world = World::new();
    let to = world.to("db", Some(1), 2);
    assert_eq!(world.ask(4, 1, 100), ["db"]);
    assert_eq!(world.held(&to, 101), Some(120));
    assert_eq!(world.begin(&to, 119), [], "it lasts");
    assert_eq!(world.ask(4, 1, 102), Vec::<String>::new(), "no more");
    assert_eq!(world.held(&to, 120), None);
    assert_eq!(world.begin(&to, 120), std::slice::from_ref(&to));
    // To its own host it can move at once.
    let mut world = World::new();
    assert_eq!(world.ask(4, 1, 100), ["db"]);
    assert_eq!(world.held(&world.to("db", Some(1), 1), 101), None);
    // A move that is no longer planned lets the host have the lease again.
    assert_eq!(world.held(&world.to("web", None, 1), 101), None);
    assert_eq!(world.ask(4, 1, 101), ["db"]);
}

#[test]
fn a_new_leader_waits_for_the_leases_of_those_before_it() {
    let mut world = World::new();
    world.lead(5, 100, 0);
    assert_eq!(world.held(&world.to("plain", None, 2), 101), None);
    assert_eq!(world.held(&world.to("web", None, 2), 101), Some(120));
    assert_eq!(world.held(&world.to("web", None, 2), 120), None);
    assert_eq!(world.held(&world.to("db", Some(1), 2), 101), Some(120));
    assert_eq!(world.ask(5, 1, 101), Vec::<String>::new(), "it is to leave");
    // The host of the pod need not wait.
    assert_eq!(world.held(&world.to("web", None, 2), 102), Some(120));
    assert_eq!(world.ask(5, 1, 102), ["db"]);
    // A grant of an earlier term counts in the later one.
    world.lead(6, 103, 0);
    assert_eq!(world.held(&world.to("db", Some(1), 2), 122), Some(123));
    world.leases.lead(None);
    assert!(world.held(&world.to("web", None, 2), 300).is_some());
    assert_eq!(world.ask(6, 1, 300), Vec::<String>::new());
}

#[test]
fn while_a_pod_is_being_moved_nobody_gets_its_lease() {
    let mut world = World::new();
    let to = world.to("db", Some(1), 2);
    for proposed in [Proposed::Never, Proposed::Unknown] {
        assert_eq!(world.begin(&to, 100), std::slice::from_ref(&to));
        assert_eq!(world.begin(&to, 100), [], "once");
        assert_eq!(world.ask(4, 1, 100), Vec::<String>::new());
        assert!(world.held(&to, 100).is_some());
        world.leases.ended(4, std::slice::from_ref(&to), proposed);
        // The plan has changed.
        assert_eq!(
            world.leases.hold(&mut Vec::new(), &world.view, world.begun),
            None
        );
        let is_free = proposed == Proposed::Never;
        let granted = world.ask(4, 1, 100);
        assert_eq!(!granted.is_empty(), is_free, "{proposed:?}");
        world.lead(4, 0, 0);
        let granted = world.ask(4, 1, 100);
        assert_eq!(!granted.is_empty(), is_free, "the term is the same");
        if is_free {
            world = World::new();
        }
    }
    world.lead(5, 100, 0);
    assert_eq!(world.ask(5, 1, 101), ["db"], "it is in no log");
}

#[test]
fn after_a_move_the_state_must_include_it() {
    let mut world = World::new();
    let to = world.to("db", Some(1), 2);
    assert_eq!(world.begin(&to, 100), std::slice::from_ref(&to));
    let index = world.view.applied + 1;
    let committed = Proposed::Committed(index);
    world.leases.ended(4, std::slice::from_ref(&to), committed);
    assert_eq!(world.ask(4, 1, 101), Vec::<String>::new());
    assert_eq!(world.apply(to), index);
    assert_eq!(world.ask(4, 1, 101), Vec::<String>::new());
    assert_eq!(world.ask(4, 2, 101), ["db"]);
    assert_eq!(world.held(&world.to("db", Some(2), 3), 102), Some(121));
}

#[test]
fn a_leader_grants_nothing_before_it_knows_what_it_has_proposed() {
    let mut world = World::new();
    let floor = world.view.applied + 1;
    world.lead(5, 0, floor);
    assert_eq!(world.ask(5, 1, 100), Vec::<String>::new());
    assert_eq!(world.ask(4, 1, 100), Vec::<String>::new(), "another term");
    world.apply(world.to("web", None, 1));
    assert_eq!(world.ask(5, 1, 100), ["db", "web"]);
}

#[test]
fn what_is_deleted_and_made_again_is_the_same_workload() {
    let mut world = World::new();
    assert_eq!(world.ask(4, 1, 100), ["db"]);
    let workload = "db".to_owned();
    world.apply(Change::DeleteWorkload { workload });
    assert_eq!(world.ask(4, 1, 101), Vec::<String>::new());
    world.put("db", true);
    assert_eq!(world.held(&world.to("db", None, 2), 102), Some(120));
    assert_eq!(world.held(&world.to("db", None, 1), 102), None);
}
