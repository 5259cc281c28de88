//! What can go wrong between Beemesh and Podman, in words for a person.

use std::path::{Path, PathBuf};
use std::time::Duration;

/// A call to Podman that failed.
#[derive(Debug, thiserror::Error)]
pub enum PodmanError {
    /// Nothing listens, or it refuses.
    #[error("{}: {reason}", socket.display())]
    Unreachable {
        /// Podman's socket.
        socket: PathBuf,
        /// Why it could not be reached.
        reason: String,
    },
    /// No answer in time.
    #[error("{operation}: Podman did not answer within {} s", after.as_secs())]
    Late {
        /// What was asked.
        operation: String,
        /// How long was waited.
        after: Duration,
    },
    /// Podman said no.
    #[error("{operation}: {message}")]
    Refused {
        /// What was asked.
        operation: String,
        /// The HTTP status.
        status: u16,
        /// Podman's words.
        message: String,
    },
    /// The connection broke during the answer.
    #[error("{operation}: the connection to Podman broke: {reason}")]
    Broken {
        /// What was asked.
        operation: String,
        /// How it broke.
        reason: String,
    },
    /// An answer that is too large or that makes no sense.
    #[error("{operation}: unexpected answer from Podman: {reason}")]
    Unreadable {
        /// What was asked.
        operation: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An image that cannot be pulled.
    #[error("image {image} cannot be pulled: {reason}")]
    Pull {
        /// The image.
        image: String,
        /// Podman's words.
        reason: String,
    },
    /// The pod is there, but not all of its containers were started.
    #[error("{}", errors.join("; "))]
    Start {
        /// Podman's words, one for each container.
        errors: Vec<String>,
    },
    /// Podman accepted the YAML and made no pod of it.
    #[error("play the pod: Podman made no pod of it")]
    Unplayed,
    /// A pod that did not go.
    #[error("take the pod down: {}", errors.join("; "))]
    Down {
        /// Podman's words.
        errors: Vec<String>,
    },
}

impl PodmanError {
    /// Whether Podman says that there is no such object.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { status: 404, .. })
    }

    /// Whether it is worth asking again: nothing was said about the object.
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

/// hyper wraps the cause twice and names only itself.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
