use beemesh_protocol::{
    peer::{Action, Effect},
    state::Reference,
};

use super::*;

mod assign;
mod hosts;
mod manifests;
mod tokens;

fn object(kind: Kind, name: &str, body: &str, uses: &[(Kind, &str)]) -> Object {
    Object {
        kind,
        namespace: "default".into(),
        name: name.into(),
        body: body.into(),
        hash: [u8::try_from(body.len()).unwrap(); 32],
        references: uses
            .iter()
            .map(|(kind, name)| Reference {
                kind: *kind,
                name: (*name).into(),
                optional: false,
            })
            .collect(),
        replicas: None,
        selector: BTreeMap::new(),
    }
}

fn host(byte: u8, name: &str) -> Host {
    Host {
        id: HostId([byte; 32]),
        name: name.into(),
        addresses: vec![],
        labels: BTreeMap::new(),
        drained: false,
        claims_as: None,
        votes_from_ms: 0,
        lost_at_ms: 0,
        declared_lost: false,
        steady_at_ms: 0,
    }
}

fn at(at_ms: u64, change: Change) -> Command {
    Command::unasked(at_ms, change)
}

fn put(state: &mut State, index: u64, manifest: &str, objects: Vec<Object>) -> Outcome {
    let manifest = manifest.to_owned();
    let change = Change::Apply {
        manifest,
        objects,
        policy: None,
        keep: false,
        if_index: None,
    };
    state.apply(index, &at(index * 1000, change))
}

fn effects(of: &[(Kind, &str, u64, Action)]) -> Outcome {
    let effect = |(kind, name, revision, action): &(Kind, &str, u64, Action)| Effect {
        kind: *kind,
        name: (*name).to_owned(),
        revision: *revision,
        action: *action,
    };
    Outcome::Applied(of.iter().map(effect).collect())
}

fn revisions(state: &State) -> Vec<(&str, u64, u64)> {
    state
        .workloads()
        .map(|w| (w.name.as_str(), w.revision, w.index))
        .collect()
}

use Action::{Created, Removed, Unchanged, Updated};
use Kind::{ConfigMap, Deployment, Pod};

fn founded() -> State {
    let mut state = State::default();
    let found = Change::Found {
        cluster: ClusterId([1; 16]),
        host: host(1, "h1"),
    };
    state.apply(1, &at(0, found));
    state
}

#[test]
fn a_snapshot_holds_everything() {
    let mut state = founded();
    let token = TokenRecord {
        id: [7; 8],
        secret_hash: [8; 32],
        expires_ms: 100,
        uses: 1,
    };
    state.apply(2, &at(0, Change::PutToken(token)));
    put(
        &mut state,
        3,
        "conf",
        vec![object(ConfigMap, "conf", "a", &[])],
    );
    put(
        &mut state,
        4,
        "web",
        vec![
            object(Pod, "web", "b", &[(ConfigMap, "conf")]),
            object(Pod, "db", "b", &[]),
        ],
    );
    put(
        &mut state,
        5,
        "conf",
        vec![object(ConfigMap, "conf", "aa", &[])],
    );
    assert_eq!(State::from_snapshot(state.to_snapshot()), state);
}
