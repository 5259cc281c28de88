//! Errors of calls to Podman, as messages.

use std::path::{Path, PathBuf};
use std::time::Duration;

use beemesh_protocol::pod::signal_name;

use crate::health::{Container, failed_init};

/// What Podman says when a pod with `hostUsers: false` finds no IDs.
const NO_IDS: &str = "not enough unused IDs in user namespace";
/// What to do then (containers-storage.conf(5), `root-auto-userns-user`).
const IDS: &str = ": `hostUsers: false` takes IDs of the user `containers`: add `containers:2147483647:2147483648` to /etc/subuid and /etc/subgid of the host";

/// A call to Podman that failed.
#[derive(Debug, thiserror::Error)]
pub enum PodmanError {
    /// Nothing listens on the socket, or the connection is refused.
    #[error("{}: {reason}", socket.display())]
    Unreachable {
        /// Podman's socket.
        socket: PathBuf,
        /// The reason.
        reason: String,
    },
    /// Podman did not answer in time.
    #[error("{operation}: Podman did not answer within {} s", after.as_secs())]
    Late {
        /// The operation.
        operation: String,
        /// The time limit.
        after: Duration,
    },
    /// Podman refused the operation.
    #[error("{operation}: {message}")]
    Refused {
        /// The operation.
        operation: String,
        /// The HTTP status.
        status: u16,
        /// Podman's message.
        message: String,
    },
    /// The connection broke during the answer.
    #[error("{operation}: the connection to Podman broke: {reason}")]
    Broken {
        /// The operation.
        operation: String,
        /// How it broke.
        reason: String,
    },
    /// The answer is too large or cannot be parsed.
    #[error("{operation}: unexpected answer from Podman: {reason}")]
    Unreadable {
        /// The operation.
        operation: String,
        /// What is wrong with the answer.
        reason: String,
    },
    /// An image could not be pulled.
    #[error("image {image} cannot be pulled: {reason}")]
    Pull {
        /// The image.
        image: String,
        /// Podman's message.
        reason: String,
    },
    /// The pod exists, but not all of its containers were started.
    #[error("{}", errors.join("; "))]
    Start {
        /// Podman's messages, one for each container.
        errors: Vec<String>,
    },
    /// An init container ended in failure, so the pod was not played.
    #[error("init container {container}: {}", exit_in_words(*code))]
    Init {
        /// Its name in the manifest.
        container: String,
        /// Its exit code.
        code: i32,
    },
    /// Podman accepted the YAML and made no pod of it.
    #[error("play the pod: Podman made no pod of it")]
    Unplayed,
    /// A pod could not be taken down.
    #[error("take the pod down: {}", errors.join("; "))]
    Down {
        /// Podman's messages.
        errors: Vec<String>,
    },
}

impl PodmanError {
    /// Explains the failed play of this workload, whose pod has these containers. `init` are the names of the init
    /// containers in the manifest. Podman identifies containers by id, and the message names them.
    #[must_use]
    pub fn explained(self, workload: &str, containers: &[Container], init: &[String]) -> Self {
        let Self::Refused {
            operation,
            status,
            message,
        } = self
        else {
            return self;
        };
        if let Some(failed) = failed_init(workload, containers, init) {
            let name = failed.name.strip_prefix(workload);
            let name = name.and_then(|name| name.strip_prefix('-'));
            return Self::Init {
                container: name.unwrap_or(&failed.name).to_owned(),
                code: failed.exit_code,
            };
        }
        let known = containers.iter().filter(|one| !one.id.is_empty());
        let mut message = known.fold(message, |words, one| words.replace(&one.id, &one.name));
        if message.contains(NO_IDS) {
            message.push_str(IDS);
        }
        Self::Refused {
            operation,
            status,
            message,
        }
    }

    /// Whether Podman says that there is no such object.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { status: 404, .. })
    }

    /// Whether a retry may succeed: the failure is one of the connection and says nothing about the object.
    pub fn is_passing(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. } | Self::Late { .. } | Self::Broken { .. }
        )
    }
}

pub(super) fn from_hyper(operation: &str, socket: &Path, error: &hyper014::Error) -> PodmanError {
    let reason = innermost(error);
    if error.is_connect() {
        PodmanError::Unreachable {
            socket: socket.to_path_buf(),
            reason,
        }
    } else {
        PodmanError::Broken {
            operation: operation.to_owned(),
            reason,
        }
    }
}

pub(super) fn from_client(operation: &str, socket: &Path, error: podman_api::Error) -> PodmanError {
    use podman_api::Error;
    use podman_api::conn::Error as Connection;
    let operation = operation.to_owned();
    match error {
        Error::Error(Connection::Hyper(error)) => from_hyper(&operation, socket, &error),
        Error::Fault { code, message } => PodmanError::Refused {
            operation,
            status: code.as_u16(),
            message,
        },
        Error::Error(Connection::Fault { code, message }) => PodmanError::Refused {
            operation,
            status: code.as_u16(),
            message,
        },
        other => PodmanError::Unreadable {
            operation,
            reason: other.to_string(),
        },
    }
}

/// The innermost cause of an error: hyper wraps the cause twice and names only itself.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

fn exit_in_words(code: i32) -> String {
    match u32::try_from(code).ok().and_then(signal_name) {
        Some(signal) => format!("exit {code} ({signal})"),
        None => format!("exit {code}"),
    }
}
