//! Codec of the table inside a [`crate::token::Token`]'s line.
//!
//! Pure: values to FlatBuffers and back.

use bytes::Bytes;
use flatbuffers::WIPOffset;

use super::{Builder, DecodeError, Field, Message, Slot, Wire, fb, table, table_field};
use crate::{mesh::Contact, token::Token};

impl Message for Token {
    const MARK: &'static str = "BMto";
}

table! { Contact = Contact(ContactArgs) "contact" { host, addresses } }

table! { Token = Token(TokenArgs) "token" { cluster, id, secret, contacts } }

/// Encodes the table.
pub(crate) fn encode(token: &Token) -> Bytes {
    super::encode(token)
}

/// Decodes bytes that [`encode`] wrote.
pub(crate) fn decode(bytes: &[u8]) -> Result<Token, DecodeError> {
    super::decode(bytes)
}
