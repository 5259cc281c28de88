//! Limits what a connection may use before it is known to be a member's, and what a stranger's connection may use at
//! all.
//!
//! Shell inside libp2p's transports: counts the bytes received over TCP from the first one on, and the streams that the
//! remote side opens by either transport. A connection that exceeds a limit ends. Connections that this host dials are
//! pinned to the key of the other host and have no limit here.

use std::{
    collections::{HashMap, HashSet},
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use futures::{AsyncRead, AsyncWrite};
use libp2p::{
    Multiaddr, PeerId,
    core::{ConnectedPoint, StreamMuxer, muxing::StreamMuxerEvent},
    yamux,
};
use tokio::time::{Sleep, sleep};

/// Bytes that a stranger may send over TCP: its handshake and one application.
const BYTES_MAX: u64 = 128 << 10;
/// How long a connection lasts after its second stream. A host that does not know yet that it is no longer a member
/// opens several streams at once, and learns from the answers that it was removed.
const END_TIME: Duration = Duration::from_millis(500);
/// Streams of a stranger that Yamux keeps during that time.
const STREAMS_MAX: usize = 8;

/// The members of the cluster, shared by the transports and the gate.
#[derive(Debug, Clone, Default)]
pub(super) struct Members(Arc<RwLock<HashSet<PeerId>>>);

impl Members {
    pub(super) fn set(&self, members: impl IntoIterator<Item = PeerId>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = members.into_iter().collect();
    }

    pub(super) fn contains(&self, peer: &PeerId) -> bool {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(peer)
    }

    /// Returns true if a stranger began the connection.
    fn is_stranger(&self, peer: &PeerId, point: &ConnectedPoint) -> bool {
        point.is_listener() && !self.contains(peer)
    }
}

/// TCP connections whose bytes are still limited, by remote address.
#[derive(Debug, Clone, Default)]
pub(super) struct Meters(Arc<Mutex<HashMap<Multiaddr, Arc<AtomicBool>>>>);

impl Meters {
    fn all(&self) -> MutexGuard<'_, HashMap<Multiaddr, Arc<AtomicBool>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Limits the received bytes of a connection that the remote side began.
    pub(super) fn meter<S>(&self, stream: S, point: &ConnectedPoint) -> Metered<S> {
        let from = match point {
            ConnectedPoint::Listener { send_back_addr, .. } => Some(send_back_addr.clone()),
            ConnectedPoint::Dialer { .. } => None,
        };
        let lifted = Arc::new(AtomicBool::new(from.is_none()));
        if let Some(from) = &from {
            self.all().insert(from.clone(), lifted.clone());
        }
        Metered {
            stream,
            left: BYTES_MAX,
            bound: Bound {
                meters: self.clone(),
                from,
                lifted,
            },
        }
    }

    /// Returns the Yamux configuration of a connection, and lifts the limit on bytes if it is a member's.
    pub(super) fn shared(
        &self,
        members: &Members,
        streams: usize,
        peer: &PeerId,
        point: &ConnectedPoint,
    ) -> yamux::Config {
        let stranger = members.is_stranger(peer, point);
        if let ConnectedPoint::Listener { send_back_addr, .. } = point
            && !stranger
            && let Some(lifted) = self.all().get(send_back_addr)
        {
            lifted.store(true, Ordering::Relaxed);
        }
        let mut config = yamux::Config::default();
        config.set_max_num_streams(if stranger { STREAMS_MAX } else { streams });
        config
    }
}

/// Removes the entry of a connection when it is dropped.
#[derive(Debug)]
struct Bound {
    meters: Meters,
    from: Option<Multiaddr>,
    lifted: Arc<AtomicBool>,
}

impl Drop for Bound {
    fn drop(&mut self) {
        if let Some(from) = &self.from {
            let mut all = self.meters.all();
            // A newer connection may have the same address and port.
            if all
                .get(from)
                .is_some_and(|lifted| Arc::ptr_eq(lifted, &self.lifted))
            {
                all.remove(from);
            }
        }
    }
}

/// A connection that ends after `left` more received bytes, unless its limit is lifted.
#[derive(Debug)]
pub(super) struct Metered<S> {
    stream: S,
    left: u64,
    bound: Bound,
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.bound.lifted.load(Ordering::Relaxed) {
            return Pin::new(&mut this.stream).poll_read(context, buffer);
        }
        if this.left == 0 {
            return Poll::Ready(Err(io::Error::other("a stranger sent more than it may")));
        }
        let most = usize::try_from(this.left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let read = ready!(Pin::new(&mut this.stream).poll_read(context, &mut buffer[..most]))?;
        this.left = this
            .left
            .saturating_sub(u64::try_from(read).unwrap_or(u64::MAX));
        Poll::Ready(Ok(read))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, buffer)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, buffers)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(context)
    }
}

/// A connection that ends soon after a stranger's second stream.
#[derive(Debug)]
pub(super) struct Guarded<M> {
    muxer: M,
    stranger: Stranger,
}

/// The streams that a stranger has opened.
#[derive(Debug)]
enum Stranger {
    /// The peer is no stranger.
    No,
    Nothing,
    Stream,
    /// Two or more; the connection ends at that time.
    Streams(Pin<Box<Sleep>>),
}

