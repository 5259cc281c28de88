//! Join tokens, without their secrets.
//!
//! Pure. Each function checks everything before it changes anything, so a refusal leaves the state unchanged.

use std::sync::Arc;

use beemesh_protocol::{peer::Outcome, state::TokenRecord};

use super::{Decision, State, missing, refused};

/// Maximum number of join tokens; the oldest expired ones are removed first.
pub(crate) const TOKENS_MAX: usize = 256;
/// The refusal of any other token.
pub(crate) const NO_SUCH_TOKEN: &str = "the join token is unknown, used up, revoked or expired: create a new token with `beemesh token create`";

impl State {
    /// The join tokens that are valid at `at_ms`, in milliseconds since 1970.
    pub(crate) fn tokens(&self, at_ms: u64) -> impl Iterator<Item = &TokenRecord> {
        self.tokens
            .values()
            .filter(move |token| can_be_used(token, at_ms))
    }

    /// Whether a token with this secret is valid at `at_ms`, in milliseconds since 1970.
    pub(crate) fn admits(&self, token: &[u8; 8], secret_hash: &[u8; 32], at_ms: u64) -> bool {
        let record = self.tokens.get(token);
        record
            .is_some_and(|record| record.secret_hash == *secret_hash && can_be_used(record, at_ms))
    }

    pub(super) fn put_token(&mut self, at_ms: u64, token: &TokenRecord) -> Decision {
        let tokens = Arc::make_mut(&mut self.tokens);
        tokens.retain(|_, token| can_be_used(token, at_ms));
        if tokens.len() >= TOKENS_MAX {
            return Err(refused(format!(
                "{TOKENS_MAX} join tokens are unused, which is the most: wait until some expire, or revoke some"
            )));
        }
        tokens.insert(token.id, token.clone());
        Ok(Outcome::Done)
    }

    pub(super) fn revoke_token(&mut self, token: &[u8; 8]) -> Decision {
        match Arc::make_mut(&mut self.tokens).remove(token) {
            Some(_) => Ok(Outcome::Done),
            None => Err(missing(
                "join token not found: it was used up or revoked, or it has expired",
            )),
        }
    }
}

fn can_be_used(token: &TokenRecord, at_ms: u64) -> bool {
    token.expires_ms > at_ms && token.uses > 0
}
