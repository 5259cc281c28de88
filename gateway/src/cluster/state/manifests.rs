//! Manifests and their workloads. A manifest is applied and deleted as a whole; a single workload can be deleted.
//!
//! Pure. Each function checks everything before it changes anything, so a refusal leaves the state unchanged.

use std::{collections::BTreeSet, sync::Arc};

use beemesh_protocol::{
    peer::{Action, Effect, Outcome, Refusal},
    state::{Kind, Object, Origin},
};
use beemesh_quadlet::manifest::{Failover, is_workload, kind_name, workload_name};

use super::{
    Decision, Key, Lazily, Manifest, ROLLED, Revision, State, Workload, assign, missing, refused,
    title, workload_of,
};

/// Maximum number of manifests below level 2. From there on only their bytes are limited ([`super::room`]).
pub(crate) const MANIFESTS_MAX: usize = 4096;

/// The content of an apply.
pub(super) struct Applied<'a> {
    pub(super) manifest: &'a str,
    pub(super) objects: &'a [Object],
    /// Objects of the manifest that are not among these stay in it.
    pub(super) keep: bool,
}

impl State {
    /// Refuses a change of a manifest that has changed since it was read at this log index. Below level 2 nothing is
    /// refused, as in gateways of releases before that level.
    pub(super) fn check_index(&self, manifest: &str, seen: Option<u64>) -> Decision<()> {
        let present = self.manifests.get(manifest).map_or(0, |one| one.index);
        match seen {
            Some(seen) if seen != present && self.level >= ROLLED => Err(refused(format!(
                "manifest `{manifest}` has changed since then"
            ))),
            _ => Ok(()),
        }
    }

    pub(super) fn apply_manifest(
        &mut self,
        index: u64,
        at_ms: u64,
        applied: &Applied<'_>,
        origin: Option<&Origin>,
    ) -> Decision {
        let (name, objects) = (applied.manifest, applied.objects);
        // Gateways of releases before this level always remove them.
        let keep = applied.keep && self.level >= ROLLED;
        self.check_room(name)?;
        self.check_owners(name, objects)?;
        self.check_singletons(objects)?;
        if !keep {
            self.check_same_manifest(name, objects)?;
        }
        let missing = self.dropped(name, objects);
        let (kept, dropped) = if keep {
            (missing, Vec::new())
        } else {
            (Vec::new(), missing)
        };
        self.check_references(objects, &dropped)?;
        // Gateways of releases before this level do not have the limit.
        if self.level >= 1 {
            self.check_bytes(name, objects)?;
        }

        let mut effects: Vec<_> = objects.iter().map(|o| self.effect_of(o)).collect();
        effects.extend(dropped.iter().map(|key| Effect {
            kind: key.kind,
            name: workload_name(&key.namespace, &key.name),
            revision: 0,
            action: Action::Removed,
        }));
        effects.extend(kept.iter().map(|key| Effect {
            kind: key.kind,
            name: workload_name(&key.namespace, &key.name),
            revision: 0,
            action: Action::Kept,
        }));
        let failed = self.failed_with(objects);
        let is_changed =
            |effect: &Effect| !matches!(effect.action, Action::Unchanged | Action::Kept);
        if effects.iter().any(is_changed) || !failed.is_empty() {
            let keys = objects.iter().map(Key::of).zip(&effects);
            let mut changed: BTreeSet<Key> = keys
                .filter(|(_, effect)| effect.action != Action::Unchanged)
                .map(|(key, _)| key)
                .collect();
            self.replace_manifest(index, at_ms, applied, &kept);
            self.remove_objects(&dropped);
            changed.extend(dropped);
            self.bump((index, at_ms, origin), &changed, &failed, &mut effects);
        }
        for effect in &mut effects {
            effect.revision = self.revision_of(effect);
        }
        Ok(Outcome::Applied(effects))
    }

    fn check_room(&self, name: &str) -> Decision<()> {
        let is_counted = self.level < ROLLED;
        if is_counted
            && self.manifests.size() >= MANIFESTS_MAX
            && !self.manifests.contains_key(name)
        {
            return Err(refused(format!(
                "the cluster has {MANIFESTS_MAX} manifests, which is the maximum: delete one first"
            )));
        }
        Ok(())
    }

