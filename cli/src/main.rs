//! `beemesh`: the command line. It talks to the gateway of its host, over a socket, or to one elsewhere, over TLS.
//!
//! Wiring: reads the arguments, runs one command, says what failed. Exit codes: 0 done, 1 failed, 2 usage, 3 the
//! gateway cannot be reached.

mod args;
mod client;
mod cmd;
mod follow;
mod live;
mod remote;
mod render;
mod trouble;

use std::process::ExitCode;

use clap::Parser;

use args::Args;

fn main() -> ExitCode {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(cmd::run(args)),
        Err(error) => Err(trouble::Trouble::failed(format!("start: {error}"))),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(trouble) => {
            eprint!("{trouble}");
            trouble.exit()
        }
    }
}
