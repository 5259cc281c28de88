//! One stream: it carries and counts both directions, and holds them while an end is cut off.
//!
//! Shell.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::{Result, bail};
use beemesh_protocol::ipc::ACCEPT_SECONDS_MAX;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::unix::{OwnedReadHalf, OwnedWriteHalf},
    sync::watch,
    time::{sleep, timeout},
};

use super::Connection;

/// The time without traffic after which an agent considers its peer lost.
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(3);
/// The time in which a gateway must accept a stream.
pub(super) const ACCEPT_MAX: Duration = Duration::from_secs(ACCEPT_SECONDS_MAX);
/// The buffer of one direction in bytes, as in an agent.
const BUFFER: usize = 64 << 10;

/// The traffic from one host to another.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    bytes: AtomicU64,
    bursts: AtomicU64,
}

impl Traffic {
    /// The number of bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// The number of reads that returned buffered data: at least the number of packets on a real network.
    pub(crate) fn bursts(&self) -> u64 {
        self.bursts.load(Relaxed)
    }
}

/// Whether an end is cut off; `None` if there is no such host.
type Cut = Option<watch::Receiver<bool>>;

/// Waits until neither end is cut off.
///
/// # Errors
///
/// The wait takes longer than an agent waits.
pub(super) async fn whole(ends: [Cut; 2]) -> Result<(), String> {
    for end in ends {
        let mut end = end.ok_or_else(|| "there is no such host".to_owned())?;
        let mended = timeout(SILENCE_MAX, end.wait_for(|cut| !cut)).await;
        mended
            .map_err(|_| "it does not answer".to_owned())?
            .map_err(|_| "it is gone".to_owned())?;
    }
    Ok(())
}

/// Carries a stream until both sides have finished, one fails, or one is cut off for too long.
pub(super) async fn carry(
    caller: Connection,
    callee: Connection,
    counts: &[Arc<Traffic>; 2],
    cuts: [watch::Receiver<bool>; 2],
) -> Result<()> {
    // Neither side sends anything before it knows that the stream is open.
    let (near_in, near_out) = caller.into_inner().into_split();
    let (far_in, far_out) = callee.into_inner().into_split();
    let [near, far] = cuts.clone();
    tokio::select! {
        done = async {
            tokio::try_join!(
                pump(near_in, far_out, &counts[0], cuts.clone()),
                pump(far_in, near_out, &counts[1], cuts.clone()),
            )
        } => done.map(drop),
        () = lost(near) => bail!("the caller is cut off"),
        () = lost(far) => bail!("the callee is cut off"),
    }
}

async fn pump(
    mut input: OwnedReadHalf,
    mut output: OwnedWriteHalf,
    count: &Traffic,
    mut cuts: [watch::Receiver<bool>; 2],
) -> Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let length = input.read(&mut buffer).await?;
        for cut in &mut cuts {
            cut.wait_for(|cut| !cut).await?;
        }
        if length == 0 {
            return Ok(output.shutdown().await?);
        }
        count.bytes.fetch_add(length as u64, Relaxed);
        count.bursts.fetch_add(1, Relaxed);
        output.write_all(&buffer[..length]).await?;
    }
}

/// Returns when an end has been cut off for as long as an agent waits.
async fn lost(mut cut: watch::Receiver<bool>) {
    loop {
        if cut.wait_for(|cut| *cut).await.is_err() {
            return;
        }
        tokio::select! {
            () = sleep(SILENCE_MAX) => return,
            mended = cut.wait_for(|cut| !cut) => if mended.is_err() {
                return;
            }
        }
    }
}
