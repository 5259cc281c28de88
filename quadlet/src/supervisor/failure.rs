//! Pure: classifies failed calls to Podman.

use crate::health::{Container, Restart};
use crate::podman::PodmanError;

/// The kinds of failure, by what can be done about them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// A retry may help: Podman or a registry was unreachable.
    Passing(String),
    /// Podman refused the request, and may accept a retry.
    Refused(String),
    /// Podman's storage was damaged by a power cut.
    Damaged(String),
    /// A retry fails in the same way.
    Hopeless(String),
}

impl Failure {
    /// The reason, as a message.
    pub(super) fn reason(&self) -> &str {
        match self {
            Self::Passing(reason)
            | Self::Refused(reason)
            | Self::Damaged(reason)
            | Self::Hopeless(reason) => reason,
        }
    }
}

/// Messages of Podman and the OCI runtime when the files of a container's image or network are damaged.
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

/// Messages of the OCI runtime about a command that can never start from this image.
const HOPELESS: &[&str] = &[
    "not found",
    "no such file or directory",
    "permission denied",
    "exec format error",
    "is a directory",
];

/// Classifies a failed play or start.
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
        | PodmanError::Init { .. }
        | PodmanError::Refused { .. }
        | PodmanError::Unreadable { .. }
        | PodmanError::Down { .. }
        | PodmanError::Unreachable { .. }
        | PodmanError::Late { .. }
        | PodmanError::Broken { .. } => Failure::Refused(reason),
    }
}

/// Classifies the failed first start of a container. Such a failure is one of the play of its pod.
pub(super) fn first_start(failure: Failure, container: &Container) -> Failure {
    let named = |reason: String| reason.replace(&container.id, &container.name);
    match failure {
        Failure::Passing(reason) => Failure::Passing(named(reason)),
        Failure::Damaged(reason) => Failure::Damaged(named(reason)),
        Failure::Hopeless(reason) => Failure::Hopeless(named(reason)),
        Failure::Refused(reason) => {
            let words = reason.to_lowercase();
            let never = HOPELESS.iter().any(|sign| words.contains(sign));
            match never {
                true => Failure::Hopeless(named(reason)),
                false => Failure::Refused(named(reason)),
            }
        }
    }
}

/// Classifies a failed play of a pod with this restart policy.
pub fn classify_play(error: &PodmanError, restart: Restart) -> Failure {
    match (error, restart) {
        (PodmanError::Init { .. }, Restart::Never) => {
            Failure::Hopeless(format!("{error}, and its restart policy is Never"))
        }
        _ => classify(error),
    }
}

#[cfg(test)]
mod tests {
    use crate::health::{Probe, Role, Run};

    use super::*;

    #[test]
    fn an_init_container_is_named_and_not_tried_again_against_its_policy() {
        let container = |id: &str, name: &str, exit_code| Container {
            id: id.into(),
            name: name.into(),
            role: Role::Member,
            run: Run::Exited,
            probe: Probe::Absent,
            restarts: 0,
            exit_code,
            started_at: 1,
            exited_at: 2,
        };
        let containers = [
            container("d50f", "web-first", 0),
            container("d50e", "web-zero", 3),
            container("d50a", "web-app", 4),
        ];
        let refused = |message: &str| PodmanError::Refused {
            operation: "play the pod".into(),
            status: 500,
            message: message.into(),
        };
        let init = ["first".to_owned(), "zero".to_owned()];
        let error = refused("anything").explained("web", &containers, &init);
        let words = "init container zero: exit 3";
        for (restart, expected) in [
            (Restart::Always, Failure::Refused(words.into())),
            (
                Restart::Never,
                Failure::Hopeless(format!("{words}, and its restart policy is Never")),
            ),
        ] {
            assert_eq!(classify_play(&error, restart), expected);
        }
        let named = refused("starting container d50a: no").explained("web", &containers, &[]);
        assert_eq!(
            named.to_string(),
            "play the pod: starting container web-app: no"
        );
    }

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
