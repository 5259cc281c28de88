//! The Beemesh host agent: reads the command line, and runs what it names.

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

/// A configuration error, or a host that lacks what Beemesh needs: a restart would only repeat it.
const EXIT_CONFIG: u8 = 78;
/// Threads for files; they are many only when a disk hangs.
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

/// A reload whose command fails is told to the administrator who asked for it; what the agent itself logs is not.
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

// One thread: it is faster than several for small messages on a small host, and smaller.
fn run(settings: Settings) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .build()
        .context("start the runtime")?
        .block_on(agent::run(settings))
}

/// Logs to standard error: the journal adds the time by itself.
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
