//! What a gateway asks the other hosts before it proposes a manifest, as JSON over their routes for members.
//!
//! Pure: types only. Names are camelCase in JSON. A reader ignores fields that it does not know, and treats a cause of a
//! later release as [`Cause::Other`]. A host of a release before 0.4 does not have the route.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// The route that a host serves to members.
pub const ROUTE: &str = "/v1/prepare";
/// Maximum size of a question, in bytes: the images and ports of a manifest of 1 MiB.
pub const BYTES_MAX: usize = 2 << 20;
/// Maximum number of workloads, images or ports in one question.
pub const ITEMS_MAX: usize = 4096;

/// The question to a host: what prevents it from running these workloads?
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Question {
    /// The user of the apply, for the journal of the host.
    pub who: String,
    /// True lets the host pull the images that it lacks.
    pub pulls: bool,
    /// How long the answer may wait for pulls, in milliseconds.
    pub wait_ms: u64,
    /// The workloads that the host would run.
    pub workloads: Vec<Wanted>,
}

/// What a workload needs of a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Wanted {
    /// Its name: `NAME` or `NAMESPACE_NAME`.
    pub workload: String,
    /// True for a Job.
    pub job: bool,
    /// The time that its containers have to end, in seconds.
    pub grace_seconds: u32,
    /// The images of its pod.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<WantedImage>,
    /// The host ports of its pod.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<WantedPort>,
}

/// An image that a pod needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WantedImage {
    /// Its reference in the manifest.
    pub reference: String,
    /// When the pod pulls it.
    pub pull: PullPolicy,
}

/// When an image is pulled, in Kubernetes' words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PullPolicy {
    /// Before each start.
    Always,
    /// If the host lacks it.
    IfNotPresent,
    /// Never: the host must have it.
    Never,
}

/// A host port that a pod needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WantedPort {
    /// The address; none means every address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// The transport protocol.
    pub protocol: PortProtocol,
    /// The port number.
    pub port: u16,
}

/// The transport protocol of a host port, in Kubernetes' words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum PortProtocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// The answer of a host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// What prevents the host from running the workloads.
    #[serde(default)]
    pub doubts: Vec<Doubt>,
    /// The images that the host is pulling.
    #[serde(default)]
    pub pulling: Vec<Pulling>,
}

/// A reason why a host cannot run a workload.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Doubt {
    /// The workload.
    pub workload: String,
    /// The reason.
    pub cause: Cause,
}

/// Why a host cannot run a workload.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum Cause {
    /// The host does not have an image, and cannot get it.
    Image {
        /// Its reference in the manifest.
        image: String,
        /// Why the host cannot get it, as a message.
        reason: String,
    },
    /// Another program listens on a host port of the workload.
    Port {
        /// The port, as `80/tcp`.
        port: String,
        /// The program or container, as a message. Only administrators may know it.
        holder: String,
    },
    /// Podman makes no unit of the workload's Quadlet.
    Unit {
        /// The reason, as a message.
        reason: String,
    },
    /// The host's Podman does not answer, so that nothing is known about images.
    Podman {
        /// The reason, as a message.
        reason: String,
    },
    /// A cause of a later release.
    #[serde(other)]
    Other,
}

/// An image that a host is pulling.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pulling {
    /// Its reference in the manifest.
    pub image: String,
    /// How long the pull has taken so far, in seconds.
    pub seconds: u64,
}
