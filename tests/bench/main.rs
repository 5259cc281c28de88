//! `make bench`: the costs of Beemesh on booted hosts, beside etcd, Docker Swarm and bare Podman on hosts of the same
//! kind.
//!
//! Machines differ and are noisy, so a figure that compares is a ratio of measurements taken in turn. Each part boots
//! its hosts, removes them even after a failure, and saves its results in `target/bench/`. `docs/benchmarks.md` shows
//! all saved results, and keeps its text about parts without saved results.

mod apply;
mod attempt;
mod catchup;
mod commit;
mod data;
mod elections;
#[cfg_attr(not(feature = "etcd"), path = "etcd/absent.rs")]
mod etcd;
mod failover;
mod load;
mod meter;
mod options;
mod page;
mod place;
mod probe;
mod reschedule;
mod rest;
mod running;
mod save;
mod scale;
mod spans;
mod starts;
mod writer;

use anyhow::Result;
use clap::{Parser, Subcommand};
use serde::Serialize;

use options::{Options, Part};

/// Measure Beemesh and its peers on booted hosts
#[derive(Debug, Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    other: Option<Other>,
    #[command(flatten)]
    options: Options,
}

/// Other subcommands.
#[derive(Debug, Subcommand)]
enum Other {
    /// Write the page again from saved results
    Page,
    /// Run the load generator
    #[command(hide = true)]
    Load(load::Generator),
    /// Run the probe
    #[command(hide = true)]
    Probe(probe::Probing),
}

fn main() -> Result<()> {
    let Arguments { other, options } = Arguments::parse();
    match other {
        None => measure(&options),
        Some(Other::Page) => save::write_page(),
        Some(Other::Load(generator)) => {
            let loaded = runtime()?.block_on(generator.run())?;
            println!("{}", serde_json::to_string(&loaded)?);
            Ok(())
        }
        Some(Other::Probe(probing)) => runtime()?.block_on(probing.run()),
    }
}

/// A runtime with one thread, so that a client uses as little of the machine as possible.
fn runtime() -> Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    Ok(builder.enable_all().build()?)
}

fn measure(options: &Options) -> Result<()> {
    part(options, Part::Commit, "commit", commit::measure)?;
    for &system in options.systems() {
        for &blow in options.blows() {
            let measure = |options: &Options, failures: &mut Vec<String>| {
                failover::measure(options, system, blow, failures)
            };
            part(
                options,
                Part::Failover,
                &save::failover(system, blow),
                measure,
            )?;
        }
    }
    part(options, Part::Elections, "elections", elections::measure)?;
    part(options, Part::Start, "start", starts::measure)?;
    part(options, Part::Idle, "idle", rest::measure)?;
    part(options, Part::Apply, "apply", apply::measure)?;
    part(options, Part::Spans, "spans", spans::measure)?;
    part(options, Part::Catchup, "catchup", catchup::measure)?;
    part(options, Part::Scale, "scale", scale::measure)?;
    part(options, Part::Reschedule, "reschedule", reschedule::measure)?;
    Ok(())
}

/// Measures one part if it is selected, saves its results, and writes the page.
fn part<T: Serialize>(
    options: &Options,
    part: Part,
    name: &str,
    measure: impl Fn(&Options, &mut Vec<String>) -> Result<T>,
) -> Result<()> {
    if !options.wants(part) {
        return Ok(());
    }
    let mut failures = Vec::new();
    let data = measure(options, &mut failures)?;
    save::save(name, data, failures)?;
    save::write_page()
}