    /// Checks that no object belongs to another manifest, and that no two workloads of different kinds have the same
    /// unit.
    fn check_owners(&self, manifest: &str, objects: &[Object]) -> Decision<()> {
        let mut refusals = Vec::new();
        for (position, object) in (0..).zip(objects) {
            let foreign = |owner: &str, what: String| Refusal {
                missing: false,
                object: Some(position),
                message: format!(
                    "{what} belongs to manifest `{owner}`: apply it with `--name {owner}`, or delete it there first"
                ),
            };
            if let Some(owned) = self.objects.get(&Key::of(object))
                && *owned.manifest != *manifest
            {
                refusals.push(foreign(&owned.manifest, title(object)));
            } else if let Some(name) = workload_of(object)
                && let Some(other) = self.workloads.get(&name)
                && other.manifest != manifest
            {
                refusals.push(foreign(&other.manifest, title(&other.object)));
            }
        }
        if refusals.is_empty() {
            Ok(())
        } else {
            Err(refusals)
        }
    }

    /// Checks that the manifest has an object in common with the present one of its name. Otherwise it is most likely
    /// another file whose first object has the same name by accident, and to apply it would remove objects that its
    /// author does not know of.
    fn check_same_manifest(&self, name: &str, objects: &[Object]) -> Decision<()> {
        let Some(manifest) = self.manifests.get(name) else {
            return Ok(());
        };
        let id = |object: &Object| workload_of(object).ok_or_else(|| Key::of(object));
        let before: Vec<_> = manifest.objects.iter().map(|object| id(object)).collect();
        if objects.iter().any(|object| before.contains(&id(object))) {
            return Ok(());
        }
        let titles: Vec<_> = manifest
            .objects
            .iter()
            .map(|object| title(object))
            .collect();
        Err(refused(format!(
            "manifest `{name}` contains {} and no object of this file: apply the file under another name (`--name`), or delete that manifest first",
            titles.join(", ")
        )))
    }

    /// The objects of the present manifest that are not in the new one.
    fn dropped(&self, manifest: &str, objects: &[Object]) -> Vec<Key> {
        let keep: BTreeSet<Key> = objects.iter().map(Key::of).collect();
        let before = self.manifests.get(manifest);
        let before = before.into_iter().flat_map(|manifest| &manifest.objects);
        before
            .map(|object| Key::of(object))
            .filter(|key| !keep.contains(key))
            .collect()
    }

    /// Checks that every object that a workload needs exists after the change, also for workloads of other manifests.
    fn check_references(&self, objects: &[Object], dropped: &[Key]) -> Decision<()> {
        let new: BTreeSet<Key> = objects.iter().map(Key::of).collect();
        let mut refusals = Vec::new();
        for (position, object) in (0..).zip(objects) {
            for (key, optional) in self.references(object) {
                let exists = new.contains(&key)
                    || self.objects.contains_key(&key) && !dropped.contains(&key);
                if !optional && !exists {
                    refusals.push(Refusal {
                        missing: false,
                        object: Some(position),
                        message: format!(
                            "{} uses {} {}, which is neither in this manifest nor in the cluster",
                            title(object),
                            kind_name(key.kind),
                            workload_name(&key.namespace, &key.name)
                        ),
                    });
                }
            }
        }
        refusals.extend(self.orphaned(dropped, &new));
        if refusals.is_empty() {
            Ok(())
        } else {
            Err(refusals)
        }
    }

    /// Refusals for the remaining workloads that would lose an object that they need.
    fn orphaned(&self, dropped: &[Key], replaced: &BTreeSet<Key>) -> Vec<Refusal> {
        if dropped.is_empty() {
            return Vec::new();
        }
        let stays = |workload: &&Workload| {
            let key = Key::of(&workload.object);
            !dropped.contains(&key) && !replaced.contains(&key)
        };
        self.workloads
            .values()
            .filter(stays)
            .flat_map(|workload| {
                self.references(&workload.object)
                    .filter(|(key, optional)| !optional && dropped.contains(key))
                    .map(|(key, _)| Refusal {
                        missing: false,
                        object: None,
                        message: format!(
                            "{} {} is used by workload {} of manifest `{}`",
                            kind_name(key.kind),
                            workload_name(&key.namespace, &key.name),
                            workload.name,
                            workload.manifest
                        ),
                    })
            })
            .collect()
    }

