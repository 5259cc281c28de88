//! The protocols of the mesh written by hand, so that a test can break them at every layer.
//!
//! Shell: TCP with Noise up to raw Yamux frames, and QUIC with whole streams. Failures are [`io::Error`]s.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use beemesh_protocol::{
    frame::{FrameCodec, RAFT_MAX},
    ipc::{Class, Opened},
    mesh::{STREAM_PROTOCOL, StreamOpening},
};
use bytes::{Bytes, BytesMut};
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, future::poll_fn};
use libp2p::{
    Multiaddr, PeerId,
    core::{
        Endpoint, Transport,
        muxing::{StreamMuxerBox, StreamMuxerExt, SubstreamBox},
        transport::{DialOpts, ListenerId, PortUse},
        upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade},
    },
    identity::Keypair,
    noise, quic,
};
use tokio::{net::TcpStream, time::timeout};
use tokio_util::{
    codec::{Decoder, Encoder},
    compat::{Compat, TokioAsyncReadCompatExt},
};

/// The time limit of an answer: an attacked member may not answer at all.
pub(crate) const ANSWER_MAX: Duration = Duration::from_secs(6);

const SELECT: &str = "/multistream/1.0.0";
const NOISE: &str = "/noise";
pub(crate) const YAMUX: &str = "/yamux/1.0.0";

pub(crate) type Secured = noise::Output<Compat<TcpStream>>;

/// An error for an unexpected answer.
pub(crate) fn other(error: impl ToString) -> io::Error {
    io::Error::other(error.to_string())
}

/// A name in the encoding of multistream-select.
pub(crate) fn line(name: &str) -> Vec<u8> {
    let length = u8::try_from(name.len() + 1).expect("names are short");
    [&[length], name.as_bytes(), b"\n"].concat()
}

/// Both names at once: the sender does not wait for the first answer.
pub(crate) fn proposal(name: &str) -> Vec<u8> {
    [line(SELECT), line(name)].concat()
}

async fn read_line(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<String> {
    let mut length = [0];
    stream.read_exact(&mut length).await?;
    let mut name = vec![0; usize::from(length[0])];
    stream.read_exact(&mut name).await?;
    Ok(String::from_utf8_lossy(&name).trim_end().to_owned())
}

/// Proposes a protocol and returns the answer of the other side: its name, or `na`.
pub(crate) async fn propose(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    name: &str,
) -> io::Result<String> {
    stream.write_all(&proposal(name)).await?;
    stream.flush().await?;
    read_line(stream).await?;
    read_line(stream).await
}

/// A connection over TCP with Noise, on which Yamux was negotiated and not used yet.
pub(crate) async fn secured(to: SocketAddr, key: &Keypair) -> io::Result<Secured> {
    let stream = timeout(ANSWER_MAX, TcpStream::connect(to)).await??;
    secured_over(stream, key).await
}

/// Does the same over an existing connection.
pub(crate) async fn secured_over(stream: TcpStream, key: &Keypair) -> io::Result<Secured> {
    let dialed = async {
        let mut stream = stream.compat();
        propose(&mut stream, NOISE).await?;
        let noise = noise::Config::new(key).map_err(other)?;
        let (_, mut stream) = noise.upgrade_outbound(stream, NOISE).await.map_err(other)?;
        propose(&mut stream, YAMUX).await?;
        Ok(stream)
    };
    timeout(ANSWER_MAX, dialed).await?
}

/// Accepts a connection; returns the peer's identity and the bytes that it sends before it closes.
pub(crate) async fn overheard(stream: TcpStream, key: &Keypair) -> io::Result<(PeerId, Vec<u8>)> {
    let heard = async {
        let mut stream = stream.compat();
        for name in [SELECT, NOISE] {
            read_line(&mut stream).await?;
            stream.write_all(&line(name)).await?;
        }
        let noise = noise::Config::new(key).map_err(other)?;
        let (peer, mut stream) = noise.upgrade_inbound(stream, NOISE).await.map_err(other)?;
        for name in [SELECT, YAMUX] {
            stream.write_all(&line(name)).await?;
        }
        stream.flush().await?;
        let mut said = Vec::new();
        // How the connection ends does not matter.
        let _ = stream.read_to_end(&mut said).await;
        Ok((peer, said))
    };
    timeout(ANSWER_MAX, heard).await?
}

/// A Yamux frame with bytes of a stream, which may open the stream.
pub(crate) fn yamux_data(stream: u32, opens: bool, bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).expect("a frame is short");
    let mut frame = vec![0, 0, 0, u8::from(opens)];
    frame.extend(stream.to_be_bytes());
    frame.extend(length.to_be_bytes());
    frame.extend(bytes);
    frame
}

