//! The memory that the containers of a pod may use together, which bounds its volumes in memory.
//!
//! Pure: no I/O, no clock, no randomness.

use k8s_openapi::{
    api::core::v1::{Container, PodSpec},
    apimachinery::pkg::api::resource::Quantity,
};

use crate::manifest::{is_sidecar, quantity};

/// The sum of the limits of the containers that run at one time; `None` without any limit. As in Kubernetes, a
/// container without a limit adds nothing.
pub(super) fn limit(spec: &PodSpec) -> Option<u64> {
    let (mut sidecars, mut most) = (0_u64, 0_u64);
    for container in spec.init_containers.iter().flatten() {
        let own = of(container);
        most = most.max(sidecars.saturating_add(own));
        if is_sidecar(container) {
            sidecars = sidecars.saturating_add(own);
        }
    }
    let main = spec.containers.iter().map(of);
    let main = main.fold(sidecars, u64::saturating_add);
    Some(most.max(main)).filter(|bytes| *bytes > 0)
}

fn of(container: &Container) -> u64 {
    let resources = container.resources.as_ref();
    let limits = resources.and_then(|resources| resources.limits.as_ref());
    let limit = limits.and_then(|limits| bytes(limits.get("memory")?));
    limit.unwrap_or_default()
}

/// A quantity in bytes; `None` for 0, which limits nothing.
pub(super) fn bytes(quantity: &Quantity) -> Option<u64> {
    let value = quantity::parse(&quantity.0).ok()?;
    u64::try_from(value.units()).ok().filter(|bytes| *bytes > 0)
}
