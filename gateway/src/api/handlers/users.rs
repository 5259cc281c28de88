//! Creates, lists and revokes users of the remote API, and shows the audit log.
//!
//! Shell. A user's private key is only in the response that creates the user. The state has the hash of the user's
//! certificate, and no other certificate is accepted.

use std::{net::IpAddr, time::Duration};

use axum::{
    Extension, Json,
    body::Body,
    extract::{Path, State},
    http::{Request, StatusCode},
};
use beemesh_protocol::{
    api::{Audit, Audited, ClientConfig, Revoked, User, UserAnswer, UserRequest, Users},
    mesh::API_PORT,
    peer::Outcome,
    state::{Authority, Change, UserRecord},
};
use pem::{EncodeConfig, LineEnding, Pem};
use tokio::time::Instant;

use crate::{
    api::{
        ApiError, Shared,
        request::{self, Asked, Caller, NoQuery, ReadQuery, TimeoutQuery, small_body},
        submit::{confirm, look, propose, unapplied},
    },
    clock::now_ms,
    cluster::view::Scene,
    local::sealing_key::{SealingKey, from_hex},
    pki::{
        authority::{self, AuthorityError, Issuer, fingerprint},
        sealing_keys::{self, NoKey},
    },
};

/// The longest lifetime of a certificate. A user who is needed longer can be created again.
const TTL_MAX_SECONDS: u64 = 10 * 365 * 24 * 3600;
/// Maximum number of servers in a client's configuration. Each of them can reach all hosts.
const SERVERS_MAX: usize = 16;
/// Maximum length of a user's name, in bytes.
const NAME_MAX: usize = 63;

pub(in crate::api) async fn create(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    Asked(query): Asked<TimeoutQuery>,
    request: Request<Body>,
) -> Result<(StatusCode, Json<UserAnswer>), ApiError> {
    let gateway = &shared.gateway;
    let timeout = request::timeout(query.timeout)?;
    let asked: UserRequest = small_body(request).await?;
    check(&asked)?;
    confirm(gateway, Instant::now() + timeout).await?;
    let (authority, sealing) = opened(&shared, &caller, timeout).await?;
    let scene = gateway.scene();
    let made_ms = now_ms();
    let issuer = Issuer::open(&authority, &sealing, since_1970(made_ms));
    let good_for = Duration::from_secs(asked.ttl_seconds);
    let issued = issuer.and_then(|issuer| issuer.user(&asked.name, good_for));
    let issued = issued.map_err(failed)?;
    let expires_ms = made_ms.saturating_add(asked.ttl_seconds * 1000);
    let change = Change::PutUser(UserRecord {
        name: asked.name.clone(),
        role: asked.role,
        certificate: fingerprint(&issued.certificate),
        made_ms,
        expires_ms,
    });
    let committed = propose(&shared, caller, change, timeout).await?;
    if !matches!(committed.outcome, Outcome::Done) {
        return Err(unapplied(committed.outcome, &[]));
    }
    let config = ClientConfig {
        user: asked.name,
        servers: servers(&scene),
        authority: pem::encode_config(
            &Pem::new("CERTIFICATE", authority.certificate),
            EncodeConfig::new().set_line_ending(LineEnding::LF),
        ),
        certificate: issued.certificate_pem,
        key: issued.key_pem,
    };
    let answer = UserAnswer {
        index: committed.index,
        config,
        expires_at_ms: expires_ms,
    };
    Ok((StatusCode::CREATED, Json(answer)))
}

pub(in crate::api) async fn list(
    State(shared): State<Shared>,
    Asked(query): Asked<ReadQuery>,
) -> Result<Json<Users>, ApiError> {
    let scene = look(&shared.gateway, &query).await?;
    let users = scene.state.users().map(|user| User {
        name: user.name.clone(),
        role: user.role,
        made_at_ms: user.made_ms,
        expires_at_ms: user.expires_ms,
    });
    let users = users.collect();
    Ok(Json(Users { users }))
}

