//! The parameters of requests, and the time limits of responses.
//!
//! Parses at the border: an unknown key, a value outside its limits, or a body that is too long or too slow is an error
//! that names the parameter. The code behind it only gets requests within all limits.

use std::{net::SocketAddr, time::Duration};

use axum::{
    body::Body,
    extract::{FromRequestParts, Query},
    http::{Request, header::CONTENT_LENGTH, request::Parts},
    middleware::Next,
    response::Response,
};
use beemesh_protocol::{HostId, api::SESSION_HEADER, state::Origin};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::{Deserialize, de::DeserializeOwned};

use super::ApiError;

/// Default time limit of a change or a linearizable read.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);
/// The largest `timeout`, in seconds. An election with all its retries is over long before.
const TIMEOUT_MAX_SECONDS: u64 = 60;
/// The largest `wait`, in seconds: enough to pull an image of some gigabytes over a slow link.
const WAIT_MAX_SECONDS: u64 = 3600;
/// Time limit of a request body. Local callers send theirs in much less.
const BODY_TIME_MAX: Duration = Duration::from_secs(30);

/// Maximum size of a body that is no manifest, in bytes. The longest join token has 8 KiB.
const SMALL_BODY_MAX: usize = 16 << 10;

/// The longest [`SESSION_HEADER`] that is kept, in bytes.
const SESSION_MAX: usize = 64;

/// Who called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Caller {
    /// A process of this host.
    Local {
        /// Its user id.
        uid: u32,
        /// Its process id; 0 when the kernel did not say, as for a process outside of the gateway's container.
        pid: i32,
        /// What the command line says of its session: `alice, session-3.scope`. The caller may say anything here.
        session: String,
    },
    /// Another member.
    Host(HostId),
    /// A user of the remote API.
    User {
        /// The user's name.
        name: String,
        /// The remote address of the connection.
        from: SocketAddr,
    },
}

impl Caller {
    /// The origin of the caller's changes, for the audit log.
    pub(super) fn origin(&self, host: HostId) -> Origin {
        let (who, from) = match self {
            Caller::Local { uid, pid, session } => {
                let from = match (session.as_str(), pid) {
                    ("", 0) => String::new(),
                    ("", pid) => format!("pid {pid}"),
                    (session, _) => session.to_owned(),
                };
                (format!("uid {uid}"), from)
            }
            Caller::Host(host) => (format!("host {host}"), String::new()),
            Caller::User { name, from } => (name.clone(), from.to_string()),
        };
        Origin { host, who, from }
    }
}

impl std::fmt::Display for Caller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Caller::Local { uid, pid, session } => write!(f, "uid {uid} pid {pid} {session}"),
            Caller::Host(host) => write!(f, "host {host}"),
            Caller::User { name, from } => write!(f, "{name} from {from}"),
        }
    }
}

/// Adds to a local caller what the command line says of its session.
pub(super) async fn with_session(mut request: Request<Body>, next: Next) -> Response {
    let said = request.headers().get(SESSION_HEADER);
    let said = said
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let said = said[..said.len().min(SESSION_MAX)].to_owned();
    if let Some(Caller::Local { session, .. }) = request.extensions_mut().get_mut::<Caller>() {
        *session = said;
    }
    next.run(request).await
}

/// The query of a route: keys it does not know are refused.
pub(super) struct Asked<T>(pub(super) T);

impl<S: Sync, T: DeserializeOwned> FromRequestParts<S> for Asked<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        match Query::try_from_uri(&parts.uri) {
            Ok(Query(query)) => Ok(Self(query)),
            Err(rejection) => {
                let reason = rejection.body_text();
                let reason = reason
                    .strip_prefix("Failed to deserialize query string: ")
                    .unwrap_or(&reason);
                Err(ApiError::bad_request(format!("query: {reason}")))
            }
        }
    }
}

/// The query of `POST /v1/apply`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ApplyQuery {
    pub(super) name: Option<String>,
    #[serde(default)]
    pub(super) dry_run: bool,
    /// Answers the content of the objects, too.
    #[serde(default)]
    pub(super) diff: bool,
    #[serde(default)]
    pub(super) strict: bool,
    #[serde(default)]
    pub(super) wait_for_references: bool,
    #[serde(default)]
    pub(super) prune: bool,
    /// Applies it also where a host has no image, or does not answer.
    #[serde(default)]
    pub(super) force: bool,
    pub(super) wait: Option<u64>,
    pub(super) stable: Option<u64>,
    pub(super) timeout: Option<u64>,
}

/// The query of deletions.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DeleteQuery {
    pub(super) wait: Option<u64>,
    pub(super) timeout: Option<u64>,
}

/// The query of a drain.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct DrainQuery {
    pub(super) wait: Option<u64>,
    pub(super) timeout: Option<u64>,
    #[serde(default)]
    pub(super) move_without_data: bool,
}

/// The query of reads of the whole cluster.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ReadQuery {
    #[serde(default)]
    pub(super) stale: bool,
    pub(super) timeout: Option<u64>,
}

/// The query of a workload's logs.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LogsQuery {
    pub(super) host: Option<String>,
    pub(super) pod: Option<String>,
    #[serde(default)]
    pub(super) follow: bool,
    pub(super) tail: Option<u32>,
}

/// The query of changes that have only a time limit.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TimeoutQuery {
    pub(super) timeout: Option<u64>,
}

/// The query of routes without parameters.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NoQuery {}

