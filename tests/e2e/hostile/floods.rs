//! Floods of a member and of a stranger. Each runs until it is told to stop, and counts its attempts.

use std::{
    io,
    net::SocketAddr,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use beemesh_protocol::{
    ClusterId, DecodeError, HostId,
    ipc::Class,
    mesh::{JOIN_PROTOCOL, JoinAnswer, JoinRequest, STREAM_PROTOCOL},
    raft::{Request, RequestBody, Vote},
};
use bytes::Bytes;
use futures::{AsyncReadExt, AsyncWriteExt, future::join_all};
use libp2p::{core::muxing::SubstreamBox, identity::Keypair, quic};
use tokio::{
    io::AsyncReadExt as _,
    net::{TcpStream, UdpSocket},
    time::{sleep, timeout},
};

use crate::wire::{self, ANSWER_MAX, Quic};

/// The pause after a failed attempt: a refused attacker tries again.
const PAUSE: Duration = Duration::from_millis(50);
/// The number of streams that one connection requests.
const STREAMS: u32 = 10_000;
/// The number of simultaneous silent connections.
const SILENT: usize = 150;

/// The number of attempts of each attack.
#[derive(Debug, Default)]
pub(crate) struct Done {
    pub(crate) stop: AtomicBool,
    pub(crate) streams: AtomicU64,
    pub(crate) half_frames: AtomicU64,
    pub(crate) garbage: AtomicU64,
    pub(crate) applications: AtomicU64,
    pub(crate) strange_applications: AtomicU64,
    pub(crate) refused_protocols: AtomicU64,
    pub(crate) silent: AtomicU64,
    /// The longest life of a silent connection, in milliseconds.
    pub(crate) silent_ms: AtomicU64,
    pub(crate) half_handshakes: AtomicU64,
}

impl Done {
    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }
}

fn count(of: &AtomicU64, more: u64) {
    of.fetch_add(more, Ordering::Relaxed);
}

/// Repeats an attack, whether it fails or not.
async fn again(done: &Done, act: impl AsyncFn() -> io::Result<()>) {
    while done.goes_on() {
        if act().await.is_err() {
            sleep(PAUSE).await;
        }
    }
}

/// All attacks of a member on another one, at the same time.
pub(crate) async fn member(to: SocketAddr, key: &Keypair, leader: HostId, done: &Done) {
    tokio::join!(
        again(done, async || streams(to, key, done).await),
        again(done, async || half_frames(to, key, done).await),
        again(done, async || garbage(to, key, leader, done).await),
        again(done, async || applications(
            to,
            key,
            &done.applications,
            done
        )
        .await),
    );
}

/// Ten thousand streams on one connection, without waiting for an answer.
async fn streams(to: SocketAddr, key: &Keypair, done: &Done) -> io::Result<()> {
    let mut connection = wire::secured(to, key).await?;
    for first in (0..STREAMS).step_by(100) {
        let frames = wire::yamux_streams(2 * first + 1, 100, STREAM_PROTOCOL);
        timeout(ANSWER_MAX, connection.write_all(&frames)).await??;
        timeout(ANSWER_MAX, connection.flush()).await??;
        count(&done.streams, 100);
    }
    Ok(())
}

/// Streams that stop in the middle of a frame and stay open.
async fn half_frames(to: SocketAddr, key: &Keypair, done: &Done) -> io::Result<()> {
    let mut connection = Quic::connect(to, key).await?;
    let mut held = Vec::new();
    for class in [Class::Raft, Class::Peer, Class::Snapshot] {
        for _ in 0..4 {
            if let Ok(mut stream) = connection.taken(class).await {
                // The longest valid frame, of which only a part is sent.
                stream.write_all(&(4_u32 << 20).to_le_bytes()).await?;
                stream.write_all(&[1]).await?;
                let _ = timeout(ANSWER_MAX, stream.write_all(&vec![0; 2 << 20])).await;
                count(&done.half_frames, 1);
                held.push(stream);
            }
        }
    }
    for _ in 0..64 {
        let mut stream = connection.agreed(STREAM_PROTOCOL).await?;
        stream.write_all(b"\x20\0\0").await?;
        count(&done.half_frames, 1);
        held.push(stream);
    }
    sleep(ANSWER_MAX).await;
    Ok(())
}

/// Bytes that are no message, and messages that no host may send.
async fn garbage(to: SocketAddr, key: &Keypair, leader: HostId, done: &Done) -> io::Result<()> {
    let mut connection = Quic::connect(to, key).await?;
    let me = key.public().to_peer_id().to_bytes();
    let me = HostId::from_peer_id_bytes(&me).expect("an ed25519 key");
    let as_leader = request(leader);
    let of_later = unknown(&request(me));
    let endless = wire::framed(Bytes::from(vec![0; 8 << 20]));
    let said: [&[u8]; 6] = [
        b"\xff\xff\xff\xff\x01",
        b"\0\0\0\0",
        b"\x09\0\0\0\x01BMrqBMrq",
        &wire::framed(Bytes::from(as_leader)),
        &wire::framed(Bytes::from(of_later)),
        &endless,
    ];
    for class in [Class::Raft, Class::Peer, Class::Snapshot, Class::Api] {
        for bytes in said {
            let mut stream = connection.taken(class).await?;
            say(&mut stream, bytes).await;
            count(&done.garbage, 1);
        }
    }
    Ok(())
}