impl<M> Guarded<M> {
    pub(super) fn new(muxer: M, members: &Members, peer: &PeerId, point: &ConnectedPoint) -> Self {
        let stranger = members.is_stranger(peer, point);
        Self {
            muxer,
            stranger: if stranger {
                Stranger::Nothing
            } else {
                Stranger::No
            },
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub(super) enum GuardError<E: std::error::Error> {
    #[error(transparent)]
    Muxer(E),
    #[error("a stranger opened a second stream")]
    SecondStream,
}

impl<M: StreamMuxer + Unpin> StreamMuxer for Guarded<M>
where
    M::Error: 'static,
{
    type Substream = M::Substream;
    type Error = GuardError<M::Error>;

    fn poll_inbound(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Result<Self::Substream, Self::Error>> {
        let opened = ready!(Pin::new(&mut self.muxer).poll_inbound(context));
        let opened = opened.map_err(GuardError::Muxer)?;
        match self.stranger {
            Stranger::Nothing => self.stranger = Stranger::Stream,
            Stranger::Stream => {
                self.stranger = Stranger::Streams(Box::pin(sleep(END_TIME)));
                // `poll` must start the timer.
                context.waker().wake_by_ref();
            }
            Stranger::No | Stranger::Streams(_) => {}
        }
        Poll::Ready(Ok(opened))
    }

    fn poll_outbound(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Result<Self::Substream, Self::Error>> {
        Pin::new(&mut self.muxer)
            .poll_outbound(context)
            .map_err(GuardError::Muxer)
    }

    fn poll_close(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), Self::Error>> {
        Pin::new(&mut self.muxer)
            .poll_close(context)
            .map_err(GuardError::Muxer)
    }

    fn poll(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Result<StreamMuxerEvent, Self::Error>> {
        if let Stranger::Streams(end) = &mut self.stranger
            && end.as_mut().poll(context).is_ready()
        {
            return Poll::Ready(Err(GuardError::SecondStream));
        }
        Pin::new(&mut self.muxer)
            .poll(context)
            .map_err(GuardError::Muxer)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use futures::{AsyncReadExt, io::Cursor};
    use libp2p::core::{Endpoint, muxing::StreamMuxerExt, transport::PortUse};

    use super::*;

    fn listener(from: &str) -> ConnectedPoint {
        ConnectedPoint::Listener {
            local_addr: Multiaddr::empty(),
            send_back_addr: from.parse().unwrap(),
        }
    }

    fn dialer() -> ConnectedPoint {
        ConnectedPoint::Dialer {
            address: Multiaddr::empty(),
            role_override: Endpoint::Dialer,
            port_use: PortUse::New,
        }
    }

    async fn read(meters: &Meters, point: &ConnectedPoint, lift: impl FnOnce()) -> usize {
        let bytes = vec![0; 1 << 20];
        let mut metered = meters.meter(Cursor::new(bytes), point);
        lift();
        let mut read = Vec::new();
        // The read ends with the stream or with the meter's error.
        let _ = metered.read_to_end(&mut read).await;
        read.len()
    }

    #[tokio::test]
    async fn so_many_bytes_come_from_a_stranger_and_all_from_a_member() {
        let (members, meters) = (Members::default(), Meters::default());
        let (member, stranger) = (PeerId::random(), PeerId::random());
        members.set([member]);
        let point = listener("/ip4/10.0.0.1/tcp/4000");
        let lift = |peer| {
            let _ = meters.shared(&members, 128, &peer, &point);
        };
        let bound = usize::try_from(BYTES_MAX).unwrap();
        assert_eq!(read(&meters, &point, || {}).await, bound);
        assert_eq!(read(&meters, &point, || lift(stranger)).await, bound);
        assert_eq!(read(&meters, &point, || lift(member)).await, 1 << 20);
        assert_eq!(read(&meters, &dialer(), || {}).await, 1 << 20);
        assert!(meters.all().is_empty());
    }

    /// A muxer on which the remote side opens these streams.
    struct Opened(VecDeque<Cursor<Vec<u8>>>);

    impl StreamMuxer for Opened {
        type Substream = Cursor<Vec<u8>>;
        type Error = io::Error;

        fn poll_inbound(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<io::Result<Self::Substream>> {
            self.0
                .pop_front()
                .map_or(Poll::Pending, |stream| Poll::Ready(Ok(stream)))
        }

        fn poll_outbound(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<io::Result<Self::Substream>> {
            Poll::Pending
        }

        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<StreamMuxerEvent>> {
            Poll::Pending
        }
    }

    /// Returns true if a connection ends after this number of streams.
    async fn ends(members: &Members, peer: PeerId, point: &ConnectedPoint, streams: usize) -> bool {
        let all = (0..streams).map(|_| Cursor::new(Vec::new())).collect();
        let mut guarded = Guarded::new(Opened(all), members, &peer, point);
        let ended = std::future::poll_fn(|context| {
            while guarded.poll_inbound_unpin(context).is_ready() {}
            guarded.poll_unpin(context).map(|ended| ended.is_err())
        });
        let ended = tokio::time::timeout(2 * END_TIME, ended).await;
        ended.unwrap_or(false)
    }

    #[tokio::test]
    async fn a_strangers_second_stream_is_the_end_and_a_member_opens_as_many_as_it_likes() {
        let members = Members::default();
        let member = PeerId::random();
        members.set([member]);
        let point = listener("/ip4/10.0.0.1/udp/4000/quic-v1");
        assert!(!ends(&members, PeerId::random(), &point, 1).await);
        assert!(ends(&members, PeerId::random(), &point, 2).await);
        assert!(!ends(&members, member, &point, 5).await);
        assert!(!ends(&members, PeerId::random(), &dialer(), 5).await);
    }
}
