//! The agent's socket: the gateway's control connection, and one connection for each stream.
//!
//! Shell: decodes frames into [`IpcEvent`]s and encodes messages; it makes no decisions. It closes a connection that
//! sends invalid data, too much data, or no data in time, without an effect on other connections. Only root and the
//! agent's own user may connect.

use std::{
    io,
    os::fd::{FromRawFd, OwnedFd},
    os::unix::net::UnixListener as StdListener,
    path::Path,
    sync::Arc,
    time::Duration,
};

use beemesh_protocol::{
    DecodeError, HostId,
    frame::{CONTROL_MAX, FrameCodec, FrameError},
    ipc::{Class, FromAgent, NoStream, Opened, Opening, ToAgent},
};
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::{Semaphore, mpsc},
    time::timeout,
};
use tokio_util::codec::{Framed, FramedParts};

/// Connections whose first frame has not arrived.
const OPENINGS_MAX: usize = 64;
/// How long the first frame may take.
const OPENING_TIME: Duration = Duration::from_secs(5);
/// How long a control connection may block without the gateway reading a byte.
const STALL_MAX: Duration = Duration::from_secs(10);
/// Queued messages to the gateway: some for each of a hundred workloads and streams.
const TOLD_MAX: usize = 512;

type Connection = Framed<UnixStream, FrameCodec>;

/// An event of the socket.
#[derive(Debug)]
pub(crate) enum IpcEvent {
    /// A gateway connected.
    Control(Control),
    /// The gateway sent a message.
    Message { control: u64, message: ToAgent },
    /// The control connection ended.
    Ended { control: u64 },
    /// The gateway requests a stream to a member.
    Open {
        host: HostId,
        class: Class,
        caller: Caller,
    },
    /// The gateway takes a stream that a member opened.
    Accept { stream: u64, caller: Caller },
}

/// A control connection. Dropping it closes the connection.
#[derive(Debug)]
pub(crate) struct Control {
    /// Counts the control connections since the agent's start.
    pub(crate) number: u64,
    /// The gateway's version.
    pub(crate) version: String,
    told: mpsc::Sender<FromAgent>,
}

impl Control {
    /// Queues a message. Returns `false` if the queue is full, because the gateway does not keep up. The gateway should
    /// then reconnect.
    pub(crate) fn tell(&self, message: FromAgent) -> bool {
        self.told.try_send(message).is_ok()
    }
}

/// A connection that requested a stream and waits for the agent's answer.
#[derive(Debug)]
pub(crate) struct Caller(Connection);

impl Caller {
    /// Answers that the stream is open, and returns the connection with the bytes that arrived early.
    pub(crate) async fn ready(mut self) -> Result<(Bytes, UnixStream), FrameError> {
        self.answer(Opened::Ready).await?;
        let FramedParts { io, read_buf, .. } = self.0.into_parts();
        Ok((read_buf.freeze(), io))
    }

    /// Answers that there is none.
    pub(crate) async fn refuse(mut self, why: NoStream) {
        if let Err(error) = self.answer(Opened::Refused(why)).await {
            tracing::debug!(%error, "the gateway did not wait for the answer");
        }
    }

    async fn answer(&mut self, opened: Opened) -> Result<(), FrameError> {
        timeout(STALL_MAX, self.0.send(opened.encode()))
            .await
            .map_err(|_| FrameError::Io(io::ErrorKind::TimedOut.into()))?
    }
}

/// The reason why a connection is closed.
#[derive(Debug, thiserror::Error)]
enum ConnectionError {
    #[error("user {0} may not use this socket")]
    User(u32),
    #[error("read the peer's credentials")]
    Credentials(#[source] io::Error),
    #[error("no opening within {} s", OPENING_TIME.as_secs())]
    Late,
    #[error("the gateway took no byte for {} s", STALL_MAX.as_secs())]
    Stalled,
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

/// Returns the socket that systemd passed, if it passed one.
pub(crate) fn inherited() -> io::Result<Option<UnixListener>> {
    let mut sockets = sd_notify::listen_fds()?;
    let Some(fd) = sockets.next() else {
        return Ok(None);
    };
    if sockets.len() > 0 {
        return Err(io::Error::other("systemd passed more than one socket"));
    }
    #[allow(
        unsafe_code,
        reason = "systemd gave this descriptor to this process, and nothing else here knows its number"
    )]
    // SAFETY: `listen_fds` checked that the descriptor is meant for this process; it is taken once, at start.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    listener(StdListener::from(fd)).map(Some)
}

