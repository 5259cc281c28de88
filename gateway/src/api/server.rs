//! Serves HTTP/1.1 connections.
//!
//! Shell: accepts, limits and ends connections. The gateway closes the connection of a client that does not send its
//! headers or does not read its response in time, so that it blocks no other client.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{Extension, Router};
use beemesh_protocol::HostId;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{UnixListener, UnixStream},
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, Sleep, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{
    Shared,
    request::{Caller, with_session},
    routes::{peer_router, routes},
};

/// Maximum number of concurrent connections; further clients wait in the kernel's queue. A connection needs some tens
/// of KiB.
const CONNECTIONS_MAX: usize = 256;
/// Time limit from the start of a connection, or the end of a response, to the end of the next request's headers.
const HEADERS_TIME_MAX: Duration = Duration::from_secs(60);
/// How long a client may leave a response unread.
const UNREAD_TIME_MAX: Duration = Duration::from_secs(30);
/// How long requests may take to end after the gateway begins to stop. A client whose connection is closed then, such
/// as `beemesh`, can retry.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(2);
/// Pause after a failed accept. The limit of open files may be reached until other connections end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves local callers until `stop`. Requests in progress then have a limited time to end.
pub(crate) async fn serve(listener: UnixListener, shared: Shared, stop: CancellationToken) {
    let router = routes().with_state(shared);
    let router = router.layer(axum::middleware::from_fn(with_session));
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = accept(&listener, &slots) => accepted,
        };
        let (stream, slot) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection to the API was not accepted");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let router = router.clone().layer(Extension(caller(&stream)));
        let stop = stop.clone();
        connections.spawn(async move {
            connection(stream, router, stop).await;
            drop(slot);
        });
    }
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN_TIME_MAX, drained).await.is_err() {
        tracing::info!("the stop ended requests to the API");
    }
}

/// Serves the requests of one member on a stream of the mesh, on the routes for members only.
pub(crate) async fn serve_stream(shared: Shared, host: HostId, stream: UnixStream) {
    let router = peer_router(shared).layer(Extension(Caller::Host(host)));
    connection(stream, router, CancellationToken::new()).await;
}

pub(super) async fn accept(
    listener: &UnixListener,
    slots: &Arc<Semaphore>,
) -> io::Result<(UnixStream, tokio::sync::OwnedSemaphorePermit)> {
    let slot = Arc::clone(slots).acquire_owned().await;
    let slot = slot.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, slot))
}

fn caller(stream: &UnixStream) -> Caller {
    match stream.peer_cred() {
        Ok(credentials) => Caller::Local {
            uid: credentials.uid(),
            pid: credentials.pid().unwrap_or(0),
            session: String::new(),
        },
        // Only a closed socket has no credentials.
        Err(_) => Caller::Local {
            uid: u32::MAX,
            pid: 0,
            session: String::new(),
        },
    }
}

/// Serves one connection until it ends, or until `stop` and the end of its request in progress.
pub(super) async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    router: Router,
    stop: CancellationToken,
) {
    let io = TokioIo::new(Impatient::new(stream, UNREAD_TIME_MAX));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_TIME_MAX)
        .serve_connection(io, TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection to the API ended early");
    }
}

/// A stream whose writes fail if the other side has read nothing for a given time.
struct Impatient<S> {
    stream: S,
    patience: Duration,
    /// The timer of a write that waits.
    waiting: Option<Pin<Box<Sleep>>>,
}

impl<S> Impatient<S> {
    fn new(stream: S, patience: Duration) -> Self {
        Self {
            stream,
            patience,
            waiting: None,
        }
    }

    fn bounded<T>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.waiting = None;
            return written;
        }
        let deadline = Instant::now() + self.patience;
        let waiting = self
            .waiting
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        ready!(waiting.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Impatient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Impatient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.bounded(context, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.bounded(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn a_caller_that_does_not_read_is_dropped_and_one_that_reads_is_not() {
        let (near, mut far) = tokio::io::duplex(4);
        let mut near = Impatient::new(near, Duration::from_millis(800));
        let reader = tokio::spawn(async move {
            let mut bytes = [0; 4];
            for _ in 0..3 {
                sleep(Duration::from_millis(300)).await;
                far.read_exact(&mut bytes).await.unwrap();
            }
            sleep(Duration::from_secs(5)).await;
        });
        near.write_all(&[1; 16]).await.unwrap();
        let error = near.write_all(&[1; 16]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        reader.abort();
    }
}
