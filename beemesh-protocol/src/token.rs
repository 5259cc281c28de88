//! The join token: one copyable line.
//!
//! Pure: text in, [`Token`] out and back. The line is `beemesh1-` and base58 of a FlatBuffers table followed by the
//! first four bytes of its SHA-256, so that a truncated or altered token is refused before any network is used.

use crate::{ClusterId, mesh::Contact};

/// What a new host needs to become a member.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// The cluster it admits to.
    pub cluster: ClusterId,
    /// Names the token in the replicated state.
    pub id: [u8; 8],
    /// Proves possession; only its hash is replicated.
    pub secret: [u8; 32],
    /// Members to ask, at most [`CONTACTS_MAX`].
    pub contacts: Vec<Contact>,
}

/// A token names at most this many members, so that it stays one line.
pub const CONTACTS_MAX: usize = 5;

/// Why a line is not a token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It does not begin with `beemesh1-`.
    #[error("a join token begins with `beemesh1-`")]
    Prefix,
    /// It was cut or altered.
    #[error("the join token is damaged: copy the whole line again")]
    Damaged,
}
