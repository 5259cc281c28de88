//! The join token: one line of text that a user can copy.
//!
//! Pure: text in, [`Token`] out and back. The line is `beemesh1-` and base58 of a FlatBuffers table followed by the
//! first four bytes of its SHA-256. A host can therefore refuse a truncated or altered token without any network
//! access.

use sha2::{Digest, Sha256};

use crate::{ClusterId, codec, mesh::Contact};

/// The data that a new host needs to join.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// The cluster to join.
    pub cluster: ClusterId,
    /// The token's id in the replicated state.
    pub id: [u8; 8],
    /// Proves possession of the token; only its hash is replicated.
    pub secret: [u8; 32],
    /// Members to ask, at most [`CONTACTS_MAX`].
    pub contacts: Vec<Contact>,
}

/// A token names at most this many members, so that it stays one line.
pub const CONTACTS_MAX: usize = 5;
/// A token names at most this many addresses of a member, so that it stays one line.
pub const ADDRESSES_MAX: usize = 8;

/// The start of every token; the digit is the format's version.
const PREFIX: &str = "beemesh1-";
/// Number of bytes of the SHA-256 at the end.
const CHECKSUM: usize = 4;
/// Longer lines are refused unread, because the time of base58 grows with the square of the length. Five members with
/// eight addresses of 100 bytes each make 6,000 characters.
const LINE_MAX: usize = 8 << 10;

/// Why a line is not a token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It does not begin with `beemesh1-`.
    #[error("a join token begins with `beemesh1-`")]
    Prefix,
    /// It was truncated or altered.
    #[error("the join token is damaged: copy the whole line again")]
    Damaged,
}

impl Token {
    /// Encodes the line, without a line end. It omits contacts and addresses beyond [`CONTACTS_MAX`] and
    /// [`ADDRESSES_MAX`].
    #[must_use]
    pub fn to_line(&self) -> String {
        let mut short = self.clone();
        short.contacts.truncate(CONTACTS_MAX);
        for contact in &mut short.contacts {
            contact.addresses.truncate(ADDRESSES_MAX);
        }
        let mut bytes = codec::token::encode(&short).to_vec();
        let sum = checksum(&bytes);
        bytes.extend_from_slice(&sum);
        format!("{PREFIX}{}", bs58::encode(bytes).into_string())
    }

    /// Parses a line and ignores white space around it.
    ///
    /// # Errors
    ///
    /// If the line differs in any character from what [`Token::to_line`] wrote.
    pub fn from_line(line: &str) -> Result<Self, TokenError> {
        let text = line.trim().strip_prefix(PREFIX).ok_or(TokenError::Prefix)?;
        if text.len() > LINE_MAX {
            return Err(TokenError::Damaged);
        }
        let bytes = bs58::decode(text)
            .into_vec()
            .map_err(|_| TokenError::Damaged)?;
        let (table, sum) = bytes
            .split_last_chunk::<CHECKSUM>()
            .ok_or(TokenError::Damaged)?;
        if *sum != checksum(table) {
            return Err(TokenError::Damaged);
        }
        let token = codec::token::decode(table).map_err(|_| TokenError::Damaged)?;
        let short = |contact: &Contact| contact.addresses.len() <= ADDRESSES_MAX;
        if token.contacts.len() > CONTACTS_MAX || !token.contacts.iter().all(short) {
            return Err(TokenError::Damaged);
        }
        Ok(token)
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // No log may contain the secret.
        f.debug_struct("Token")
            .field("cluster", &self.cluster)
            .field("contacts", &self.contacts)
            .finish_non_exhaustive()
    }
}

/// SHA-256 of a token's secret. The replicated state has this hash, and a join request is compared with it.
#[must_use]
pub fn secret_hash(secret: &[u8; 32]) -> [u8; 32] {
    Sha256::digest(secret).into()
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM] {
    let [a, b, c, d, ..] = <[u8; 32]>::from(Sha256::digest(bytes));
    [a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::HostId;

    fn token() -> Token {
        let contact = |key| Contact {
            host: HostId([key; 32]),
            addresses: vec![
                "/ip4/10.0.0.7/udp/4701/quic-v1".to_owned(),
                "/ip4/10.0.0.7/tcp/4701".to_owned(),
            ],
        };
        Token {
            cluster: ClusterId([1; 16]),
            id: [2; 8],
            secret: [3; 32],
            contacts: vec![contact(4), contact(5)],
        }
    }

    #[test]
    fn a_line_reads_back_whatever_white_space_was_copied_with_it() {
        let line = token().to_line();
        assert!(line.starts_with("beemesh1-"), "{line}");
        assert!(line.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'));
        for copied in [line.clone(), format!("  {line}\r\n")] {
            assert_eq!(Token::from_line(&copied), Ok(token()));
        }
    }

    #[test]
    fn what_would_make_the_line_too_long_is_left_out() {
        let mut long = token();
        long.contacts = vec![long.contacts[0].clone(); CONTACTS_MAX + 1];
        for contact in &mut long.contacts {
            contact.addresses = vec!["/".to_owned() + &"a".repeat(99); ADDRESSES_MAX + 1];
        }
        let line = long.to_line();
        assert!(line.len() < LINE_MAX, "{}", line.len());
        let read = Token::from_line(&line).unwrap();
        assert_eq!(read.contacts.len(), CONTACTS_MAX);
        assert_eq!(read.contacts[0].addresses.len(), ADDRESSES_MAX);
    }

    #[test]
    fn every_changed_missing_doubled_or_swapped_character_is_refused() {
        let line = token().to_line();
        let refuse = |text: String| assert!(Token::from_line(&text).is_err(), "{text}");
        for at in 0..line.len() {
            let (head, tail) = line.split_at(at);
            refuse(head.to_owned());
            refuse(format!("{head}{}", &tail[1..]));
            refuse(format!("{head}{}{tail}", &tail[..1]));
            let same = line.as_bytes()[at];
            for other in (b' '..=b'~').filter(|other| *other != same) {
                // White space at the end is not part of the line; in this case the test repeats a truncation from
                // above.
                refuse(format!("{head}{}{}", char::from(other), &tail[1..]));
            }
            if let Some(next) = tail.as_bytes().get(1).filter(|next| **next != same) {
                refuse(format!(
                    "{head}{}{}{}",
                    char::from(*next),
                    char::from(same),
                    &tail[2..]
                ));
            }
        }
        for other in [
            "",
            "beemesh1-",
            "beemesh2-abc",
            "beemesh1-é",
            &format!("{PREFIX}{}", "1".repeat(1 << 20)),
        ] {
            refuse(other.to_owned());
        }
    }
}
