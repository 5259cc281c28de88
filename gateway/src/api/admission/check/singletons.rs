//! Refuses singletons that the cluster cannot have yet, and changes by which a workload would become one or end to be one.
//!
//! Pure: no I/O, no clock, no randomness. The state machine refuses such a change, too, but it does not know the line.

use beemesh_quadlet::manifest::{
    Problem, SINGLETON, asks_to_be_single, is_workload, workload_name,
};

use super::{Check, title};
use crate::cluster::state::{LOSES, changes_single};

impl Check<'_> {
    /// Checks the workloads that are singletons, or were.
    pub(super) fn singletons(&mut self) {
        for (object, place) in self.manifest.objects.iter().zip(&self.manifest.places) {
            if !is_workload(object.kind) {
                continue;
            }
            let state = self.around.state;
            let name = workload_name(&object.namespace, &object.name);
            let before = state.workload(&name).map(|one| &*one.object);
            let message = if state.level() >= LOSES {
                changes_single(before, object)
            } else {
                let title = title(object);
                asks_to_be_single(object).then(|| {
                    format!("{title} is a singleton ({SINGLETON}): all hosts must have run Beemesh 0.5.0 or later for ten minutes")
                })
            };
            self.verdict.held.extend(message.map(|message| Problem {
                document: place.document,
                line: place.line,
                field: "metadata.annotations".to_owned(),
                message,
            }));
        }
    }
}

#[cfg(test)]
mod tests {
    use beemesh_protocol::state::{Change, Command};

    use super::super::tests::{applied, state, verdict};

    fn workload(annotations: &str, replicas: u32) -> String {
        format!(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: db{annotations}}}\nspec:\n  replicas: {replicas}\n  template:\n    \
             spec: {{containers: [{{name: a, image: 'localhost/a'}}]}}\n"
        )
    }

    #[test]
    fn only_new_workloads_become_singletons() {
        let single = workload(", annotations: {beemesh.io/singleton: 'true'}", 1);
        let plain = workload("", 1);
        let mut known = state();
        let [wrong, held, _] = verdict(&known, &single);
        assert_eq!(wrong, [""; 0]);
        assert_eq!(
            held,
            [
                "1:1 metadata.annotations: Deployment db is a singleton (beemesh.io/singleton): all hosts must have run Beemesh 0.5.0 or later for ten minutes"
            ]
        );
        let raise = Change::RaiseLevel { level: 3 };
        known.apply(3, &Command::unasked(1, raise));
        assert_eq!(verdict(&known, &single)[1], [""; 0]);
        let mut before = known.clone();
        applied(&mut before, 4, &plain);
        let [_, held, _] = verdict(&before, &single);
        assert!(held[0].contains("cannot become a singleton"), "{held:?}");
        applied(&mut known, 4, &single);
        assert_eq!(verdict(&known, &single)[1], [""; 0]);
        let [_, held, _] = verdict(&known, &plain);
        assert!(held[0].contains("`beemesh delete db`"), "{held:?}");
    }
}
