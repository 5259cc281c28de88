//! Requests and replies over one persistent stream to each peer.
//!
//! Shell. The opener numbers its requests and does not wait between them. All queued requests are framed into one
//! buffer and sent with one write, because small writes are slow on an encrypted, multiplexed connection. When a stream
//! is lost, its requests fail; the next request opens another stream, after pauses that grow.

use std::{
    collections::HashMap,
    future::{Future, poll_fn},
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use beemesh_protocol::{
    DecodeError, HostId,
    frame::{FrameCodec, FrameError},
    ipc::Class,
};
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, stream::FuturesUnordered};
use tokio::{
    io::{AsyncRead, AsyncWriteExt},
    net::UnixStream,
    sync::{mpsc, oneshot},
    time::{Instant, Sleep, sleep, sleep_until, timeout},
};
use tokio_util::codec::{Encoder, FramedRead};

use super::Dial;

/// Maximum number of requests that wait for a stream. When the peer does not keep up, callers wait for room.
const QUEUE_MAX: usize = 256;
/// Maximum number of requests without a reply on one stream; further ones wait.
const PENDING_MAX: usize = 1024;
/// Number of unwritten bytes above which no frame is added to them.
const UNWRITTEN_MAX: usize = 1 << 20;
/// Capacity that an empty buffer keeps. Under load, a buffer grows to a megabyte for each follower, which is not needed
/// afterwards.
const KEPT_MAX: usize = 64 << 10;
/// Timeout for opening a stream. The agent knows at once whether it has a connection.
const DIAL_MAX: Duration = Duration::from_secs(1);
/// The pause between attempts grows from the first to the second value. The longest pause is less than the time after
/// which followers doubt a silent leader: a host that returns hears its leader before it would ask for votes.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_millis(400);

/// Timeout for the rest of a frame after its first byte: the longest frame, at 5 Mbit/s.
const FRAME_MAX: Duration = Duration::from_secs(30);
/// How long a stream without requests stays open. The next request opens another one.
const IDLE_MAX: Duration = Duration::from_secs(600);
/// The requests in progress take at most this many times the longest frame, plus the size of one more.
const IN_HAND_FRAMES_MAX: usize = 2;

/// A pair of request and reply types, and the class of their streams.
pub(crate) trait Protocol: Send + Sync + 'static {
    type Request: Send + 'static;
    type Reply: Send + 'static;
    const CLASS: Class;
    const LIMIT: usize;
    /// If a reply is due and nothing arrives for this long, the stream is dead.
    const SILENCE_MAX: Duration;
    fn encode(id: u64, request: Self::Request) -> Bytes;
    fn decode(bytes: &[u8]) -> Result<(u64, Self::Reply), DecodeError>;
}

/// Why a call has no reply.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum CallError {
    /// The request was not sent.
    #[error("{host} is not reachable: {reason}")]
    Unreachable { host: HostId, reason: String },
    /// The stream ended; the peer may have carried out the request.
    #[error("the stream to {host} ended: {reason}")]
    Lost { host: HostId, reason: String },
    /// The request was not sent, because the peer does not know this host as a member.
    #[error("{0} does not regard this host as a member")]
    Stranger(HostId),
}

impl CallError {
    fn not_opened(host: HostId, error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::PermissionDenied => Self::Stranger(host),
            _ => Self::Unreachable {
                host,
                reason: error.to_string(),
            },
        }
    }
}

type Answer<P> = oneshot::Sender<Result<<P as Protocol>::Reply, CallError>>;

struct Call<P: Protocol> {
    request: P::Request,
    answer: Answer<P>,
}

/// A connection to one peer. Clones share the stream, which closes when the last clone is dropped.
pub(crate) struct Client<P: Protocol> {
    queue: mpsc::Sender<Call<P>>,
}

impl<P: Protocol> Clone for Client<P> {
    fn clone(&self) -> Self {
        Self {
            queue: self.queue.clone(),
        }
    }
}

impl<P: Protocol> Client<P> {
    pub(crate) fn new(dial: Arc<dyn Dial>, host: HostId) -> Self {
        let (queue, calls) = mpsc::channel(QUEUE_MAX);
        tokio::spawn(run::<P>(dial, host, calls));
        Self { queue }
    }

