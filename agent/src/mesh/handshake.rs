//! The first frames on a mesh stream, from either side.
//!
//! Shell: each function speaks one exchange within its own time, and then hands the stream over or lets it go.

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

/// How long the opener of a stream has for its first frame.
const OPENING_TIME: Duration = Duration::from_secs(5);
/// How long the opener waits for the other gateway: the time it has to take the stream, and the way there and back.
const OPENED_TIME: Duration = Duration::from_secs(ACCEPT_SECONDS_MAX + 3);
/// How long an applicant has to close its stream after the answer was sent, before its connection is closed.
const ANSWERED_TIME: Duration = Duration::from_secs(2);

/// A stream's bytes, as tokio reads and writes them.
pub(crate) type Bare = Compat<libp2p::Stream>;

/// Why an exchange failed, in words for the log and for the gateway.
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

/// A stream that a member opened and nobody has taken yet. Dropping it closes it.
#[derive(Debug)]
pub(crate) struct Offer {
    pub(crate) class: Class,
    framed: Framed<Bare, FrameCodec>,
    ended: CancellationToken,
}

impl Offer {
    /// Takes the stream: the next byte is the peer's.
    pub(crate) async fn take(mut self) -> Result<Open, FrameError> {
        send(&mut self.framed, Opened::Ready.encode()).await?;
        Ok(Open::new(self.framed, self.ended))
    }

    /// Tells the opener why nobody takes the stream.
    pub(crate) async fn refuse(mut self, reason: &str) {
        let why = NoStream::Other(reason.to_owned());
        // The opener sees the end of the stream when the words do not reach it.
        let _ = send(&mut self.framed, Opened::Refused(why).encode()).await;
        let _ = timeout(ANSWERED_TIME, self.framed.close()).await;
    }
}

/// A stream whose handshake is over.
#[derive(Debug)]
pub(crate) struct Open {
    /// Bytes that came together with the handshake.
    pub(crate) first: Bytes,
    pub(crate) stream: Bare,
    /// The connection of the stream has ended; the stream itself may not say so.
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

/// Reads what a member opened a stream for.
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

/// Tells a member what a stream is for and waits until its gateway has taken it.
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
    // The member is pinned by its key, so its answer may be as long as a list of many members is.
    let mut framed = Framed::new(stream.compat(), FrameCodec::new(CONTROL_MAX));
    send(&mut framed, request.encode()).await?;
    let frame = receive(&mut framed, JOIN_TIME).await?;
    Ok(JoinAnswer::decode(&frame)?)
}

/// Reads a stranger's application, has it decided, and answers; all within the stranger's time.
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
    // The answer is on its way; the applicant closes the stream when it has it.
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