    fn effect_of(&self, object: &Object) -> Effect {
        let action = match self.objects.get(&Key::of(object)) {
            None => Action::Created,
            Some(owned) if owned.object.hash != object.hash => Action::Updated,
            Some(_) => match workload_of(object) {
                Some(name) if self.is_to_be_made_again(&name) => Action::Updated,
                _ => Action::Unchanged,
            },
        };
        Effect {
            kind: object.kind,
            name: workload_name(&object.namespace, &object.name),
            revision: 0,
            action,
        }
    }

    /// Puts the new objects into their manifest, before those that stay in it.
    fn replace_manifest(&mut self, index: u64, at_ms: u64, applied: &Applied<'_>, kept: &[Key]) {
        let name = applied.manifest;
        let kept: Vec<_> = kept
            .iter()
            .filter_map(|key| self.objects.get(key))
            .map(|owned| owned.object.clone())
            .collect();
        let mut objects: Vec<_> = applied
            .objects
            .iter()
            .map(|object| match self.objects.get(&Key::of(object)) {
                Some(owned) if *owned.object == *object => owned.object.clone(),
                _ => Arc::new(object.clone()),
            })
            .collect();
        let owner = Arc::from(name);
        for object in &objects {
            self.insert_object(index, &owner, object);
        }
        objects.extend(kept);
        let manifest = Manifest {
            name: name.to_owned(),
            index,
            at_ms,
            objects,
        };
        self.manifests.insert_mut(name.to_owned(), manifest);
    }

    fn remove_objects(&mut self, keys: &[Key]) {
        for key in keys {
            self.remove_object(key);
        }
        self.forget_claims(keys);
        self.purge_secrets(keys);
    }

    /// Gives a new revision to every workload that is in `changed` or `failed` or refers to an object in `changed`, and
    /// forgets the workloads whose object was removed. It adds the workloads that only refer to one to `effects`.
    fn bump(
        &mut self,
        (index, at_ms, origin): (u64, u64, Option<&Origin>),
        changed: &BTreeSet<Key>,
        failed: &BTreeSet<String>,
        effects: &mut Vec<Effect>,
    ) {
        let own = changed.iter().filter(|key| is_workload(key.kind));
        let (there, gone): (Vec<&Key>, Vec<&Key>) =
            own.partition(|key| self.objects.contains_key(key));
        let mut altered = Vec::new();
        for owned in there.iter().filter_map(|key| self.objects.get(key)) {
            let name = workload_name(&owned.object.namespace, &owned.object.name);
            let before = self.workloads.get(&name).cloned();
            let workload = Workload {
                name,
                manifest: (*owned.manifest).to_owned(),
                revision: before.as_ref().map_or(1, |before| before.revision + 1),
                index,
                at_ms,
                job: assign::Job::of(&owned.object),
                failover: Failover::of(&owned.object),
                rules: Lazily::default(),
                object: owned.object.clone(),
            };
            altered.push((workload, before));
        }
        for (workload, _) in &altered {
            self.insert_workload(workload.clone());
        }
        for (workload, before) in altered {
            self.reseat(&workload.name, before.as_ref());
            self.keep(&workload.name, origin);
        }
        for key in gone {
            let name = workload_name(&key.namespace, &key.name);
            // A workload of another kind may have taken the name.
            if self
                .workloads
                .get(&name)
                .is_some_and(|w| Key::of(&w.object) == *key)
            {
                self.remove_workload(&name);
                self.unseat(&name);
                self.forget_revisions(&name);
            }
        }
        let using = self.using(changed);
        for name in using.union(failed) {
            if let Some(workload) = self.workloads.get_mut(name) {
                workload.revision += 1;
                (workload.index, workload.at_ms) = (index, at_ms);
                note_update(effects, workload.object.kind, name);
                self.keep(name, origin);
            }
        }
    }

    /// The workloads that refer to one of these objects and are not among them. It omits Jobs at the level that has
    /// attempts: a current or ended attempt keeps its objects, and the next attempt uses the present ones.
    fn using(&self, changed: &BTreeSet<Key>) -> BTreeSet<String> {
        let names = changed.iter().filter_map(|key| self.used_by.get(key));
        let is_bound = |name: &&String| {
            let workload = self.workloads.get(*name);
            workload.is_some_and(|workload| {
                let is_attempted = workload.job.is_some() && self.is_seated(workload);
                !is_attempted && !changed.contains(&Key::of(&workload.object))
            })
        };
        let names = names.flat_map(|names| names.iter());
        names.filter(is_bound).cloned().collect()
    }

