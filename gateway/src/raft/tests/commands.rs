//! Commands that make hosts members, and that apply manifests.

use std::collections::BTreeMap;

use beemesh_protocol::{
    HostId,
    state::{Change, Command, Host, Kind, Object, TokenRecord},
};
use sha2::{Digest, Sha256};

const TOKEN: [u8; 8] = [2; 8];
const SECRET: [u8; 32] = [3; 32];

/// A host as a member of the cluster.
pub(crate) fn member(host: HostId) -> Host {
    Host {
        id: host,
        name: format!("h{}", host.0[0]),
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

/// A token that admits this many hosts.
pub(crate) fn token(uses: usize) -> Command {
    let token = TokenRecord {
        id: TOKEN,
        secret_hash: SECRET,
        expires_ms: 1,
        uses: u32::try_from(uses).unwrap_or(u32::MAX),
    };
    Command::unasked(0, Change::PutToken(token))
}

/// Admits a host with that token.
pub(crate) fn admit(host: HostId) -> Command {
    let (token, secret_hash, host) = (TOKEN, SECRET, member(host));
    let change = Change::Admit {
        token,
        secret_hash,
        host,
        replaces: None,
    };
    Command::unasked(0, change)
}

/// A manifest with one ConfigMap of about this size.
pub(crate) fn apply(manifest: usize, content: usize, size: usize) -> Command {
    let name = format!("config{manifest}");
    let body = format!("{{\"data\":{{\"n\":\"{content}{}\"}}}}", "x".repeat(size)).into_bytes();
    let objects = vec![Object {
        kind: Kind::ConfigMap,
        namespace: "default".into(),
        name: name.clone(),
        hash: Sha256::digest(&body).into(),
        body,
        references: Vec::new(),
        replicas: None,
        selector: BTreeMap::new(),
    }];
    let apply = Change::Apply {
        manifest: name,
        objects,
        policy: None,
        keep: false,
        if_index: None,
    };
    Command::unasked(1, apply)
}
