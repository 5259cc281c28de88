//! Warns about a change that replaces pods here and would not in Kubernetes.
//!
//! Pure: no I/O, no clock, no randomness. Kubernetes makes only later pods from a changed template of a ReplicaSet or
//! ReplicationController. Beemesh rolls the change out, as it does for a Deployment. Kubernetes changes the labels and
//! annotations of a pod that runs. Podman cannot.

use beemesh_protocol::state::{Kind, Object};
use beemesh_quadlet::manifest::{Problem, is_stopped, kind_of, only_counts};
use serde_json::Value;

use super::Check;

impl Check<'_> {
    /// Warns about each workload whose pods Kubernetes would not replace.
    pub(super) fn replaced(&mut self) {
        for (object, place) in self.manifest.objects.iter().zip(&self.manifest.places) {
            let state = self.around.state;
            let before = state.object(object.kind, &object.namespace, &object.name);
            let Some((_, before)) = before.filter(|(_, before)| before.hash != object.hash) else {
                continue;
            };
            let runs = !is_stopped(object) && !is_stopped(before);
            if runs && object.kind == Kind::Pod && part(object, "/spec") == part(before, "/spec") {
                let labels = "/metadata/labels";
                let field = match part(object, labels) == part(before, labels) {
                    true => "metadata.annotations",
                    false => "metadata.labels",
                };
                self.verdict.warnings.push(Problem {
                    document: place.document,
                    line: place.line,
                    field: field.to_owned(),
                    message: "the change replaces the pod: Podman cannot change labels or annotations of a pod that runs".to_owned(),
                });
            }
            if only_counts(object)
                && only_counts(before)
                && part(object, "/spec/template") != part(before, "/spec/template")
            {
                self.verdict.warnings.push(Problem {
                    document: place.document,
                    line: place.line,
                    field: "spec.template".to_owned(),
                    message: format!(
                        "the change replaces the pods: in Kubernetes only pods that a {} makes later have it",
                        kind_of(object)
                    ),
                });
            }
        }
    }
}

/// A part of the canonical form of an object.
fn part(object: &Object, path: &str) -> Option<Value> {
    let mut body: Value = serde_json::from_slice(&object.body).ok()?;
    body.pointer_mut(path).map(Value::take)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{applied, state, verdict};

    fn workload(kind: &str, replicas: u32, image: &str) -> String {
        let version = match kind {
            "ReplicationController" => "v1",
            _ => "apps/v1",
        };
        format!(
            "apiVersion: {version}\nkind: {kind}\nmetadata: {{name: web}}\nspec:\n  replicas: {replicas}\n  template:\n    \
             spec: {{containers: [{{name: a, image: 'localhost/{image}'}}]}}\n"
        )
    }

    #[test]
    fn a_changed_label_of_a_pod_is_told() {
        let pod = |label: &str, image: &str| {
            format!(
                "apiVersion: v1\nkind: Pod\nmetadata: {{name: web, labels: {{a: {label}}}}}\nspec: {{containers: [{{name: a, image: 'localhost/{image}'}}]}}\n"
            )
        };
        let mut known = state();
        applied(&mut known, 3, &pod("one", "a:1"));
        let [.., warnings] = verdict(&known, &pod("two", "a:1"));
        assert!(
            warnings[0].contains("metadata.labels: the change replaces the pod"),
            "{warnings:?}"
        );
        let stopped = pod("one", "a:1").replace(
            "labels: {a: one}",
            "labels: {a: one}, annotations: {beemesh.io/stopped: 'true'}",
        );
        for other in [pod("one", "a:1"), pod("two", "a:2"), stopped.clone()] {
            assert!(verdict(&known, &other).iter().all(Vec::is_empty));
        }
        applied(&mut known, 4, &stopped);
        let started = verdict(&known, &pod("one", "a:1"));
        assert!(started.iter().all(Vec::is_empty), "{started:?}");
    }

    #[test]
    fn a_changed_template_of_pods_that_are_only_counted_is_told() {
        let words = |kind: &str| {
            format!(
                "1:1 spec.template: the change replaces the pods: in Kubernetes only pods that a {kind} makes later have it"
            )
        };
        for kind in ["ReplicaSet", "ReplicationController", "Deployment"] {
            let mut known = state();
            applied(&mut known, 3, &workload(kind, 1, "a:1"));
            let told = verdict(&known, &workload(kind, 1, "a:2"));
            let warnings = match kind {
                "Deployment" => vec![],
                kind => vec![words(kind)],
            };
            assert_eq!(told, [vec![], vec![], warnings], "{kind}");
            let scaled = verdict(&known, &workload(kind, 2, "a:1"));
            assert!(scaled.iter().all(Vec::is_empty), "{kind}: {scaled:?}");
        }
        let mut known = state();
        applied(&mut known, 3, &workload("Deployment", 1, "a:1"));
        let other = verdict(&known, &workload("ReplicaSet", 1, "a:2"));
        assert!(other.iter().all(Vec::is_empty), "{other:?}");
    }
}
