//! The identity of each object: its UID, the number of its contents, and the log index of its last change.
//!
//! Pure. From level 2 on, every object has one. An object keeps its UID while it exists, also when the cluster is
//! recovered. An object that is deleted and created again gets another one.

use beemesh_protocol::{
    Uid,
    state::{Identities, Object, ObjectIdentity},
};

use super::{Key, Owned, ROLLED, State};

impl State {
    /// The identity of an object; `None` below level 2, or if there is no such object.
    pub(crate) fn identity(&self, object: &Object) -> Option<ObjectIdentity> {
        self.objects.get(&Key::of(object))?.identity
    }

    /// The identity that an object has after the change at `index`.
    pub(super) fn next_identity(
        &mut self,
        index: u64,
        before: Option<&Owned>,
        object: &Object,
    ) -> Option<ObjectIdentity> {
        if self.level < ROLLED {
            return None;
        }
        let Some((before, identity)) = before.and_then(|one| Some((one, one.identity?))) else {
            return Some(self.new_identity(index, index));
        };
        let next = if before.object.hash == object.hash {
            identity
        } else {
            ObjectIdentity {
                generation: identity.generation + 1,
                index,
                ..identity
            }
        };
        Some(next)
    }

    /// The identity of an object that is created by the entry at `index` and changed last by the one at `changed`.
    fn new_identity(&mut self, index: u64, changed: u64) -> ObjectIdentity {
        self.created += 1;
        ObjectIdentity {
            uid: Uid::derive(self.cluster.unwrap_or_default(), index, self.created),
            generation: 1,
            index: changed,
        }
    }

    /// Gives an identity to every object when the entry at `index` reaches the level. An object has changed last when
    /// its manifest did, or earlier: no older state says more.
    pub(super) fn begin_identities(&mut self, index: u64) {
        let present: Vec<(Key, Owned)> = self
            .objects
            .iter()
            .map(|(key, owned)| (key.clone(), owned.clone()))
            .collect();
        for (key, owned) in present {
            let manifest = self.manifests.get(&*owned.manifest);
            let changed = manifest.map_or(index, |manifest| manifest.index);
            let identity = Some(self.new_identity(index, changed));
            self.objects.insert_mut(key, Owned { identity, ..owned });
        }
    }