async fn say(stream: &mut SubstreamBox, bytes: &[u8]) {
    let said = async {
        stream.write_all(bytes).await?;
        stream.flush().await?;
        stream.close().await?;
        stream.read_to_end(&mut Vec::new()).await
    };
    // The answer does not matter.
    let _ = timeout(Duration::from_secs(2), said).await;
}

/// A vote request in another host's name, for a far later term.
fn request(node: HostId) -> Vec<u8> {
    let vote = Vote {
        term: 1 << 40,
        node,
        committed: true,
    };
    let body = RequestBody::Append {
        vote,
        prev: None,
        committed: None,
        entries: Vec::new(),
    };
    Request { id: 1, body }.encode().to_vec()
}

/// The request as a later version might encode it.
fn unknown(request: &[u8]) -> Vec<u8> {
    let changed = (8..request.len()).map(|at| {
        let mut bytes = request.to_vec();
        bytes[at] = 200;
        bytes
    });
    let mut found =
        changed.filter(|bytes| matches!(Request::decode(bytes), Err(DecodeError::Unknown { .. })));
    found.next().expect("the kind of a request is one byte")
}

/// Join requests with a token that does not exist.
async fn applications(
    to: SocketAddr,
    key: &Keypair,
    counted: &AtomicU64,
    done: &Done,
) -> io::Result<()> {
    let mut connection = Quic::connect(to, key).await?;
    while done.goes_on() {
        let mut stream = connection.agreed(JOIN_PROTOCOL).await?;
        let request = JoinRequest {
            cluster: ClusterId([7; 16]),
            token: [7; 8],
            secret: [7; 32],
            name: "hostile".to_owned(),
            addresses: Vec::new(),
            replace: None,
        };
        stream.write_all(&wire::framed(request.encode())).await?;
        stream.flush().await?;
        count(counted, 1);
        let answer = JoinAnswer::decode(&wire::frame(&mut stream).await?);
        let refused = matches!(answer, Ok(JoinAnswer::Refused { .. }));
        assert!(refused, "{answer:?}");
    }
    Ok(())
}

/// All attacks of a stranger on a member, at the same time.
pub(crate) async fn stranger(to: SocketAddr, done: &Done) {
    tokio::join!(
        again(done, async || silent(to, done).await),
        again(done, async || half_handshakes(to, done).await),
        again(done, async || {
            let key = Keypair::generate_ed25519();
            applications(to, &key, &done.strange_applications, done).await
        }),
        again(done, async || speaks_as_member(to, done).await),
    );
}

/// Connections that send nothing.
async fn silent(to: SocketAddr, done: &Done) -> io::Result<()> {
    let all = (0..SILENT).map(|_| async {
        let begun = Instant::now();
        let Ok(mut stream) = TcpStream::connect(to).await else {
            return;
        };
        count(&done.silent, 1);
        // How the connection ends does not matter, only that it does, which the test checks.
        let _ = timeout(3 * ANSWER_MAX, stream.read_to_end(&mut Vec::new())).await;
        let kept = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        done.silent_ms.fetch_max(kept, Ordering::Relaxed);
    });
    join_all(all).await;
    Ok(())
}

/// QUIC handshakes of which only the client's first packet arrives, without an answer.
async fn half_handshakes(to: SocketAddr, done: &Done) -> io::Result<()> {
    let between = UdpSocket::bind("127.0.0.1:0").await?;
    let onward = UdpSocket::bind("0.0.0.0:0").await?;
    let key = Keypair::generate_ed25519();
    let mut transport = quic::tokio::Transport::new(quic::Config::new(&key));
    let here = between.local_addr()?;
    let dials = (0..SILENT).map(|_| wire::dial(&mut transport, here));
    let dials: Vec<_> = dials.collect::<io::Result<_>>()?;
    let pass_on = async {
        let mut datagram = vec![0; 2 << 10];
        loop {
            let length = between.recv(&mut datagram).await?;
            onward.send_to(&datagram[..length], to).await?;
            count(&done.half_handshakes, 1);
        }
    };
    tokio::select! {
        _ = join_all(dials) => Ok(()),
        ended = pass_on => ended,
        () = sleep(ANSWER_MAX) => Ok(()),
    }
}

/// Requests for protocols that only members may use.
async fn speaks_as_member(to: SocketAddr, done: &Done) -> io::Result<()> {
    let mut connection = Quic::connect(to, &Keypair::generate_ed25519()).await?;
    let mut stream = connection.stream().await?;
    let answer = timeout(ANSWER_MAX, wire::propose(&mut stream, STREAM_PROTOCOL)).await??;
    assert_eq!(answer, "na", "a stranger opens no stream");
    count(&done.refused_protocols, 1);
    Ok(())
}
