//! Frames in a byte stream, cut into pieces of any size.

#![no_main]

use beemesh_protocol::frame::FrameCodec;
use bytes::{Bytes, BytesMut};
use tokio_util::codec::{Decoder, Encoder};

/// Channels with limits that short inputs reach.
const LIMITS: [usize; 4] = [0, 16, 1 << 10, 64 << 10];

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let [choice, step, stream @ ..] = bytes else {
        return;
    };
    let limit = LIMITS[usize::from(*choice) % LIMITS.len()];
    let (whole, ended) = cut(limit, stream, stream.len());
    let pieces = cut(limit, stream, usize::from(*step));
    assert_eq!(
        (&whole, ended),
        (&pieces.0, pieces.1),
        "what arrives in pieces is the same"
    );
    let mut again = BytesMut::new();
    for frame in whole {
        assert!(frame.len() <= limit);
        let written = FrameCodec::new(limit).encode(frame, &mut again);
        assert!(written.is_ok());
    }
    assert!(
        stream.starts_with(&again),
        "frames are written as they came"
    );
});

/// The frames in a stream that arrives in pieces of `step` bytes, and whether it ended in an error.
fn cut(limit: usize, stream: &[u8], step: usize) -> (Vec<Bytes>, bool) {
    let mut codec = FrameCodec::new(limit);
    let mut buffer = BytesMut::new();
    let mut frames = Vec::new();
    for piece in stream.chunks(step.max(1)) {
        buffer.extend_from_slice(piece);
        loop {
            match codec.decode(&mut buffer) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(_) => return (frames, true),
            }
        }
        // The buffer has room for the announced frame and no more.
        assert!(buffer.capacity() <= 2 * (stream.len() + limit + 64));
    }
    (frames, false)
}
