//! One kept-alive HTTP connection to a socket on a host, so that figures include no process start.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Method, Request, StatusCode, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

/// The connection. It lives on the runtime that created it.
#[derive(Debug)]
pub struct Client(http1::SendRequest<Full<Bytes>>);

impl Client {
    /// Connects to a socket.
    ///
    /// # Errors
    /// If no process listens there.
    pub async fn connect(socket: &Path) -> Result<Self> {
        let stream = UnixStream::connect(socket)
            .await
            .with_context(|| format!("connect to {}", socket.display()))?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // A broken connection makes the next request fail.
        tokio::spawn(connection);
        Ok(Self(sender))
    }

    /// Sends a request and returns the status and the body of the answer.
    ///
    /// # Errors
    /// If the connection broke: the server may or may not have received the request.
    pub async fn send(
        &mut self,
        method: Method,
        uri: &str,
        body: String,
    ) -> Result<(StatusCode, Bytes)> {
        let request = Request::builder()
            .method(method)
            .uri(uri)
            .header("host", "beemesh")
            .header("content-type", "application/json")
            .body(Full::new(body.into()))?;
        self.0.ready().await?;
        let answer = self.0.send_request(request).await?;
        let status = answer.status();
        Ok((status, answer.into_body().collect().await?.to_bytes()))
    }

    /// Sends a request and returns the body of the answer.
    ///
    /// # Errors
    /// If the connection broke, or the answer is no success.
    pub async fn ask(&mut self, method: Method, uri: &str, body: String) -> Result<Bytes> {
        let (status, body) = self.send(method, uri, body).await?;
        let words = String::from_utf8_lossy(&body);
        ensure!(status.is_success(), "{uri}: {status}: {words}");
        Ok(body)
    }
}