pub(in crate::api) async fn revoke(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    Path(user): Path<String>,
    Asked(query): Asked<TimeoutQuery>,
) -> Result<Json<Revoked>, ApiError> {
    let timeout = request::timeout(query.timeout)?;
    let revoked = propose(&shared, caller, Change::RevokeUser { user }, timeout).await?;
    match revoked.outcome {
        Outcome::Done => Ok(Json(Revoked {
            index: revoked.index,
        })),
        other => Err(unapplied(other, &[]).hint("`beemesh user list` lists them")),
    }
}

/// Replaces the certificate authority. All certificates of the previous one become invalid.
pub(in crate::api) async fn reset(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    Asked(query): Asked<TimeoutQuery>,
) -> Result<Json<Revoked>, ApiError> {
    let timeout = request::timeout(query.timeout)?;
    confirm(&shared.gateway, Instant::now() + timeout).await?;
    let scene = shared.gateway.scene();
    let replaced = scene.state.authority().map(|authority| authority.key);
    let index = make(&shared, &caller, timeout, replaced).await?;
    Ok(Json(Revoked { index }))
}

pub(in crate::api) async fn audit(
    State(shared): State<Shared>,
    Asked(query): Asked<ReadQuery>,
) -> Result<Json<Audit>, ApiError> {
    let scene = look(&shared.gateway, &query).await?;
    let changes = scene.state.audit().map(|record| Audited {
        index: record.index,
        at_ms: record.at_ms,
        action: record.what.clone(),
        name: record.name.clone(),
        detail: record
            .context
            .as_ref()
            .map_or_else(String::new, |context| context.detail.clone()),
        who: record.origin.who.clone(),
        from: record.origin.from.clone(),
        host: match &record.context {
            Some(context) if !context.host_name.is_empty() => context.host_name.clone(),
            _ => scene.name(record.origin.host),
        },
    });
    let changes = changes.collect();
    Ok(Json(Audit { changes }))
}

/// Sends the key of the certificate authority to another member.
pub(in crate::api) async fn sealing_key(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    _: Asked<NoQuery>,
) -> Result<Vec<u8>, ApiError> {
    let id = from_hex(&id).ok_or_else(|| ApiError::bad_request("not a key's id"))?;
    let key = shared.gateway.home.sealing_key(id);
    let key = key.map_err(|error| ApiError::internal(error.to_string()))?;
    let key = key.ok_or_else(|| ApiError::not_found("this host does not have that key"))?;
    tracing::debug!(%caller, "sent the key of the certificate authority");
    Ok(key.to_vec())
}

/// The cluster's certificate authority and its key. The first request that needs them creates them.
async fn opened(
    shared: &Shared,
    caller: &Caller,
    timeout: Duration,
) -> Result<(Authority, SealingKey), ApiError> {
    let gateway = &shared.gateway;
    let known = || gateway.node.state().borrow().state.authority().cloned();
    if known().is_none() {
        make(shared, caller, timeout, None).await?;
        confirm(gateway, Instant::now() + timeout).await?;
    }
    let authority = known().ok_or_else(|| {
        ApiError::internal(
            "the cluster has no certificate authority after the change that creates it",
        )
    })?;
    let sealing = sealing_keys::obtain(gateway, authority.key)
        .await
        .map_err(no_key)?;
    Ok(((*authority).clone(), sealing))
}

/// Creates a certificate authority that replaces the one with the key `replaced`, or the first one. For the first one
/// it is no failure if another host has created one in the meantime.
async fn make(
    shared: &Shared,
    caller: &Caller,
    timeout: Duration,
    replaced: Option<[u8; 32]>,
) -> Result<u64, ApiError> {
    let gateway = &shared.gateway;
    let (authority, sealing) = authority::found(since_1970(now_ms())).map_err(failed)?;
    let kept = gateway.home.set_sealing_key(&sealing);
    kept.map_err(|error| ApiError::internal(error.to_string()))?;
    let change = Change::PutAuthority {
        authority,
        replaced,
    };
    let committed = propose(shared, caller.clone(), change, timeout).await?;
    match committed.outcome {
        Outcome::Done => Ok(committed.index),
        Outcome::Refused(_) if replaced.is_none() => Ok(committed.index),
        other => Err(unapplied(other, &[])),
    }
}

