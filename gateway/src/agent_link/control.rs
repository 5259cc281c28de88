//! The control connection: connects, sends the hello, exchanges messages, and reconnects.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
    path::Path,
    sync::{Arc, PoisonError},
    time::Duration,
};

use beemesh_protocol::{
    DecodeError, HostId,
    backoff::doubled,
    frame::{CONTROL_MAX, FrameCodec, FrameError},
    ipc::{ACCEPT_SECONDS_MAX, Done, FromAgent, Opening, ToAgent, UnitState},
    mesh::JoinAnswer,
};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use tokio::{
    io::AsyncWriteExt,
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{Semaphore, mpsc, oneshot, watch},
    time::Instant,
};
use tokio_util::codec::{Encoder, FramedRead};

use super::{Command, Inbound, LinkError, Seen, Told, replace, stream};
use crate::clock::now_ms;

/// The pause after the first failure; it doubles with each further failure.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// The longest pause: the link finds an agent that has restarted within this time.
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// Timeout for one attempt, from connecting to the agent's welcome. A socket unit accepts at once, but systemd may have
/// to start the agent first.
const ATTEMPT_MAX: Duration = Duration::from_secs(30);
/// After a connection that lasted this long, the pauses start from the minimum again.
const SETTLED_MIN: Duration = Duration::from_secs(5);
/// If the agent reads no byte for this long while some are waiting, it is stuck.
const WRITE_STALL_MAX: Duration = Duration::from_secs(20);
/// Maximum number of requests without an answer: the number of workloads that can be worked on at the same time.
const PENDING_MAX: usize = 1024;
/// While more bytes than this wait to be sent, no further command is taken.
const OUT_MAX: usize = 2 * CONTROL_MAX;
/// Maximum number of streams that are being taken at the same time.
const ACCEPTING_MAX: usize = 64;

/// The task that owns the control connection.
#[derive(Debug)]
pub(super) struct Control {
    pub(super) path: Arc<Path>,
    pub(super) version: String,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) inbound: mpsc::Sender<Inbound>,
    pub(super) told: Arc<Told>,
    pub(super) seen: Arc<Seen>,
}

