//! Percent-encoding of names in a URI.
//!
//! Pure: no I/O, no clock, no randomness.

use std::fmt::Write as _;

/// Encodes every byte as `%XX` except RFC 3986's unreserved ones, so that no byte has a meaning in a path or a query.
#[must_use]
pub fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_has_a_meaning_in_a_uri_is_left() {
        assert_eq!(encode("aZ09-._~"), "aZ09-._~");
        assert_eq!(encode("a/../b?x=1&y#%"), "a%2F..%2Fb%3Fx%3D1%26y%23%25");
        assert_eq!(encode("ü \n"), "%C3%BC%20%0A");
    }
}