    /// The workloads that are not among these objects, refer to one of them, and whose last revision has failed: to apply
    /// the objects again tries them again.
    fn failed_with(&self, objects: &[Object]) -> BTreeSet<String> {
        let applied: BTreeSet<Key> = objects.iter().map(Key::of).collect();
        let failed = |name: &String| {
            let last = self.revisions(name).last();
            last.is_some_and(Revision::has_failed)
        };
        self.using(&applied).into_iter().filter(failed).collect()
    }

    /// Puts a workload in place of the one of its name, if there is one.
    pub(super) fn insert_workload(&mut self, workload: Workload) {
        self.remove_workload(&workload.name);
        for (key, _) in self.references(&workload.object) {
            let mut users = self.used_by.get(&key).cloned().unwrap_or_default();
            Arc::make_mut(&mut users).insert(workload.name.clone());
            self.used_by.insert_mut(key, users);
        }
        self.workloads.insert_mut(workload.name.clone(), workload);
    }

    fn remove_workload(&mut self, name: &str) {
        let Some(object) = self.workloads.get(name).map(|one| Arc::clone(&one.object)) else {
            return;
        };
        for (key, _) in self.references(&object) {
            let Some(mut users) = self.used_by.get(&key).cloned() else {
                continue;
            };
            Arc::make_mut(&mut users).remove(name);
            if users.is_empty() {
                self.used_by.remove_mut(&key);
            } else {
                self.used_by.insert_mut(key, users);
            }
        }
        self.workloads.remove_mut(name);
    }

    fn revision_of(&self, effect: &Effect) -> u64 {
        let workload = self.workloads.get(&effect.name);
        workload
            .filter(|w| w.object.kind == effect.kind && effect.action != Action::Removed)
            .map_or(0, |workload| workload.revision)
    }

    pub(super) fn delete_workload(&mut self, index: u64, at_ms: u64, name: &str) -> Decision {
        let Some(workload) = self.workloads.get(name).cloned() else {
            return Err(missing(format!("workload `{name}` not found")));
        };
        let key = Key::of(&workload.object);
        self.remove_workload(name);
        self.unseat(name);
        self.forget_revisions(name);
        self.remove_objects(std::slice::from_ref(&key));
        if let Some(manifest) = self.manifests.get_mut(&workload.manifest) {
            manifest.objects.retain(|object| Key::of(object) != key);
            manifest.index = index;
            manifest.at_ms = at_ms;
            if manifest.objects.is_empty() {
                self.manifests.remove_mut(&workload.manifest);
            }
        }
        Ok(Outcome::Deleted(vec![name.to_owned()]))
    }

    pub(super) fn delete_manifest(&mut self, name: &str) -> Decision {
        let Some(manifest) = self.manifests.get(name) else {
            return Err(missing(format!("manifest `{name}` not found")));
        };
        let keys: Vec<Key> = manifest.objects.iter().map(|o| Key::of(o)).collect();
        let gone: Vec<String> = manifest
            .objects
            .iter()
            .filter_map(|object| workload_of(object))
            .collect();
        let refusals = self.orphaned(&keys, &BTreeSet::new());
        if !refusals.is_empty() {
            return Err(refusals);
        }
        self.manifests.remove_mut(name);
        self.remove_objects(&keys);
        for workload in &gone {
            self.remove_workload(workload);
            self.unseat(workload);
            self.forget_revisions(workload);
        }
        Ok(Outcome::Deleted(gone))
    }
}

/// Marks a workload as updated because of its references, and adds it if the manifest does not contain it.
fn note_update(effects: &mut Vec<Effect>, kind: Kind, name: &str) {
    match effects
        .iter_mut()
        .find(|e| e.kind == kind && e.name == name)
    {
        Some(effect) => effect.action = Action::Updated,
        None => effects.push(Effect {
            kind,
            name: name.to_owned(),
            revision: 0,
            action: Action::Updated,
        }),
    }
}
