//! Users of the remote API, and the audit log.

use serde::{Deserialize, Serialize};

use crate::state::UserRole;

/// The body of `POST /v1/users`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UserRequest {
    /// The name of a new user, or of a user who gets another role and certificate: 1 to 63 of a-z, 0-9, `-`, `.` and
    /// `_`.
    pub name: String,
    /// The user's role.
    pub role: UserRole,
    /// How long the certificate is valid, in seconds: at most ten years.
    pub ttl_seconds: u64,
}

/// The response to `POST /v1/users`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UserAnswer {
    /// The log index of the change.
    pub index: u64,
    /// The file that the user passes to `beemesh --config`. It has the only copy of the private key.
    pub config: ClientConfig,
    /// When the certificate expires, in milliseconds since 1970.
    pub expires_at_ms: u64,
}

/// The connection of a user to a remote cluster.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClientConfig {
    /// The user's name.
    pub user: String,
    /// Addresses of hosts, such as `192.0.2.11:7443`. A client tries one after the other.
    pub servers: Vec<String>,
    /// The certificate of the authority that issued the certificates of the hosts, as PEM.
    pub authority: String,
    /// The user's certificate, as PEM.
    pub certificate: String,
    /// The user's private key (PKCS #8), as PEM.
    pub key: String,
}

impl std::fmt::Debug for ClientConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // No log may contain the key.
        f.debug_struct("ClientConfig")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// The response to `GET /v1/users`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Users {
    /// The users, sorted by name.
    pub users: Vec<User>,
}

/// A user of the remote API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct User {
    /// The unique name of the user.
    pub name: String,
    /// The user's role.
    pub role: UserRole,
    /// When the certificate was issued, in milliseconds since 1970.
    pub made_at_ms: u64,
    /// When the certificate expires, in milliseconds since 1970.
    pub expires_at_ms: u64,
}

/// The response to `GET /v1/audit`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Audit {
    /// The latest changes that users requested, the oldest first.
    pub changes: Vec<Audited>,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Audited {
    /// The log index of the change.
    pub index: u64,
    /// When the user requested it, in milliseconds since 1970, by the clock of `host`.
    pub at_ms: u64,
    /// The action, such as `manifest applied`.
    pub action: String,
    /// The object of the action, such as `web`.
    pub name: String,
    /// What was changed of the object, such as `zone=a`. Empty if `action` says all.
    #[serde(default)]
    pub detail: String,
    /// A user of the remote API or of `host`, such as `alice` or `uid 0`.
    pub who: String,
    /// The remote address, such as `192.0.2.7:40112`, or the session as the command line reports it, such as `alice,
    /// session-3.scope`.
    pub from: String,
    /// The host that received the request, by its name at that time.
    pub host: String,
}