/// Why a control connection ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("the agent sent no frame: {0}")]
    Frame(#[from] FrameError),
    #[error("the agent sent no message: {0}")]
    Decode(#[from] DecodeError),
    #[error("the agent closed the connection")]
    Closed,
    #[error("the agent's first message was no welcome")]
    NoWelcome,
    #[error("the agent took no byte for {} s", WRITE_STALL_MAX.as_secs())]
    Stalled,
    #[error("the agent did not answer within {} s", ATTEMPT_MAX.as_secs())]
    Late,
}

/// A control connection after the agent's welcome.
struct Connection {
    reader: FramedRead<OwnedReadHalf, FrameCodec>,
    writer: OwnedWriteHalf,
    out: BytesMut,
    pending: HashMap<u64, oneshot::Sender<Result<Done, LinkError>>>,
    request_last: u64,
    /// The units received so far from a list that arrives in several messages.
    units: BTreeMap<String, UnitState>,
}

impl Control {
    /// Runs until the last [`super::Link`] is dropped.
    pub(super) async fn run(mut self) {
        let accepting = Arc::new(Semaphore::new(ACCEPTING_MAX));
        let mut attempt = 0_u32;
        loop {
            attempt = attempt.saturating_add(1);
            let ended = match self.connect().await {
                Ok(mut connection) => {
                    let began = Instant::now();
                    let ended = self.pump(&mut connection, &accepting).await;
                    replace(&self.seen.synced, false);
                    self.reaches(BTreeSet::new());
                    if began.elapsed() > SETTLED_MIN {
                        attempt = 0;
                    }
                    match ended {
                        Ok(()) => return,
                        Err(ended) => ended,
                    }
                }
                Err(ended) => ended,
            };
            let trouble = format!(
                "waiting for {}: {ended} (attempt {})",
                self.path.display(),
                attempt.max(1)
            );
            if attempt <= 1 {
                tracing::warn!(path = %self.path.display(), error = %ended, "no connection to the agent, will retry");
            }
            replace(&self.seen.trouble, trouble.clone());
            if self.refuse_during(pause(attempt), &trouble).await.is_none() {
                return;
            }
        }
    }

    /// Answers every command with the trouble until the pause is over; `None` if the last handle was dropped.
    async fn refuse_during(&mut self, pause: Duration, trouble: &str) -> Option<()> {
        let over = tokio::time::sleep(pause);
        tokio::pin!(over);
        loop {
            tokio::select! {
                () = &mut over => return Some(()),
                command = self.commands.recv() => match command? {
                    Command::Request { reply, .. } => {
                        // The caller may have stopped waiting.
                        let _ = reply.send(Err(LinkError::Down(trouble.to_owned())));
                    }
                    Command::JoinAnswer { id, .. } => {
                        tracing::debug!(id, "answer to an application for membership dropped: {trouble}");
                    }
                },
            }
        }
    }

    async fn connect(&self) -> Result<Connection, Ended> {
        tokio::time::timeout(ATTEMPT_MAX, self.greet())
            .await
            .unwrap_or(Err(Ended::Late))
    }

    async fn greet(&self) -> Result<Connection, Ended> {
        let (reader, writer) = UnixStream::connect(&self.path).await?.into_split();
        let mut connection = Connection {
            reader: FramedRead::new(reader, FrameCodec::new(CONTROL_MAX)),
            writer,
            out: BytesMut::new(),
            pending: HashMap::new(),
            request_last: 0,
            units: BTreeMap::new(),
        };
        let version = self.version.clone();
        connection.push(Opening::Control { version }.encode())?;
        connection.writer.write_all_buf(&mut connection.out).await?;
        let first = connection.reader.next().await.ok_or(Ended::Closed)??;
        let FromAgent::Welcome(welcome) = FromAgent::decode(&first)? else {
            return Err(Ended::NoWelcome);
        };
        tracing::info!(host = %welcome.host, name = welcome.name, agent = welcome.version, "connected to the agent");
        self.reaches(welcome.connected.iter().copied().collect());
        replace(&self.seen.welcome, Some(welcome));
        replace(&self.seen.trouble, String::new());
        Ok(connection)
    }

    /// Sends and receives messages until the connection fails or the last handle is dropped.
    async fn pump(
        &mut self,
        connection: &mut Connection,
        accepting: &Arc<Semaphore>,
    ) -> Result<(), Ended> {
        let mut members = changed(&self.told.members);
        let mut report = changed(&self.told.report);
        let mut stalled = Instant::now() + WRITE_STALL_MAX;
        loop {
            let writing = !connection.out.is_empty();
            let taking = connection.out.len() < OUT_MAX && connection.pending.len() < PENDING_MAX;
            tokio::select! {
                frame = connection.reader.next() => {
                    let frame = frame.ok_or(Ended::Closed)??;
                    self.take(connection, FromAgent::decode(&frame)?, accepting);
                }
                written = connection.writer.write_buf(&mut connection.out), if writing => {
                    if written? == 0 {
                        return Err(Ended::Closed);
                    }
                    stalled = Instant::now() + WRITE_STALL_MAX;
                }
                () = tokio::time::sleep_until(stalled), if writing => return Err(Ended::Stalled),
                Ok(()) = members.changed(), if taking => {
                    let members = members.borrow_and_update().clone();
                    if let Some(members) = members {
                        connection.push(ToAgent::Members(members).encode())?;
                    }
                }
                Ok(()) = report.changed(), if taking => {
                    let report = report.borrow_and_update().clone();
                    if let Some(report) = report {
                        connection.push(ToAgent::Report(report).encode())?;
                    }
                }
                command = self.commands.recv(), if taking => match command {
                    Some(command) => connection.send(command)?,
                    None => return Ok(()),
                },
            }
            if !writing {
                stalled = Instant::now() + WRITE_STALL_MAX;
            }
        }
    }

    /// Notes which hosts the mesh reaches, and when it lost the others.
    fn reaches(&self, peers: BTreeSet<HostId>) {
        let mut lost = self
            .seen
            .lost
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        lost.retain(|host, _| !peers.contains(host));
        let before = Arc::clone(&self.seen.connected.borrow());
        let gone = before.difference(&peers);
        lost.extend(gone.map(|host| (*host, now_ms())));
        // The time is known before anybody sees that the host is gone.
        drop(lost);
        replace(&self.seen.connected, Arc::new(peers));
    }

    /// Handles one message from the agent.
    fn take(&self, connection: &mut Connection, message: FromAgent, accepting: &Arc<Semaphore>) {
        match message {
            FromAgent::Welcome(welcome) => {
                self.reaches(welcome.connected.iter().copied().collect());
                replace(&self.seen.welcome, Some(welcome));
            }
            FromAgent::Reply { id, result } => {
                connection.pending.retain(|_, reply| !reply.is_closed());
                if let Some(reply) = connection.pending.remove(&id) {
                    // The caller may have stopped waiting.
                    let _ = reply.send(result.map_err(LinkError::Refused));
                }
            }
            FromAgent::Units { units, more } => {
                let named = units.into_iter().map(|unit| (unit.workload.clone(), unit));
                connection.units.extend(named);
                // A partial list would look as if workloads were gone.
                if !more {
                    let units = std::mem::take(&mut connection.units);
                    replace(&self.seen.units, Arc::new(units));
                    replace(&self.seen.synced, true);
                }
            }
            FromAgent::Unit(unit) => self.seen.units.send_modify(|units| {
                Arc::make_mut(units).insert(unit.workload.clone(), unit);
            }),
            FromAgent::UnitGone { workload } => {
                self.seen
                    .units
                    .send_if_modified(|units| Arc::make_mut(units).remove(&workload).is_some());
            }
            FromAgent::Peer { host, connected } => {
                let mut peers = BTreeSet::clone(&self.seen.connected.borrow());
                if connected {
                    peers.insert(host);
                } else {
                    peers.remove(&host);
                }
                self.reaches(peers);
            }
            FromAgent::Incoming {
                stream,
                host,
                class,
            } => {
                let Ok(permit) = Arc::clone(accepting).try_acquire_owned() else {
                    tracing::warn!(%host, ?class, "stream left to the agent: {ACCEPTING_MAX} others are being taken");
                    return;
                };
                let (path, inbound) = (Arc::clone(&self.path), self.inbound.clone());
                tokio::spawn(async move {
                    let _permit = permit;
                    match stream::open(&path, &Opening::Accept { stream }).await {
                        Ok(stream) => {
                            let limit = Duration::from_secs(ACCEPT_SECONDS_MAX);
                            let taken = inbound
                                .send_timeout(
                                    Inbound::Stream {
                                        host,
                                        class,
                                        stream,
                                    },
                                    limit,
                                )
                                .await;
                            if taken.is_err() {
                                tracing::warn!(%host, ?class, "stream closed: the gateway does not keep up");
                            }
                        }
                        Err(error) => {
                            tracing::debug!(%host, ?class, %error, "stream of a peer not taken")
                        }
                    }
                });
            }
            FromAgent::JoinRequest { id, host, request } => {
                if self
                    .inbound
                    .try_send(Inbound::Join { id, host, request })
                    .is_err()
                {
                    let reason = "this member is busy, try again".to_owned();
                    let answer = JoinAnswer::Refused { reason };
                    if let Err(error) = connection.push(ToAgent::JoinAnswer { id, answer }.encode())
                    {
                        tracing::warn!(%host, %error, "applicant for membership gets no answer");
                    }
                }
            }
        }
    }
}

impl Connection {
    fn push(&mut self, payload: Bytes) -> Result<(), FrameError> {
        FrameCodec::new(CONTROL_MAX).encode(payload, &mut self.out)
    }

    fn send(&mut self, command: Command) -> Result<(), FrameError> {
        match command {
            Command::Request { body, reply } => {
                self.request_last += 1;
                let id = self.request_last;
                match self.push(ToAgent::Request { id, body }.encode()) {
                    Ok(()) => {
                        self.pending.insert(id, reply);
                    }
                    Err(error) => {
                        // No byte of it is in the buffer: the connection is intact, and only this request is too large.
                        let _ = reply.send(Err(error.into()));
                    }
                }
                Ok(())
            }
            Command::JoinAnswer { id, answer } => {
                self.push(ToAgent::JoinAnswer { id, answer }.encode())
            }
        }
    }
}

/// Returns a receiver that reports the current value as a change once.
fn changed<T>(watched: &watch::Sender<T>) -> watch::Receiver<T> {
    let mut receiver = watched.subscribe();
    receiver.mark_changed();
    receiver
}

/// Returns the pause after this many failed attempts; 0 means that an established connection ended.
fn pause(attempt: u32) -> Duration {
    doubled(PAUSE_MIN, PAUSE_MAX, attempt.saturating_sub(1))
}
