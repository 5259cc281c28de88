//! Requests and replies over one persistent stream for each peer.
//!
//! Shell. The opener numbers its requests and does not wait between them; everything that waits is framed into one
//! buffer and leaves in one write, because tiny writes are what is slow on an encrypted, multiplexed connection. A lost
//! stream fails what was on it and is opened again by the next request, after pauses that grow.

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

/// Requests that may wait for a stream. More means that the peer does not keep up; callers wait for room.
const QUEUE_MAX: usize = 256;
/// Requests without a reply on one stream; the next ones wait.
const PENDING_MAX: usize = 1024;
/// Unwritten bytes above which nothing is added to them.
const UNWRITTEN_MAX: usize = 1 << 20;
/// What an empty buffer keeps. A load's messages make it a megabyte for each follower, which nobody needs afterwards.
const KEPT_MAX: usize = 64 << 10;
/// How long opening a stream may take: the agent knows at once whether it has a connection.
const DIAL_MAX: Duration = Duration::from_secs(1);
/// Pauses between attempts grow between these. The longest is below the time that a silent leader is given: a host that comes back
/// hears of its leader before it would ask for votes.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_millis(400);

/// How long the rest of a frame may take from its first byte: the longest, at 5 Mbit/s.
const FRAME_MAX: Duration = Duration::from_secs(30);
/// How long a stream is kept on which nothing is asked. Whoever asks again opens another.
const IDLE_MAX: Duration = Duration::from_secs(600);
/// Requests that are being answered take this many times the longest frame, at the most, and whatever one more has.
const IN_HAND_FRAMES_MAX: usize = 2;

/// One kind of conversation.
pub(crate) trait Protocol: Send + Sync + 'static {
    type Request: Send + 'static;
    type Reply: Send + 'static;
    const CLASS: Class;
    const LIMIT: usize;
    /// A stream on which nothing comes back for this long, although something should, is dead.
    const SILENCE_MAX: Duration;
    fn encode(id: u64, request: Self::Request) -> Bytes;
    fn decode(bytes: &[u8]) -> Result<(u64, Self::Reply), DecodeError>;
}

/// Why there is no reply.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum CallError {
    /// The request was not sent.
    #[error("{host} is not reachable: {reason}")]
    Unreachable { host: HostId, reason: String },
    /// The stream ended; the request may have been carried out.
    #[error("the stream to {host} ended: {reason}")]
    Lost { host: HostId, reason: String },
    /// The request was not sent, because the host knows this one as no member.
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

/// The way to one peer. Clones share the stream; it closes when the last one goes.
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

    /// Puts a request on the stream; the reply comes through the receiver. A receiver without a value means that the
    /// stream's task is gone, as when the runtime ends.
    pub(crate) async fn send(
        &self,
        request: P::Request,
    ) -> oneshot::Receiver<Result<P::Reply, CallError>> {
        let (answer, reply) = oneshot::channel();
        // A send that fails drops the answer, and the receiver says so.
        drop(self.queue.send(Call { request, answer }).await);
        reply
    }
}

/// What the receiver of [`Client::send`] gives when nobody answers any more.
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

/// One stream's life on the side that asks.
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
        // Whoever asked may have given up while the request waited.
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

/// Gives the memory of a buffer back that is empty and was large.
fn shrink(buffer: &mut BytesMut) {
    // What was taken out at its front does not count as capacity, but can be reclaimed.
    if buffer.is_empty() && buffer.try_reclaim(KEPT_MAX + 1) {
        *buffer = BytesMut::new();
    }
}

/// One stream's life on the side that answers: `handle` turns a request's bytes into a reply's, at most `in_flight` at a
/// time. Ends with the stream; `Ok` when the other side closed it or asks nothing any more. A frame of which only a part comes in its
/// time is an error.
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
    // Bytes of the requests that are being answered.
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

/// Frames as they arrive, each within its time.
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

    /// The time stands still but for what `advance` adds.
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
