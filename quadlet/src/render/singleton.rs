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

/// The condition by which systemd does not start the unit. It is never met, and systemd names it. A file of Beemesh clears
/// it, so it holds on a host without Beemesh.
pub(super) const CONDITION: &str = "\
# Without Beemesh nothing keeps this workload on one host.
ConditionPathExists=/nonexistent/only-beemesh-starts-a-singleton
";

/// Returns true if a YAML of [`render`](super::render()) has the pod of a singleton, which runs only with a lease.
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
