//! `make conformance`: see [`harness::conformance`].

use std::{io, process::ExitCode};

use clap::Parser;
use harness::conformance::{Options, run};

/// Run manifests on booted hosts and compare with what Kubernetes makes of them
#[derive(Debug, Parser)]
struct Arguments {
    #[command(flatten)]
    options: Options,
}

fn main() -> io::Result<ExitCode> {
    let all = run(&Arguments::parse().options)?;
    Ok(match all {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}
