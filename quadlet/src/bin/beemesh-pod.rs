//! The supervisor of one workload's unit, `beemesh-pod beemesh-pod-WORKLOAD`.
//!
//! The same program has three other calls:
//!
//! - `beemesh-pod --stop-post beemesh-pod-WORKLOAD` is the `ExecStopPost=` of that unit;
//! - `beemesh-pod --repair` is `beemesh-repair.service`;
//! - `beemesh-pod --release` runs when the package is removed.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use beemesh_protocol::workload::stem_pod;
use beemesh_quadlet::supervisor::shell::{self, Settings};
use beemesh_quadlet::supervisor::{down, release};
use beemesh_quadlet::{podman, repair};

const FOLDER: &str = "/etc/containers/systemd/beemesh";
const RUN: &str = "/run/beemesh";
/// Exit code of a call that systemd would not make.
const EXIT_USAGE: u8 = 64;

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .without_time()
        .with_ansi(false)
        .with_target(false)
        .init();
    match run() {
        Ok(code) => code,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (stopped, unit) = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [unit] if !unit.starts_with("--") => (false, unit),
        ["--stop-post", unit] => (true, unit),
        ["--repair"] => {
            repair::storage::mend().context("repair Podman's storage")?;
            return Ok(ExitCode::SUCCESS);
        }
        ["--release"] => return release(),
        _ => {
            tracing::error!(
                "usage: beemesh-pod [--stop-post] beemesh-pod-WORKLOAD | beemesh-pod --repair | beemesh-pod --release (systemd and the \
                 package run it)"
            );
            return Ok(ExitCode::from(EXIT_USAGE));
        }
    };
    let Some(workload) = stem_pod(unit) else {
        bail!("{unit} is not the unit of a workload");
    };
    let settings = Settings {
        workload: workload.to_owned(),
        socket: podman::socket(),
        folder: PathBuf::from(FOLDER),
        run: PathBuf::from(RUN),
    };
    runtime()?.block_on(async {
        if stopped {
            let result = std::env::var("SERVICE_RESULT").unwrap_or_default();
            let status = std::env::var("EXIT_STATUS").unwrap_or_default();
            down::after_stop(&settings, &result, &status)
                .await
                .context("take the pod down")?;
            return Ok(ExitCode::SUCCESS);
        }
        let code = shell::run(settings)
            .await
            .context("supervise the workload")?;
        Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
    })
}

/// A runtime with one thread: a supervisor mostly waits, and there is one for each workload.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime")
}

fn release() -> anyhow::Result<ExitCode> {
    let socket = podman::socket();
    let released = release::release(&socket, Path::new(FOLDER), Path::new(RUN));
    let released = runtime()?
        .block_on(released)
        .context("give restarts back to Podman")?;
    if !released.containers.is_empty() {
        let names = released.containers.join(", ");
        println!("Podman restarts these containers itself again, without back-off: {names}");
    }
    if !released.probed.is_empty() {
        let names = released.probed.join(", ");
        println!(
            "Podman continues the probes of these containers; before Podman 5.5 nothing ends a probe that hangs: {names}"
        );
    }
    if !released.unprobed.is_empty() {
        let names = released.unprobed.join(", ");
        println!(
            "The probes and hooks of these containers end; from the next boot on, Podman runs their liveness and startup probes: {names}"
        );
    }
    if !released.ended.is_empty() {
        let names = released.ended.join(", ");
        println!(
            "These singletons were ended, because only Beemesh keeps each of them on one host: {names}"
        );
    }
    for failure in &released.failures {
        tracing::error!("{failure}");
    }
    Ok(match released.failures.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}