/// Yamux frames that open `count` streams and propose a protocol on each.
pub(crate) fn yamux_streams(first: u32, count: u32, name: &str) -> Vec<u8> {
    let proposal = proposal(name);
    // The streams of the dialling side have odd numbers.
    let frames = (0..count).map(|at| yamux_data(first + 2 * at, true, &proposal));
    frames.collect::<Vec<_>>().concat()
}

/// A connection over QUIC with keep-alive.
pub(crate) struct Quic {
    /// `None` after a failure: a failed muxer must not be polled again.
    muxer: Option<StreamMuxerBox>,
    _transport: quic::tokio::Transport,
}

/// The multiaddress of a QUIC listener.
pub(crate) fn multiaddr(to: SocketAddr) -> Multiaddr {
    let (ip, port) = (to.ip(), to.port());
    format!("/ip4/{ip}/udp/{port}/quic-v1")
        .parse()
        .expect("an address of IPv4")
}

/// Starts one QUIC connection attempt when it is polled.
pub(crate) fn dial(
    transport: &mut quic::tokio::Transport,
    to: SocketAddr,
) -> io::Result<<quic::tokio::Transport as Transport>::Dial> {
    let opts = DialOpts {
        role: Endpoint::Dialer,
        port_use: PortUse::New,
    };
    transport.dial(multiaddr(to), opts).map_err(other)
}

impl Quic {
    pub(crate) async fn connect(to: SocketAddr, key: &Keypair) -> io::Result<Self> {
        let mut transport = quic::tokio::Transport::new(quic::Config::new(key));
        let dialed = dial(&mut transport, to)?;
        let (_, connection) = timeout(ANSWER_MAX, dialed).await?.map_err(other)?;
        Ok(Self {
            muxer: Some(StreamMuxerBox::new(connection)),
            _transport: transport,
        })
    }

    /// Connects from one of several addresses.
    pub(crate) async fn connect_from(
        from: IpAddr,
        to: SocketAddr,
        key: &Keypair,
    ) -> io::Result<Self> {
        let mut transport = quic::tokio::Transport::new(quic::Config::new(key));
        // The dial uses the address of a listener.
        let here = multiaddr((from, 0).into());
        transport
            .listen_on(ListenerId::next(), here)
            .map_err(other)?;
        let opts = DialOpts {
            role: Endpoint::Dialer,
            port_use: PortUse::Reuse,
        };
        let dialed = transport.dial(multiaddr(to), opts).map_err(other)?;
        let (_, connection) = timeout(ANSWER_MAX, dialed).await?.map_err(other)?;
        Ok(Self {
            muxer: Some(StreamMuxerBox::new(connection)),
            _transport: transport,
        })
    }

    /// Opens a stream without negotiating a protocol.
    pub(crate) async fn stream(&mut self) -> io::Result<SubstreamBox> {
        let muxer = self.muxer.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        let opened = poll_fn(|context| muxer.poll_outbound_unpin(context));
        let opened = timeout(ANSWER_MAX, opened).await?;
        if opened.is_err() {
            self.muxer = None;
        }
        opened
    }

    /// Opens a stream and negotiates a protocol.
    pub(crate) async fn agreed(&mut self, name: &str) -> io::Result<SubstreamBox> {
        let mut stream = self.stream().await?;
        let answer = timeout(ANSWER_MAX, propose(&mut stream, name)).await??;
        if answer == name {
            Ok(stream)
        } else {
            Err(other(answer))
        }
    }

    /// Opens a stream that the other gateway has accepted.
    pub(crate) async fn taken(&mut self, class: Class) -> io::Result<SubstreamBox> {
        let mut stream = self.agreed(STREAM_PROTOCOL).await?;
        stream
            .write_all(&framed(StreamOpening { class }.encode()))
            .await?;
        stream.flush().await?;
        match Opened::decode(&frame(&mut stream).await?).map_err(other)? {
            Opened::Ready => Ok(stream),
            Opened::Refused(why) => Err(other(why.to_string())),
        }
    }
}

/// A message in its frame.
pub(crate) fn framed(message: Bytes) -> BytesMut {
    let mut bytes = BytesMut::new();
    let written = FrameCodec::new(RAFT_MAX).encode(message, &mut bytes);
    written.expect("the message is not longer than any may be");
    bytes
}

/// The next frame.
pub(crate) async fn frame(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Bytes> {
    let read = async {
        let (mut codec, mut buffer) = (FrameCodec::new(RAFT_MAX), BytesMut::new());
        loop {
            if let Some(frame) = codec.decode(&mut buffer).map_err(other)? {
                return Ok(frame);
            }
            let mut piece = [0; 4 << 10];
            match stream.read(&mut piece).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                length => buffer.extend_from_slice(&piece[..length]),
            }
        }
    };
    timeout(ANSWER_MAX, read).await?
}
