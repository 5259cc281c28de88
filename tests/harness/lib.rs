//! Booted hosts for the end-to-end tests: real systemd, real Podman, a real network and a real disk each.
//!
//! A test boots a [`Cluster`], acts as its user or as its bad luck (power cuts, kills, cut cables), waits for a state
//! with [`wait_for`], and asserts effects: containers, units, files, answers. Nothing here stands in for a part of the
//! system. When a test fails, every host's journal and state are written to `target/e2e/TEST/`.

mod chance;
mod cluster;
mod history;
mod host;
pub mod http;
pub mod interrupt;
mod manifests;
pub mod torture;
mod wait;

pub use chance::{Chance, split_mix};
pub use cluster::{Cluster, start_agent};
pub use history::{History, Op};
pub use host::{Answer, Host};
pub use manifests::{broken_command, pod, pod_on, two_containers};
pub use wait::{secs, wait_for};

/// The image that every booted host has: a busybox, stored under this name without a registry.
pub const IMAGE: &str = "localhost/beemesh-demo:1";
