//! HTTP/1.1 to the gateway of this host, over its Unix socket, or to a remote gateway, over TLS.
//!
//! Shell. While the gateway is starting or the cluster elects a leader, the client repeats a request until its timeout.
//! If the client does not know whether the gateway carried out a change, it repeats the change only if that is
//! harmless.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use beemesh_protocol::{
    api::{Code, ErrorAnswer, Failure, SESSION_HEADER},
    percent,
};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::{Method, Request, Response, StatusCode, body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::UnixStream,
    time::{Instant, sleep, timeout_at},
};

use crate::{
    live::Live,
    remote::{self, Remote},
    session,
    trouble::Trouble,
};

/// The first and the longest pause between two attempts.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_millis(500);
/// Extra time for the round trip: the gateway keeps within the timeout that it is given.
const SLACK: Duration = Duration::from_secs(3);
/// Bytes of the longest response: some thousand manifests.
const ANSWER_MAX: usize = 64 << 20;
/// How long the hosts may pull images before a manifest is applied: as long as Podman may take for one.
const PULL_MAX: Duration = Duration::from_secs(1800);
/// The longest `timeout=` that the gateway accepts.
const TIMEOUT_MAX_SECONDS: u64 = 60;

/// The hint for a certificate that the cluster rejects.
const ANOTHER_CONFIG: &str = "the configuration file belongs to another cluster, or is older than the last `beemesh user reset`; \
                              ask an administrator for a new one (`beemesh user create`)";

/// A client of a gateway.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    way: Way,
    timeout: Duration,
}

/// The connection to the gateway.
#[derive(Debug, Clone)]
pub(crate) enum Way {
    /// The Unix socket of this host's gateway.
    Socket(PathBuf),
    /// A remote gateway.
    Remote(Remote),
}

impl Way {
    /// The name in messages.
    fn name(&self) -> String {
        match self {
            Way::Socket(path) => path.display().to_string(),
            Way::Remote(remote) => remote.name(),
        }
    }
}

/// One request.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    method: Method,
    path: String,
    query: Vec<(&'static str, String)>,
    body: Bytes,
    /// The source of the body, for messages about it.
    file: String,
    /// Whether it is harmless to send the request twice.
    repeatable: bool,
    /// Whether the route accepts `timeout=`.
    timed: bool,
    /// Time that the gateway may take beyond the timeout.
    extra: Duration,
}

impl Ask {
    pub(crate) fn get(path: impl Into<String>) -> Self {
        Self {
            method: Method::GET,
            path: path.into(),
            query: Vec::new(),
            body: Bytes::new(),
            file: String::new(),
            repeatable: true,
            timed: false,
            extra: Duration::ZERO,
        }
    }

    pub(crate) fn post(path: impl Into<String>, body: Bytes) -> Self {
        Self {
            method: Method::POST,
            body,
            repeatable: false,
            ..Self::get(path)
        }
    }

    pub(crate) fn delete(path: impl Into<String>) -> Self {
        Self {
            method: Method::DELETE,
            repeatable: false,
            ..Self::get(path)
        }
    }

    /// A PUT without a body, which may be repeated.
    pub(crate) fn put(path: impl Into<String>) -> Self {
        Self {
            method: Method::PUT,
            ..Self::get(path)
        }
    }

    /// A PUT with a body, which may be repeated.
    pub(crate) fn put_body(path: impl Into<String>, body: Bytes) -> Self {
        Self {
            body,
            ..Self::put(path)
        }
    }

    /// A POST with a JSON body.
    pub(crate) fn post_json(path: &str, body: &impl Serialize) -> Result<Self, Trouble> {
        let body = serde_json::to_vec(body);
        let body =
            body.map_err(|error| Trouble::failed(format!("cannot encode the request: {error}")))?;
        Ok(Self::post(path, body.into()))
    }

    /// A PATCH with a JSON body, which may be repeated.
    pub(crate) fn patch_json(path: &str, body: &impl Serialize) -> Result<Self, Trouble> {
        Ok(Self {
            method: Method::PATCH,
            ..Self::post_json(path, body)?.repeatable()
        })
    }

    pub(crate) fn with(mut self, key: &'static str, value: impl Into<Option<String>>) -> Self {
        self.query.extend(value.into().map(|value| (key, value)));
        self
    }

