//! Carries the bytes of a gateway's stream between its socket and the mesh.
//!
//! Shell: does not interpret the bytes. Each direction has one bounded buffer, so a slow reader slows the writer.

use std::{
    io,
    pin::pin,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use futures::{
    FutureExt,
    future::{Either, select},
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Bytes of one buffer. The bytes that have gathered in the input go out in one write, because small writes over Noise
/// and Yamux cost twenty times as much.
const BUFFER: usize = 64 << 10;
/// How long one side may be silent after the other has finished. It is longer than the installation of a snapshot, and
/// short enough that a peer that never closes its side does not hold the stream for ever.
const HALF_CLOSED_SILENCE: Duration = Duration::from_secs(120);

/// Copies in both directions until both sides have finished or one fails. Returns the numbers of bytes from `near` and
/// from `far`.
pub(crate) async fn relay<A, B>(near: A, far: B) -> io::Result<(u64, u64)>
where
    A: AsyncRead + AsyncWrite,
    B: AsyncRead + AsyncWrite,
{
    let (near_in, near_out) = tokio::io::split(near);
    let (far_in, far_out) = tokio::io::split(far);
    let (up_count, down_count) = (AtomicU64::new(0), AtomicU64::new(0));
    let up = pin!(pump(near_in, far_out, &up_count));
    let down = pin!(pump(far_in, near_out, &down_count));
    match select(up, down).await {
        Either::Left((done, down)) => {
            done?;
            finish(down, &down_count).await?;
        }
        Either::Right((done, up)) => {
            done?;
            finish(up, &up_count).await?;
        }
    }
    Ok((
        up_count.load(Ordering::Relaxed),
        down_count.load(Ordering::Relaxed),
    ))
}

/// Continues the remaining direction for as long as bytes move.
async fn finish(
    mut rest: impl Future<Output = io::Result<()>> + Unpin,
    count: &AtomicU64,
) -> io::Result<()> {
    loop {
        let before = count.load(Ordering::Relaxed);
        match tokio::time::timeout(HALF_CLOSED_SILENCE, &mut rest).await {
            Ok(done) => return done,
            Err(_) if count.load(Ordering::Relaxed) == before => {
                return Err(io::ErrorKind::TimedOut.into());
            }
            Err(_) => {}
        }
    }
}

/// Copies one direction to its end and closes the output.
async fn pump(
    mut input: impl AsyncRead + Unpin,
    mut output: impl AsyncWrite + Unpin,
    count: &AtomicU64,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        // Flushed when the input is empty, and then at once: a burst becomes one packet, and no byte waits.
        let length = match input.read(&mut buffer).now_or_never() {
            Some(length) => length?,
            None => {
                output.flush().await?;
                input.read(&mut buffer).await?
            }
        };
        if length == 0 {
            return output.shutdown().await;
        }
        output.write_all(&buffer[..length]).await?;
        count.fetch_add(length as u64, Ordering::Relaxed);
    }
}
