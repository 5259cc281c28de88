//! `beemesh`: the command line. It talks to the gateway of its host over a socket, or to a remote gateway over TLS.
//!
//! Wiring: parses the arguments, runs one command and prints its error. The exit status is 0 for success, 1 for a
//! failure, 2 for a usage error, 3 for a gateway that cannot be reached, and 130 for an interrupted wait. `beemesh diff` has 1
//! for differences and 4 for a failure.

mod args;
mod client;
mod cmd;
mod download;
mod follow;
mod live;
mod remote;
mod render;
mod session;
mod source;
mod trouble;

use std::process::ExitCode;

use clap::Parser;

use args::{Args, Command};

fn main() -> ExitCode {
    let args = Args::parse_from(args::join_wait(std::env::args_os()));
    let is_diff = matches!(args.command, Command::Diff(_));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(cmd::run(args)),
        Err(error) => Err(trouble::Trouble::failed(format!("cannot start: {error}"))),
    };
    match result {
        Ok(status) => status,
        Err(trouble) => {
            let trouble = match is_diff {
                true => trouble.of_diff(),
                false => trouble,
            };
            eprint!("{trouble}");
            trouble.exit()
        }
    }
}
