//! The annotation of a workload that is stopped: it stays in the cluster, and no host runs it.
//!
//! Pure: no I/O, no clock, no randomness. An object that has it requests no pods. A release that does not know the
//! annotation follows that number, too.

use beemesh_protocol::state::{Kind, Object};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{
    annotations::annotation,
    field::{Field, cut},
    findings::Scope,
};

/// The annotation. Its value is `true`, or `false` as without it.
pub const STOPPED: &str = "beemesh.io/stopped";

/// Returns true if the object is a workload that has been stopped.
#[must_use]
pub fn is_stopped(object: &Object) -> bool {
    // Most objects request pods, and their contents need not be read.
    object.replicas == Some(0) && annotation(object, STOPPED).as_deref() == Some("true")
}

/// Reads the annotation of a workload. Refuses a wrong value or place: such a workload would otherwise run.
pub(super) fn read(
    kind: Kind,
    workload: &ObjectMeta,
    template: Option<&ObjectMeta>,
    scope: &mut Scope<'_>,
) -> bool {
    let at = |path: &str| {
        let at = Field::default().then(path);
        at.key("annotations").key(STOPPED)
    };
    let value = |metadata: &ObjectMeta| metadata.annotations.as_ref()?.get(STOPPED).cloned();
    if template.and_then(value).is_some() {
        let message = "belongs to the workload: move it to `metadata.annotations`";
        scope.wrong(&at("spec.template.metadata"), message);
    }
    match value(workload).as_deref() {
        None | Some("false") => false,
        Some("true") if kind == Kind::Job => {
            let message = "a Job cannot be stopped: `beemesh delete` ends it";
            scope.wrong(&at("metadata"), message);
            false
        }
        Some("true") => true,
        Some(other) => {
            let message = format!("`{}` is neither \"true\" nor \"false\"", cut(other));
            scope.wrong(&at("metadata"), message);
            false
        }
    }
}