    /// Queues a request for the stream; the reply arrives through the receiver. If the receiver ends without a value,
    /// the stream's task is gone, as it is when the runtime ends.
    pub(crate) async fn send(
        &self,
        request: P::Request,
    ) -> oneshot::Receiver<Result<P::Reply, CallError>> {
        let (answer, reply) = oneshot::channel();
        // If the queue is closed, the answer is dropped, and the receiver reports that.
        drop(self.queue.send(Call { request, answer }).await);
        reply
    }
}

/// The error of a [`Client::send`] whose receiver ended without a value.
pub(crate) fn gone(host: HostId) -> CallError {
    CallError::Lost {
        host,
        reason: "this gateway is stopping".into(),
    }
}

async fn run<P: Protocol>(dial: Arc<dyn Dial>, host: HostId, mut calls: mpsc::Receiver<Call<P>>) {
    let mut pause = PAUSE_MIN;
    let mut resting: Option<(Instant, CallError)> = None;
    while let Some(call) = calls.recv().await {
        if let Some((until, error)) = &resting
            && Instant::now() < *until
        {
            drop(call.answer.send(Err(error.clone())));
            continue;
        }
        let error = match timeout(DIAL_MAX, dial.open(host, P::CLASS)).await {
            Ok(Ok(stream)) => {
                let mut talk = Talk::<P>::new(host);
                talk.add(call);
                let reason = talk.run(stream, &mut calls).await;
                if talk.heard {
                    pause = PAUSE_MIN;
                }
                tracing::debug!(%host, class = ?P::CLASS, reason, "stream ended");
                talk.fail(&reason);
                CallError::Unreachable { host, reason }
            }
            Ok(Err(error)) => {
                let error = CallError::not_opened(host, &error);
                drop(call.answer.send(Err(error.clone())));
                error
            }
            Err(_) => {
                let reason = format!("no stream within {DIAL_MAX:?}");
                let error = CallError::Unreachable { host, reason };
                drop(call.answer.send(Err(error.clone())));
                error
            }
        };
        resting = Some((Instant::now() + pause, error));
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// The asking side of one stream.
struct Talk<P: Protocol> {
    host: HostId,
    next: u64,
    pending: HashMap<u64, Answer<P>>,
    unwritten: BytesMut,
    heard: bool,
}

impl<P: Protocol> Talk<P> {
    fn new(host: HostId) -> Self {
        Self {
            host,
            next: 1,
            pending: HashMap::new(),
            unwritten: BytesMut::new(),
            heard: false,
        }
    }

    fn add(&mut self, call: Call<P>) {
        // The caller may have given up while the request waited.
        if call.answer.is_closed() {
            return;
        }
        let id = self.next;
        self.next += 1;
        let payload = P::encode(id, call.request);
        match FrameCodec::new(P::LIMIT).encode(payload, &mut self.unwritten) {
            Ok(()) => drop(self.pending.insert(id, call.answer)),
            Err(error) => {
                let reason = error.to_string();
                let host = self.host;
                drop(
                    call.answer
                        .send(Err(CallError::Unreachable { host, reason })),
                );
            }
        }
    }

    async fn run(&mut self, stream: UnixStream, calls: &mut mpsc::Receiver<Call<P>>) -> String {
        let (read, mut write) = stream.into_split();
        let mut frames = FramedRead::new(read, FrameCodec::new(P::LIMIT));
        let mut batch = Vec::new();
        let mut alive = Instant::now();
        loop {
            let room = self.pending.len() < PENDING_MAX && self.unwritten.len() < UNWRITTEN_MAX;
            tokio::select! {
                written = write.write_buf(&mut self.unwritten), if !self.unwritten.is_empty() => match written {
                    Ok(0) => return "closed".into(),
                    Ok(_) => {
                        alive = Instant::now();
                        shrink(&mut self.unwritten);
                    }
                    Err(error) => return error.to_string(),
                },
                frame = frames.next() => match frame {
                    Some(Ok(bytes)) => match P::decode(&bytes) {
                        Ok((id, reply)) => {
                            alive = Instant::now();
                            self.heard = true;
                            if let Some(answer) = self.pending.remove(&id) {
                                drop(answer.send(Ok(reply)));
                            }
                        }
                        Err(error) => return error.to_string(),
                    },
                    Some(Err(error)) => return error.to_string(),
                    None => return "closed by the other side".into(),
                },
                count = calls.recv_many(&mut batch, QUEUE_MAX), if room => {
                    if count == 0 {
                        return "no longer used".into();
                    }
                    if self.pending.is_empty() {
                        alive = Instant::now();
                    }
                    for call in batch.drain(..) {
                        self.add(call);
                    }
                },
                () = sleep_until(alive + P::SILENCE_MAX), if !self.pending.is_empty() => {
                    return format!("silent for {:?}", P::SILENCE_MAX);
                },
            }
        }
    }

    fn fail(&mut self, reason: &str) {
        for (_, answer) in self.pending.drain() {
            drop(answer.send(Err(CallError::Lost {
                host: self.host,
                reason: reason.to_owned(),
            })));
        }
    }
}

/// Frees the memory of an empty buffer that was large.
fn shrink(buffer: &mut BytesMut) {
    // The capacity does not include the space of bytes that were taken from the front, but that space can be reclaimed.
    if buffer.is_empty() && buffer.try_reclaim(KEPT_MAX + 1) {
        *buffer = BytesMut::new();
    }
}

/// The answering side of one stream. `handle` turns the bytes of a request into those of a reply, for at most
/// `in_flight` requests at a time. It returns when the stream ends: `Ok` if the other side closed it or has sent no
/// request for [`IDLE_MAX`]. A frame that does not arrive completely within [`FRAME_MAX`] is an error.
pub(crate) async fn answer<F, R>(
    stream: UnixStream,
    limit: usize,
    in_flight: usize,
    mut handle: F,
) -> Result<(), FrameError>
where
    F: FnMut(Bytes) -> R,
    R: Future<Output = Result<Bytes, DecodeError>>,
{
    let (read, mut write) = stream.into_split();
    let mut frames = Arriving::new(read, limit);
    let mut codec = FrameCodec::new(limit);
    let mut working = FuturesUnordered::new();
    // Size of the requests in progress, in bytes.
    let mut in_hand = 0;
    let mut unwritten = BytesMut::new();
    loop {
        let room = working.len() < in_flight
            && in_hand < IN_HAND_FRAMES_MAX * limit
            && unwritten.len() < UNWRITTEN_MAX;
        tokio::select! {
            written = write.write_buf(&mut unwritten), if !unwritten.is_empty() => {
                if written? == 0 {
                    return Ok(());
                }
                shrink(&mut unwritten);
            },
            Some((length, reply)) = working.next(), if !working.is_empty() => {
                in_hand -= length;
                let reply: Result<Bytes, DecodeError> = reply;
                let reply = reply.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
                codec.encode(reply, &mut unwritten)?;
            },
            frame = poll_fn(|context| frames.poll_next(context)), if room => match frame {
                Some(bytes) => {
                    let bytes = bytes?;
                    let length = bytes.len();
                    in_hand += length;
                    let reply = handle(bytes);
                    working.push(async move { (length, reply.await) });
                }
                None => return Ok(()),
            },
            () = sleep(IDLE_MAX) => return Ok(()),
        }
    }
}

/// Reads frames, each within [`FRAME_MAX`].
struct Arriving<S> {
    frames: FramedRead<S, FrameCodec>,
    /// Runs from the first byte of a frame to its last.
    late: Option<Pin<Box<Sleep>>>,
}

impl<S: AsyncRead + Unpin> Arriving<S> {
    fn new(stream: S, limit: usize) -> Self {
        Self {
            frames: FramedRead::new(stream, FrameCodec::new(limit)),
            late: None,
        }
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, FrameError>>> {
        if let Poll::Ready(frame) = self.frames.poll_next_unpin(context) {
            self.late = None;
            return Poll::Ready(frame);
        }
        if self.frames.read_buffer().is_empty() {
            return Poll::Pending;
        }
        let late = self.late.get_or_insert_with(|| Box::pin(sleep(FRAME_MAX)));
        ready!(late.as_mut().poll(context));
        let half = io::Error::new(io::ErrorKind::TimedOut, "half a frame and no more");
        Poll::Ready(Some(Err(half.into())))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use bytes::Buf as _;
    use tokio::{io::AsyncReadExt as _, sync::Semaphore, time::advance};

    use super::*;

    /// The clock is paused; only `advance` moves it.
    #[tokio::test(start_paused = true)]
    async fn half_a_frame_ends_its_stream_and_so_does_idleness_and_a_slow_frame_does_not() {
        for (bytes, then, ends) in [
            (&b""[..], IDLE_MAX, "Ok(())"),
            (b"\x09", FRAME_MAX, "half a frame and no more"),
            (b"\x09\0\0\0\x01half", FRAME_MAX, "half a frame and no more"),
        ] {
            let (mut far, near) = UnixStream::pair().unwrap();
            let answered = answer(near, 64, 1, |_| async { Ok(Bytes::from_static(b"!")) });
            let mut answered = std::pin::pin!(answered);
            far.write_all(bytes).await.unwrap();
            let waited = timeout(then - Duration::from_millis(2), answered.as_mut()).await;
            assert!(waited.is_err(), "{bytes:?}: {waited:?}");
            if bytes.len() > 5 {
                far.write_all(b"done").await.unwrap();
                let mut reply = [0; 6];
                let replied = async { far.read_exact(&mut reply).await.map(|_| ()) };
                tokio::select! {
                    _ = answered.as_mut() => panic!("the frame is whole"),
                    replied = replied => replied.unwrap(),
                }
                assert_eq!(&reply, b"\x02\0\0\0\x01!");
                far.write_all(bytes).await.unwrap();
            } else {
                advance(Duration::from_millis(2)).await;
            }
            let ended = timeout(then, answered).await.unwrap();
            assert!(format!("{ended:?}").contains(ends), "{bytes:?}: {ended:?}");
        }
    }

    #[tokio::test]
    async fn requests_that_are_being_answered_are_bounded_in_bytes() {
        const LIMIT: usize = 1 << 10;
        let (mut far, near) = UnixStream::pair().unwrap();
        let (taken, go) = (Cell::new(0), Semaphore::new(0));
        let answered = answer(near, LIMIT, 256, |_| {
            taken.set(taken.get() + 1);
            async {
                go.acquire().await.unwrap().forget();
                Ok(Bytes::new())
            }
        });
        let mut answered = std::pin::pin!(answered);
        let mut frames = BytesMut::new();
        for _ in 0..8 {
            let frame = Bytes::from(vec![7; LIMIT]);
            FrameCodec::new(LIMIT).encode(frame, &mut frames).unwrap();
        }
        far.write_all(&frames).await.unwrap();
        let mut reply = [0; 5];
        for (released, expected) in [(0, 2), (1, 3), (3, 6)] {
            go.add_permits(released);
            for _ in 0..released {
                tokio::select! {
                    ended = answered.as_mut() => panic!("{ended:?}"),
                    read = far.read_exact(&mut reply) => drop(read.unwrap()),
                }
            }
            let more = timeout(Duration::from_millis(50), answered.as_mut()).await;
            assert!(more.is_err(), "{more:?}");
            assert_eq!(taken.get(), expected);
        }
    }

    #[test]
    fn a_buffer_keeps_little_of_what_a_load_made_it_take() {
        for (size, kept) in [(KEPT_MAX / 2, true), (UNWRITTEN_MAX, false)] {
            let mut buffer = BytesMut::new();
            buffer.extend_from_slice(&vec![7; size]);
            buffer.advance(1);
            shrink(&mut buffer);
            assert_eq!(buffer.len(), size - 1, "what is unwritten stays");
            buffer.advance(size - 1);
            shrink(&mut buffer);
            assert_eq!(buffer.try_reclaim(size), kept, "{size}");
        }
    }
}
