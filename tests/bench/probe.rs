//! A client that does not wait for one write before the next: it starts a write every few milliseconds, each over a new
//! connection, and reports which were committed and when.
//!
//! Shell. An outage therefore ends with a write that began after the outage did, independent of the writes in flight.
//! The probe is a process of its own, like the load generator.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::PathBuf,
    process::{Child, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use tokio::{sync::Semaphore, time};

use crate::{
    data::{System, Times},
    place::Place,
    writer::{self, Writer},
};

/// The pause between the starts of two writes, in milliseconds: the resolution of an outage.
const PAUSE_MS: u64 = 10;
/// The pause between two looks at the committed writes.
const LOOK: Duration = Duration::from_millis(10);
/// The time limit of a write.
const PATIENCE: Duration = Duration::from_secs(1);
/// The largest number of writes in flight: as many as start within the time limit of one.
const UNDER_WAY_MAX: usize = 100;
/// The size of the values in bytes.
const VALUE: usize = 1 << 10;

/// The arguments of the probe.
#[derive(Debug, Clone, Args)]
pub(crate) struct Probing {
    /// The system to write to.
    #[arg(long)]
    pub(crate) system: System,
    /// The root folder of the host to write through.
    #[arg(long)]
    pub(crate) root: PathBuf,
    /// Milliseconds between the starts of two writes.
    #[arg(long)]
    pub(crate) pause_ms: u64,
}

impl Probing {
    /// Runs the probe: it prints a line for each committed write until it is killed.
    pub(crate) async fn run(self) -> Result<()> {
        let filler = Arc::new(writer::filler(VALUE));
        let room = Arc::new(Semaphore::new(UNDER_WAY_MAX));
        let mut ticks = time::interval(Duration::from_millis(self.pause_ms));
        ticks.set_missed_tick_behavior(time::MissedTickBehavior::Skip);
        for n in 0_u64.. {
            ticks.tick().await;
            let Ok(permit) = Arc::clone(&room).try_acquire_owned() else {
                continue;
            };
            let (probing, filler) = (self.clone(), Arc::clone(&filler));
            tokio::spawn(async move {
                let begun = now();
                let once = format!("probe-{begun}-{n}");
                let value = writer::value(&once, &filler);
                let write = async {
                    let mut writer = Writer::connect(probing.system, &probing.root).await?;
                    writer
                        .write(&format!("probe-{}", n % 8), &once, value)
                        .await
                };
                if let Ok(Ok(())) = time::timeout(PATIENCE, write).await {
                    // The reader may have ended.
                    let _ = writeln!(std::io::stdout(), "{begun} {}", now());
                }
                drop(permit);
            });
        }
        Ok(())
    }
}

/// Microseconds since 1970: all processes share this clock.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_micros()).unwrap_or(u64::MAX)
}

/// The time when a write began and the time when it was committed, in microseconds since 1970.
pub(crate) type Accepted = (u64, u64);

/// A probe that writes through one host. Dropping it kills it.
pub(crate) struct Probe {
    child: Child,
    accepted: Arc<Mutex<Vec<Accepted>>>,
}

impl Probe {
    /// Starts to write through `host`, which may be off.
    pub(crate) fn start(system: System, host: &Place) -> Result<Self> {
        Self::every(system, host, PAUSE_MS)
    }

    /// Starts to write with this many milliseconds between the starts of two writes.
    pub(crate) fn every(system: System, host: &Place, pause_ms: u64) -> Result<Self> {
        let mut child = host
            .client("probe")?
            .args(["--system", &system.name().to_lowercase()])
            .args(["--pause-ms", &pause_ms.to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .context("run the probe")?;
        let lines = BufReader::new(child.stdout.take().context("the probe's output")?).lines();
        let accepted = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&accepted);
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let mut numbers = line.split(' ').filter_map(|number| number.parse().ok());
                if let (Some(begun), Some(ended)) = (numbers.next(), numbers.next()) {
                    heard
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push((begun, ended));
                }
            }
        });
        Ok(Self { child, accepted })
    }

    /// The committed writes that began after `from` and ended before `to`.
    pub(crate) fn within(&self, from: u64, to: u64) -> Vec<Accepted> {
        let accepted = self.accepted.lock().unwrap_or_else(PoisonError::into_inner);
        let within = |(begun, ended): &Accepted| *begun >= from && *ended <= to;
        accepted.iter().copied().filter(within).collect()
    }

    /// The times of those writes.
    pub(crate) fn times(&self, from: u64, to: u64) -> Times {
        let within = self.within(from, to).into_iter();
        Times::of(within.map(|(begun, ended)| ended - begun).collect())
    }

    /// The first committed write that began after `moment`.
    pub(crate) fn accepted_after(&self, moment: u64, bound: Duration) -> Result<Accepted> {
        let begun = Instant::now();
        loop {
            let accepted = self
                .accepted
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone();
            let later = accepted.into_iter().filter(|(begun, _)| *begun > moment);
            if let Some(first) = later.min_by_key(|(_, ended)| *ended) {
                return Ok(first);
            }
            ensure!(
                begun.elapsed() < bound,
                "no write was accepted within {bound:?}"
            );
            thread::sleep(LOOK);
        }
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
