//! The kept revisions of each workload.
//!
//! Pure. From level 2 on, each change of a workload, or of an object that it refers to, adds a revision: the contents
//! of the workload and of all objects that it runs with at that time. Equal contents are shared. A workload keeps the
//! revision that is wanted, those that hosts run during a rollout, and as many earlier ones as `revisionHistoryLimit`
//! says. Jobs have no revisions: an attempt runs with the present objects.

use std::sync::Arc;

use beemesh_protocol::{
    peer::{Action, Effect, Outcome},
    state::{
        Kind, Object, Origin, ResolvedImage, ResolvedImages, RevisionEnd, RevisionOutcome,
        RevisionRecord,
    },
};
use beemesh_quadlet::manifest::{Failover, kind_name, workload_name};
use serde_json::Value;

use super::{Decision, Key, Lazily, State, Workload, missing, refused, rollouts::ROLLED};
use crate::cluster::strategy::Strategy;

/// The annotation with the reason of a change, as in `kubectl rollout history`.
const CAUSE: &str = "kubernetes.io/change-cause";
/// Maximum length of a kept reason, in bytes.
const CAUSE_MAX: usize = 256;

/// One object that a revision runs with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    /// The hash of its contents.
    pub(crate) hash: [u8; 32],
    /// Its contents; `None` if it was a Secret that has been deleted since.
    pub(crate) object: Option<Arc<Object>>,
}

impl Part {
    fn of(object: &Arc<Object>) -> Self {
        Self {
            hash: object.hash,
            object: Some(Arc::clone(object)),
        }
    }
}

/// A revision of a workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Revision {
    /// Its number, from 1.
    pub(crate) number: u64,
    /// The log index of the change that made it.
    pub(crate) index: u64,
    /// When it was made, in milliseconds since 1970.
    pub(crate) at_ms: u64,
    /// Who made it; empty if unknown.
    pub(crate) who: String,
    /// Its `kubernetes.io/change-cause`; empty if it has none.
    pub(crate) cause: String,
    /// The workload, then the objects that it refers to.
    pub(crate) parts: Vec<Part>,
    /// How it ended; `None` during its rollout.
    pub(crate) end: Option<RevisionEnd>,
    /// The images that it ran, or is to run; empty if unknown.
    pub(crate) images: ResolvedImages,
    /// It must run `images`, because it is a return to an earlier revision.
    pub(crate) pinned: bool,
}

impl Revision {
    /// The workload; `None` only if a snapshot lacks it.
    pub(crate) fn object(&self) -> Option<&Arc<Object>> {
        self.parts.first()?.object.as_ref()
    }

    /// The objects that the workload runs with.
    pub(crate) fn uses(&self) -> impl Iterator<Item = &Arc<Object>> {
        self.parts
            .iter()
            .skip(1)
            .filter_map(|part| part.object.as_ref())
    }

    /// Returns true if all its pods were ready at the end of its rollout.
    pub(crate) fn was_ready(&self) -> bool {
        let end = self.end.as_ref();
        end.is_some_and(|end| end.outcome == RevisionOutcome::Ready)
    }

    /// Returns true if its rollout ended with a failure.
    pub(super) fn has_failed(&self) -> bool {
        use RevisionOutcome::{Failed, RolledBack};
        let end = self.end.as_ref();
        end.is_some_and(|end| matches!(end.outcome, Failed | RolledBack))
    }

    /// Returns true unless the workload requested no pods.
    pub(super) fn has_pods(&self) -> bool {
        self.object()
            .is_none_or(|object| object.replicas != Some(0))
    }

    pub(super) fn has_contents_of(&self, parts: &[Part]) -> bool {
        let hashes = |parts: &[Part]| parts.iter().map(|part| part.hash).collect::<Vec<_>>();
        hashes(&self.parts) == hashes(parts)
    }
}

impl State {
    /// The kept revisions of a workload, the oldest first. The last one is the wanted one.
    pub(crate) fn revisions(&self, workload: &str) -> &[Revision] {
        let kept = self.revisions.get(workload);
        kept.map_or(&[], |revisions| revisions.as_slice())
    }

    /// The kept revision of this log index.
    pub(crate) fn revision_at(&self, workload: &str, index: u64) -> Option<&Revision> {
        let revisions = self.revisions(workload);
        let at = revisions.binary_search_by_key(&index, |one| one.index);
        at.ok().map(|at| &revisions[at])
    }

