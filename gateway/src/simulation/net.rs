//! A network in one process, with latency, with links that can be cut, and with hosts that can fail.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use beemesh_protocol::{HostId, ipc::Class};
use harness::Chance;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::UnixStream,
    sync::watch,
    task::{AbortHandle, JoinSet},
    time::{Instant, sleep, sleep_until, timeout},
};

use crate::raft::{Dial, Node};

/// The mesh closes a connection after this time without traffic.
const SILENCE_MAX: Duration = Duration::from_secs(3);

/// The running gateway of a host.
struct Up {
    node: Node,
    life: u64,
    /// The streams that it serves.
    streams: JoinSet<()>,
}

struct Inner {
    chance: Chance,
    latency: Duration,
    up: BTreeMap<HostId, Up>,
    off: BTreeSet<HostId>,
    cut: BTreeSet<(HostId, HostId)>,
    relays: Vec<([HostId; 2], AbortHandle)>,
}

pub(super) struct Net {
    inner: Mutex<Inner>,
    /// Notified when a link is cut or restored.
    changed: watch::Sender<()>,
}

impl Net {
    pub(super) fn new(chance: Chance) -> Arc<Self> {
        Arc::new(Self {
            inner: Mutex::new(Inner {
                chance,
                latency: Duration::from_millis(2),
                up: BTreeMap::new(),
                off: BTreeSet::new(),
                cut: BTreeSet::new(),
                relays: Vec::new(),
            }),
            changed: watch::channel(()).0,
        })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    /// Sets the maximum latency of later messages.
    pub(super) fn set_latency(&self, latency: Duration) {
        self.inner().latency = latency;
    }

    /// Cuts the link in this direction.
    pub(super) fn cut(&self, from: HostId, to: HostId) {
        self.inner().cut.insert((from, to));
        self.changed.send_replace(());
    }

    /// Restores all links.
    pub(super) fn heal(&self) {
        self.inner().cut.clear();
        self.changed.send_replace(());
    }

    /// Records that the gateway of a host, and thereby the host, has started.
    pub(super) fn begin(&self, host: HostId, node: Node, life: u64) {
        let mut inner = self.inner();
        let old = |ends: &[HostId; 2]| ends.contains(&host);
        for (_, relay) in inner.relays.extract_if(.., |(ends, _)| old(ends)) {
            relay.abort();
        }
        inner.off.remove(&host);
        let streams = JoinSet::new();
        inner.up.insert(
            host,
            Up {
                node,
                life,
                streams,
            },
        );
        drop(inner);
        self.changed.send_replace(());
    }

    /// Records that the gateway of a host has ended. If the host lost power, its peers receive no notice.
    pub(super) fn end(&self, host: HostId, power: bool) {
        let mut inner = self.inner();
        if power {
            inner.off.insert(host);
        } else {
            for (ends, relay) in &inner.relays {
                if ends.contains(&host) {
                    relay.abort();
                }
            }
        }
        inner.up.remove(&host);
        drop(inner);
        self.changed.send_replace(());
    }

    /// Returns the running gateways with their lives.
    pub(super) fn up(&self) -> Vec<(HostId, Node, u64)> {
        let inner = self.inner();
        let up = inner.up.iter();
        up.map(|(host, up)| (*host, up.node.clone(), up.life))
            .collect()
    }

    /// Returns true if the gateway of a host runs.
    pub(super) fn is_up(&self, host: HostId) -> bool {
        self.inner().up.contains_key(&host)
    }

    /// Returns true if this life of a host's gateway has not ended.
    pub(super) fn lives(&self, host: HostId, life: u64) -> bool {
        self.inner().up.get(&host).is_some_and(|up| up.life == life)
    }

    /// Returns true if both hosts have power and the link is not cut in this direction.
    pub(super) fn is_open(&self, from: HostId, to: HostId) -> bool {
        let inner = self.inner();
        let off = [from, to].iter().any(|end| inner.off.contains(end));
        !off && !inner.cut.contains(&(from, to))
    }

    async fn until(&self, open: bool, from: HostId, to: HostId) {
        let mut changed = self.changed.subscribe();
        while self.is_open(from, to) != open {
            // The sender lives as long as the network.
            let _ = changed.changed().await;
        }
    }

    /// Waits until no traffic was possible in this direction for as long as the mesh waits.
    async fn given_up(&self, from: HostId, to: HostId) {
        loop {
            self.until(false, from, to).await;
            if timeout(SILENCE_MAX, self.until(true, from, to))
                .await
                .is_err()
            {
                return;
            }
        }
    }

    fn latency(&self) -> Duration {
        let mut inner = self.inner();
        let most = u64::try_from(inner.latency.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(50 + inner.chance.below(most))
    }

    async fn pump(
        &self,
        [from, to]: [HostId; 2],
        mut reader: impl AsyncRead + Unpin,
        mut writer: impl AsyncWrite + Unpin,
    ) -> io::Result<()> {
        let mut buffer = vec![0; 16 << 10];
        let mut last = Instant::now();
        loop {
            let read = reader.read(&mut buffer).await?;
            last = last.max(Instant::now() + self.latency());
            sleep_until(last).await;
            self.until(true, from, to).await;
            if read == 0 {
                return Ok(());
            }
            writer.write_all(&buffer[..read]).await?;
        }
    }

    async fn relay(&self, ends: [HostId; 2], ours: UnixStream, theirs: UnixStream) {
        let [from, to] = ends;
        let ((our_reader, our_writer), (their_reader, their_writer)) =
            (ours.into_split(), theirs.into_split());
        tokio::select! {
            _ = self.pump(ends, our_reader, their_writer) => {}
            _ = self.pump([to, from], their_reader, our_writer) => {}
            () = self.given_up(from, to) => {}
            () = self.given_up(to, from) => {}
        }
    }
}

/// The network interface of a host.
pub(super) struct Socket {
    pub(super) host: HostId,
    /// The life of the gateway. When it ends, nothing more is sent.
    pub(super) life: u64,
    pub(super) net: Arc<Net>,
}

impl Dial for Socket {
    fn open(
        &self,
        to: HostId,
        class: Class,
    ) -> Pin<Box<dyn Future<Output = io::Result<UnixStream>> + Send + '_>> {
        Box::pin(async move {
            let from = self.host;
            let open = || self.net.is_open(from, to) && self.net.is_open(to, from);
            if !open() {
                sleep(SILENCE_MAX).await;
                return Err(io::ErrorKind::HostUnreachable.into());
            }
            sleep(self.net.latency()).await;
            if !self.net.lives(from, self.life) {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            let mut inner = self.net.inner();
            let up = inner
                .up
                .get_mut(&to)
                .ok_or(io::ErrorKind::ConnectionRefused)?;
            let (ours, near) = UnixStream::pair()?;
            let (far, theirs) = UnixStream::pair()?;
            let node = up.node.clone();
            up.streams
                .spawn(async move { node.serve(from, class, theirs).await });
            let net = Arc::clone(&self.net);
            let relay = tokio::spawn(async move { net.relay([from, to], near, far).await });
            inner.relays.retain(|(_, relay)| !relay.is_finished());
            inner.relays.push(([from, to], relay.abort_handle()));
            Ok(ours)
        })
    }
}