fn no_key(error: NoKey) -> ApiError {
    match error {
        NoKey::Nobody => ApiError::unavailable(error.to_string()).hint(
            "try again when another member is back; `beemesh user reset` creates a new certificate authority, and then all users must be created again",
        ),
        NoKey::Home(error) => ApiError::internal(error.to_string()),
    }
}

fn failed(error: AuthorityError) -> ApiError {
    ApiError::internal(error.to_string())
}

fn since_1970(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn check(asked: &UserRequest) -> Result<(), ApiError> {
    let plain =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-._".contains(&byte);
    let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let name = asked.name.as_bytes();
    let good = name.len() <= NAME_MAX
        && name.iter().all(|byte| plain(*byte))
        && edge(name.first())
        && edge(name.last());
    if !good {
        return Err(ApiError::bad_request(format!(
            "{:?} is not a user name: use 1 to {NAME_MAX} of a-z, 0-9, `-`, `.` and `_`, with a letter or digit at both ends",
            asked.name
        )));
    }
    if !(1..=TTL_MAX_SECONDS).contains(&asked.ttl_seconds) {
        return Err(ApiError::bad_request(format!(
            "ttlSeconds={}: must be 1 to {TTL_MAX_SECONDS} (ten years)",
            asked.ttl_seconds
        )));
    }
    Ok(())
}

/// The servers in a user's configuration: this host first, then reachable hosts, then the others.
fn servers(scene: &Scene) -> Vec<String> {
    let mut hosts: Vec<_> = scene.state.hosts().values().collect();
    hosts.sort_by_key(|host| {
        (
            host.id != scene.host,
            !scene.reachable.contains(&host.id),
            host.id,
        )
    });
    let mut servers = Vec::new();
    for address in hosts.iter().flat_map(|host| addresses(&host.addresses)) {
        let server = std::net::SocketAddr::new(address, API_PORT).to_string();
        if !servers.contains(&server) {
            servers.push(server);
        }
    }
    servers.truncate(SERVERS_MAX);
    servers
}

/// The IP addresses in multiaddrs: `/ip4/192.0.2.7/udp/4701/quic-v1`.
pub(in crate::api) fn addresses(multiaddrs: &[String]) -> Vec<IpAddr> {
    let mut found = Vec::new();
    for multiaddr in multiaddrs {
        let mut parts = multiaddr.split('/').skip(1);
        let ip = match parts.next() {
            Some("ip4" | "ip6") => parts.next().and_then(|ip| ip.parse().ok()),
            _ => None,
        };
        found.extend(ip.filter(|ip| !found.contains(ip)));
    }
    found
}

#[cfg(test)]
mod tests {
    use beemesh_protocol::api::UserRole;

    use super::*;

    #[test]
    fn names_and_times_of_users_are_bounded() {
        let asked = |name: &str, ttl_seconds| UserRequest {
            name: name.to_owned(),
            role: UserRole::Viewer,
            ttl_seconds,
        };
        for (name, ttl, good) in [
            ("alice", 60, true),
            ("ci.build-1_x", TTL_MAX_SECONDS, true),
            ("alice", 0, false),
            ("alice", TTL_MAX_SECONDS + 1, false),
            ("", 60, false),
            ("Alice", 60, false),
            ("a b", 60, false),
            ("-a", 60, false),
            ("uid 0", 60, false),
            (&"a".repeat(64), 60, false),
        ] {
            assert_eq!(check(&asked(name, ttl)).is_ok(), good, "{name:?} {ttl}");
        }
    }

    #[test]
    fn addresses_are_taken_out_of_multiaddrs_once_each() {
        let multiaddrs = [
            "/ip4/192.0.2.7/udp/4701/quic-v1",
            "/ip4/192.0.2.7/tcp/4701",
            "/ip6/2001:db8::7/tcp/4701",
            "/dns/x/tcp/1",
            "nonsense",
        ]
        .map(str::to_owned);
        let expected: Vec<IpAddr> = ["192.0.2.7", "2001:db8::7"]
            .map(|ip| ip.parse().unwrap())
            .into();
        assert_eq!(addresses(&multiaddrs), expected);
    }
}