    /// The identities in a snapshot, in the order of its objects.
    pub(super) fn identity_records(&self) -> Identities {
        let objects = self.manifests.values().flat_map(|one| &one.objects);
        Identities {
            created: self.created,
            objects: objects
                .map(|one| self.identity(one).unwrap_or_default())
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use beemesh_protocol::{
        ClusterId, HostId,
        peer::Outcome,
        state::{Change, Command, Host, Kind, ResolvedImages, RevisionOutcome},
    };

    use super::*;

    const CLUSTER: ClusterId = ClusterId([7; 16]);

    fn host() -> Host {
        Host {
            id: HostId([1; 32]),
            name: "h1".into(),
            addresses: Vec::new(),
            labels: BTreeMap::new(),
            drained: false,
            claims_as: None,
            votes_from_ms: 0,
            lost_at_ms: 0,
            declared_lost: false,
            steady_at_ms: 0,
        }
    }

    fn object(kind: Kind, name: &str, version: u8) -> Object {
        let mut hash = [version; 32];
        hash[0] = name.as_bytes()[0];
        Object {
            kind,
            namespace: "default".into(),
            name: name.into(),
            body: vec![version],
            hash,
            references: Vec::new(),
            replicas: None,
            selector: BTreeMap::new(),
        }
    }

    fn change(state: &mut State, index: u64, change: Change) {
        let outcome = state.apply(index, &Command::unasked(index, change));
        assert!(!matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
    }

    fn put(state: &mut State, index: u64, manifest: &str, objects: Vec<Object>) {
        let manifest = manifest.to_owned();
        let apply = Change::Apply {
            manifest,
            objects,
            policy: None,
            keep: false,
            if_index: None,
        };
        change(state, index, apply);
    }

    fn delete(state: &mut State, index: u64, manifest: &str) {
        let manifest = manifest.to_owned();
        change(state, index, Change::DeleteManifest { manifest });
    }

    /// A cluster at this level.
    fn at(level: u32) -> State {
        let mut state = State::default();
        let (cluster, host) = (CLUSTER, host());
        change(&mut state, 1, Change::Found { cluster, host });
        if level > 0 {
            change(&mut state, 2, Change::RequireLevel { level });
        }
        state
    }

    fn of(state: &State, kind: Kind, name: &str) -> ObjectIdentity {
        state.identity(&object(kind, name, 0)).unwrap()
    }

    #[test]
    fn an_object_keeps_its_uid_and_counts_its_contents() {
        let mut state = at(2);
        let both = |map, pod| {
            vec![
                object(Kind::ConfigMap, "c", map),
                object(Kind::Pod, "p", pod),
            ]
        };
        put(&mut state, 5, "m", both(1, 1));
        let first = of(&state, Kind::ConfigMap, "c");
        assert_eq!((first.generation, first.index), (1, 5));
        let pod = of(&state, Kind::Pod, "p");
        assert_ne!(pod.uid, first.uid);
        // What stays the same keeps all of it.
        put(&mut state, 6, "m", both(1, 2));
        assert_eq!(of(&state, Kind::ConfigMap, "c"), first);
        let changed = |generation, index| ObjectIdentity {
            generation,
            index,
            ..pod
        };
        assert_eq!(of(&state, Kind::Pod, "p"), changed(2, 6));
        put(&mut state, 7, "m", both(1, 2));
        assert_eq!(of(&state, Kind::Pod, "p"), changed(2, 6));
        // An undo changes the contents, too.
        let undo = Change::Undo {
            workload: "p".into(),
            revision: 1,
            policy: None,
        };
        change(&mut state, 8, undo);
        assert_eq!(of(&state, Kind::Pod, "p"), changed(3, 8));
        // A step of a rollout does not.
        let end = Change::EndRollout {
            workload: "p".into(),
            index: 8,
            outcome: RevisionOutcome::Ready,
            reason: String::new(),
            images: ResolvedImages::default(),
        };
        change(&mut state, 9, end);
        assert_eq!(of(&state, Kind::Pod, "p"), changed(3, 8));
        assert_eq!(State::from_snapshot(state.to_snapshot()), state);
        let recovered = state.recovered(ClusterId([9; 16]), host());
        assert_eq!(of(&recovered, Kind::Pod, "p"), changed(3, 8));
    }

    #[test]
    fn what_is_created_again_has_another_uid_even_within_one_entry() {
        let mut state = at(2);
        let mut uids = BTreeSet::new();
        for index in [3, 3, 3, 4, 5] {
            put(&mut state, index, "m", vec![object(Kind::Secret, "s", 1)]);
            let identity = of(&state, Kind::Secret, "s");
            assert_eq!((identity.generation, identity.index), (1, index));
            uids.insert(identity.uid);
            delete(&mut state, index, "m");
            assert_eq!(state.identity(&object(Kind::Secret, "s", 1)), None);
            // A host that starts from a snapshot has the same ones.
            let again = State::from_snapshot(state.to_snapshot());
            assert_eq!(again, state);
            state = again;
        }
        assert_eq!(uids.len(), 5);
    }

    #[test]
    fn objects_have_identities_from_the_level_on_and_no_older_snapshot_has_them() {
        let mut state = at(1);
        put(&mut state, 5, "b", vec![object(Kind::ConfigMap, "c", 1)]);
        put(&mut state, 6, "a", vec![object(Kind::Pod, "p", 1)]);
        assert_eq!(state.identity(&object(Kind::Pod, "p", 1)), None);
        assert_eq!(state.to_snapshot().identities, None);
        let mut other = State::from_snapshot(state.to_snapshot());
        for state in [&mut state, &mut other] {
            change(state, 9, Change::RequireLevel { level: 2 });
        }
        assert_eq!(state, other);
        let (pod, map) = (of(&state, Kind::Pod, "p"), of(&state, Kind::ConfigMap, "c"));
        assert_eq!((pod.generation, pod.index), (1, 6));
        assert_eq!((map.generation, map.index), (1, 5));
        let uids = [1, 2].map(|number| Uid::derive(CLUSTER, 9, number));
        assert_eq!([pod.uid, map.uid], uids);
        assert_eq!(State::from_snapshot(state.to_snapshot()), state);
    }
}
