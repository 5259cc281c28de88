//! The Beemesh host agent: parses the command line and runs the command.

mod agent;
mod api_port;
mod args;
mod commands;
mod config;
mod dbus;
mod durable;
mod mesh;
mod notify;
mod podman;
mod ports;
mod rates;
mod sieve;
mod socket;
mod systemd;

use std::{io::IsTerminal, process::ExitCode};

use anyhow::Context;
use clap::Parser;
use tracing_subscriber::EnvFilter;

use crate::{
    agent::Settings,
    args::{Arguments, Command},
    commands::{purge, recover},
    config::Sources,
    mesh::identity,
    ports::Ports,
    systemd::Places,
};

/// Exit code of a configuration error, or of a host that lacks a requirement. A restart would not help.
const EXIT_CONFIG: u8 = 78;
/// Threads for blocking file operations. More than a few are busy only if a disk hangs.
const BLOCKING_THREADS_MAX: usize = 8;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match arguments.command {
        Some(Command::Purge { yes }) => return purge::run(arguments, yes),
        Some(Command::Recover { confirm, gateway }) => return recover::run(&gateway, confirm),
        Some(Command::HoldPorts) => {
            log();
            let sources = Sources::new(&arguments.state, arguments.config.as_deref());
            return ports::holder::run(sources, &arguments.ports);
        }
        Some(Command::CheckConfig) => return check_config(&arguments),
        None => {}
    }
    log();
    let settings = match settings(arguments) {
        Ok(settings) => settings,
        Err(error) => {
            tracing::error!("{error:#}");
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    match run(settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            if error.is::<agent::Unfit>() {
                ExitCode::from(EXIT_CONFIG)
            } else {
                ExitCode::FAILURE
            }
        }
    }
}

/// Checks the configuration before a reload. systemd shows the failure of this command to the administrator who
/// requested the reload, but not the agent's log.
fn check_config(arguments: &Arguments) -> ExitCode {
    let sources = Sources::new(&arguments.state, arguments.config.as_deref());
    let loaded = config::host_name().and_then(|name| config::load(&sources, &name));
    match loaded {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the configuration is invalid, so the agent keeps the one it has: {error:#}");
            ExitCode::from(EXIT_CONFIG)
        }
    }
}

fn settings(arguments: Arguments) -> anyhow::Result<Settings> {
    let sources = Sources::new(&arguments.state, arguments.config.as_deref());
    let config = config::load(&sources, &config::host_name()?).context("read the configuration")?;
    let key = arguments.state.join("identity");
    let identity = identity::load_or_make(&key)?;
    let ports = Ports::new(arguments.ports);
    ports.reserve(config.reserved_ports());
    Ok(Settings {
        api_port: api_port::Settings {
            listen: arguments.listen,
            socket: arguments.api,
            ports: ports.clone(),
        },
        mesh: mesh::Settings {
            listen: arguments.listen,
            port: config.port,
            mdns: config.mdns,
            ports: ports.clone(),
        },
        ports,
        config,
        sources,
        identity,
        key,
        places: Places {
            units: arguments.units,
            storage: arguments.storage,
        },
        socket: arguments.socket,
        podman: arguments.podman,
    })
}

// A single-threaded runtime: for small messages on a small host it is faster than several threads, and needs less
// memory.
fn run(settings: Settings) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .build()
        .context("start the runtime")?
        .block_on(agent::run(settings))
}

/// Logs to standard error. The journal adds the time.
fn log() {
    let filter = EnvFilter::try_from_env("BEEMESH_LOG")
        .unwrap_or_else(|_| EnvFilter::new("info,libp2p=warn,zbus=warn"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal());
    if std::env::var_os("JOURNAL_STREAM").is_some() {
        log.without_time().init();
    } else {
        log.init();
    }
}
