//! The annotations by which a rendered pod tells the supervisor of its workload how to start it, and those of Kubernetes
//! that have no effect here.
//!
//! Pure: no I/O, no clock, no randomness. The renderer writes the first ones, so a manifest cannot.

/// The annotation of a pod whose containers the supervisor starts. Its value is [`SUPERVISOR`].
pub const START: &str = "beemesh.io/start";

/// The value of [`START`].
pub const SUPERVISOR: &str = "supervisor";

/// The annotation with the names of the sidecars, which are rendered as ordinary containers.
pub const SIDECARS: &str = "beemesh.io/sidecars";

/// The annotation with the names of init containers and sidecars in the manifest's order. It exists if there are
/// sidecars.
pub const INIT_ORDER: &str = "beemesh.io/init-order";

/// The annotation with a JSON list of what each volume must have before the first container starts.
pub const VOLUMES: &str = "beemesh.io/volumes";

/// The annotations of Beemesh that a manifest cannot set.
pub(crate) const OURS: [&str; 4] = [START, SIDECARS, INIT_ORDER, VOLUMES];

/// The prefix of the annotations that selected AppArmor profiles before the field existed.
const APPARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";

/// Why an annotation of a pod that Kubernetes acts on has no effect here, or `None`.
pub(super) fn without_effect(key: &str, value: &str) -> Option<&'static str> {
    match key {
        "kubernetes.io/ingress-bandwidth" | "kubernetes.io/egress-bandwidth" => {
            Some("has no effect: the pod's bandwidth is not limited")
        }
        _ if key.starts_with(APPARMOR) && value != "runtime/default" => {
            Some("has no effect: Podman's own profile is used where the host has AppArmor")
        }
        _ => None,
    }
}

/// Why an annotation of a claim that Kubernetes acts on has no effect here, or `None`.
pub(super) fn without_effect_on_a_claim(key: &str) -> Option<&'static str> {
    (key == "volume.beta.kubernetes.io/storage-class").then_some(
        "has no effect: hosts have no storage classes, and the claim is a volume of Podman on the disk of its host",
    )
}
