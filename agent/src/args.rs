//! The agent's command line.

use std::{net::IpAddr, path::PathBuf};

use clap::{Parser, Subcommand};

const AFTER_HELP: &str = "\
Examples:
  # Start the agent now and at every boot
  systemctl enable --now beemesh-agent

  # Apply a changed configuration
  systemctl reload beemesh-agent

Exit status:
  0   The agent was stopped
  1   Failure
  2   Usage error
  78  Invalid configuration, or a version of Podman that is not supported

Environment:
  BEEMESH_LOG  Log level, such as debug; the default is info";

const AFTER_PURGE: &str = "\
Examples:
  # List what would be removed
  /usr/libexec/beemesh/beemesh-agent purge

  # Remove it
  /usr/libexec/beemesh/beemesh-agent purge --yes

Exit status:
  0   Success
  1   Failure
  2   Usage error";

const AFTER_RECOVER: &str = "\
Examples:
  # Show what may be lost, then ask for confirmation
  /usr/libexec/beemesh/beemesh-agent recover

Exit status:
  0   Success
  1   The recovery was refused, not confirmed, or failed
  2   Usage error";

/// Connect this host to the other hosts of its Beemesh cluster
///
/// systemd runs the agent as beemesh-agent.service. The package's configuration is /usr/lib/beemesh/agent.toml; files in
/// /etc/beemesh/agent.toml.d override it.
#[derive(Debug, Parser)]
#[command(name = "beemesh-agent", version, after_help = AFTER_HELP, max_term_width = 100)]
pub(crate) struct Arguments {
    /// Directory of the host's key
    #[arg(long, hide = true, default_value = "/var/lib/beemesh/agent")]
    pub(crate) state: PathBuf,
    /// Socket to bind, instead of the one that systemd passes
    #[arg(long, hide = true)]
    pub(crate) socket: Option<PathBuf>,
    /// Directory of agent.toml and agent.toml.d, instead of the usual ones
    #[arg(long, hide = true)]
    pub(crate) config: Option<PathBuf>,
    /// Directory of the workloads' unit files
    #[arg(long, hide = true, default_value = "/etc/containers/systemd/beemesh")]
    pub(crate) units: PathBuf,
    /// Storage of Podman
    #[arg(long, hide = true, default_value = "/var/lib/containers/storage")]
    pub(crate) storage: PathBuf,
    /// Socket of Podman
    #[arg(long, hide = true, default_value = "/run/podman/podman.sock")]
    pub(crate) podman: PathBuf,
    /// Socket of the gateway for remote users
    #[arg(long, hide = true, default_value = "/run/beemesh/remote.sock")]
    pub(crate) api: PathBuf,
    /// Socket of beemesh-ports.service
    #[arg(long, hide = true, default_value = "/run/beemesh-ports/socket")]
    pub(crate) ports: PathBuf,
    /// Listen on this address only
    #[arg(long, hide = true)]
    pub(crate) listen: Option<IpAddr>,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Keep the ports of the mesh and of the API bound while no agent runs, as beemesh-ports.service
    #[command(hide = true)]
    HoldPorts,
    /// Check the configuration files, and exit with code 78 if one is invalid
    ///
    /// beemesh-agent.service runs this command before a reload.
    CheckConfig,
    /// Remove all workloads and all state of Beemesh from this host
    ///
    /// The command stops and disables the agent and the gateway. It removes the pods, units, volumes (including those of
    /// claims) and secrets of all workloads, and the key, log and configuration of the host. Images stay. The other hosts keep
    /// this host as a missing member until `beemesh host remove`.
    #[command(after_help = AFTER_PURGE)]
    Purge {
        /// Remove; without this option the command only lists what it would remove
        #[arg(long)]
        yes: bool,
    },
    /// Make this host a cluster of its own after the permanent loss of a majority
    ///
    /// The command shows what may be lost and which hosts are cut off, and asks for the first digits of the cluster ID. This
    /// host then continues with its state and workloads, and other hosts must join again. The command is refused while the
    /// cluster has a majority.
    #[command(after_help = AFTER_RECOVER)]
    Recover {
        /// First eight digits of the cluster ID, instead of a prompt
        #[arg(long, value_name = "DIGITS")]
        confirm: Option<String>,
        /// Socket of this host's gateway
        #[arg(long, hide = true, default_value = "/run/beemesh/gateway.sock")]
        gateway: PathBuf,
    },
}
