//! The handshake of a stream connection: sends one [`Opening`], receives one [`Opened`], and reads no byte more.

use std::{io, path::Path, time::Duration};

use beemesh_protocol::{
    frame::{FrameCodec, FrameError, STRANGER_MAX},
    ipc::{Opened, Opening},
};
use bytes::BytesMut;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};
use tokio_util::codec::{Decoder, Encoder};

use super::LinkError;

/// The agent answers after the peer: after one round trip over the mesh, or after its own timeout for a silent peer.
const OPEN_MAX: Duration = Duration::from_secs(10);

/// Connects to the agent, and opens or takes a stream; the next byte is the peer's.
pub(super) async fn open(path: &Path, opening: &Opening) -> Result<UnixStream, LinkError> {
    let opened = tokio::time::timeout(OPEN_MAX, handshake(path, opening)).await;
    opened.unwrap_or(Err(LinkError::Late {
        what: "opening a stream",
        seconds: OPEN_MAX.as_secs(),
    }))
}

async fn handshake(path: &Path, opening: &Opening) -> Result<UnixStream, LinkError> {
    let failed = |source| LinkError::Stream {
        path: path.to_owned(),
        source,
    };
    let mut stream = UnixStream::connect(path).await.map_err(failed)?;
    let mut buffer = BytesMut::new();
    codec().encode(opening.encode(), &mut buffer)?;
    stream.write_all(&buffer).await.map_err(failed)?;
    match Opened::decode(&read_frame(&mut stream).await?)? {
        Opened::Ready => Ok(stream),
        Opened::Refused(why) => Err(why.into()),
    }
}

/// Reads one frame, and leaves the bytes behind it in the socket.
async fn read_frame(stream: &mut UnixStream) -> Result<bytes::Bytes, FrameError> {
    let mut codec = codec();
    let mut buffer = BytesMut::zeroed(4);
    stream.read_exact(&mut buffer).await?;
    let length = u32::from_le_bytes([buffer[0], buffer[1], buffer[2], buffer[3]]) as usize;
    // Rejects a hostile length before anything is allocated for it.
    codec.decode(&mut buffer)?;
    buffer.resize(4 + length, 0);
    stream.read_exact(&mut buffer[4..]).await?;
    let ended = || FrameError::Io(io::ErrorKind::UnexpectedEof.into());
    codec.decode(&mut buffer)?.ok_or_else(ended)
}

/// The answer is at most a few words long.
fn codec() -> FrameCodec {
    FrameCodec::new(STRANGER_MAX)
}
