//! The key that seals the private key of the cluster's authority, and the id of that key.
//!
//! Pure: no I/O, no clock.

use sha2::{Digest, Sha256};

/// Seals the private key; only members have it.
pub(crate) type SealingKey = [u8; 32];

/// Returns the id of a sealing key in the replicated state.
pub(crate) fn key_id(key: &SealingKey) -> [u8; 32] {
    Sha256::digest(key).into()
}

/// Formats an id for paths and file names.
pub(crate) fn hex(id: &[u8; 32]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Parses the output of [`hex`].
pub(crate) fn from_hex(text: &str) -> Option<[u8; 32]> {
    let digits = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let mut id = [0; 32];
    for (at, byte) in id.iter_mut().enumerate().filter(|_| digits) {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    digits.then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_and_nothing_else_is_one() {
        let id: [u8; 32] = std::array::from_fn(|at| (at * 8) as u8);
        assert_eq!(from_hex(&hex(&id)), Some(id));
        for other in [
            String::new(),
            "0".repeat(63),
            "g".repeat(64),
            "é".repeat(32),
            "+0".repeat(32),
        ] {
            assert_eq!(from_hex(&other), None, "{other}");
        }
    }
}
