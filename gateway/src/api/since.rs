//! Changes that a gateway of an older release does not know.
//!
//! Pure. Such a gateway stops when it meets one, so none is proposed while a member is known to run an older release. One that
//! is off is not asked: it stops when it is back, says so, and goes on when it is upgraded. The same holds for what such a
//! gateway knows and does wrong.

use beemesh_protocol::state::{Change, Object};
use beemesh_quadlet::manifest::{is_workload, workload_name};

use super::{ApiError, render::Scene};
use crate::cluster::releases::older;

/// Refuses a change that a member does not know; `scene` is only looked at for one that not all know.
pub(super) fn check(change: &Change, scene: impl FnOnce() -> Scene) -> Result<(), ApiError> {
    let Some((since, what)) = needs(change) else {
        return Ok(());
    };
    everybody(since, what, &scene())
}

/// Refuses what needs a release that a member does not run yet.
pub(super) fn everybody(since: [u32; 3], what: &str, scene: &Scene) -> Result<(), ApiError> {
    let old: Vec<_> = older(&scene.reports, since)
        .filter_map(|(host, version)| {
            let name = &scene.state.hosts().get(&host)?.name;
            Some(format!("{name} runs {version}"))
        })
        .collect();
    if old.is_empty() {
        return Ok(());
    }
    let [major, minor, patch] = since;
    Err(ApiError::conflict(format!(
        "every host must run Beemesh {major}.{minor}.{patch} or later for {what}: {}",
        old.join(", ")
    ))
    .hint("upgrade these hosts first"))
}

/// The first release that does this change right, and what to call the change.
fn needs(change: &Change) -> Option<([u32; 3], &'static str)> {
    match change {
        // Release 0.2.0 removes with such a workload the volumes of all claims that no container uses.
        Change::Apply { objects, .. } if objects.iter().any(is_named_like_claims) => {
            Some(([0, 2, 1], "a workload named `pvc`"))
        }
        _ => Some((change.since()?, "this")),
    }
}

fn is_named_like_claims(object: &Object) -> bool {
    is_workload(object.kind) && workload_name(&object.namespace, &object.name) == "pvc"
}

#[cfg(test)]
mod tests {
    use beemesh_protocol::state::Kind;

    use super::*;

    #[test]
    fn a_workload_with_the_prefix_of_claims_waits_for_the_last_upgrade() {
        let apply = |kind, namespace: &str, name: &str| Change::Apply {
            manifest: "m".into(),
            objects: vec![Object {
                kind,
                namespace: namespace.into(),
                name: name.into(),
                body: Vec::new(),
                hash: [0; 32],
                references: Vec::new(),
                replicas: None,
                selector: std::collections::BTreeMap::new(),
            }],
            policy: None,
        };
        for (kind, namespace, name, expected) in [
            (Kind::Pod, "default", "pvc", true),
            (Kind::Deployment, "default", "pvc", true),
            (Kind::Pod, "shop", "pvc", false),
            (Kind::ConfigMap, "default", "pvc", false),
            (Kind::Pod, "default", "web", false),
        ] {
            let needs = needs(&apply(kind, namespace, name));
            assert_eq!(
                needs.is_some(),
                expected,
                "{kind:?} {namespace} {name}: {needs:?}"
            );
        }
    }
}
