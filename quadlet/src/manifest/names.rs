//! Checks the names of keys and images.
//!
//! Pure: no I/O, no clock, no randomness. Names become parts of file names, unit names and Podman's names, so an
//! accepted name holds letters, digits, `-` and `.` only.

use beemesh_protocol::workload::is_label;

/// The rule in the message about a refused name.
pub(super) const NAME_RULE: &str =
    "use lower-case letters, digits, `-` and `.`, a letter or digit at both ends";

/// The rule in the message about a refused label.
pub(super) const LABEL_RULE: &str =
    "use at most 63 lower-case letters, digits and `-`, a letter or digit at both ends";

/// Whether the text can be a key of a ConfigMap or Secret: a key becomes a file name.
pub(super) fn is_key(key: &str) -> bool {
    (1..=253).contains(&key.len())
        && key
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        && key != "."
        && !key.starts_with("..")
}

/// The rule in the message about a refused key.
pub(super) const KEY_RULE: &str =
    "use letters, digits, `-`, `_` and `.`, and do not begin with `..`";

/// The parts of an image reference that are needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ImageName<'a> {
    pub(crate) tag: Option<&'a str>,
    pub(crate) digest: Option<&'a str>,
    /// Whether it names its registry.
    pub(crate) qualified: bool,
}

impl ImageName<'_> {
    /// Whether the registry may, by convention, hold another image under this name later.
    pub(crate) fn floats(&self) -> bool {
        self.digest.is_none() && self.tag.is_none_or(|tag| tag == "latest")
    }
}

/// Words before the first `:` that Podman takes as a transport. With all but `docker`, the rest names files of the host
/// or images of another program. A registry with such a name is not reachable either: for `dir:5000/x` Podman reads the
/// folder `/5000/x`, even if it has an image of that name.
const TRANSPORTS: &[&str] = &[
    "atomic",
    "containers-storage",
    "dir",
    "docker-archive",
    "docker-daemon",
    "oci",
    "oci-archive",
    "ostree",
    "sif",
    "tarball",
];

/// Parses an image reference: `[REGISTRY/]PATH[:TAG][@DIGEST]`.
pub(crate) fn image(reference: &str) -> Result<ImageName<'_>, &'static str> {
    if reference
        .split_once(':')
        .is_some_and(|(first, _)| TRANSPORTS.contains(&first))
    {
        return Err(
            "Podman would not ask a registry for it, but look for it on the host, because of the word before the first `:`; name the registry in full: REGISTRY.DOMAIN/PATH:TAG",
        );
    }
    let (named, digest) = match reference.split_once('@') {
        Some((named, digest)) => (named, Some(digest)),
        None => (reference, None),
    };
    if digest.is_some_and(|digest| !is_digest(digest)) {
        return Err("what follows `@` is not a digest such as `sha256:…`");
    }
    let (name, tag) = match named.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        Some(_) | None => (named, None),
    };
    if tag.is_some_and(|tag| !is_tag(tag)) {
        return Err("the tag may have at most 128 letters, digits, `_`, `-` and `.`");
    }
    let (registry, path) = match name.split_once('/') {
        Some((first, path)) if first.contains(['.', ':']) || first == "localhost" => {
            (Some(first), path)
        }
        Some(_) | None => (None, name),
    };
    if registry.is_some_and(|registry| !is_registry(registry)) {
        return Err("what comes before the first `/` is not a registry's HOST or HOST:PORT");
    }
    if name.len() > 255 {
        return Err("the name is longer than 255 bytes");
    }
    if !path.split('/').all(is_path_part) {
        return Err(
            "use [REGISTRY/]PATH[:TAG] with a path of lower-case letters, digits, `-`, `_` and `.`",
        );
    }
    Ok(ImageName {
        tag,
        digest,
        qualified: registry.is_some(),
    })
}

fn is_digest(digest: &str) -> bool {
    digest.split_once(':').is_some_and(|(algorithm, hex)| {
        matches!((algorithm, hex.len()), ("sha256", 64) | ("sha512", 128))
            && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    })
}

fn is_tag(tag: &str) -> bool {
    (1..=128).contains(&tag.len())
        && tag
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
        && !tag.starts_with(['.', '-'])
}

fn is_registry(registry: &str) -> bool {
    let (host, port) = match registry.rsplit_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (registry, None),
    };
    port.is_none_or(|port| port.parse::<u16>().is_ok())
        && host
            .split('.')
            .all(|label| is_label(&label.to_ascii_lowercase()))
}

/// Whether the text consists of runs of letters and digits, separated by `.`, `_`, `__` or dashes.
fn is_path_part(part: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = part.as_bytes();
    let edges = bytes.first().copied().is_some_and(alphanumeric)
        && bytes.last().copied().is_some_and(alphanumeric);
    edges
        && bytes.split(|b| alphanumeric(*b)).all(|between| {
            matches!(between, b"" | b"." | b"_" | b"__") || between.iter().all(|b| *b == b'-')
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_taken_apart_as_registries_do() {
        let ok = |tag, digest, qualified| {
            Ok(ImageName {
                tag,
                digest,
                qualified,
            })
        };
        let digest = format!("sha256:{}", "a".repeat(64));
        let with_digest = format!("quay.io/a/b:1@{digest}");
        for (reference, expected) in [
            ("nginx", ok(None, None, false)),
            ("library/nginx:1.25", ok(Some("1.25"), None, false)),
            ("localhost/beemesh-demo:1", ok(Some("1"), None, true)),
            ("localhost:5000/a__b/c-d.e", ok(None, None, true)),
            // Words of transports in places where Podman does not read them as transports.
            ("localhost/dir:x", ok(Some("x"), None, true)),
            ("dir.example:5000/x", ok(None, None, true)),
            ("quay.io/oci/tarball:1", ok(Some("1"), None, true)),
            ("dir", ok(None, None, false)),
            ("dirs:1", ok(Some("1"), None, false)),
            ("docker:24", ok(Some("24"), None, false)),
            ("docker:5000/x", ok(None, None, true)),
            (&with_digest, ok(Some("1"), Some(digest.as_str()), true)),
        ] {
            assert_eq!(image(reference), expected, "{reference}");
        }
        for wrong in [
            "",
            "Nginx:1",
            "a b",
            "a:",
            "a@sha256:12",
            "docker://a",
            "a//b",
            "../a",
            "a:1\n",
            "-a",
            "quay.io:99999/a",
            "a..b",
            "dir:x",
            "dir:/etc",
            "dir:5000/x",
            "tarball:y",
            "oci:a",
            "oci:a:b",
            "oci-archive:x.tar",
            "docker-archive:x.tar",
            "docker-daemon:a:1",
            "containers-storage:a",
            "sif:a",
            "ostree:a",
            "atomic:a",
        ] {
            assert!(image(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_key_cannot_leave_a_folder() {
        for key in ["a", ".dockerconfigjson", "tls.crt", "A_1"] {
            assert!(is_key(key), "{key}");
        }
        for key in ["", ".", "..", "..a", "a/b", "../a", "a\n"] {
            assert!(!is_key(key), "{key:?}");
        }
    }
}
