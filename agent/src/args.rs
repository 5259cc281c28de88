//! What can be written on the agent's command line.

use std::{net::IpAddr, path::PathBuf};

use clap::{Parser, Subcommand};

/// Connects this host to the other hosts of its Beemesh cluster. Started by systemd as beemesh-agent.service.
///
/// Configuration: /usr/lib/beemesh/agent.toml explains it, /etc/beemesh/agent.toml.d/*.toml changes it.
/// Exit codes: 0 stopped, 1 failed, 2 usage, 78 configuration.
/// BEEMESH_LOG=debug shows more in the journal.
#[derive(Debug, Parser)]
#[command(name = "beemesh-agent", version, verbatim_doc_comment)]
pub(crate) struct Arguments {
    /// Folder of the host's key.
    #[arg(long, hide = true, default_value = "/var/lib/beemesh/agent")]
    pub(crate) state: PathBuf,
    /// Bind this socket; without it systemd must pass one.
    #[arg(long, hide = true)]
    pub(crate) socket: Option<PathBuf>,
    /// Folder of agent.toml and agent.toml.d, instead of the usual places.
    #[arg(long, hide = true)]
    pub(crate) config: Option<PathBuf>,
    /// Folder of the workloads' unit files.
    #[arg(long, hide = true, default_value = "/etc/containers/systemd/beemesh")]
    pub(crate) units: PathBuf,
    /// Podman's storage.
    #[arg(long, hide = true, default_value = "/var/lib/containers/storage")]
    pub(crate) storage: PathBuf,
    /// Podman's socket.
    #[arg(long, hide = true, default_value = "/run/podman/podman.sock")]
    pub(crate) podman: PathBuf,
    /// The gateway's socket for users elsewhere.
    #[arg(long, hide = true, default_value = "/run/beemesh/remote.sock")]
    pub(crate) api: PathBuf,
    /// The socket of beemesh-ports.service.
    #[arg(long, hide = true, default_value = "/run/beemesh-ports/socket")]
    pub(crate) ports: PathBuf,
    /// Listen on this address only.
    #[arg(long, hide = true)]
    pub(crate) listen: Option<IpAddr>,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Keeps the ports of the mesh and of the API bound while no agent runs; beemesh-ports.service starts it
    #[command(hide = true)]
    HoldPorts,
    /// Removes from this host all that Beemesh has made
    ///
    /// The agent and the gateway are stopped and disabled; every workload's pod, unit, volumes (those of claims included)
    /// and secrets are removed, and the host's key, log and configuration. Other hosts keep this one as a missing member;
    /// if it comes back, then as a new host. Images of workloads stay.
    Purge {
        /// Really: without it this only lists what would be removed
        #[arg(long)]
        yes: bool,
    },
    /// Makes this host a cluster of its own, when so many hosts are lost for good that no majority is left
    ///
    /// Says first what may be lost and which hosts are cut off, and asks for the first digits of the cluster's id. Then this host
    /// goes on from what it has, with what it runs; others must join again. Refused while the cluster has a majority.
    Recover {
        /// The first eight digits of the cluster's id, instead of typing them
        #[arg(long, value_name = "DIGITS")]
        confirm: Option<String>,
        /// The socket of this host's gateway.
        #[arg(long, hide = true, default_value = "/run/beemesh/gateway.sock")]
        gateway: PathBuf,
    },
}
