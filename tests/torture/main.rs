//! `make torture`: see [`harness::torture`].

use std::process::ExitCode;

use clap::Parser;
use harness::torture::{Options, run};

/// Strikes booted hosts with faults, and looks for what got lost.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(flatten)]
    options: Options,
}

fn main() -> std::io::Result<ExitCode> {
    let all = run(&Arguments::parse().options)?;
    Ok(if all {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
