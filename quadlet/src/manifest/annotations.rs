//! The annotations by which a rendered pod tells the supervisor of its workload how to start it, and those of Kubernetes
//! that have no effect here.
//!
//! Pure: no I/O, no clock, no randomness. The renderer writes the first ones, so a manifest cannot.

use beemesh_protocol::state::Object;
use serde::Deserialize;
use serde_json::Value;

use super::{
    admission::{EVERY_HOST, ON_FAILURE},
    failover::{DATA, RESCHEDULE_AFTER, SINGLETON},
    field::cut,
    stopped::STOPPED,
};

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

/// The annotation of the pod of a singleton, which its host runs only while it has the lease of the workload. Its value is
/// [`REQUIRED`].
pub const LEASE: &str = "beemesh.io/lease";

/// The value of [`LEASE`].
pub(crate) const REQUIRED: &str = "required";

/// The annotation of the pod of a singleton with the `restartPolicy` of its manifest. Podman restarts none of its
/// containers.
pub const RESTART_POLICY: &str = "beemesh.io/restart-policy";

/// The label or annotation of a pod with the `backoffLimit` of its Job.
pub const BACKOFF_LIMIT: &str = "beemesh.io/backoff-limit";

/// The annotation of a pod with the containers whose image must name a user other than root, separated by commas.
pub const NON_ROOT: &str = "beemesh.io/non-root";

/// The annotation of a pod with the containers whose image must not name a user other than root, separated by commas:
/// they set `runAsGroup` alone, with which Podman runs them as root.
pub const ROOT_IMAGE: &str = "beemesh.io/root-image";

/// The annotations of Beemesh that a manifest cannot set.
pub(crate) const OURS: [&str; 6] = [START, SIDECARS, INIT_ORDER, VOLUMES, LEASE, RESTART_POLICY];

/// The annotations of Beemesh that a manifest can set.
const SETTABLE: [&str; 6] = [
    RESCHEDULE_AFTER,
    DATA,
    SINGLETON,
    STOPPED,
    EVERY_HOST,
    ON_FAILURE,
];

/// Further annotations that the renderer writes.
const RENDERED: [&str; 3] = [BACKOFF_LIMIT, NON_ROOT, ROOT_IMAGE];

/// The prefix of all of them.
const PREFIX: &str = "beemesh.io/";

/// The least similarity of a misspelt annotation and the one that it may mean, without their prefix. 1 means equal, 0 means
/// nothing in common.
const SIMILAR: f64 = 0.7;

/// Why an annotation with the prefix of Beemesh has no effect, because Beemesh does not know it. `None` for one that it
/// knows, and for those of others.
pub(super) fn unknown(key: &str) -> Option<String> {
    let name = key.strip_prefix(PREFIX)?;
    let is_known = |all: &[&str]| all.contains(&key);
    if is_known(&SETTABLE) || is_known(&OURS) || is_known(&RENDERED) {
        return None;
    }
    let name = name.to_ascii_lowercase();
    let likeness = |known: &str| {
        let known = known.trim_start_matches(PREFIX);
        strsim::normalized_damerau_levenshtein(&name, known)
    };
    let likely = SETTABLE.into_iter().map(|known| (likeness(known), known));
    let likely = likely.filter(|(likeness, _)| *likeness >= SIMILAR);
    let nearest = likely.max_by(|one, other| one.0.total_cmp(&other.0));
    let message = format!(
        "`{}` is not an annotation of Beemesh, so it has no effect",
        cut(key)
    );
    Some(match nearest {
        Some((_, known)) => format!("{message}; did you mean `{known}`?"),
        None => message,
    })
}

/// Returns the value of an annotation of an object; `None` if it has none, or its value is not a string.
pub(crate) fn annotation(object: &Object, key: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Body {
        #[serde(default)]
        metadata: Metadata,
    }
    #[derive(Default, Deserialize)]
    struct Metadata {
        #[serde(default)]
        annotations: Value,
    }
    // Most objects do not have it, and to parse one takes longer.
    let mut windows = object.body.windows(key.len());
    if !windows.any(|window| window == key.as_bytes()) {
        return None;
    }
    let body: Body = serde_json::from_slice(&object.body).ok()?;
    let value = body.metadata.annotations.get(key)?;
    value.as_str().map(str::to_owned)
}

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
