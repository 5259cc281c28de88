//! The frame around every message: a length and a format version, with a limit on the length.
//!
//! Pure: bytes in, frames out. On the wire: `length: u32 LE` of the bytes after the length field, `version: u8`, then
//! the payload. A frame is an error if it is longer than the limit of its channel, shorter than its version byte or of
//! an unknown version. The receiver must then close the connection.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio_util::codec::{Decoder, Encoder};

/// The frame version that this build writes, and the only one that it reads.
pub const VERSION: u8 = 1;
/// Limit of a control, join or peer message, in bytes: the largest manifest (1 MiB) with space for its envelope.
pub const CONTROL_MAX: usize = 4 << 20;
/// Limit of a Raft message, in bytes: a full batch of the largest manifests.
pub const RAFT_MAX: usize = 16 << 20;
/// Limit of a message from a peer that is not a member, in bytes.
pub const STRANGER_MAX: usize = 64 << 10;

/// Why bytes are not a frame. The connection is unusable, because the start of the next frame is unknown.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The announced length exceeds the channel's limit, both in bytes.
    #[error("frame of {length} bytes, at most {limit} are accepted here")]
    TooLong {
        /// The announced length.
        length: usize,
        /// The channel's limit.
        limit: usize,
    },
    /// The frame has no version byte.
    #[error("frame without a version")]
    Empty,
    /// This build does not know the frame's version.
    #[error("frame version {0}, this build reads version {VERSION}")]
    Version(u8),
    /// The connection failed or ended inside a frame.
    #[error("read frame")]
    Io(#[from] std::io::Error),
}

/// Splits a byte stream into payloads, and frames payloads. Each direction of a connection has its own codec.
#[derive(Debug, Clone, Copy)]
pub struct FrameCodec {
    /// The largest payload to accept and to write, in bytes.
    pub limit: usize,
}

impl FrameCodec {
    /// Creates a codec that accepts payloads of up to `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { limit }
    }
}

impl Decoder for FrameCodec {
    type Item = Bytes;
    type Error = FrameError;

    fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Bytes>, FrameError> {
        let Some(length) = buffer.first_chunk::<4>() else {
            return Ok(None);
        };
        let length = u32::from_le_bytes(*length) as usize;
        if length == 0 {
            return Err(FrameError::Empty);
        }
        if length - 1 > self.limit {
            return Err(FrameError::TooLong {
                length,
                limit: self.limit,
            });
        }
        if let Some(&version) = buffer.get(4)
            && version != VERSION
        {
            return Err(FrameError::Version(version));
        }
        if buffer.len() < 4 + length {
            buffer.reserve(4 + length - buffer.len());
            return Ok(None);
        }
        buffer.advance(5);
        Ok(Some(buffer.split_to(length - 1).freeze()))
    }
}

impl Encoder<Bytes> for FrameCodec {
    type Error = FrameError;

    fn encode(&mut self, payload: Bytes, buffer: &mut BytesMut) -> Result<(), FrameError> {
        if payload.len() > self.limit {
            return Err(FrameError::TooLong {
                length: payload.len(),
                limit: self.limit,
            });
        }
        let length = u32::try_from(payload.len() + 1).map_err(|_| FrameError::TooLong {
            length: payload.len(),
            limit: self.limit,
        })?;
        buffer.reserve(5 + payload.len());
        buffer.put_u32_le(length);
        buffer.put_u8(VERSION);
        buffer.put_slice(&payload);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(payload: &'static [u8]) -> BytesMut {
        let mut buffer = BytesMut::new();
        FrameCodec::new(64)
            .encode(Bytes::from_static(payload), &mut buffer)
            .unwrap();
        buffer
    }

    #[test]
    fn a_frame_comes_out_whole_however_it_arrives() {
        let bytes = framed(b"hello");
        assert_eq!(&bytes[..], b"\x06\0\0\0\x01hello");
        let mut buffer = BytesMut::new();
        for (at, byte) in bytes.iter().enumerate() {
            buffer.put_u8(*byte);
            let frame = FrameCodec::new(64).decode(&mut buffer).unwrap();
            assert_eq!(frame.as_deref(), (at == 9).then_some(&b"hello"[..]));
        }
    }

    #[test]
    fn hostile_lengths_and_versions_are_refused_before_any_allocation() {
        for (bytes, error) in [
            (&b"\0\0\0\0"[..], "frame without a version"),
            (
                b"\xff\xff\xff\xff\x01",
                "frame of 4294967295 bytes, at most 64 are accepted here",
            ),
            (
                b"\x42\0\0\0",
                "frame of 66 bytes, at most 64 are accepted here",
            ),
            (
                b"\x02\0\0\0\x07",
                "frame version 7, this build reads version 1",
            ),
        ] {
            let mut buffer = BytesMut::from(bytes);
            let found = FrameCodec::new(64).decode(&mut buffer).unwrap_err();
            assert_eq!(found.to_string(), error);
        }
    }
}
