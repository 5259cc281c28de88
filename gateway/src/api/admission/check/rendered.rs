//! Refuses a workload that no host could play.
//!
//! Pure: no I/O, no clock, no randomness. Some faults show only when a workload is rendered with the values of its
//! ConfigMaps and Secrets, such as a variable that leads out of a volume.

use std::collections::BTreeSet;

use beemesh_protocol::{
    ClusterId,
    state::{Kind, Object},
};
use beemesh_quadlet::{
    manifest::{Problem, is_workload},
    render::{RenderError, Revision, render},
};

use super::{Check, title};

impl Check<'_> {
    /// Renders the workloads of the manifest, and those of other manifests that use an object that it changes.
    pub(super) fn rendered(&mut self) {
        let (manifest, state) = (self.manifest, self.around.state);
        for (object, place) in manifest.objects.iter().zip(&manifest.places) {
            if let Some(message) = self.fault(object) {
                self.verdict.wrong.push(Problem {
                    document: place.document,
                    line: place.line,
                    field: String::new(),
                    message,
                });
            }
        }
        let is_changed = |object: &&Object| {
            let before = state.object(object.kind, &object.namespace, &object.name);
            before.is_some_and(|(_, before)| before.hash != object.hash)
        };
        let changed = manifest.objects.iter().filter(is_changed);
        let changed: BTreeSet<(Kind, &str, &str)> = changed
            .filter(|object| !is_workload(object.kind))
            .map(|object| (object.kind, object.namespace.as_str(), object.name.as_str()))
            .collect();
        if changed.is_empty() {
            return;
        }
        for workload in self.others() {
            let object: &Object = &workload.object;
            let uses = |used: &(Kind, &str, &str)| {
                let mut references = object.references.iter();
                let is_it = references.any(|one| one.kind == used.0 && one.name == used.2);
                is_it && object.namespace == used.1
            };
            let Some(used) = changed.iter().find(|used| uses(used)) else {
                continue;
            };
            let mut all = manifest.objects.iter().zip(&manifest.places);
            let place =
                all.find(|(one, _)| (one.kind, one.namespace.as_str(), one.name.as_str()) == *used);
            if let (Some(fault), Some((_, place))) = (self.fault(object), place) {
                let message = format!(
                    "{} of manifest `{}`: {fault}",
                    title(object),
                    workload.manifest
                );
                self.verdict.held.push(Problem {
                    document: place.document,
                    line: place.line,
                    field: String::new(),
                    message,
                });
            }
        }
    }

    /// Why a workload cannot be played, as a message. A missing object or key is found elsewhere.
    fn fault(&self, object: &Object) -> Option<String> {
        if !is_workload(object.kind) {
            return None;
        }
        let references = object.references.iter();
        let uses = references.filter_map(|one| self.object(one.kind, &object.namespace, &one.name));
        let uses: Vec<&Object> = uses.collect();
        let revision = Revision {
            cluster: self.around.state.cluster().unwrap_or(ClusterId([0; 16])),
            revision: u64::MAX,
            index: u64::MAX,
            object,
            number: 0,
            uses: &uses,
        };
        match render(&revision) {
            Err(RenderError::Malformed { reason, .. }) => Some(reason),
            Err(RenderError::Missing { .. } | RenderError::MissingKey { .. }) | Ok(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{applied, state, verdict};

    fn pod(value: &str) -> String {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: web}}\nspec:\n  containers:\n  - name: c\n    image: localhost/a:1\n    \
             env: [{{name: P, {value}}}]\n    volumeMounts: [{{name: v, mountPath: /v, subPathExpr: $(P)}}]\n  \
             volumes: [{{name: v, emptyDir: {{}}}}]\n"
        )
    }

    fn map(value: &str) -> String {
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: paths}}\ndata: {{p: {value}}}\n"
        )
    }

    #[test]
    fn a_path_that_leads_out_of_its_volume_is_refused_before_it_is_kept() {
        let known = state();
        assert!(
            verdict(&known, &pod("value: logs"))
                .iter()
                .all(Vec::is_empty)
        );
        let [wrong, held, _] = verdict(&known, &pod("value: /tmp"));
        assert!(wrong[0].contains("leads out of the volume"), "{wrong:?}");
        assert_eq!(held, Vec::<String>::new());
    }

    #[test]
    fn a_changed_value_is_refused_if_a_workload_of_another_manifest_cannot_be_played_with_it() {
        let mut known = state();
        applied(&mut known, 3, &map("logs"));
        let user = pod("valueFrom: {configMapKeyRef: {name: paths, key: p}}");
        applied(&mut known, 4, &user);
        let [wrong, held, _] = verdict(&known, &map("../logs"));
        assert_eq!(wrong, Vec::<String>::new());
        assert!(held[0].contains("Pod web of manifest"), "{held:?}");
        assert!(verdict(&known, &map("other")).iter().all(Vec::is_empty));
    }
}
