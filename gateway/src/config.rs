//! Where the gateway finds its folder and its sockets.
//!
//! The defaults are the paths of the shipped pod; only tests that run several gateways on one machine change them.

use std::path::PathBuf;

use clap::Parser;

/// Beemesh's gateway: consensus, the user API and the reconciler of one host.
///
/// It runs as the pod `beemesh-gateway.service` and talks to other hosts only through `beemesh-agent`.
#[derive(Debug, Clone, Parser)]
#[command(name = "beemesh-gateway", version)]
pub(crate) struct Config {
    /// The folder of the log and the snapshots.
    #[arg(long, default_value = "/var/lib/beemesh/gateway")]
    pub(crate) dir: PathBuf,
    /// The agent's socket.
    #[arg(long, default_value = "/run/beemesh/agent.sock")]
    pub(crate) agent: PathBuf,
    /// The socket of the API.
    #[arg(long, default_value = "/run/beemesh/gateway.sock")]
    pub(crate) api: PathBuf,
    /// Podman's socket.
    #[arg(long, default_value = "/run/podman/podman.sock")]
    pub(crate) podman: PathBuf,
    /// The folder of the workloads' Quadlets, which the agent writes and the gateway reads.
    #[arg(long, default_value = "/etc/containers/systemd/beemesh")]
    pub(crate) quadlets: PathBuf,
    /// How long a voter may not answer the leader before another host votes in its place.
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    pub(crate) replace_voter_after: u64,
    /// How long no member may reach a host before its pods start on other hosts, as far as their workloads allow.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(10..))]
    pub(crate) reschedule_after: u64,
    /// For how long every host must have run a release that knows new rules before these hold; until then all can go back.
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    pub(crate) raise_rules_after: u64,
}
