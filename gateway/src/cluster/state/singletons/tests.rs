use std::collections::BTreeMap;

use beemesh_protocol::{
    ClusterId,
    peer::Outcome,
    state::{Change, Command, Host, Origin, Reference, TokenRecord},
};

use super::*;

fn h(n: u8) -> HostId {
    HostId([n; 32])
}

fn host(n: u8) -> Host {
    Host {
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
    }
}

/// The workload `db` with these annotations.
fn object(annotations: &str, replicas: u32) -> Object {
    let body = format!(r#"{{"metadata":{{"annotations":{{{annotations}}}}}}}"#);
    Object {
        kind: Kind::Deployment,
        namespace: "default".into(),
        name: "db".into(),
        hash: [u8::try_from(body.len()).unwrap(); 32],
        body: body.into_bytes(),
        references: vec![Reference {
            kind: Kind::PersistentVolumeClaim,
            name: "data".into(),
            optional: true,
        }],
        replicas: Some(replicas),
        selector: BTreeMap::new(),
    }
}

const SINGLE: &str = r#""beemesh.io/singleton":"true""#;
const STOPPED: &str = r#""beemesh.io/singleton":"true","beemesh.io/stopped":"true""#;

struct World {
    state: State,
    index: u64,
}

impl World {
    /// Hosts 1 and 2, at this level.
    fn new(level: u32) -> Self {
        let (state, index) = (State::default(), 0);
        let mut world = Self { state, index };
        let cluster = ClusterId([1; 16]);
        world.apply(Change::Found {
            cluster,
            host: host(1),
        });
        world.apply(Change::PutToken(TokenRecord {
            id: [7; 8],
            secret_hash: [8; 32],
            expires_ms: u64::MAX,
            uses: 9,
        }));
        world.apply(admit(2, None));
        world.apply(Change::RaiseLevel { level });
        world
    }

    fn try_apply(&mut self, change: Change, by: Option<HostId>) -> Result<(), String> {
        self.index += 1;
        let mut command = Command::unasked(1, change);
        command.origin = by.map(|host| Origin {
            host,
            who: String::new(),
            from: String::new(),
        });
        match self.state.apply(self.index, &command) {
            Outcome::Refused(reasons) => Err(reasons[0].message.clone()),
            _ => Ok(()),
        }
    }

    fn apply(&mut self, change: Change) {
        self.try_apply(change, None).unwrap();
    }

    fn put(&mut self, object: Object) -> Result<(), String> {
        let change = Change::Apply {
            manifest: "db".into(),
            objects: vec![object],
            policy: None,
            keep: false,
            if_index: None,
        };
        self.try_apply(change, None)
    }

    fn assign(&mut self, from: Option<u8>, host: Option<u8>) {
        self.apply(Change::Assign {
            workload: "db".into(),
            ordinal: 0,
            index: self.state.workload("db").unwrap().index,
            from: from.map(h),
            host: host.map(h),
        });
    }

    fn homes(&self) -> Vec<HostId> {
        self.state.homes("default", "data").collect()
    }
}

fn admit(n: u8, replaces: Option<u8>) -> Change {
    Change::Admit {
        token: [7; 8],
        secret_hash: [8; 32],
        host: host(n),
        replaces: replaces.map(h),
    }
}

#[test]
fn a_workload_is_a_singleton_as_long_as_it_exists() {
    let mut world = World::new(LOSES);
    let words = world.put(object(SINGLE, 2)).unwrap_err();
    assert!(words.contains("which has one replica"), "{words}");
    world.put(object("", 1)).unwrap();
    let words = world.put(object(SINGLE, 1)).unwrap_err();
    assert!(words.contains("cannot become a singleton"), "{words}");
    assert!(words.contains("beemesh delete db"), "{words}");
    let workload = "db".to_owned();
    world.apply(Change::DeleteWorkload { workload });

    world.put(object(SINGLE, 1)).unwrap();
    let is_one = |world: &World| {
        let workload = world.state.workload("db").unwrap();
        world.state.is_singleton(workload)
    };
    assert!(is_one(&world));
    let more = format!(r#"{SINGLE},"a":"b""#);
    world.put(object(&more, 1)).unwrap();
    for (annotations, replicas) in [("", 1), (r#""beemesh.io/singleton":"false""#, 1)] {
        let words = world.put(object(annotations, replicas)).unwrap_err();
        assert!(words.contains("cannot stop being a singleton"), "{words}");
    }
    assert!(world.put(object(SINGLE, 2)).is_err());
    world.put(object(STOPPED, 0)).unwrap();
    assert!(is_one(&world), "it is only stopped");
    assert!(world.put(object("", 1)).is_err());
    world.put(object(SINGLE, 1)).unwrap();
    assert!(is_one(&world));
}

#[test]
fn at_a_lower_level_all_releases_keep_the_same_state() {
    let mut world = World::new(2);
    world.put(object("", 1)).unwrap();
    world.put(object(SINGLE, 1)).unwrap();
    let workload = world.state.workload("db").unwrap();
    assert!(!world.state.is_singleton(workload));
    world.assign(None, Some(1));
    world.apply(admit(3, Some(1)));
    assert_eq!(world.state.seats("db")[0].host, Some(h(3)));
}

#[test]
fn another_machine_in_place_of_its_host_does_not_get_it_at_once() {
    let mut world = World::new(LOSES);
    world.put(object(SINGLE, 1)).unwrap();
    world.assign(None, Some(1));
    // The same machine with another key goes on.
    let own = world.try_apply(admit(3, Some(1)), Some(h(1)));
    assert_eq!(own, Ok(()));
    assert_eq!(world.state.seats("db")[0].host, Some(h(3)));
    assert_eq!(world.homes(), [h(3)]);
    world.apply(admit(4, Some(3)));
    assert_eq!(world.state.seats("db")[0].host, None);
    assert_eq!(world.homes(), []);
    let snapshot = world.state.to_snapshot();
    assert_eq!(State::from_snapshot(snapshot), world.state);
    world.assign(None, Some(4));
    world.apply(Change::RemoveHost { host: h(4) });
    assert_eq!(world.state.seats("db")[0].host, None);
}

#[test]
fn a_singleton_that_leaves_its_data_can_go_anywhere() {
    let mut world = World::new(LOSES);
    world.put(object(SINGLE, 1)).unwrap();
    world.assign(None, Some(1));
    assert_eq!(world.homes(), [h(1)]);
    world.assign(Some(1), None);
    assert_eq!(world.homes(), []);
    // Another workload has its data there.
    world.assign(None, Some(2));
    let mut other = object(SINGLE, 1);
    other.name = "web".into();
    let change = Change::Apply {
        manifest: "web".into(),
        objects: vec![other],
        policy: None,
        keep: false,
        if_index: None,
    };
    world.apply(change);
    let index = world.state.workload("web").unwrap().index;
    world.apply(Change::Assign {
        workload: "web".into(),
        ordinal: 0,
        index,
        from: None,
        host: Some(h(2)),
    });
    world.assign(Some(2), None);
    assert_eq!(world.homes(), [h(2)]);
}
