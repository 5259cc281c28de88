//! A join token: the line that a user pastes, and arbitrary content with a correct checksum.

#![no_main]

use beemesh_protocol::token::Token;
use sha2::{Digest, Sha256};

/// The longest content in bytes. The decoder refuses a longer line by its length alone, and base58 takes quadratic
/// time.
const TABLE_MAX: usize = 6 << 10;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(line) = std::str::from_utf8(bytes) {
        read(line);
    }
    let bytes = &bytes[..bytes.len().min(TABLE_MAX)];
    let sum = &Sha256::digest(bytes)[..4];
    let text = bs58::encode([bytes, sum].concat()).into_string();
    read(&format!("beemesh1-{text}"));
});

fn read(line: &str) {
    if let Ok(token) = Token::from_line(line) {
        assert!(Token::from_line(&token.to_line()).as_ref() == Ok(&token));
    }
}