    pub(crate) fn file(mut self, file: &str) -> Self {
        self.file = file.to_owned();
        self
    }

    pub(crate) fn repeatable(mut self) -> Self {
        self.repeatable = true;
        self
    }

    /// Passes the timeout to the gateway.
    pub(crate) fn timed(mut self) -> Self {
        self.timed = true;
        self
    }

    pub(crate) fn extra(mut self, extra: Duration) -> Self {
        self.extra = extra;
        self
    }

    fn uri(&self, remaining: Duration) -> String {
        let mut query = self.query.clone();
        if self.timed {
            let seconds = remaining.as_secs().clamp(1, TIMEOUT_MAX_SECONDS);
            query.push(("timeout", seconds.to_string()));
        }
        let mut uri = self.path.clone();
        for (at, (key, value)) in query.iter().enumerate() {
            let join = if at == 0 { '?' } else { '&' };
            uri.push_str(&format!("{join}{key}={}", percent::encode(value)));
        }
        uri
    }
}

/// The reason why one attempt failed.
enum Attempt {
    /// The request was not sent, with the reason.
    NotSent(String),
    /// The connection broke when the gateway may have carried out the request.
    Broke(String),
    /// Another attempt cannot succeed.
    Final(Trouble),
}

impl Client {
    pub(crate) fn new(way: Way, timeout: Duration) -> Self {
        Self { way, timeout }
    }

    /// The time limit of a request.
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Sends a request and reads the response as JSON.
    pub(crate) async fn json<T: DeserializeOwned>(&self, ask: &Ask) -> Result<T, Trouble> {
        let answer = self.open(ask).await?;
        let bytes = whole(answer).await.map_err(Trouble::failed)?;
        serde_json::from_slice(&bytes)
            .map_err(|error| Trouble::failed(format!("invalid answer from the gateway: {error}")))
    }

    /// Sends a request and returns a successful response, whose body is not read yet.
    pub(crate) async fn open(&self, ask: &Ask) -> Result<Response<Incoming>, Trouble> {
        let begun = Instant::now();
        let mut deadline = begun + self.timeout;
        let mut pause = PAUSE_MIN;
        let mut live = Live::new();
        loop {
            let trouble = match self.attempt(ask, deadline).await {
                Ok(answer) if answer.status().is_success() => return Ok(answer),
                Ok(answer) => {
                    let status = answer.status();
                    let failure = failure(answer).await;
                    // A pull goes on while the hosts say so. Until then nothing has changed.
                    let is_repeatable = ask.repeatable || failure.pulling;
                    if failure.pulling {
                        live.say_once(&format!("waiting: {}", failure.message));
                        deadline = (begun + PULL_MAX).min(Instant::now() + self.timeout);
                    }
                    let passing = failure.code == Code::Unavailable
                        && matches!(
                            status,
                            StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT
                        );
                    let trouble = Trouble::refused(failure, &ask.file);
                    if !(passing && is_repeatable) {
                        return Err(trouble);
                    }
                    trouble
                }
                Err(Attempt::Final(trouble)) => return Err(trouble),
                Err(Attempt::NotSent(reason)) => {
                    Trouble::unreachable(reason).hint(match self.way {
                        Way::Socket(_) => {
                            "check that both services are running: `systemctl status beemesh-agent beemesh-gateway`"
                        }
                        Way::Remote(_) => {
                            "check that `api-port = 7443` is set in /etc/beemesh/agent.toml.d on a host, and that its firewall allows the port"
                        }
                    })
                }
                Err(Attempt::Broke(reason)) => {
                    let trouble = Trouble::unreachable(reason);
                    if !ask.repeatable {
                        return Err(trouble.hint(
                            "the change may have been committed: check with `beemesh get` before you repeat it",
                        ));
                    }
                    trouble
                }
            };
            if Instant::now() + pause >= deadline {
                return Err(trouble);
            }
            live.spin(&format!("waiting: {}", trouble.message()));
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    async fn attempt(&self, ask: &Ask, deadline: Instant) -> Result<Response<Incoming>, Attempt> {
        let stream = self.connect().await?;
        let broke = |error: &dyn std::fmt::Display| {
            Attempt::Broke(format!(
                "connection to the gateway at {} lost: {error}",
                self.way.name()
            ))
        };
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| broke(&error))?;
        // The task ends with the connection. The request's future returns the same errors.
        tokio::spawn(connection);
        let remaining = deadline.saturating_duration_since(Instant::now());
        // For the audit log. A remote gateway knows its caller by the certificate.
        let session = match &self.way {
            Way::Socket(_) => session::own(),
            Way::Remote(_) => String::new(),
        };
        let request = Request::builder()
            .method(ask.method.clone())
            .uri(ask.uri(remaining))
            .header("host", "beemesh")
            .header("content-length", ask.body.len())
            .header(SESSION_HEADER, session)
            .body(Full::new(ask.body.clone()))
            .map_err(|error| Attempt::Final(Trouble::usage(error.to_string())))?;
        let answer = timeout_at(deadline + SLACK + ask.extra, sender.send_request(request));
        match answer.await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) if remote::is_refusal(&error) => Err(Attempt::Final(
                Trouble::failed("the cluster rejects this user's certificate").hint(ANOTHER_CONFIG),
            )),
            Ok(Err(error)) => Err(broke(&error)),
            Err(_) => Err(Attempt::Final(Trouble::unreachable(format!(
                "no answer from the gateway at {}: request timed out",
                self.way.name()
            )))),
        }
    }

    async fn connect(&self) -> Result<Box<dyn Stream>, Attempt> {
        match &self.way {
            Way::Socket(socket) => match UnixStream::connect(socket).await {
                Ok(stream) => Ok(Box::new(stream)),
                Err(error) => Err(not_connected(socket, &error)),
            },
            Way::Remote(remote) => match remote.connect().await {
                Ok(stream) => Ok(Box::new(stream)),
                Err(not) => {
                    let message = format!("cannot connect to any host: {}", not.reason);
                    Err(match not.foreign {
                        true => Attempt::Final(Trouble::failed(message).hint(ANOTHER_CONFIG)),
                        false => Attempt::NotSent(message),
                    })
                }
            },
        }
    }
}