    /// The number, the workload and the objects that it runs with of the revision with this log index. Without kept
    /// revisions these are the present ones.
    pub(crate) fn contents(
        &self,
        workload: &Workload,
        index: u64,
    ) -> (u64, Arc<Object>, Vec<Arc<Object>>) {
        let kept = self.revision_at(&workload.name, index);
        match kept.and_then(|kept| Some((kept, kept.object()?))) {
            Some((kept, object)) => {
                let uses = kept.uses().cloned().collect();
                (kept.number, Arc::clone(object), uses)
            }
            None => {
                let object = Arc::clone(&workload.object);
                let uses = self.uses(&object);
                (workload.revision, object, uses)
            }
        }
    }

    /// The images that the pods of the revision with this log index must run instead of what their references stand for
    /// now: those that it ran before, if it is a return to an earlier revision, or hosts go back to it.
    pub(crate) fn pinned_images(&self, workload: &Workload, index: u64) -> &[ResolvedImage] {
        let kept = self.revision_at(&workload.name, index);
        let kept = kept.filter(|kept| kept.pinned || index != workload.index);
        kept.map_or(&[], |kept| &kept.images.0)
    }

    /// Returns true if the workload's changes are kept and rolled out.
    pub(crate) fn is_rolled(&self, workload: &Workload) -> bool {
        self.level >= ROLLED && workload.job.is_none()
    }

    /// Returns true if an apply of the present objects has to make a new revision of this workload: its last one has
    /// failed, or runs with other objects than the present ones.
    pub(super) fn is_to_be_made_again(&self, name: &str) -> bool {
        let Some(workload) = self.workloads.get(name) else {
            return false;
        };
        let Some(last) = self.revisions(name).last() else {
            return false;
        };
        last.has_failed() || !last.has_contents_of(&self.parts(&workload.object))
    }

    /// The workload and the objects that it refers to, as they are now.
    fn parts(&self, object: &Arc<Object>) -> Vec<Part> {
        let uses = self.uses(object);
        std::iter::once(object).chain(&uses).map(Part::of).collect()
    }

    /// Keeps the present contents of a workload as its latest revision, after the workload got a new log index.
    pub(super) fn keep(&mut self, name: &str, origin: Option<&Origin>) {
        let Some(workload) = self.workloads.get(name) else {
            return;
        };
        let parts = self.parts(&workload.object);
        self.keep_parts(name, (parts, ResolvedImages::default()), origin);
    }

    /// Keeps these contents as the latest revision. It must run the images, if there are any.
    fn keep_parts(
        &mut self,
        name: &str,
        (parts, images): (Vec<Part>, ResolvedImages),
        origin: Option<&Origin>,
    ) {
        let Some(workload) = self.workloads.get(name).cloned() else {
            return;
        };
        if !self.is_rolled(&workload) {
            self.forget_revisions(name);
            return;
        }
        for part in &parts {
            self.count(part);
        }
        let revision = Revision {
            number: workload.revision,
            index: workload.index,
            at_ms: workload.at_ms,
            who: origin.map_or_else(String::new, |origin| origin.who.clone()),
            cause: cause(&workload.object),
            parts,
            end: None,
            pinned: !images.0.is_empty(),
            images,
        };
        let mut kept = self.revisions.get(name).cloned().unwrap_or_default();
        let all = Arc::make_mut(&mut kept);
        // A log entry may change a workload more than once. Hosts see only the last of these revisions, and know it by
        // its log index.
        if let Some(unseen) = all.pop_if(|last| last.index == workload.index) {
            for part in &unseen.parts {
                self.uncount(part);
            }
        }
        if let Some(last) = all.last_mut() {
            last.end.get_or_insert_with(|| RevisionEnd {
                outcome: RevisionOutcome::Superseded,
                reason: String::new(),
                at_ms: workload.at_ms,
            });
        }
        let before = all.last().map(|last| last.index);
        all.push(revision);
        self.revisions.insert_mut(name.to_owned(), kept);
        self.begin_rollout(&workload, before);
        self.trim(name, &workload.object);
    }

