//! Commands that make hosts members.

use std::collections::BTreeMap;

use beemesh_protocol::{
    HostId,
    state::{Change, Command, Host, TokenRecord},
};

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
