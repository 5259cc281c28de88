//! Booted hosts for the end-to-end tests, each with a real systemd, Podman, network and disk.
//!
//! A test boots a [`Cluster`], acts as its user or causes faults (power cuts, kills, cut links), waits for a state with
//! [`wait_for`], and asserts effects: containers, units, files, answers. No part of the system is replaced by a fake.
//! When a test fails, the journal and the state of every host are written to `target/e2e/TEST/`.

mod chance;
mod cluster;
pub mod conformance;
mod history;
mod host;
pub mod http;
pub mod interrupt;
pub mod judge;
mod manifests;
mod stamps;
pub mod torture;
mod wait;

pub use chance::{Chance, split_mix};
pub use cluster::{Cluster, start_agent};
pub use history::{History, Op};
pub use host::{Answer, Host};
pub use manifests::{broken_command, pod, pod_on, two_containers};
pub use stamps::{Gap, Run, Stamp, Stamps, uptime};
pub use wait::{secs, wait_for};

/// The image on every booted host: a busybox, stored under this name without a registry.
pub const IMAGE: &str = "localhost/beemesh-demo:1";
