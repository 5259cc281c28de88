//! Writes one revision of a workload as a Quadlet: the text of its `.kube` file and the YAML that is played.
//!
//! Pure: no I/O, no clock, no randomness. The same revision gives the same bytes on every host, and the file on disk,
//! the play and the removal use those bytes.

use beemesh_protocol::{ClusterId, state::Object};

/// One revision of a workload with what it uses.
#[derive(Debug, Clone, Copy)]
pub struct Revision<'a> {
    /// The cluster it belongs to.
    pub cluster: ClusterId,
    /// Its number, for people.
    pub revision: u64,
    /// The log index that made it: orders revisions.
    pub index: u64,
    /// The workload.
    pub object: &'a Object,
    /// The ConfigMaps, Secrets and claims it refers to, as far as they exist.
    pub uses: &'a [&'a Object],
}

/// A Quadlet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// The `.kube` file.
    pub kube: String,
    /// The file it names: JSON documents, which are YAML.
    pub yaml: Vec<u8>,
    /// What must be there before it is played, without repetition.
    pub images: Vec<Image>,
}

/// An image that a workload runs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Image {
    /// As the manifest writes it.
    pub reference: String,
    /// When to ask its registry.
    pub pull: Pull,
}

/// When a registry is asked for an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pull {
    /// Before each start.
    Always,
    /// When the host lacks it.
    IfNotPresent,
    /// Not at all: the image must be there.
    Never,
}

/// Why a revision cannot be rendered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RenderError {
    /// A ConfigMap or Secret or claim that it must have is not in `uses`.
    #[error("{kind} `{name}` does not exist")]
    Missing {
        /// As YAML writes it.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// The stored object is not what `manifest::parse` makes.
    #[error("{kind} `{name}` is stored in a form that cannot be played: {reason}")]
    Malformed {
        /// As YAML writes it.
        kind: &'static str,
        /// Its name.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// What a `.kube` file of Beemesh says about itself in `[X-Beemesh]` and `Yaml=`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quadlet {
    /// The workload's name.
    pub workload: String,
    /// Its revision, for people.
    pub revision: u64,
    /// Orders revisions.
    pub index: u64,
    /// Whose workload it is.
    pub cluster: ClusterId,
    /// The file name of its YAML, beside the `.kube` file.
    pub yaml: String,
}

/// Renders one revision.
pub fn render(revision: &Revision<'_>) -> Result<Rendered, RenderError> {
    Err(RenderError::Missing {
        kind: "",
        name: revision.object.name.clone(),
    })
}

/// Reads back what [`render`] wrote; `None` when the file is not such a one.
#[must_use]
pub fn read_quadlet(kube: &str) -> Option<Quadlet> {
    let _ = kube;
    None
}

/// The images of a YAML that [`render`] wrote.
#[must_use]
pub fn images(yaml: &[u8]) -> Vec<Image> {
    let _ = yaml;
    Vec::new()
}

/// The unit of a workload.
#[must_use]
pub fn unit_name(workload: &str) -> String {
    format!("beemesh-pod-{workload}.service")
}

/// The `.kube` file of a workload.
#[must_use]
pub fn kube_file(workload: &str) -> String {
    format!("beemesh-pod-{workload}.kube")
}

/// The YAML file of a revision.
#[must_use]
pub fn yaml_file(workload: &str, index: u64) -> String {
    format!("beemesh-pod-{workload}.{index}.yaml")
}

/// What the Podman names of all volumes and secrets that belong to this workload alone begin with.
#[must_use]
pub fn private_prefix(workload: &str) -> String {
    format!("beemesh__{workload}__")
}