/// A connection of either kind.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

fn not_connected(path: &Path, error: &io::Error) -> Attempt {
    let socket = path.display();
    let message = match error.kind() {
        io::ErrorKind::NotFound => format!("no gateway listens on {socket}"),
        io::ErrorKind::ConnectionRefused => format!("the gateway at {socket} is not running"),
        _ => format!("cannot connect to the gateway at {socket}: {error}"),
    };
    match error.kind() {
            io::ErrorKind::PermissionDenied => Attempt::Final(Trouble::unreachable(message).hint(
                "only root and members of group `beemesh` have access: run `sudo usermod -aG beemesh $USER` and log in again",
            )),
            // If the folder is missing too, Beemesh does not run on this host, and waiting does not help.
            io::ErrorKind::NotFound if !path.parent().is_some_and(Path::exists) => {
                Attempt::Final(
                    Trouble::unreachable(message)
                        .hint("start Beemesh on this host: `systemctl enable --now beemesh-agent`"),
                )
            }
            _ => Attempt::NotSent(message),
        }
}

async fn whole(answer: Response<Incoming>) -> Result<Bytes, String> {
    match Limited::new(answer.into_body(), ANSWER_MAX).collect().await {
        Ok(whole) => Ok(whole.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(format!(
            "the answer of the gateway is larger than {} MiB",
            ANSWER_MAX >> 20
        )),
        Err(error) => Err(format!("cannot read the answer of the gateway: {error}")),
    }
}

/// Returns the failure in a response, in whatever form it is.
async fn failure(answer: Response<Incoming>) -> Failure {
    let status = answer.status();
    let told = whole(answer).await.unwrap_or_default();
    match serde_json::from_slice::<ErrorAnswer>(&told) {
        Ok(answer) => answer.error,
        Err(_) => Failure {
            code: Code::Internal,
            message: format!("the gateway answered with HTTP status {status}"),
            hint: String::new(),
            problems: Vec::new(),
            pulling: false,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_change_the_request_they_stand_in() {
        let ask = Ask::get(format!("/v1/workloads/{}", percent::encode("a/../b?x=1")))
            .with("name", "ü &".to_owned())
            .with("host", None)
            .timed();
        assert_eq!(
            ask.uri(Duration::from_millis(9500)),
            "/v1/workloads/a%2F..%2Fb%3Fx%3D1?name=%C3%BC%20%26&timeout=9"
        );
    }
}
