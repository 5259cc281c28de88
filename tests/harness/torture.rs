//! `make torture`: checks that booted hosts keep acknowledged changes under any faults.
//!
//! Each round boots hosts and forms a cluster. Clients write, read and delete through all hosts while faults strike,
//! chosen by a seed. Then the round repairs everything and compares the history of the clients with one register for
//! each manifest, and the pods of the hosts with the committed manifests. A round that finds a violation ends the run.
//! Its seed repeats the round as far as timing on a busy machine allows.

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

/// Strike booted hosts with faults and look for lost changes
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Seed of the first round; each further round adds one
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Number of rounds; each boots new hosts
    #[arg(long, default_value_t = 25)]
    pub rounds: u64,
    /// Number of faults in a round
    #[arg(long, default_value_t = 40)]
    pub faults: usize,
    /// Number of hosts at the start of a round; one more joins while faults strike
    #[arg(long, default_value_t = 3)]
    pub hosts: usize,
    /// Only faults of these kinds
    #[arg(long, value_delimiter = ',')]
    pub only: Vec<Kind>,
    /// File for the report, written after each round
    #[arg(long)]
    pub report: Option<PathBuf>,
}

/// Runs all rounds, or all up to the first with a violation. Writes the report and returns whether no round found one.
///
/// # Errors
/// If the report cannot be written.
pub fn run(options: &Options) -> io::Result<bool> {
    let mut report = Report::new(options);
    for seed in options.seed..options.seed + options.rounds {
        eprintln!("round of seed {seed}");
        // A wait that gives up panics, as in tests. The hosts are removed and their journals kept in any case.
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
