//! Carries the bytes of a gateway's stream between its socket and the mesh.
//!
//! Shell: reads nothing, decides nothing. Each direction has one bounded buffer, so a slow reader slows the writer.

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

/// One buffer, in bytes. What has gathered in the input goes out as one write: small writes over Noise and Yamux cost
/// twenty times as much.
const BUFFER: usize = 64 << 10;
/// After one side has finished, how long the other may be silent: longer than it takes to install a snapshot, short
/// enough that a peer which forgot its end does not hold the stream for ever.
const HALF_CLOSED_SILENCE: Duration = Duration::from_secs(120);

/// Copies both ways until both sides have finished or one fails. Returns how many bytes went up and down.
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

/// Lets the remaining direction run for as long as something moves.
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
        // Flushed only when the input has run dry, and then at once: a burst is one packet, and nothing waits.
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
