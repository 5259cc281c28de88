//! Releases of Beemesh, and what every member must run before a change may be proposed.
//!
//! Pure. A gateway of an older release stops when it meets a change that it does not know, so none is proposed while a
//! member is known to run one. One that is off is not asked: it stops when it is back, says so, and goes on when it is
//! upgraded. The same holds for what such a gateway knows and does wrong.

use std::{collections::BTreeMap, sync::Arc};

use beemesh_protocol::{
    HostId,
    peer::HostReport,
    state::{Change, Object},
};
use beemesh_quadlet::manifest::{is_workload, workload_name};

use super::{reports::Reports, state::State};

/// A release's number.
pub(crate) type Release = [u32; 3];

/// `1.2.3`, whatever follows it.
pub(crate) fn release(version: &str) -> Option<Release> {
    let mut parts = version.splitn(3, '.');
    let mut next = || {
        let part = parts.next()?;
        let end = part
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(part.len());
        part[..end].parse().ok()
    };
    Some([next()?, next()?, next()?])
}

/// The hosts that said last that they run an older release, and which. One that has not said anything is not among them.
fn older(
    reports: &BTreeMap<HostId, Arc<HostReport>>,
    since: Release,
) -> impl Iterator<Item = (HostId, &str)> {
    let told = reports
        .iter()
        .map(|(host, report)| (*host, report.version.as_str()));
    told.filter(move |(_, version)| release(version).is_some_and(|release| release < since))
}

/// Members run releases that are too old.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("every host must run Beemesh {}.{}.{} or later for {what}: {}", .since[0], .since[1], .since[2], .hosts.join(", "))]
pub(crate) struct TooOld {
    since: Release,
    what: &'static str,
    /// Such as `h2 runs 0.1.0`.
    hosts: Vec<String>,
}

/// Refuses a change that a member does not know.
pub(crate) fn check(change: &Change, state: &State, reports: &Reports) -> Result<(), TooOld> {
    match needs(change) {
        Some((since, what)) => everybody(since, what, state, reports),
        None => Ok(()),
    }
}

/// Refuses what needs a release that a member does not run yet.
pub(crate) fn everybody(
    since: Release,
    what: &'static str,
    state: &State,
    reports: &Reports,
) -> Result<(), TooOld> {
    let hosts: Vec<_> = older(reports, since)
        .filter_map(|(host, version)| {
            let name = &state.hosts().get(&host)?.name;
            Some(format!("{name} runs {version}"))
        })
        .collect();
    if hosts.is_empty() {
        return Ok(());
    }
    Err(TooOld { since, what, hosts })
}

/// The first release that does this change right, and what to call the change.
fn needs(change: &Change) -> Option<(Release, &'static str)> {
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
    fn releases_are_compared_by_number() {
        for (version, expected) in [
            ("0.2.0", Some([0, 2, 0])),
            ("1.20.3-rc1", Some([1, 20, 3])),
            ("1.2.3+git.4", Some([1, 2, 3])),
            ("", None),
            ("1.2", None),
            ("a.b.c", None),
        ] {
            assert_eq!(release(version), expected, "{version}");
        }
    }

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
