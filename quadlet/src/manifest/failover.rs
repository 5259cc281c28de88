//! The annotations that say what happens to a workload's pods when their host is lost.
//!
//! Pure: no I/O, no clock, no randomness.

use std::time::Duration;

use beemesh_protocol::state::{Kind, Object};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{
    annotations::annotation,
    field::{Field, cut},
    findings::Scope,
};

/// The annotation with the time after which pods of an unreachable host start elsewhere: `never`, or a time such as `90s`.
pub const RESCHEDULE_AFTER: &str = "beemesh.io/reschedule-after";
/// The annotation of a workload whose claims may be replaced by empty ones: `disposable`.
pub const DATA: &str = "beemesh.io/data";
/// The annotation of a workload with one replica that never runs on two hosts at a time: `true`.
pub const SINGLETON: &str = "beemesh.io/singleton";
/// The shortest time: a shorter one would move the pods of a host that only restarts its network.
const AFTER_MIN: Duration = Duration::from_secs(10);
/// The longest time: a year.
const AFTER_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

/// When the pods of an unreachable host start elsewhere.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Reschedule {
    /// When the cluster has given the host up.
    #[default]
    Lost,
    /// When the host has been unreachable for this long.
    After(Duration),
    /// When a user has said that the host is lost.
    Never,
}

/// What happens to a workload's pods when their host is lost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Failover {
    /// When they start elsewhere.
    pub reschedule: Reschedule,
    /// They may start elsewhere with empty claims.
    pub disposable: bool,
    /// At most one pod runs in the cluster at a time: its host runs it only while it has the lease of the workload.
    pub singleton: bool,
}

impl Failover {
    /// Reads the annotations of a workload. A value that cannot be read counts as absent: admission refuses it.
    #[must_use]
    pub fn of(object: &Object) -> Self {
        let value = |key| annotation(object, key);
        let after = value(RESCHEDULE_AFTER).map(|text| reschedule(&text));
        Self {
            reschedule: after.and_then(Result::ok).unwrap_or_default(),
            disposable: value(DATA).as_deref() == Some("disposable"),
            // One that is stopped requests no pod.
            singleton: matches!(object.replicas, Some(0 | 1)) && asks_to_be_single(object),
        }
    }
}

/// Returns true if the object says that it is a singleton, whatever its number of replicas is.
#[must_use]
pub fn asks_to_be_single(object: &Object) -> bool {
    annotation(object, SINGLETON).as_deref() == Some("true")
}

/// Reads a value of [`RESCHEDULE_AFTER`].
fn reschedule(text: &str) -> Result<Reschedule, String> {
    if text == "never" {
        return Ok(Reschedule::Never);
    }
    let rule = "write `never`, or a time such as `90s`, `5m` or `2h`";
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err(format!("`{}` is not a time: {rule}", cut(text))),
    };
    let seconds = digits.parse::<u64>().ok();
    let seconds = seconds.and_then(|number| number.checked_mul(unit));
    let Some(after) = seconds.map(Duration::from_secs) else {
        return Err(format!("`{}` is not a time: {rule}", cut(text)));
    };
    if after < AFTER_MIN {
        return Err(format!(
            "`{}` is too short: the shortest time is {} s",
            cut(text),
            AFTER_MIN.as_secs()
        ));
    }
    if after > AFTER_MAX {
        return Err(format!(
            "`{}` is longer than a year: write `never`",
            cut(text)
        ));
    }
    Ok(Reschedule::After(after))
}

/// Refuses wrong values and places of the annotations. `has_claims` is true if a pod of the workload uses a claim.
pub(super) fn check(
    (kind, is_counted): (Kind, bool),
    workload: &ObjectMeta,
    template: Option<&ObjectMeta>,
    has_claims: bool,
    scope: &mut Scope<'_>,
) {
    for key in [RESCHEDULE_AFTER, DATA] {
        let value = |metadata: &ObjectMeta| metadata.annotations.as_ref()?.get(key).cloned();
        let at = |path: &str| Field::default().then(path).key("annotations").key(key);
        if template.and_then(value).is_some() {
            let message = "belongs to the workload: move it to `metadata.annotations`";
            scope.wrong(&at("spec.template.metadata"), message);
        }
        let Some(value) = value(workload) else {
            continue;
        };
        let at = at("metadata");
        if key == RESCHEDULE_AFTER {
            if let Err(message) = reschedule(&value) {
                scope.wrong(&at, message);
            } else if !is_counted && kind != Kind::Job {
                scope.not_done(
                    &at,
                    "has no effect: without `replicas` every host runs its own pod",
                );
            }
        } else if value != "disposable" && value != "keep" {
            let message = format!("`{}` is neither \"disposable\" nor \"keep\"", cut(&value));
            scope.wrong(&at, message);
        } else if value == "disposable" && !has_claims {
            scope.not_done(&at, "has no effect: no pod uses a PersistentVolumeClaim");
        } else if value == "disposable" && !is_counted {
            scope.not_done(&at, "has no effect: without `replicas` no pod moves");
        }
    }
}

