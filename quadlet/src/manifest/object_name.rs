//! Checks the name and the namespace of an object.
//!
//! Pure: no I/O, no clock, no randomness. Both become parts of names in Podman and systemd.

use beemesh_protocol::{
    state::Kind,
    workload::{WORKLOAD_BYTES_MAX, is_label, is_name, workload_name},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{
    field::{Field, cut},
    findings::Scope,
    is_workload,
    names::{LABEL_RULE, NAME_RULE},
};

/// The longest name of a ConfigMap, Secret or claim, in bytes. With a workload's name, two hashes and separators it
/// stays within the 253 bytes that Podman allows for a secret's name.
const DATA_NAME_MAX: usize = 88;

/// Checks the names of an object that is kept.
pub(super) fn check(kind: Kind, metadata: &ObjectMeta, scope: &mut Scope<'_>) {
    namespace(metadata, scope);
    if !name(metadata, is_name, NAME_RULE, scope) {
        return;
    }
    let name = metadata.name.as_deref().unwrap_or_default();
    let namespace = metadata.namespace.as_deref().unwrap_or_default();
    in_podman(kind, name, &workload_name(namespace, name), scope);
}

/// Checks the name of a Namespace.
pub(super) fn of_namespace(metadata: &ObjectMeta, scope: &mut Scope<'_>) {
    name(metadata, is_label, LABEL_RULE, scope);
}

/// Checks the names of a ServiceAccount.
pub(super) fn of_account(metadata: &ObjectMeta, scope: &mut Scope<'_>) {
    namespace(metadata, scope);
    name(metadata, is_name, NAME_RULE, scope);
}

/// Checks the name of an object, and returns whether it is valid.
fn name(
    metadata: &ObjectMeta,
    is_valid: fn(&str) -> bool,
    rule: &str,
    scope: &mut Scope<'_>,
) -> bool {
    let at = Field::default().then("metadata.name");
    match metadata.name.as_deref().unwrap_or_default() {
        "" => scope.wrong(&at, "is missing"),
        name if !is_valid(name) => {
            scope.wrong(&at, format!("`{}` is not a name: {rule}", cut(name)));
        }
        _ => return true,
    }
    false
}

fn namespace(metadata: &ObjectMeta, scope: &mut Scope<'_>) {
    let namespace = metadata.namespace.as_deref().unwrap_or_default();
    if !is_label(namespace) {
        let message = format!("`{}` is not a namespace: {LABEL_RULE}", cut(namespace));
        scope.wrong(&Field::default().then("metadata.namespace"), message);
    }
}

/// Checks that Podman can have the name.
fn in_podman(kind: Kind, name: &str, full: &str, scope: &mut Scope<'_>) {
    let at = Field::default().then("metadata.name");
    let (name, most) = match is_workload(kind) {
        true => (full, WORKLOAD_BYTES_MAX),
        false => (name, DATA_NAME_MAX),
    };
    if is_workload(kind) && is_ours(full) {
        let message = format!(
            "`{full}` is for pods of Beemesh itself: use a name that does not begin with `beemesh-`"
        );
        scope.wrong(&at, message);
    } else if name.len() > most {
        let message = format!(
            "`{}` has {} bytes, at most {most} are allowed",
            cut(name),
            name.len()
        );
        scope.wrong(&at, message);
    }
}

/// Returns true if Podman would give a pod or container of this workload a name of Beemesh's own units.
fn is_ours(workload: &str) -> bool {
    workload == "beemesh" || (workload.starts_with("beemesh-") && !workload.contains('_'))
}
