//! A container's output as a stream of bytes.

use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use futures::stream;
use hyper014::Body;
use hyper014::body::HttpBody as _;

use super::wire::{self, Call, Wire};
use super::{Details, PodmanError, error};

/// The largest frame. Podman sends at most one line of the journal in a frame, which is far shorter.
const FRAME_BYTES_MAX: usize = 1 << 20;
/// The time limit between two pieces of existing output.
const PIECE_TIME_MAX: Duration = Duration::from_secs(30);

struct Output {
    operation: String,
    body: Body,
    frames: Option<Frames>,
    wire: Wire,
    follow: bool,
}

/// The requested part of the output.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    pub(super) follow: bool,
    pub(super) tail: Option<u32>,
    pub(super) since: Option<i64>,
}

pub(super) async fn open(
    wire: &Wire,
    operation: String,
    details: &Details,
    Wanted {
        follow,
        tail,
        since,
    }: Wanted,
) -> Result<impl futures::Stream<Item = Result<Bytes, PodmanError>> + Send + use<>, PodmanError> {
    let tail = tail.map_or_else(|| "all".to_owned(), |lines| lines.to_string());
    let follows = if follow { "true" } else { "false" };
    let since = since.map(|since| since.to_string());
    let mut asked = vec![
        ("stdout", "true"),
        ("stderr", "true"),
        ("follow", follows),
        ("tail", &tail),
    ];
    asked.extend(since.as_deref().map(|since| ("since", since)));
    let query = wire::query(&asked);
    let call = Call::get(
        operation.clone(),
        format!("/libpod/containers/{}/logs{query}", details.container.id),
    );
    let body = wire.open(call).await?;
    // Podman frames the output only if it has to tell two streams apart.
    let frames = (!details.terminal).then(Frames::default);
    let output = Output {
        operation,
        body,
        frames,
        wire: wire.clone(),
        follow,
    };
    Ok(stream::try_unfold(output, |mut output| async move {
        Ok(output.next().await?.map(|piece| (piece, output)))
    }))
}

impl Output {
    async fn next(&mut self) -> Result<Option<Bytes>, PodmanError> {
        loop {
            if let Some(frames) = &mut self.frames
                && let Some(piece) = frames.take().map_err(|reason| self.unreadable(reason))?
            {
                return Ok(Some(piece));
            }
            let Some(chunk) = self.chunk().await? else {
                return Ok(None);
            };
            match &mut self.frames {
                Some(frames) => frames.pending.extend_from_slice(&chunk),
                None => return Ok(Some(chunk)),
            }
        }
    }

    async fn chunk(&mut self) -> Result<Option<Bytes>, PodmanError> {
        let chunk = if self.follow {
            self.body.data().await
        } else {
            match tokio::time::timeout(PIECE_TIME_MAX, self.body.data()).await {
                Ok(chunk) => chunk,
                Err(_) => {
                    return Err(PodmanError::Late {
                        operation: self.operation.clone(),
                        after: PIECE_TIME_MAX,
                    });
                }
            }
        };
        chunk
            .transpose()
            .map_err(|error| error::from_hyper(&self.operation, self.wire.socket(), &error))
    }

    fn unreadable(&self, reason: String) -> PodmanError {
        PodmanError::Unreadable {
            operation: self.operation.clone(),
            reason,
        }
    }
}

/// Parses the frames in which Podman sends the two streams: one byte for the stream, three zero bytes, four bytes of
/// length.
#[derive(Debug, Default)]
pub(super) struct Frames {
    pub(super) pending: BytesMut,
}

impl Frames {
    pub(super) fn take(&mut self) -> Result<Option<Bytes>, String> {
        let Some(&[stream, _, _, _, a, b, c, d]) = self.pending.first_chunk::<8>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        if stream > 2 || length > FRAME_BYTES_MAX {
            return Err(format!("a frame of stream {stream} with {length} bytes"));
        }
        if self.pending.len() < 8 + length {
            return Ok(None);
        }
        self.pending.advance(8);
        Ok(Some(self.pending.split_to(length).freeze()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_taken_apart_wherever_they_are_cut() {
        let wire = b"\x01\0\0\0\0\0\0\x03ab\n\x02\0\0\0\0\0\0\x02c\n";
        for cut in 0..wire.len() {
            let mut frames = Frames::default();
            let mut output = Vec::new();
            for part in [&wire[..cut], &wire[cut..]] {
                frames.pending.extend_from_slice(part);
                while let Some(piece) = frames.take().unwrap() {
                    output.push(piece);
                }
            }
            assert_eq!(
                output,
                [Bytes::from_static(b"ab\n"), Bytes::from_static(b"c\n")],
                "cut at {cut}"
            );
        }
    }

    #[test]
    fn garbage_is_refused() {
        let mut frames = Frames {
            pending: BytesMut::from(&b"hello, world"[..]),
        };
        assert_eq!(
            frames.take(),
            Err("a frame of stream 104 with 1865162871 bytes".to_owned())
        );
    }
}
