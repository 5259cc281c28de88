//! Paths of a host in manifests and policies.
//!
//! Pure: no I/O. It does not resolve symbolic links of the host.

/// The components of an absolute path; `None` for a relative path, or one with `..`, which may lead elsewhere.
pub(super) fn components(path: &str) -> Option<Vec<&str>> {
    let below = path.strip_prefix('/').filter(|_| !path.contains('\0'))?;
    let parts: Vec<_> = below
        .split('/')
        .filter(|part| !matches!(*part, "" | "."))
        .collect();
    (!parts.contains(&"..")).then_some(parts)
}

/// Whether a path is this folder or lies in it.
pub(super) fn is_in(path: &[&str], folder: &str) -> bool {
    components(folder).is_some_and(|folder| path.starts_with(&folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_holds_what_is_in_it_and_nothing_that_only_begins_like_it() {
        for (path, folder, expected) in [
            ("/srv", "/srv", true),
            ("/srv/", "/srv", true),
            ("//srv//./data", "/srv/", true),
            ("/srv/data", "/srv", true),
            ("/srvdata", "/srv", false),
            ("/srv", "/srv/data", false),
            ("/", "/srv", false),
            ("/etc", "/", true),
            ("/", "/", true),
            ("/srv/...", "/srv", true),
        ] {
            let parts = components(path).expect(path);
            assert_eq!(is_in(&parts, folder), expected, "{path} in {folder}");
        }
        for path in ["srv", "", "/srv/../etc", "/..", "/srv/..", "/a\0b"] {
            assert_eq!(components(path), None, "{path:?}");
        }
        assert!(
            !is_in(&["etc"], "/srv/.."),
            "such a folder contains no path"
        );
    }
}
