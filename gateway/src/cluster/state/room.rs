//! The limit on the size of the state, which ensures that every snapshot and every backup can contain it.
//!
//! Pure. Each change of an object or a revision updates the total. It equals the sum of all objects in a snapshot.

use std::sync::Arc;

use beemesh_protocol::{
    peer::Refusal,
    state::{ManifestRecord, Object},
};

use super::{Key, Owned, ROLLED, State, refused, revisions::Part};

/// Maximum size of all manifests in bytes. A backup has 256 MiB at most and a snapshot 1 GiB, and each gateway holds
/// all of it in memory. The limit is half of the smaller one, because some parts of the state are not counted.
pub(super) const ROOM: u64 = 128 << 20;
/// Approximate size of an object without its texts, in bytes.
const OBJECT_REST: u64 = 256;
/// Approximate size of a reference or a label without its texts, in bytes.
const PART_REST: u64 = 32;
/// Maximum number of manifests that a refusal names: the largest ones.
const NAMED_MAX: usize = 3;

type Result = std::result::Result<(), Vec<Refusal>>;

/// The size of an object in bytes, with its YAML aliases expanded.
pub(super) fn size(object: &Object) -> u64 {
    let references = object.references.iter().map(|one| one.name.len());
    let selector = object
        .selector
        .iter()
        .map(|(key, value)| key.len() + value.len());
    let parts = object.references.len() + object.selector.len();
    let texts = object.body.len()
        + object.namespace.len()
        + object.name.len()
        + references.chain(selector).sum::<usize>();
    texts as u64 + parts as u64 * PART_REST + OBJECT_REST
}

fn contents(object: &Object) -> (Key, [u8; 32]) {
    (Key::of(object), object.hash)
}

impl State {
    /// Puts an object in place of the one of its name, if there is one, by the entry at `index`.
    pub(super) fn insert_object(&mut self, index: u64, manifest: &Arc<str>, object: &Arc<Object>) {
        let key = Key::of(object);
        let before = self.objects.get(&key).cloned();
        let is_same = |one: &Owned| one.manifest == *manifest && Arc::ptr_eq(&one.object, object);
        if before.as_ref().is_some_and(is_same) {
            return;
        }
        let identity = self.next_identity(index, before.as_ref(), object);
        self.count_object(object);
        if let Some(before) = before {
            self.uncount_object(&before.object);
        }
        let owned = Owned {
            manifest: Arc::clone(manifest),
            object: Arc::clone(object),
            identity,
        };
        self.objects.insert_mut(key, owned);
    }

    /// Counts the contents of a part of a revision.
    pub(super) fn count(&mut self, part: &Part) {
        if let Some(object) = &part.object {
            self.count_object(object);
        }
    }

    pub(super) fn uncount(&mut self, part: &Part) {
        if let Some(object) = &part.object {
            self.uncount_object(object);
        }
    }

    pub(super) fn count_object(&mut self, object: &Object) {
        let contents = contents(object);
        let times = self.kept.get(&contents).copied().unwrap_or(0);
        if times == 0 {
            self.used += size(object);
        }
        self.kept.insert_mut(contents, times + 1);
    }

    fn uncount_object(&mut self, object: &Object) {
        let contents = contents(object);
        match self.kept.get_mut(&contents) {
            Some(times) if *times > 1 => *times -= 1,
            Some(_) => {
                self.kept.remove_mut(&contents);
                self.used -= size(object);
            }
            None => {}
        }
    }

    pub(super) fn remove_object(&mut self, key: &Key) {
        if let Some(owned) = self.objects.get(key).cloned() {
            self.uncount_object(&owned.object);
            self.objects.remove_mut(key);
        }
    }

    /// Checks whether these objects fit in place of the manifest's present ones. Objects that take no more bytes than
    /// before always fit.
    pub(crate) fn check_bytes(&self, manifest: &str, objects: &[Object]) -> Result {
        let after = objects.iter().map(size).sum();
        // The revisions keep what the manifest has now.
        let has_room = if self.level >= ROLLED {
            let new = objects
                .iter()
                .filter(|one| !self.kept.contains_key(&contents(one)));
            let more: u64 = new.map(size).sum();
            more == 0 || self.used.saturating_add(more) <= ROOM
        } else {
            self.has_room(self.bytes_of(manifest), after)
        };
        if has_room {
            return Ok(());
        }
        let what = format!(
            "manifest `{manifest}` would take {}, aliases expanded",
            mebibytes(after)
        );
        Err(self.full(&what, manifest))
    }

    /// Checks whether all these manifests fit.
    pub(crate) fn check_backup(&self, held: &[ManifestRecord]) -> Result {
        let before = held.iter().map(|one| self.bytes_of(&one.manifest)).sum();
        let objects = held.iter().flat_map(|one| &one.objects);
        let after = objects.map(|object| size(object)).sum();
        if self.has_room(before, after) {
            return Ok(());
        }
        let what = format!("the manifests of the backup take {}", mebibytes(after));
        Err(self.full(&what, ""))
    }

