//! What the Quadlet of a singleton has more than others, and its reading.
//!
//! Pure: no I/O, no clock, no randomness. A host runs a singleton only while it has the lease of the workload, which the
//! supervisor obeys. So nothing else may start its unit or its containers: not a boot, not Podman, and not systemd on a
//! host without Beemesh.

use crate::manifest::annotations::REQUIRED;
pub use crate::manifest::annotations::{LEASE, RESTART_POLICY};

use super::{Metadata, Spec, pods};

/// What the Quadlet says about hosts without Beemesh.
pub(super) const HEAD: &str = "It is a singleton: only Beemesh starts it.";

/// The lines by which systemd refuses to start the unit. A file of Beemesh clears the condition, so it is refused only on a
/// host without Beemesh.
pub(super) fn condition(workload: &str) -> String {
    format!(
        "# Without Beemesh nothing keeps this workload on one host.\n\
         ExecCondition=/bin/sh -c 'echo \"{workload} is a singleton, which only Beemesh may start: install Beemesh on this host\" >&2; exit 1'\n"
    )
}

/// Whether the pod in a YAML of [`render`](super::render()) is that of a singleton, which runs only with a lease.
#[must_use]
pub fn needs_lease(yaml: &[u8]) -> bool {
    // The supervisors of all workloads ask at each look.
    let text = str::from_utf8(yaml).unwrap_or_default();
    text.contains(LEASE) && pods(yaml).any(|(metadata, _)| is_leased(&metadata))
}

fn is_leased(metadata: &Metadata) -> bool {
    metadata.annotations.get(LEASE).map(String::as_str) == Some(REQUIRED)
}

/// The restart policy of a pod in its manifest.
pub(super) fn restart_policy<'a>(metadata: &'a Metadata, spec: &'a Spec) -> &'a str {
    let kept = metadata.annotations.get(RESTART_POLICY);
    match kept.filter(|_| is_leased(metadata)) {
        Some(policy) => policy,
        None => &spec.restart,
    }
}
