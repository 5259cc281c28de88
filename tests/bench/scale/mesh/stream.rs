//! One stream: both directions, counted, and held while an end is cut off.
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

/// An agent that hears nothing for this long takes the other one for gone.
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(3);
/// A gateway has this long to take a stream.
pub(super) const ACCEPT_MAX: Duration = Duration::from_secs(ACCEPT_SECONDS_MAX);
/// The buffer of one direction, in bytes: an agent's.
const BUFFER: usize = 64 << 10;

/// What one host has sent to another.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    bytes: AtomicU64,
    bursts: AtomicU64,
}

impl Traffic {
    /// In bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// How many times something was read that had gathered: no fewer than the packets of a real network.
    pub(crate) fn bursts(&self) -> u64 {
        self.bursts.load(Relaxed)
    }
}

/// Whether an end is cut off; none when there is no such host.
type Cut = Option<watch::Receiver<bool>>;

/// Waits until neither end is cut off.
///
/// # Errors
///
/// When that takes longer than an agent's patience.
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
    // Neither sends anything before it has seen that the stream is there.
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

/// Ends when an end has been cut off for as long as an agent waits.
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