    /// The size of all contents in bytes, as the limit counts it.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> u64 {
        self.used
    }

    fn has_room(&self, before: u64, after: u64) -> bool {
        after <= before || self.used - before + after <= ROOM
    }

    /// The refusal: `what` does not fit, and the largest other manifests.
    fn full(&self, what: &str, own: &str) -> Vec<Refusal> {
        let mut others: Vec<_> = self.manifests.keys().filter(|name| *name != own).collect();
        others.sort_by_key(|name| std::cmp::Reverse(self.bytes_of(name)));
        let others = others.iter().take(NAMED_MAX);
        let named: Vec<_> = others
            .map(|name| format!("`{name}` ({})", mebibytes(self.bytes_of(name))))
            .collect();
        refused(format!(
            "{what}, and the cluster keeps at most {} of manifests, of which {} are used: delete manifests{}",
            mebibytes(ROOM),
            mebibytes(self.used),
            match named.as_slice() {
                [] => String::new(),
                named => format!("; the largest are {}", named.join(", ")),
            },
        ))
    }

    fn bytes_of(&self, manifest: &str) -> u64 {
        let manifest = self.manifests.get(manifest);
        let objects = manifest.into_iter().flat_map(|one| &one.objects);
        objects.map(|object| size(object)).sum()
    }
}

/// The size as `1.5 MiB`, rounded up, so that no size shows as zero.
fn mebibytes(bytes: u64) -> String {
    let tenths = (bytes * 10).div_ceil(1 << 20);
    format!("{}.{} MiB", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use beemesh_protocol::{
        backup,
        peer::Outcome,
        state::{Change, Command, Kind},
    };

    use super::*;

    fn config(name: &str, bytes: usize) -> Object {
        Object {
            kind: Kind::ConfigMap,
            namespace: "default".into(),
            name: name.into(),
            body: vec![b'x'; bytes],
            hash: [u8::try_from(bytes >> 20).unwrap(); 32],
            references: Vec::new(),
            replicas: None,
            selector: BTreeMap::new(),
        }
    }

    fn apply(state: &mut State, manifest: &str, objects: Vec<Object>) -> Outcome {
        let manifest = manifest.to_owned();
        let change = Change::Apply {
            manifest,
            objects,
            policy: None,
            keep: false,
            if_index: None,
        };
        state.apply(1, &Command::unasked(1, change))
    }

    fn full(level: u32) -> State {
        let mut state = State {
            level,
            ..State::default()
        };
        for number in 0..31 {
            let name = format!("m{number}");
            let objects = (0..4).map(|part| config(&format!("{name}-{part}"), 1 << 20));
            let outcome = apply(&mut state, &name, objects.collect());
            assert!(matches!(outcome, Outcome::Applied(_)), "{outcome:?}");
        }
        state
    }

    #[test]
    fn there_is_no_more_than_a_backup_can_carry_and_deleting_always_works() {
        let mut state = full(1);
        let big = |name: &str, mib: usize| vec![config(name, mib << 20)];
        let refused = apply(&mut state, "late", big("late", 5));
        let Outcome::Refused(refusals) = &refused else {
            panic!("{refused:?}");
        };
        assert_eq!(
            refusals[0].message,
            "manifest `late` would take 5.1 MiB, aliases expanded, and the cluster keeps at most 128.0 MiB of \
             manifests, of which 124.1 MiB are used: delete manifests; the largest are `m10` (4.1 MiB), `m11` \
             (4.1 MiB), `m12` (4.1 MiB)"
        );
        assert!(matches!(
            apply(&mut state, "late", big("late", 3)),
            Outcome::Applied(_)
        ));
        assert!(matches!(
            apply(&mut state, "late", big("late", 5)),
            Outcome::Refused(_)
        ));
        let file = backup::encode(&state.to_snapshot());
        assert!(
            file.len() < backup::BYTES_MAX / 2 + (8 << 20),
            "{}",
            file.len()
        );
        assert_eq!(State::from_snapshot(state.to_snapshot()), state);
        // A smaller manifest fits, and the deletion of a manifest frees space.
        assert!(matches!(
            apply(&mut state, "late", big("late", 1)),
            Outcome::Applied(_)
        ));
        let manifest = "m0".to_owned();
        let delete = Command::unasked(1, Change::DeleteManifest { manifest });
        assert!(matches!(state.apply(2, &delete), Outcome::Deleted(_)));
        assert!(matches!(
            apply(&mut state, "late", big("late", 6)),
            Outcome::Applied(_)
        ));
        for name in ["late"]
            .map(str::to_owned)
            .into_iter()
            .chain((1..31).map(|n| format!("m{n}")))
        {
            let delete = Command::unasked(1, Change::DeleteManifest { manifest: name });
            state.apply(3, &delete);
        }
        assert_eq!(state.used, 0);
    }

    #[test]
    fn a_cluster_with_older_gateways_applies_as_they_do() {
        let mut state = full(0);
        let objects = vec![config("late", 5 << 20)];
        assert!(state.check_bytes("late", &objects).is_err());
        assert!(matches!(
            apply(&mut state, "late", objects),
            Outcome::Applied(_)
        ));
        assert!(state.used > ROOM);
        // The size is above the limit: more bytes are refused, fewer are accepted.
        assert!(state.check_bytes("more", &[config("more", 1)]).is_err());
        assert!(
            state
                .check_bytes("late", &[config("late", 4 << 20)])
                .is_ok()
        );
        let held = state.to_snapshot().manifests;
        assert!(State::default().check_backup(&held).is_err());
        assert!(State::default().check_backup(&held[..20]).is_ok());
        assert!(state.check_backup(&held).is_ok(), "all of it is there");
    }
}
