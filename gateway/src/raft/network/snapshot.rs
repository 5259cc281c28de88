//! Snapshot transfer: head, bytes and reply, on a separate stream.
//!
//! Shell. Both sides hash the bytes; the receiver does not install a snapshot whose hash differs.

use std::io;

use beemesh_protocol::{
    DecodeError, HostId,
    frame::{CONTROL_MAX, FrameCodec, FrameError},
    ipc::Class,
    raft::{SnapshotHead, SnapshotReply},
};
use bytes::{Bytes, BytesMut};
use sha2::{Digest, Sha256};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};
use tokio_util::codec::{Decoder, Encoder};

use crate::raft::{
    Dial,
    types::{Raft, Snapshot, Vote, meta_in, meta_out, vote_in, vote_out},
};

/// Maximum size of an accepted snapshot, which is held in memory beside the state that is decoded from it.
const SNAPSHOT_MAX: u64 = 1 << 30;

/// Why a transfer failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TransferError {
    #[error("snapshot stream")]
    Stream(#[from] io::Error),
    #[error("snapshot stream")]
    Frame(#[from] FrameError),
    #[error("snapshot stream")]
    Message(#[from] DecodeError),
    #[error("snapshot of {size} bytes, at most {SNAPSHOT_MAX} are accepted")]
    TooLarge { size: u64 },
    #[error("snapshot in the name of {0}")]
    Forged(HostId),
    #[error("the other side did not install it: {0}")]
    Refused(String),
}

/// Sends a snapshot, and returns the receiver's vote once the receiver has installed it.
pub(crate) async fn send(
    dial: &dyn Dial,
    host: HostId,
    vote: Vote,
    snapshot: Snapshot,
) -> Result<Vote, TransferError> {
    let bytes = *snapshot.snapshot;
    let head = SnapshotHead {
        vote: vote_out(&vote),
        meta: meta_out(&snapshot.meta),
        size: bytes.len() as u64,
        hash: Sha256::digest(&bytes).into(),
    };
    let mut stream = dial.open(host, Class::Snapshot).await?;
    write_frame(&mut stream, head.encode()).await?;
    stream.write_all(&bytes).await?;
    match SnapshotReply::decode(&read_frame(&mut stream, &mut BytesMut::new()).await?)? {
        SnapshotReply::Installed(vote) => Ok(vote_in(vote)),
        SnapshotReply::Failed(reason) => Err(TransferError::Refused(reason)),
    }
}

/// Receives one snapshot from a host and installs it.
pub(crate) async fn receive(
    raft: &Raft,
    from: HostId,
    mut stream: UnixStream,
) -> Result<(), TransferError> {
    let mut rest = BytesMut::new();
    let head = SnapshotHead::decode(&read_frame(&mut stream, &mut rest).await?)?;
    if head.vote.node != from {
        return Err(TransferError::Forged(head.vote.node));
    }
    if head.size > SNAPSHOT_MAX {
        return Err(TransferError::TooLarge { size: head.size });
    }
    // The buffer grows as bytes arrive, so an announced size allocates no memory.
    let mut bytes = rest.to_vec();
    let missing = head.size.saturating_sub(bytes.len() as u64);
    (&mut stream).take(missing).read_to_end(&mut bytes).await?;
    let whole =
        bytes.len() as u64 == head.size && <[u8; 32]>::from(Sha256::digest(&bytes)) == head.hash;
    let reply = if whole {
        let snapshot = Snapshot {
            meta: meta_in(head.meta),
            snapshot: Box::new(Bytes::from(bytes)),
        };
        match raft
            .install_full_snapshot(vote_in(head.vote), snapshot)
            .await
        {
            Ok(response) => SnapshotReply::Installed(vote_out(&response.vote)),
            Err(error) => SnapshotReply::Failed(error.to_string()),
        }
    } else {
        SnapshotReply::Failed("the bytes do not match their hash".into())
    };
    write_frame(&mut stream, reply.encode()).await?;
    Ok(())
}

async fn write_frame(stream: &mut UnixStream, payload: Bytes) -> Result<(), FrameError> {
    let mut buffer = BytesMut::new();
    FrameCodec::new(CONTROL_MAX).encode(payload, &mut buffer)?;
    stream.write_all(&buffer).await?;
    Ok(())
}

/// Reads the next frame; the bytes behind it stay in the buffer.
async fn read_frame(stream: &mut UnixStream, buffer: &mut BytesMut) -> Result<Bytes, FrameError> {
    loop {
        if let Some(frame) = FrameCodec::new(CONTROL_MAX).decode(buffer)? {
            return Ok(frame);
        }
        if stream.read_buf(buffer).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
    }
}
