//! Creates, lists and revokes join tokens.
//!
//! Shell. A token's secret is only in the response that creates it, because the replicated state has its hash alone.

use axum::{
    Extension, Json,
    body::Body,
    extract::{Path, State},
    http::{Request, StatusCode},
};
use beemesh_protocol::{
    api::{JoinToken, Revoked, TokenAnswer, TokenRequest, Tokens},
    mesh::Contact,
    peer::Outcome,
    state::{Change, TokenRecord},
    token::{CONTACTS_MAX, Token},
};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::{
    api::{
        ApiError, Shared,
        request::{self, Asked, Caller, ReadQuery, TimeoutQuery, small_body},
        submit::{confirm, look, propose, unapplied},
    },
    clock::now_ms,
    cluster::{change::token_id, state::HOSTS_MAX, view::Scene},
    pki::authority::random,
};

/// The longest lifetime of a token. A user can create another one later.
const TTL_MAX_SECONDS: u64 = 7 * 24 * 3600;
/// The largest number of joins of a token: the maximum number of hosts.
const USES_MAX: u32 = HOSTS_MAX as u32;

pub(in crate::api) async fn create(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    Asked(query): Asked<TimeoutQuery>,
    request: Request<Body>,
) -> Result<(StatusCode, Json<TokenAnswer>), ApiError> {
    let gateway = &shared.gateway;
    let timeout = request::timeout(query.timeout)?;
    let asked: TokenRequest = small_body(request).await?;
    if !(1..=TTL_MAX_SECONDS).contains(&asked.ttl_seconds) {
        return Err(ApiError::bad_request(format!(
            "ttlSeconds={}: must be 1 to {TTL_MAX_SECONDS} (7 days)",
            asked.ttl_seconds
        )));
    }
    if !(1..=USES_MAX).contains(&asked.uses) {
        return Err(ApiError::bad_request(format!(
            "uses={}: must be 1 to {USES_MAX}",
            asked.uses
        )));
    }
    confirm(gateway, Instant::now() + timeout).await?;
    let scene = gateway.scene();
    let cluster = scene.state.cluster().ok_or_else(|| {
        ApiError::unavailable("this host is not a member of a cluster yet")
            .hint("`beemesh status` shows what it waits for")
    })?;
    let drawn = random().and_then(|id| Ok((id, random()?)));
    let (id, secret): ([u8; 8], [u8; 32]) =
        drawn.map_err(|error| ApiError::internal(error.to_string()))?;
    let expires_at_ms = now_ms().saturating_add(asked.ttl_seconds * 1000);
    let change = Change::PutToken(TokenRecord {
        id,
        secret_hash: Sha256::digest(secret).into(),
        expires_ms: expires_at_ms,
        uses: asked.uses,
    });
    let committed = propose(&shared, caller, change, timeout).await?;
    if !matches!(committed.outcome, Outcome::Done) {
        return Err(unapplied(committed.outcome, &[]));
    }
    let token = Token {
        cluster,
        id,
        secret,
        contacts: contacts(&scene),
    };
    let answer = TokenAnswer {
        token: token.to_line(),
        id: token_id(&id),
        expires_at_ms,
    };
    Ok((StatusCode::CREATED, Json(answer)))
}

pub(in crate::api) async fn list(
    State(shared): State<Shared>,
    Asked(query): Asked<ReadQuery>,
) -> Result<Json<Tokens>, ApiError> {
    let scene = look(&shared.gateway, &query).await?;
    let mut tokens: Vec<_> = scene
        .state
        .tokens(now_ms())
        .map(|token| JoinToken {
            id: token_id(&token.id),
            uses: token.uses,
            expires_at_ms: token.expires_ms,
        })
        .collect();
    tokens.sort_by_key(|token| token.expires_at_ms);
    Ok(Json(Tokens { tokens }))
}

pub(in crate::api) async fn revoke(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    Asked(query): Asked<TimeoutQuery>,
) -> Result<Json<Revoked>, ApiError> {
    let timeout = request::timeout(query.timeout)?;
    let token = read(&id).ok_or_else(|| {
        ApiError::bad_request(format!(
            "`{id}` is not the id of a join token, which has sixteen hexadecimal digits"
        ))
        .hint("`beemesh token list` prints the ids")
    })?;
    let revoked = propose(&shared, caller, Change::RevokeToken { token }, timeout).await?;
    match revoked.outcome {
        Outcome::Done => Ok(Json(Revoked {
            index: revoked.index,
        })),
        other => Err(unapplied(other, &[]).hint("`beemesh token list` lists the valid tokens")),
    }
}

fn read(text: &str) -> Option<[u8; 8]> {
    let digits = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let number = digits.then(|| u64::from_str_radix(text, 16).ok())??;
    Some(number.to_be_bytes())
}

/// The members that a new host should contact: this host first, then reachable hosts, then the others.
fn contacts(scene: &Scene) -> Vec<Contact> {
    let mut hosts: Vec<_> = scene.state.hosts().values().collect();
    hosts.retain(|host| !host.addresses.is_empty());
    hosts.sort_by_key(|host| {
        (
            host.id != scene.host,
            !scene.reachable.contains(&host.id),
            host.id,
        )
    });
    let contact = |host: &beemesh_protocol::state::Host| Contact {
        host: host.id,
        addresses: host.addresses.clone(),
    };
    hosts.into_iter().take(CONTACTS_MAX).map(contact).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_and_nothing_else_is_one() {
        for id in [[0; 8], [0xff; 8], [0, 1, 2, 3, 4, 5, 6, 7]] {
            assert_eq!(read(&token_id(&id)), Some(id));
        }
        for other in [
            "",
            "0",
            "+123456789abcdef",
            "00000000000000000",
            "000000000000000g",
            "é234567890123456",
        ] {
            assert_eq!(read(other), None, "{other}");
        }
    }
}
