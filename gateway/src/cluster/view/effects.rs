//! The effects of an apply, as types of the API.
//!
//! Pure: no I/O, no clock, no randomness. An effect has the kind as which an object is carried. The kind that its
//! manifest names is in the object: a new one in the manifest, a removed one in the state before the apply.

use std::collections::BTreeMap;

use beemesh_protocol::{
    api::{Action, AppliedObject},
    peer::{self, Effect},
    state::{Kind, Object},
};
use beemesh_quadlet::manifest::{is_workload, kind_name, kind_of, workload_name};

use crate::cluster::state::State;

/// The kinds that manifests name.
pub(crate) struct Kinds {
    /// Of the workloads of the manifest, by the kinds as which they are carried and their names.
    own: BTreeMap<(Kind, String), &'static str>,
}

impl Kinds {
    /// Those of the workloads of a manifest.
    pub(crate) fn of(objects: &[Object]) -> Self {
        let workloads = objects.iter().filter(|object| is_workload(object.kind));
        let named = |object: &Object| {
            let name = workload_name(&object.namespace, &object.name);
            ((object.kind, name), kind_of(object))
        };
        Self {
            own: workloads.map(named).collect(),
        }
    }

    fn kind(&self, effect: &Effect, before: &State) -> &'static str {
        let own = self.own.get(&(effect.kind, effect.name.clone())).copied();
        let before = before
            .workload(&effect.name)
            .filter(|workload| workload.object.kind == effect.kind);
        own.or_else(|| before.map(|workload| kind_of(&workload.object)))
            .unwrap_or_else(|| kind_name(effect.kind))
    }

    /// The effects of an apply to the state `before`.
    pub(crate) fn applied(&self, effects: Vec<Effect>, before: &State) -> Vec<AppliedObject> {
        let told = |effect: Effect| AppliedObject {
            kind: self.kind(&effect, before).to_owned(),
            name: effect.name,
            action: match effect.action {
                peer::Action::Created => Action::Created,
                peer::Action::Updated => Action::Updated,
                peer::Action::Unchanged => Action::Unchanged,
                peer::Action::Removed => Action::Removed,
                peer::Action::Kept => Action::Kept,
            },
            revision: effect.revision,
        };
        effects.into_iter().map(told).collect()
    }
}

#[cfg(test)]
mod tests {
    use beemesh_protocol::{
        peer::Outcome,
        state::{Change, Command},
    };
    use beemesh_quadlet::manifest::parse;

    use super::*;

    /// Applies a manifest, and returns what the answer tells: kind, name and action of each object.
    fn apply(state: &mut State, yaml: &str) -> Vec<(String, String, Action)> {
        let objects = parse(yaml.as_bytes(), false).expect(yaml).objects;
        let (kinds, before) = (Kinds::of(&objects), state.clone());
        let change = Change::Apply {
            manifest: "m".into(),
            objects,
            policy: None,
            keep: false,
            if_index: None,
        };
        let Outcome::Applied(effects) = state.apply(3, &Command::unasked(1, change)) else {
            panic!("{yaml}");
        };
        let told = kinds.applied(effects, &before).into_iter();
        told.map(|one| (one.kind, one.name, one.action)).collect()
    }

    fn workload(kind: &str, name: &str) -> String {
        format!(
            "apiVersion: apps/v1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {{template: {{spec: {{containers: [{{name: a, \
             image: 'localhost/a:1', envFrom: [{{configMapRef: {{name: c}}}}]}}]}}}}}}\n---\n"
        )
    }

    #[test]
    fn an_effect_names_the_kind_of_the_manifest() {
        let map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {a: x}\n";
        let told = |kind: &str, name: &str, action| (kind.to_owned(), name.to_owned(), action);
        let mut state = State::default();
        let both = [
            &workload("ReplicaSet", "web"),
            &workload("Deployment", "db"),
            map,
        ];
        assert_eq!(
            apply(&mut state, &both.map(str::to_owned).concat()),
            [
                told("ReplicaSet", "web", Action::Created),
                told("Deployment", "db", Action::Created),
                told("ConfigMap", "c", Action::Created),
            ]
        );
        // The kind of what is removed is in the state before.
        assert_eq!(
            apply(&mut state, &(workload("DaemonSet", "web") + map)),
            [
                told("DaemonSet", "web", Action::Created),
                told("ConfigMap", "c", Action::Unchanged),
                told("ReplicaSet", "web", Action::Removed),
                told("Deployment", "db", Action::Removed),
            ]
        );
    }
}
