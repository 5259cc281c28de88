//! Bytes as hex digits.
//!
//! Pure: no I/O, no clock, no randomness. File names, paths and messages show ids, hashes and checksums in this form.

use std::fmt;

/// Prints bytes as lower-case hex digits, two for each.
#[derive(Debug, Clone, Copy)]
pub struct Hex<'a>(pub &'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Decodes exactly `N` bytes from digits of either case; `None` for any other text.
#[must_use]
pub fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != N || !rest.is_empty() {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let mut bytes = [0; N];
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = u8::try_from(digit(*high)? * 16 + digit(*low)?).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_read_back_from_their_digits_and_from_nothing_else() {
        let bytes = [0x00, 0x0f, 0xa0, 0xff];
        assert_eq!(Hex(&bytes).to_string(), "000fa0ff");
        assert_eq!(decode("000fa0ff"), Some(bytes));
        assert_eq!(decode("000FA0FF"), Some(bytes));
        for wrong in [
            "",
            "000fa0f",
            "000fa0ff0",
            "000fa0ff00",
            "000fa0fg",
            "+00fa0ff",
            "éééé",
        ] {
            assert_eq!(decode::<4>(wrong), None, "{wrong:?}");
        }
    }
}
