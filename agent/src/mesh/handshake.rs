//! The first frames on a mesh stream, for both sides.
//!
//! Shell: each function carries out one exchange within a time limit, and then hands the stream over or closes it.

use std::time::Duration;

use beemesh_protocol::{
    DecodeError,
    frame::{CONTROL_MAX, FrameCodec, FrameError, STRANGER_MAX},
    ipc::{ACCEPT_SECONDS_MAX, Class, NoStream, Opened},
    mesh::{JoinAnswer, JoinRequest, StreamOpening},
};
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use tokio::{io::AsyncReadExt, sync::oneshot, time::timeout};
use tokio_util::{
    codec::{Framed, FramedParts},
    compat::{Compat, FuturesAsyncReadCompatExt},
    sync::CancellationToken,
};

use super::{
    gate::MeshStream,
    peers::{JOIN_TIME, STRANGER_TIME},
};

/// How long the opener of a stream may take for its first frame.
const OPENING_TIME: Duration = Duration::from_secs(5);
/// How long the opener waits for the other gateway: the time in which that must take the stream, and the round trip.
const OPENED_TIME: Duration = Duration::from_secs(ACCEPT_SECONDS_MAX + 3);
/// How long an applicant may take to close its stream after the answer, before this host closes the connection.
const ANSWERED_TIME: Duration = Duration::from_secs(2);

/// A stream with tokio's traits for reading and writing.
pub(crate) type Bare = Compat<libp2p::Stream>;

/// The reason why an exchange failed, for the log and for the gateway.
#[derive(Debug, thiserror::Error)]
pub(super) enum HandshakeError {
    #[error("the other side did not answer in time")]
    Late,
    #[error("the other side closed the stream")]
    Closed,
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error("{0}")]
    Refused(NoStream),
}

/// A stream that a member opened and the gateway has not taken yet. Dropping it closes the stream.
#[derive(Debug)]
pub(crate) struct Offer {
    pub(crate) class: Class,
    framed: Framed<Bare, FrameCodec>,
    ended: CancellationToken,
}

impl Offer {
    /// Takes the stream. The next byte is the peer's.
    pub(crate) async fn take(mut self) -> Result<Open, FrameError> {
        send(&mut self.framed, Opened::Ready.encode()).await?;
        Ok(Open::new(self.framed, self.ended))
    }

    /// Tells the opener why this host refuses the stream.
    pub(crate) async fn refuse(mut self, reason: &str) {
        let why = NoStream::Other(reason.to_owned());
        // The opener sees the end of the stream when the words do not reach it.
        let _ = send(&mut self.framed, Opened::Refused(why).encode()).await;
        let _ = timeout(ANSWERED_TIME, self.framed.close()).await;
    }
}

/// A stream after its handshake.
#[derive(Debug)]
pub(crate) struct Open {
    /// Bytes that arrived together with the handshake.
    pub(crate) first: Bytes,
    pub(crate) stream: Bare,
    /// Cancelled when the connection of the stream ends. The stream itself may not report that.
    pub(crate) ended: CancellationToken,
}

impl Open {
    fn new(framed: Framed<Bare, FrameCodec>, ended: CancellationToken) -> Self {
        let FramedParts { io, read_buf, .. } = framed.into_parts();
        Self {
            first: read_buf.freeze(),
            stream: io,
            ended,
        }
    }
}

/// Reads the purpose of a stream that a member opened.
pub(super) async fn offered(stream: MeshStream) -> Result<Offer, HandshakeError> {
    let MeshStream { stream, ended } = stream;
    let mut framed = Framed::new(stream.compat(), FrameCodec::new(STRANGER_MAX));
    let frame = receive(&mut framed, OPENING_TIME).await?;
    let StreamOpening { class } = StreamOpening::decode(&frame)?;
    Ok(Offer {
        class,
        framed,
        ended,
    })
}

/// Sends the purpose of a stream to a member and waits until the member's gateway takes the stream.
pub(super) async fn open(stream: MeshStream, class: Class) -> Result<Open, HandshakeError> {
    let MeshStream { stream, ended } = stream;
    let mut framed = Framed::new(stream.compat(), FrameCodec::new(STRANGER_MAX));
    send(&mut framed, StreamOpening { class }.encode()).await?;
    let frame = receive(&mut framed, OPENED_TIME).await?;
    match Opened::decode(&frame)? {
        Opened::Ready => Ok(Open::new(framed, ended)),
        Opened::Refused(why) => Err(HandshakeError::Refused(why)),
    }
}

/// Sends an application and reads the decision.
pub(super) async fn apply(
    stream: libp2p::Stream,
    request: &JoinRequest,
) -> Result<JoinAnswer, HandshakeError> {
    // The connection is pinned to the member's key, so the answer may be as large as a list of many members.
    let mut framed = Framed::new(stream.compat(), FrameCodec::new(CONTROL_MAX));
    send(&mut framed, request.encode()).await?;
    let frame = receive(&mut framed, JOIN_TIME).await?;
    Ok(JoinAnswer::decode(&frame)?)
}

/// Reads a stranger's application, has it decided and sends the answer, all within the stranger's time limit.
pub(super) async fn hear<F>(stream: libp2p::Stream, decide: F) -> Result<(), HandshakeError>
where
    F: AsyncFnOnce(JoinRequest) -> Option<oneshot::Receiver<JoinAnswer>>,
{
    let mut framed = Framed::new(stream.compat(), FrameCodec::new(STRANGER_MAX));
    let decided = async {
        let frame = receive(&mut framed, OPENING_TIME).await?;
        let request = JoinRequest::decode(&frame)?;
        let answer = decide(request).await.ok_or(HandshakeError::Closed)?;
        answer.await.map_err(|_| HandshakeError::Closed)
    };
    let answer = timeout(STRANGER_TIME, decided)
        .await
        .map_err(|_| HandshakeError::Late)
        .flatten()
        .unwrap_or_else(|error| JoinAnswer::Refused {
            reason: format!("this member cannot decide: {error}"),
        });
    let mut framed = framed.map_codec(|_| FrameCodec::new(CONTROL_MAX));
    send(&mut framed, answer.encode()).await?;
    let mut stream = framed.into_parts().io;
    // The applicant closes the stream when it has read the answer.
    let _ = timeout(ANSWERED_TIME, stream.read_u8()).await;
    Ok(())
}

async fn send(framed: &mut Framed<Bare, FrameCodec>, frame: Bytes) -> Result<(), FrameError> {
    timeout(OPENING_TIME, framed.send(frame))
        .await
        .map_err(|_| FrameError::Io(std::io::ErrorKind::TimedOut.into()))?
}

async fn receive(
    framed: &mut Framed<Bare, FrameCodec>,
    time: Duration,
) -> Result<Bytes, HandshakeError> {
    match timeout(time, framed.next()).await {
        Err(_) => Err(HandshakeError::Late),
        Ok(None) => Err(HandshakeError::Closed),
        Ok(Some(frame)) => Ok(frame?),
    }
}
