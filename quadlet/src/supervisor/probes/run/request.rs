//! Sends the HTTP request of a probe or hook to a pod, as kubelet does.
//!
//! Redirects to the pod itself are followed. A redirect to another host ends the request, and nothing connects there.
//! The body of the answer is read, as far as a bound, and dropped.

use std::io;
use std::net::{IpAddr, SocketAddr};

use beemesh_protocol::pod::{TEXT_CHARS_MAX, clean};
use hyper014::body::HttpBody as _;
use hyper014::client::conn::Builder;
use hyper014::header::{HeaderMap, HeaderName, HeaderValue};
use hyper014::{Body, Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::super::spec::HttpGet;
use super::redirect::{Next, Target, follow};
use super::tls;

/// Requests of one probe, with the redirects that it follows.
const REQUESTS_MAX: usize = 10;
/// Bytes of a body that are read. Kubernetes reads as many.
const BODY_BYTES_MAX: usize = 10 << 10;
/// Bytes of the head of an answer.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// The failure of a request over TLS to a server without it.
pub(super) const NO_TLS: &str = "the server answers without TLS";

/// The end of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// The pod answered with this status.
    Status(u16),
    /// The pod redirected to another host.
    Elsewhere,
    /// The pod did not answer, for this reason.
    Failed(String),
    /// The pod answered without TLS.
    NoTls,
    /// The status was fine, and the body broke off. kubelet does not count such a run.
    Cut(String),
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// Connects to a port of the pod.
pub(super) async fn connect(address: IpAddr, port: u16) -> Result<TcpStream, String> {
    let stream = TcpStream::connect(SocketAddr::new(address, port)).await;
    stream.map_err(|error| format!("port {port}: {}", words(&error)))
}

/// Sends the request, and follows redirects.
pub(super) async fn get(address: IpAddr, get: &HttpGet, agent: &str) -> Answer {
    let mut headers = match headers(get, agent) {
        Ok(headers) => headers,
        Err(reason) => return Answer::Failed(reason),
    };
    let mut host = headers.remove("host");
    let mut target = Target {
        tls: get.tls,
        port: get.port,
        path: get.path.clone(),
    };
    for _ in 0..REQUESTS_MAX {
        let answer = send(address, &target, &headers, host.as_ref()).await;
        let (status, location) = match answer {
            Ok(answer) => answer,
            Err(answer) => return answer,
        };
        let location = match status {
            301 | 302 | 303 | 307 | 308 => location,
            _ => None,
        };
        let Some(location) = location else {
            return Answer::Status(status);
        };
        match follow(&target, address, &location) {
            Next::Elsewhere => return Answer::Elsewhere,
            Next::Invalid => return Answer::Failed("a redirect without a valid location".into()),
            Next::Pod {
                target: next,
                is_relative,
            } => {
                target = next;
                if !is_relative {
                    host = None;
                }
            }
        }
    }
    Answer::Failed(format!("stopped after {REQUESTS_MAX} redirects"))
}

/// The headers of the manifest, and the defaults of kubelet for those that it does not set.
fn headers(get: &HttpGet, agent: &str) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for (name, value) in &get.headers {
        let invalid = || format!("header {} is not valid", clean(name, TEXT_CHARS_MAX / 2));
        let key = HeaderName::try_from(name.as_str()).map_err(|_| invalid())?;
        let value = HeaderValue::from_bytes(value.trim_matches([' ', '\t']).as_bytes())
            .map_err(|_| invalid())?;
        headers.append(key, value);
    }
    for (name, value) in [("user-agent", agent), ("accept", "*/*")] {
        if !headers.contains_key(name) {
            let value = HeaderValue::from_str(value).map_err(|error| error.to_string())?;
            headers.insert(name, value);
        } else if headers.get(name).is_some_and(HeaderValue::is_empty) {
            headers.remove(name);
        }
    }
    headers.insert("connection", HeaderValue::from_static("close"));
    Ok(headers)
}

/// Sends one request. Returns the status and the location of its answer.
async fn send(
    address: IpAddr,
    target: &Target,
    headers: &HeaderMap,
    host: Option<&HeaderValue>,
) -> Result<(u16, Option<String>), Answer> {
    let stream = connect(address, target.port)
        .await
        .map_err(Answer::Failed)?;
    let stream: Box<dyn Io> =
        match target.tls {
            false => Box::new(stream),
            true => Box::new(tls::begin(stream, address).await.map_err(
                |error| match tls::is_plain(&error) {
                    true => Answer::NoTls,
                    false => Answer::Failed(format!("TLS: {}", words(&error))),
                },
            )?),
        };
    let mut request = Request::new(Body::empty());
    let broken = |error: &dyn std::fmt::Display| Answer::Failed(error.to_string());
    *request.uri_mut() = target.path.parse().map_err(|error| broken(&error))?;
    *request.headers_mut() = headers.clone();
    let own = SocketAddr::new(address, target.port).to_string();
    let own = HeaderValue::from_str(&own).map_err(|error| broken(&error))?;
    let host = host.filter(|host| !host.is_empty()).cloned();
    request.headers_mut().insert("host", host.unwrap_or(own));
    exchange(stream, request).await
}

async fn exchange(
    stream: Box<dyn Io>,
    request: Request<Body>,
) -> Result<(u16, Option<String>), Answer> {
    let failed = |error: hyper014::Error| Answer::Failed(hyper_words(&error));
    let handshake = Builder::new()
        .http1_title_case_headers(true)
        .http1_allow_obsolete_multiline_headers_in_responses(true)
        .http1_max_buf_size(HEAD_BYTES_MAX)
        .handshake(stream);
    let (mut sender, connection) = handshake.await.map_err(failed)?;
    let answer = async move {
        let response = sender.send_request(request).await.map_err(failed)?;
        let status = response.status().as_u16();
        let location = response.headers().get("location");
        let location = location.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        let is_fine = (200..400).contains(&status);
        match drain(response).await {
            Err(reason) if is_fine => Err(Answer::Cut(reason)),
            _ => Ok((status, location)),
        }
    };
    tokio::pin!(answer, connection);
    tokio::select! {
        answer = &mut answer => answer,
        // The server has closed the connection. What it has sent before is still there.
        _ = &mut connection => answer.await,
    }
}

async fn drain(response: Response<Body>) -> Result<(), String> {
    let mut body = response.into_body();
    let mut read = 0;
    while let Some(chunk) = body.data().await {
        read += chunk.map_err(|error| hyper_words(&error))?.len();
        if read >= BODY_BYTES_MAX {
            break;
        }
    }
    Ok(())
}

/// The reason of a failure in the usual words of the kernel: `Connection refused`.
fn words(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error ").next().unwrap_or_default();
    clean(text, TEXT_CHARS_MAX).to_lowercase()
}

fn hyper_words(error: &hyper014::Error) -> String {
    let source = std::error::Error::source(error);
    match source.and_then(|source| source.downcast_ref::<io::Error>()) {
        Some(error) => words(error),
        None => clean(&error.to_string(), TEXT_CHARS_MAX),
    }
}
