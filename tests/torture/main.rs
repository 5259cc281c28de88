//! `make torture`, `make power` and `make soak`: see [`harness::torture`].

use std::{io, process::ExitCode};

use clap::{Parser, Subcommand};
use harness::torture::{Options, power, run, soak};

/// Strike booted hosts with faults and look for lost changes
#[derive(Debug, Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    other: Option<Other>,
    #[command(flatten)]
    options: Options,
}

/// Other tests.
#[derive(Debug, Subcommand)]
enum Other {
    /// Cut the power of hosts at chosen moments, and of hosts with bare Podman
    Power(power::Options),
    /// Strike the same hosts for an hour and look for growing resource use
    Soak(soak::Options),
}

fn main() -> io::Result<ExitCode> {
    let Arguments { other, options } = Arguments::parse();
    let all = match other {
        Some(Other::Power(options)) => power::run(&options).map(|()| true)?,
        Some(Other::Soak(options)) => soak::run(&options)?,
        None => run(&options)?,
    };
    Ok(if all {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
