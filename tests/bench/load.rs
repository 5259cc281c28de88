//! The load generator: some clients that each write one value after the other, and the time of each write.
//!
//! Shell. It is a process of its own, in the network namespace of one host and outside of the host's cgroup, so that
//! its CPU time does not count as the system's. All clients share one thread, for every system.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use crate::{
    data::System,
    place::Place,
    writer::{self, Writer},
};

/// Writes in this time are not counted: connections, caches and the systems' own batches settle.
const WARM_UP: Duration = Duration::from_millis(500);
/// The time limit of a write.
const WRITE_MAX: Duration = Duration::from_secs(30);
/// A client stops after this many failures.
const ERRORS_MAX: u64 = 10;

/// The load generator.
#[derive(Debug, Clone, Args)]
pub(crate) struct Generator {
    /// The root folder of the host to write through.
    #[arg(long)]
    root: PathBuf,
    #[command(flatten)]
    load: Load,
}

/// The requested load.
#[derive(Debug, Clone, Args)]
pub(crate) struct Load {
    /// The system to write to.
    #[arg(long)]
    pub(crate) system: System,
    /// The size of each value in bytes.
    #[arg(long)]
    pub(crate) value: usize,
    /// The number of clients.
    #[arg(long)]
    pub(crate) clients: usize,
    /// The duration in seconds.
    #[arg(long)]
    pub(crate) seconds: f64,
    /// The total of values, in bytes, after which all clients stop.
    #[arg(long)]
    pub(crate) bytes_max: usize,
    /// A part of the name of every key.
    #[arg(long)]
    pub(crate) prefix: String,
}

/// The result of a load.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Loaded {
    /// The time of each counted write, in microseconds.
    pub(crate) micros: Vec<u64>,
    /// The duration of the counted writes, from the first start to the last end, in seconds.
    pub(crate) seconds: f64,
    /// All committed writes, including those of the warm-up.
    pub(crate) writes: u64,
    /// The number of failed writes.
    pub(crate) errors: u64,
    /// The message of the last failure.
    pub(crate) error: Option<String>,
}

impl Load {
    /// Runs the generator as a client of a host.
    pub(crate) fn on(&self, host: &Place) -> Result<Loaded> {
        let output = host
            .client("load")?
            .args(["--system", &self.system.name().to_lowercase()])
            .args(["--prefix", &self.prefix])
            .args(["--value", &self.value.to_string()])
            .args(["--clients", &self.clients.to_string()])
            .args(["--seconds", &self.seconds.to_string()])
            .args(["--bytes-max", &self.bytes_max.to_string()])
            .output()
            .context("run the load generator")?;
        ensure!(
            output.status.success(),
            "load generator: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(serde_json::from_slice(&output.stdout)?)
    }
}

impl Generator {
    /// Writes and returns the result.
    pub(crate) async fn run(self) -> Result<Loaded> {
        let Self { root, load } = self;
        let mut writers = Vec::new();
        for _ in 0..load.clients {
            writers.push(Writer::connect(load.system, &root).await?);
        }
        let counted = Instant::now() + WARM_UP;
        let end = counted + Duration::from_secs_f64(load.seconds);
        let writes_max = load.bytes_max / load.value / load.clients;
        let mut clients = JoinSet::new();
        for (number, writer) in writers.into_iter().enumerate() {
            let name = format!("{}-{number}", load.prefix);
            clients.spawn(client(writer, name, load.value, counted, end, writes_max));
        }
        let (mut all, mut last) = (Loaded::default(), counted);
        while let Some(client) = clients.join_next().await {
            let (loaded, ended) = client?;
            all.micros.extend(loaded.micros);
            all.writes += loaded.writes;
            all.errors += loaded.errors;
            all.error = loaded.error.or(all.error);
            last = last.max(ended);
        }
        all.seconds = (last - counted).as_secs_f64();
        Ok(all)
    }
}

/// Runs one client until `end` or its last write; returns its counts and the time when it ended.
async fn client(
    mut writer: Writer,
    name: String,
    size: usize,
    counted: Instant,
    end: Instant,
    writes_max: usize,
) -> (Loaded, Instant) {
    let mut loaded = Loaded::default();
    let filler = writer::filler(size);
    for n in 0..writes_max.max(1) {
        let once = format!("{name}-{n}");
        let value = writer::value(&once, &filler);
        let begun = Instant::now();
        if begun >= end {
            break;
        }
        let written = tokio::time::timeout(WRITE_MAX, writer.write(&name, &once, value)).await;
        match written.unwrap_or_else(|elapsed| Err(elapsed.into())) {
            Ok(()) => {
                loaded.writes += 1;
                if begun >= counted {
                    let micros = begun.elapsed().as_micros();
                    loaded
                        .micros
                        .push(u64::try_from(micros).unwrap_or(u64::MAX));
                }
            }
            Err(error) => {
                loaded.errors += 1;
                loaded.error = Some(format!("{error:#}"));
                if loaded.errors >= ERRORS_MAX {
                    break;
                }
            }
        }
    }
    (loaded, Instant::now())
}
