//! One kept-alive HTTP connection to a socket on a host, so that no process start is measured.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Method, Request, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

/// The connection. It lives on the runtime that it was made on.
pub(crate) struct Client(http1::SendRequest<Full<Bytes>>);

impl Client {
    /// Connects to a socket.
    pub(crate) async fn connect(socket: &Path) -> Result<Self> {
        let stream = UnixStream::connect(socket)
            .await
            .with_context(|| format!("connect to {}", socket.display()))?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // A connection that breaks shows at the next request.
        tokio::spawn(connection);
        Ok(Self(sender))
    }

    /// Sends a request and returns the body of the answer, which must be a success.
    pub(crate) async fn ask(&mut self, method: Method, uri: &str, body: String) -> Result<Bytes> {
        let request = Request::builder()
            .method(method)
            .uri(uri)
            .header("host", "bench")
            .header("content-type", "application/json")
            .body(Full::new(body.into()))?;
        self.0.ready().await?;
        let answer = self.0.send_request(request).await?;
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        ensure!(
            status.is_success(),
            "{uri}: {status}: {}",
            String::from_utf8_lossy(&body)
        );
        Ok(body)
    }
}