/// Refuses wrong values and places of [`SINGLETON`]. A workload that is no singleton although its user asked for one could
/// run twice.
pub(super) fn check_singleton(
    kind: Kind,
    replicas: Option<i32>,
    workload: &ObjectMeta,
    template: Option<&ObjectMeta>,
    scope: &mut Scope<'_>,
) {
    let value = |metadata: &ObjectMeta| metadata.annotations.as_ref()?.get(SINGLETON).cloned();
    let at = |path: &str| {
        Field::default()
            .then(path)
            .key("annotations")
            .key(SINGLETON)
    };
    if template.and_then(value).is_some() {
        let message = "belongs to the workload: move it to `metadata.annotations`";
        scope.wrong(&at("spec.template.metadata"), message);
    }
    let at = at("metadata");
    match value(workload).as_deref() {
        None | Some("false") => return,
        Some("true") => {}
        Some(other) => {
            let message = format!("`{}` is neither \"true\" nor \"false\"", cut(other));
            return scope.wrong(&at, message);
        }
    }
    match (kind, replicas) {
        (_, Some(1)) => {}
        (Kind::Job, _) => scope.wrong(&at, "a Job cannot be a singleton: use a Deployment"),
        (Kind::Deployment, None) => {
            scope.wrong(&at, "needs `spec.replicas`: write `replicas: 1`");
        }
        (_, None) => {
            let message = "is for a workload with `replicas: 1`: use a Deployment";
            scope.wrong(&at, message);
        }
        (_, Some(count)) => {
            let words = match count {
                0 => "`beemesh stop` stops it",
                _ => "it runs one pod",
            };
            let message = format!("{count} is not the 1 that a singleton needs: {words}");
            scope.wrong(&Field::default().then("spec.replicas"), message);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn of(annotations: &str) -> Failover {
        Failover::of(&Object {
            kind: Kind::Deployment,
            namespace: "default".into(),
            name: "web".into(),
            body: format!(r#"{{"metadata":{{"annotations":{annotations}}}}}"#).into_bytes(),
            hash: [0; 32],
            references: Vec::new(),
            replicas: Some(1),
            selector: BTreeMap::new(),
        })
    }

    #[test]
    fn annotations_are_read() {
        assert_eq!(of("{}"), Failover::default());
        let both = of(r#"{"beemesh.io/reschedule-after":"2m","beemesh.io/data":"disposable"}"#);
        let after = Reschedule::After(Duration::from_secs(120));
        let expected = Failover {
            reschedule: after,
            disposable: true,
            singleton: false,
        };
        assert_eq!(both, expected);
        let never = of(r#"{"beemesh.io/reschedule-after":"never"}"#);
        assert_eq!(never.reschedule, Reschedule::Never);
        assert_eq!(
            of(r#"{"beemesh.io/reschedule-after":"soon"}"#),
            Failover::default()
        );
        assert_eq!(of(r#"{"beemesh.io/data":7}"#), Failover::default());
    }

    #[test]
    fn times_have_a_unit_and_bounds() {
        for (text, seconds) in [("10s", 10), ("90s", 90), ("5m", 300), ("24h", 86400)] {
            let after = Reschedule::After(Duration::from_secs(seconds));
            assert_eq!(reschedule(text), Ok(after), "{text}");
        }
        for (text, words) in [
            ("9s", "too short"),
            ("0s", "too short"),
            ("-30s", "is not a time"),
            ("30", "is not a time"),
            ("1d", "is not a time"),
            ("", "is not a time"),
            ("s", "is not a time"),
            ("99999999999999999999s", "is not a time"),
            ("9999999999999999999h", "is not a time"),
            ("9000h", "longer than a year"),
            ("30 s", "is not a time"),
        ] {
            let error = reschedule(text).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
