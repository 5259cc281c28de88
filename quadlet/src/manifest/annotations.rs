//! The annotations by which a rendered pod tells the supervisor of its workload how to start it.
//!
//! Pure: no I/O, no clock, no randomness. The renderer writes them, so a manifest cannot.

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