    /// Forgets the oldest revisions that are beyond the limit and that no host is to run.
    pub(super) fn trim(&mut self, name: &str, object: &Object) {
        let limit = Strategy::of(object).history_limit;
        let Some(kept) = self.revisions.get(name) else {
            return;
        };
        let mut over = kept.len().saturating_sub(1 + limit);
        if over == 0 {
            return;
        }
        let in_use = self.rollouts.get(name).cloned();
        let in_use = |index: u64| {
            let rollout = in_use.as_deref();
            rollout.is_some_and(|one| one.base == index || one.pods.values().any(|on| *on == index))
        };
        let last = kept.last().map_or(0, |last| last.index);
        let (gone, left): (Vec<_>, Vec<_>) = kept.iter().cloned().partition(|one| {
            let goes = over > 0 && one.index != last && !in_use(one.index);
            over -= usize::from(goes);
            goes
        });
        self.revisions.insert_mut(name.to_owned(), Arc::new(left));
        for part in gone.iter().flat_map(|one| &one.parts) {
            self.uncount(part);
        }
    }

    /// Forgets all revisions of a workload, and its rollout.
    pub(super) fn forget_revisions(&mut self, name: &str) {
        self.rollouts.remove_mut(name);
        let Some(kept) = self.revisions.get(name).cloned() else {
            return;
        };
        self.revisions.remove_mut(name);
        for part in kept.iter().flat_map(|one| &one.parts) {
            self.uncount(part);
        }
    }

    /// Removes the contents of deleted Secrets from all revisions.
    pub(super) fn purge_secrets(&mut self, keys: &[Key]) {
        let deleted: Vec<&Key> = keys.iter().filter(|key| key.kind == Kind::Secret).collect();
        if deleted.is_empty() || self.revisions.is_empty() {
            return;
        }
        let is_deleted = |part: &Part| {
            let object = part.object.as_ref();
            object.is_some_and(|object| deleted.contains(&&Key::of(object)))
        };
        let named = self.revisions.iter();
        let with = named.filter(|(_, all)| all.iter().any(|one| one.parts.iter().any(is_deleted)));
        let names: Vec<String> = with.map(|(name, _)| name.clone()).collect();
        for name in names {
            let Some(mut kept) = self.revisions.get(&name).cloned() else {
                continue;
            };
            let mut purged = Vec::new();
            for part in Arc::make_mut(&mut kept)
                .iter_mut()
                .flat_map(|one| &mut one.parts)
            {
                if is_deleted(part) {
                    purged.push(part.clone());
                    part.object = None;
                }
            }
            self.revisions.insert_mut(name, kept);
            for part in &purged {
                self.uncount(part);
            }
        }
    }

    /// Records how a revision ended, and which images it ran.
    pub(super) fn end_revision(
        &mut self,
        name: &str,
        index: u64,
        end: RevisionEnd,
        images: &ResolvedImages,
    ) {
        let Some(mut kept) = self.revisions.get(name).cloned() else {
            return;
        };
        let mut all = Arc::make_mut(&mut kept).iter_mut();
        if let Some(revision) = all.find(|one| one.index == index) {
            revision.end = Some(end);
            if !revision.pinned && revision.was_ready() {
                revision.images.clone_from(images);
            }
        }
        self.revisions.insert_mut(name.to_owned(), kept);
    }

    /// Keeps the present contents of all workloads when the level is reached. They count as ready: without revisions,
    /// they were what every host had to run.
    pub(super) fn begin_revisions(&mut self) {
        let names: Vec<String> = self.workloads.keys().cloned().collect();
        for name in names {
            self.keep(&name, None);
            let Some(workload) = self.workloads.get(&name) else {
                continue;
            };
            let (index, at_ms) = (workload.index, workload.at_ms);
            let end = RevisionEnd {
                outcome: RevisionOutcome::Ready,
                reason: String::new(),
                at_ms,
            };
            self.end_revision(&name, index, end, &ResolvedImages::default());
            self.rollouts.remove_mut(&name);
        }
    }

