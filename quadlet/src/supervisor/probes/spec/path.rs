//! Pure: the `path` of an HTTP probe as the target of a request.

/// Encodes a path with its query for a request line, as kubelet does: a path without a leading slash gets one, a
/// fragment is dropped, and a character that is not allowed in a request is percent-encoded. A path with an invalid
/// escape is taken literally.
pub(in super::super) fn encoded(path: &str) -> String {
    let (path, is_literal) = match has_valid_escapes(path) {
        true => (path.split('#').next().unwrap_or_default(), false),
        false => (path, true),
    };
    let mut text = String::with_capacity(path.len() + 1);
    if !path.starts_with('/') {
        text.push('/');
    }
    for byte in path.bytes() {
        let is_kept = match byte {
            b'%' | b'?' => !is_literal,
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' => true,
            _ => b"-._~!$&'()*+,;=:@/[]".contains(&byte),
        };
        match is_kept {
            true => text.push(char::from(byte)),
            false => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

fn has_valid_escapes(path: &str) -> bool {
    let mut parts = path.split('%').skip(1);
    let is_valid = |part: &str| {
        let digits = part.as_bytes().get(..2);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    };
    parts.all(is_valid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_becomes_a_target() {
        for (path, expected) in [
            ("", "/"),
            ("healthz", "/healthz"),
            ("/healthz", "/healthz"),
            ("/a?b=c&d", "/a?b=c&d"),
            ("/a%20b#c", "/a%20b"),
            ("/a b\r\nHost: x", "/a%20b%0D%0AHost:%20x"),
            ("/ü", "/%C3%BC"),
            ("/100%?x", "/100%25%3Fx"),
        ] {
            assert_eq!(encoded(path), expected, "{path}");
        }
    }
}