/// Binds the socket, for an agent that is started by hand.
pub(crate) fn bind(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    listener(StdListener::bind(path)?)
}

fn listener(listener: StdListener) -> io::Result<UnixListener> {
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

/// Accepts connections until the receiver of the events is dropped.
pub(crate) async fn serve(listener: UnixListener, events: mpsc::Sender<IpcEvent>) {
    let openings = Arc::new(Semaphore::new(OPENINGS_MAX));
    for number in 0.. {
        let permit = tokio::select! {
            permit = Arc::clone(&openings).acquire_owned() => permit,
            () = events.closed() => return,
        };
        let stream = tokio::select! {
            accepted = listener.accept() => accepted,
            () = events.closed() => return,
        };
        let stream = match stream {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                // Out of file descriptors or memory. Other connections must end first, and a loop without a pause would
                // spin.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let events = events.clone();
        tokio::spawn(async move {
            let opened = open(stream).await;
            drop(permit);
            let ended = match opened {
                Ok((opening, connection)) => hand_over(opening, connection, number, events).await,
                Err(error) => Err(error),
            };
            if let Err(error) = ended {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "connection closed"
                );
            }
        });
    }
}

/// Checks the user of a connection and reads its first frame.
async fn open(stream: UnixStream) -> Result<(Opening, Connection), ConnectionError> {
    let user = stream
        .peer_cred()
        .map_err(ConnectionError::Credentials)?
        .uid();
    if user != 0 && user != nix::unistd::geteuid().as_raw() {
        return Err(ConnectionError::User(user));
    }
    let mut connection = Framed::new(stream, FrameCodec::new(CONTROL_MAX));
    let first = timeout(OPENING_TIME, connection.next()).await;
    let frame = match first {
        Err(_) => return Err(ConnectionError::Late),
        Ok(None) => return Err(FrameError::Io(io::ErrorKind::UnexpectedEof.into()).into()),
        Ok(Some(frame)) => frame?,
    };
    Ok((Opening::decode(&frame)?, connection))
}

async fn hand_over(
    opening: Opening,
    connection: Connection,
    number: u64,
    events: mpsc::Sender<IpcEvent>,
) -> Result<(), ConnectionError> {
    let caller = |connection| Caller(connection);
    let event = match opening {
        Opening::Control { version } => return control(version, connection, number, events).await,
        Opening::Open { host, class } => IpcEvent::Open {
            host,
            class,
            caller: caller(connection),
        },
        Opening::Accept { stream } => IpcEvent::Accept {
            stream,
            caller: caller(connection),
        },
    };
    // A closed queue means that the agent is stopping.
    let _ = events.send(event).await;
    Ok(())
}

/// Moves messages in both directions until either side ends the connection.
async fn control(
    version: String,
    mut connection: Connection,
    number: u64,
    events: mpsc::Sender<IpcEvent>,
) -> Result<(), ConnectionError> {
    let (told, mut told_from) = mpsc::channel(TOLD_MAX);
    let control = Control {
        number,
        version,
        told,
    };
    if events.send(IpcEvent::Control(control)).await.is_err() {
        return Ok(());
    }
    let result = converse(&mut connection, number, &mut told_from, &events).await;
    // A closed queue means that the agent is stopping.
    let _ = events.send(IpcEvent::Ended { control: number }).await;
    result
}

async fn converse(
    connection: &mut Connection,
    number: u64,
    told: &mut mpsc::Receiver<FromAgent>,
    events: &mpsc::Sender<IpcEvent>,
) -> Result<(), ConnectionError> {
    loop {
        tokio::select! {
            frame = connection.next() => {
                let Some(frame) = frame else { return Ok(()) };
                let message = ToAgent::decode(&frame?)?;
                if events.send(IpcEvent::Message { control: number, message }).await.is_err() {
                    return Ok(());
                }
            }
            first = told.recv() => {
                let Some(first) = first else { return Ok(()) };
                let written = async {
                    connection.feed(first.encode()).await?;
                    while let Ok(next) = told.try_recv() {
                        connection.feed(next.encode()).await?;
                    }
                    connection.flush().await
                };
                timeout(STALL_MAX, written).await.map_err(|_| ConnectionError::Stalled)??;
            }
        }
    }
}
