//! Conversion of the replicated state to a snapshot, and back.
//!
//! Pure: two conversions. A snapshot omits what can be derived: the manifest of an object, and the object of a
//! workload.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use beemesh_protocol::state::{
    Access, ManifestRecord, Object, Place, Revisions, Snapshot, WorkloadRecord,
};
use beemesh_quadlet::manifest::Failover;

use super::{
    ASSIGNED, Key, Lazily, Manifest, Map, Owned, ROLLED, Revision, Rollout, State, Workload,
    assign, revisions::Part, workload_of,
};

impl State {
    /// The state in its stored and sent form.
    pub(crate) fn to_snapshot(&self) -> Snapshot {
        Snapshot {
            cluster: self.cluster,
            hosts: self.hosts.values().cloned().collect(),
            manifests: self
                .manifests
                .values()
                .map(|manifest| ManifestRecord {
                    manifest: manifest.name.clone(),
                    index: manifest.index,
                    at_ms: manifest.at_ms,
                    objects: manifest.objects.clone(),
                })
                .collect(),
            workloads: self
                .workloads
                .values()
                .map(|workload| WorkloadRecord {
                    workload: workload.name.clone(),
                    revision: workload.revision,
                    index: workload.index,
                    at_ms: workload.at_ms,
                })
                .collect(),
            tokens: self.tokens.values().cloned().collect(),
            access: Some(Access {
                authority: self.authority.as_deref().cloned(),
                users: self.users.values().cloned().collect(),
                audit: self.audit.iter().map(|one| (**one).clone()).collect(),
            }),
            policy: self.policy.as_deref().cloned(),
            former: self.former.to_vec(),
            level: self.level,
            assignments: (self.level >= ASSIGNED).then(|| self.book.to_snapshot()),
            revisions: (self.level >= ROLLED).then(|| Revisions {
                objects: self.objects_of_revisions(),
                revisions: self.revision_records(),
                rollouts: self.rollout_records(),
            }),
            identities: (self.level >= ROLLED).then(|| self.identity_records()),
        }
    }

    /// The objects of revisions that are in no manifest, each once, sorted by hash.
    fn objects_of_revisions(&self) -> Vec<Arc<Object>> {
        let in_manifests: BTreeSet<[u8; 32]> = self
            .objects
            .values()
            .map(|owned| owned.object.hash)
            .collect();
        let all = self.revisions.values().flat_map(|kept| kept.iter());
        let objects = all.flat_map(|one| one.parts.iter().filter_map(|part| part.object.as_ref()));
        let others = objects.filter(|object| !in_manifests.contains(&object.hash));
        let others: BTreeMap<_, _> = others.map(|object| (object.hash, object)).collect();
        others.into_values().cloned().collect()
    }

    /// The state of a snapshot. It omits a workload record without its object and the reverse, which
    /// [`State::to_snapshot`] never writes.
    pub(crate) fn from_snapshot(snapshot: Snapshot) -> Self {
        let records: BTreeMap<_, _> = snapshot
            .workloads
            .into_iter()
            .map(|record| (record.workload.clone(), record))
            .collect();
        let identities = snapshot.identities.unwrap_or_default();
        let mut identity = identities.objects.into_iter();
        let mut identity = || identity.next().filter(|one| one.generation > 0);
        let mut objects = Map::default();
        let mut workloads = Vec::new();
        let mut manifests = Map::default();
        for record in snapshot.manifests {
            let manifest = Manifest {
                name: record.manifest,
                index: record.index,
                at_ms: record.at_ms,
                objects: record.objects,
            };
            let owner: Arc<str> = Arc::from(manifest.name.as_str());
            for object in &manifest.objects {
                if let Some(name) = workload_of(object)
                    && let Some(record) = records.get(&name)
                {
                    let workload = Workload {
                        name,
                        manifest: manifest.name.clone(),
                        revision: record.revision,
                        index: record.index,
                        at_ms: record.at_ms,
                        job: assign::Job::of(object),
                        failover: Failover::of(object),
                        rules: Lazily::default(),
                        object: object.clone(),
                    };
                    workloads.push(workload);
                }
                let owned = Owned {
                    manifest: Arc::clone(&owner),
                    object: object.clone(),
                    identity: identity(),
                };
                objects.insert_mut(Key::of(object), owned);
            }
            manifests.insert_mut(manifest.name.clone(), manifest);
        }
        let Access {
            authority,
            users,
            audit,
        } = snapshot.access.unwrap_or_default();
        let users = users.into_iter().map(|user| (user.name.clone(), user));
        let mut state = Self {
            cluster: snapshot.cluster,
            hosts: Arc::new(snapshot.hosts.into_iter().map(|h| (h.id, h)).collect()),
            manifests,
            objects,
            used: 0,
            kept: Map::default(),
            workloads: Map::default(),
            used_by: Map::default(),
            tokens: Arc::new(snapshot.tokens.into_iter().map(|t| (t.id, t)).collect()),
            authority: authority.map(Arc::new),
            users: Arc::new(users.collect()),
            audit: audit.into_iter().map(Arc::new).collect(),
            policy: snapshot.policy.map(Arc::new),
            former: snapshot.former.into(),
            level: snapshot.level,
            book: assign::Book::from_snapshot(snapshot.assignments.unwrap_or_default()),
            revisions: Map::default(),
            rollouts: Map::default(),
            created: identities.created,
        };
        for workload in workloads {
            state.insert_workload(workload);
        }
        let held: Vec<Arc<Object>> = state
            .objects
            .values()
            .map(|owned| Arc::clone(&owned.object))
            .collect();
        for object in &held {
            state.count_object(object);
        }
        state.take_revisions(snapshot.revisions.unwrap_or_default(), held);
        state
    }

    /// Adds the revisions of a snapshot; `held` are the objects of its manifests.
    fn take_revisions(&mut self, taken: Revisions, held: Vec<Arc<Object>>) {
        let kept = taken.objects.into_iter().chain(held);
        let by_hash: BTreeMap<[u8; 32], Arc<Object>> =
            kept.map(|object| (object.hash, object)).collect();
        let mut revisions: BTreeMap<String, Vec<Revision>> = BTreeMap::new();
        for record in taken.revisions {
            let parts = record.objects.into_iter().map(|hash| Part {
                hash,
                object: by_hash.get(&hash).cloned(),
            });
            let revision = Revision {
                number: record.revision,
                index: record.index,
                at_ms: record.at_ms,
                who: record.who,
                cause: record.cause,
                parts: parts.collect(),
                end: record.end,
                images: record.images,
                pinned: record.pinned,
            };
            for part in &revision.parts {
                self.count(part);
            }
            revisions.entry(record.workload).or_default().push(revision);
        }
        for (workload, kept) in revisions {
            self.revisions.insert_mut(workload, Arc::new(kept));
        }
        for record in taken.rollouts {
            let on = record.hosts.into_iter().map(|one| {
                let (host, number) = (one.host, one.number);
                (Place { host, number }, one.index)
            });
            let rollout = Rollout {
                base: record.base,
                pods: on.collect(),
                phase: record.phase,
                paused: record.paused,
                moved_at_ms: record.moved_at_ms,
            };
            self.rollouts.insert_mut(record.workload, Arc::new(rollout));
        }
    }
}
