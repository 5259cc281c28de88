//! `make torture`: whether booted hosts keep what they acknowledged, whatever befalls them.
//!
//! Each round boots hosts and forms a cluster; clients write, read and delete through all of them while faults strike that
//! a seed has chosen. Then everything is mended, and what clients were told is held against one register for each manifest,
//! and what hosts run against what was committed. A round that finds something ends the run; its seed does the same again,
//! as far as hosts on a busy machine can.

mod clients;
mod faults;
mod pods;
pub mod power;
mod report;
mod round;
pub mod soak;

use std::{
    fs, io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
};

use clap::Args;

pub use self::faults::Kind;
use self::report::Report;

/// Strikes booted hosts with faults, and looks for what got lost.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// The seed of the first round; each round has the next one.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// How often hosts are booted.
    #[arg(long, default_value_t = 25)]
    pub rounds: u64,
    /// How many faults strike in a round.
    #[arg(long, default_value_t = 40)]
    pub faults: usize,
    /// How many hosts there are from the beginning of a round; one more joins while faults strike.
    #[arg(long, default_value_t = 3)]
    pub hosts: usize,
    /// Only faults of these kinds.
    #[arg(long, value_delimiter = ',')]
    pub only: Vec<Kind>,
    /// Where to write what was done and found, after each round.
    #[arg(long)]
    pub report: Option<PathBuf>,
}

/// Runs all rounds, or those before the first that finds something: the page about them, and whether that was all.
///
/// # Errors
/// When the page cannot be written.
pub fn run(options: &Options) -> io::Result<bool> {
    let mut report = Report::new(options);
    for seed in options.seed..options.seed + options.rounds {
        eprintln!("round of seed {seed}");
        // Waits give up by panicking, as tests do; the hosts are taken down and their journals kept either way.
        let done = catch_unwind(AssertUnwindSafe(|| round::run(options, seed)));
        let Ok(round) = done else {
            eprintln!("seed {seed} FAILED");
            return Ok(false);
        };
        eprintln!("seed {seed}: {round}");
        report.add(round);
        if let Some(path) = &options.report {
            fs::write(path, report.page())?;
        }
    }
    Ok(true)
}
