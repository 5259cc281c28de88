//! Pure: what a failed call to Podman means for the workload.

use crate::podman::PodmanError;

/// What can be done about a failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// Asking again may help: Podman or a registry could not be reached.
    Passing(String),
    /// Podman refused, and may not the next time.
    Refused(String),
    /// Podman's storage did not survive a power cut.
    Damaged(String),
    /// Asking again gives the same.
    Hopeless(String),
}

/// What Podman and the OCI runtime say when the files of a container's image or network are not what they were.
const DAMAGE: &[&[&str]] = &[
    &["readlink", "/overlay"],
    &["mounting storage", "overlay"],
    &["stat lower layer"],
    &["creating overlay mount"],
    &["layer not known"],
    &["identifier is not a layer"],
    &["identifier is not an image"],
    // An empty `catatonit` in the pause image.
    &["catatonit", "exec format error"],
    &["catatonit", "not found"],
    &["catatonit", "permission denied"],
    // An empty file under /etc/containers/networks.
    &["network", "unexpected end of json input"],
    &["network", "eof"],
];

/// What the OCI runtime says about a command that will never start from this image.
const HOPELESS: &[&str] = &[
    "not found",
    "no such file or directory",
    "permission denied",
    "exec format error",
    "is a directory",
];

/// What a failed play or start means.
pub fn classify(error: &PodmanError) -> Failure {
    let reason = error.to_string();
    let words = reason.to_lowercase();
    if error.is_passing() {
        return Failure::Passing(reason);
    }
    if DAMAGE
        .iter()
        .any(|signs| signs.iter().all(|sign| words.contains(sign)))
    {
        return Failure::Damaged(reason);
    }
    match error {
        PodmanError::Pull { .. } => Failure::Passing(reason),
        PodmanError::Start { .. } if HOPELESS.iter().any(|sign| words.contains(sign)) => {
            Failure::Hopeless(reason)
        }
        PodmanError::Unplayed => Failure::Hopeless(reason),
        PodmanError::Start { .. }
        | PodmanError::Refused { .. }
        | PodmanError::Unreadable { .. }
        | PodmanError::Down { .. }
        | PodmanError::Unreachable { .. }
        | PodmanError::Late { .. }
        | PodmanError::Broken { .. } => Failure::Refused(reason),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_told_apart() {
        let start = |words: &str| PodmanError::Start {
            errors: vec![words.to_owned()],
        };
        let refused = |words: &str| PodmanError::Refused {
            operation: "play the pod".into(),
            status: 500,
            message: words.to_owned(),
        };
        let not_found = "container web-app cannot start: crun: executable file `/nope` not found in $PATH: No such file";
        let damaged = "starting container 07c1: mounting storage for container 07c1: creating overlay mount to \
                       /var/lib/containers/storage/overlay/2a53/merged: readlink /var/lib/containers/storage/overlay/l: \
                       invalid argument";
        for (error, expected) in [
            (start(not_found), Failure::Hopeless(not_found.into())),
            (start(damaged), Failure::Damaged(damaged.into())),
            (
                refused("proxy already running"),
                Failure::Refused("play the pod: proxy already running".into()),
            ),
            (
                PodmanError::Unreachable {
                    socket: "/run/p.sock".into(),
                    reason: "Connection refused".into(),
                },
                Failure::Passing("/run/p.sock: Connection refused".into()),
            ),
            (
                PodmanError::Pull {
                    image: "quay.io/a:1".into(),
                    reason: "no such host".into(),
                },
                Failure::Passing("image quay.io/a:1 cannot be pulled: no such host".into()),
            ),
        ] {
            assert_eq!(classify(&error), expected, "{error}");
        }
    }
}
