//! Conversion of the replicated state to a snapshot, and back.
//!
//! Pure: two conversions. A snapshot omits what can be derived: the manifest of an object, and the object of a
//! workload.

use std::{collections::BTreeMap, sync::Arc};

use beemesh_protocol::state::{Access, ManifestRecord, Snapshot, WorkloadRecord};

use super::{ASSIGNED, Key, Manifest, Map, Owned, State, Workload, assign, room, workload_of};

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
                    objects: manifest.objects.iter().map(|o| (**o).clone()).collect(),
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
        }
    }

    /// The state of a snapshot. It omits a workload record without its object and the reverse, which
    /// [`State::to_snapshot`] never writes.
    pub(crate) fn from_snapshot(snapshot: Snapshot) -> Self {
        let records: BTreeMap<_, _> = snapshot
            .workloads
            .into_iter()
            .map(|record| (record.workload.clone(), record))
            .collect();
        let mut objects = Map::default();
        let mut used = 0;
        let mut workloads = Map::default();
        let mut manifests = Map::default();
        for record in snapshot.manifests {
            let manifest = Manifest {
                name: record.manifest,
                index: record.index,
                at_ms: record.at_ms,
                objects: record.objects.into_iter().map(Arc::new).collect(),
            };
            for object in &manifest.objects {
                if let Some(name) = workload_of(object)
                    && let Some(record) = records.get(&name)
                {
                    let workload = Workload {
                        name: name.clone(),
                        manifest: manifest.name.clone(),
                        revision: record.revision,
                        index: record.index,
                        at_ms: record.at_ms,
                        job: assign::Job::of(object),
                        object: object.clone(),
                    };
                    workloads.insert_mut(name, workload);
                }
                let owned = Owned {
                    manifest: manifest.name.clone(),
                    object: object.clone(),
                };
                used += room::size(object);
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
        Self {
            cluster: snapshot.cluster,
            hosts: Arc::new(snapshot.hosts.into_iter().map(|h| (h.id, h)).collect()),
            manifests,
            objects,
            used,
            workloads,
            tokens: Arc::new(snapshot.tokens.into_iter().map(|t| (t.id, t)).collect()),
            authority: authority.map(Arc::new),
            users: Arc::new(users.collect()),
            audit: audit.into_iter().map(Arc::new).collect(),
            policy: snapshot.policy.map(Arc::new),
            former: snapshot.former.into(),
            level: snapshot.level,
            book: assign::Book::from_snapshot(snapshot.assignments.unwrap_or_default()),
        }
    }
}