/// The time limit of a change or a linearizable read.
pub(super) fn timeout(seconds: Option<u64>) -> Result<Duration, ApiError> {
    match seconds {
        None => Ok(TIMEOUT_DEFAULT),
        Some(seconds @ 1..=TIMEOUT_MAX_SECONDS) => Ok(Duration::from_secs(seconds)),
        Some(seconds) => Err(ApiError::bad_request(format!(
            "timeout={seconds}: must be 1 to {TIMEOUT_MAX_SECONDS} seconds"
        ))),
    }
}

/// How long to wait for the effect of a change.
pub(super) fn wait(seconds: Option<u64>) -> Result<Option<Duration>, ApiError> {
    match seconds {
        Some(seconds) if seconds > WAIT_MAX_SECONDS => Err(ApiError::bad_request(format!(
            "wait={seconds}: must be at most {WAIT_MAX_SECONDS} seconds"
        ))),
        seconds => Ok(seconds.map(Duration::from_secs)),
    }
}

/// How long pods must be ready at the end of the wait, if the caller sets it.
pub(super) fn stable(seconds: Option<u64>) -> Result<Option<Duration>, ApiError> {
    match seconds {
        Some(seconds) if seconds > WAIT_MAX_SECONDS => Err(ApiError::bad_request(format!(
            "stable={seconds}: must be at most {WAIT_MAX_SECONDS} seconds"
        ))),
        seconds => Ok(seconds.map(Duration::from_secs)),
    }
}

/// Checks the name that the caller gave a manifest.
pub(super) fn manifest_name(name: &str) -> Result<(), ApiError> {
    // The characters of a Kubernetes name, and `_`, which joins a namespace to a name.
    let plain =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-._".contains(&byte);
    let ends = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = name.as_bytes();
    if bytes.len() <= 253
        && bytes.iter().all(|byte| plain(*byte))
        && ends(bytes.first())
        && ends(bytes.last())
    {
        return Ok(());
    }
    Err(ApiError::bad_request(format!(
        "name={name:?}: a manifest name has 1 to 253 of a-z, 0-9, `-`, `.` and `_`, with a letter or digit at both ends"
    )))
}

/// Reads the whole body, if it has at most `limit` bytes (`limit_words` in messages) and arrives in time.
pub(super) async fn body(
    parts: &Parts,
    body: Body,
    limit: usize,
    limit_words: &str,
) -> Result<bytes::Bytes, ApiError> {
    let too_large = || ApiError::too_large(format!("the body is larger than {limit_words}"));
    let announced = parts.headers.get(CONTENT_LENGTH);
    let announced = announced.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > limit as u64) {
        return Err(too_large());
    }
    let whole = tokio::time::timeout(BODY_TIME_MAX, Limited::new(body, limit).collect());
    match whole.await {
        Ok(Ok(whole)) => Ok(whole.to_bytes()),
        Ok(Err(error)) if error.downcast_ref::<LengthLimitError>().is_some() => Err(too_large()),
        Ok(Err(error)) => Err(ApiError::bad_request(format!("read the body: {error}"))),
        Err(_) => Err(ApiError::too_slow(format!(
            "the body did not arrive within {} s",
            BODY_TIME_MAX.as_secs()
        ))),
    }
}

pub(super) async fn small_body<T: DeserializeOwned>(request: Request<Body>) -> Result<T, ApiError> {
    let (parts, body) = request.into_parts();
    let bytes = self::body(&parts, body, SMALL_BODY_MAX, "16 KiB").await?;
    serde_json::from_slice(&bytes)
        .map_err(|error| ApiError::bad_request(format!("read the body as JSON: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_manifests_cannot_leave_their_place() {
        for (name, good) in [
            ("web", true),
            ("shop_web-1.2", true),
            ("", false),
            ("../etc", false),
            ("-web", false),
            ("Web", false),
            ("a/b", false),
            ("web_", false),
        ] {
            assert_eq!(manifest_name(name).is_ok(), good, "{name:?}");
        }
    }

    #[test]
    fn a_query_is_read_strictly() {
        fn read(query: &str) -> Result<String, ApiError> {
            let request = axum::http::Request::builder().uri(format!("/v1/apply?{query}"));
            let (mut parts, ()) = request.body(()).unwrap().into_parts();
            let read = Asked::<ApplyQuery>::from_request_parts(&mut parts, &());
            futures::executor::block_on(read).map(|Asked(query)| format!("{query:?}"))
        }
        for (query, expected) in [
            (
                "name=web&dryRun=true&wait=5",
                Ok(
                    "ApplyQuery { name: Some(\"web\"), dry_run: true, diff: false, strict: false, wait_for_references: false, prune: false, force: false, wait: Some(5), stable: None, timeout: None }",
                ),
            ),
            (
                "dryrun=true",
                Err(
                    "query: dryrun: unknown field `dryrun`, expected one of `name`, `dryRun`, `diff`, `strict`, `waitForReferences`, `prune`, `force`, `wait`, `stable`, `timeout`",
                ),
            ),
            (
                "wait=soon",
                Err("query: wait: invalid digit found in string"),
            ),
            (
                "dryRun=1",
                Err("query: dryRun: provided string was not `true` or `false`"),
            ),
        ] {
            let expected = expected.map(str::to_owned).map_err(ApiError::bad_request);
            assert_eq!(read(query), expected, "{query}");
        }
        assert!(timeout(Some(0)).is_err() && timeout(Some(61)).is_err());
        assert!(wait(Some(3601)).is_err());
    }
}