    /// Makes a new revision with the contents of the revision of this number.
    pub(super) fn undo(
        &mut self,
        index: u64,
        at_ms: u64,
        (name, number): (&str, u64),
        origin: Option<&Origin>,
    ) -> Decision {
        let Some(workload) = self.workloads.get(name).cloned() else {
            return Err(missing(format!("workload `{name}` not found")));
        };
        let revisions = self.revisions(name);
        let Some(wanted) = revisions.iter().find(|one| one.number == number) else {
            return Err(missing(no_revision(name, number, revisions)));
        };
        if let Some(gone) = wanted.parts.iter().position(|part| part.object.is_none()) {
            let what = self.title_of(wanted, gone);
            return Err(refused(format!(
                "revision {number} of workload `{name}` cannot be restored: {what} has been deleted"
            )));
        }
        let Some(object) = wanted.object().cloned() else {
            return Err(missing(no_revision(name, number, revisions)));
        };
        self.check_singletons(std::slice::from_ref(&object))?;
        let is_present = revisions.last().is_some_and(|last| {
            last.has_contents_of(&wanted.parts)
                && last.end.as_ref().is_none_or(|_| last.was_ready())
        });
        let effect = |action, revision| Effect {
            kind: object.kind,
            name: name.to_owned(),
            revision,
            action,
        };
        if is_present {
            return Ok(Outcome::Applied(vec![effect(
                Action::Unchanged,
                workload.revision,
            )]));
        }
        let contents = (wanted.parts.clone(), wanted.images.clone());
        let before = workload.clone();
        let next = Workload {
            revision: workload.revision + 1,
            index,
            at_ms,
            object: Arc::clone(&object),
            failover: Failover::of(&object),
            rules: Lazily::default(),
            ..workload
        };
        let revision = next.revision;
        self.put_object_back(&next, index, at_ms);
        self.insert_workload(next);
        self.reseat(name, Some(&before));
        self.keep_parts(name, contents, origin);
        Ok(Outcome::Applied(vec![effect(Action::Updated, revision)]))
    }

    /// Replaces the workload's object in its manifest.
    fn put_object_back(&mut self, workload: &Workload, index: u64, at_ms: u64) {
        let key = Key::of(&workload.object);
        let manifest = Arc::from(workload.manifest.as_str());
        self.insert_object(index, &manifest, &workload.object);
        if let Some(manifest) = self.manifests.get_mut(&workload.manifest) {
            for object in &mut manifest.objects {
                if Key::of(object) == key {
                    *object = Arc::clone(&workload.object);
                }
            }
            (manifest.index, manifest.at_ms) = (index, at_ms);
        }
    }

    /// The kind and name of a part without contents: the reference of the workload that has no other part.
    fn title_of(&self, revision: &Revision, at: usize) -> String {
        let references = revision.object().map(|object| {
            let there: Vec<Key> = revision.uses().map(|one| Key::of(one)).collect();
            let mut all = self.references(object).map(|(key, _)| key);
            all.find(|key| key.kind == Kind::Secret && !there.contains(key))
        });
        match references.flatten() {
            Some(key) => format!(
                "{} {}",
                kind_name(key.kind),
                workload_name(&key.namespace, &key.name)
            ),
            None => format!("object {at}"),
        }
    }

    pub(super) fn revision_records(&self) -> Vec<RevisionRecord> {
        let all = self.revisions.iter();
        let record = |workload: &str, one: &Revision| RevisionRecord {
            workload: workload.to_owned(),
            revision: one.number,
            index: one.index,
            at_ms: one.at_ms,
            who: one.who.clone(),
            cause: one.cause.clone(),
            objects: one.parts.iter().map(|part| part.hash).collect(),
            end: one.end.clone(),
            images: one.images.clone(),
            pinned: one.pinned,
        };
        all.flat_map(|(name, kept)| kept.iter().map(move |one| record(name, one)))
            .collect()
    }
}

/// Why there is no such revision, with those that are kept.
pub(crate) fn no_revision(name: &str, number: u64, kept: &[Revision]) -> String {
    let kept: Vec<String> = kept.iter().map(|one| one.number.to_string()).collect();
    match kept.as_slice() {
        [] => format!("workload `{name}` has no kept revisions"),
        kept => format!(
            "workload `{name}` has no revision {number}: kept are {}",
            kept.join(", ")
        ),
    }
}

fn cause(object: &Object) -> String {
    let has_one = object
        .body
        .windows(CAUSE.len())
        .any(|bytes| bytes == CAUSE.as_bytes());
    if !has_one {
        return String::new();
    }
    let body: Value = serde_json::from_slice(&object.body).unwrap_or_default();
    let annotations = body.pointer("/metadata/annotations");
    let cause = annotations.and_then(|all| all.get(CAUSE));
    let cause = cause.and_then(Value::as_str).unwrap_or_default();
    let end = cause.floor_char_boundary(CAUSE_MAX);
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    cause[..end].chars().map(clean).collect()
}
