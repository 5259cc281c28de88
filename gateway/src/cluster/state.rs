//! The replicated state. All gateways apply the same commands in the same order, so they have the same state after
//! each.
//!
//! Pure: no I/O, no clock, no randomness; the time is a field of a command. Input: a log index and a [`Command`].
//! Output: an [`Outcome`], and the state that the API shows and the reconciler works towards. A refused command changes
//! nothing. Cloning is cheap, because clones share all parts until one of them changes.

mod assign;
mod audit;
mod hosts;
mod identities;
mod lazily;
mod manifests;
mod policy;
mod recover;
mod revisions;
mod rollouts;
mod room;
mod since;
mod singletons;
mod snapshot;
mod tokens;
mod trail;
mod users;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use beemesh_protocol::{
    ClusterId, HostId,
    peer::{Outcome, Refusal},
    state::{
        Authority, Change, Command, Host, Kind, Object, ObjectIdentity, PolicyRecord, TokenRecord,
        UserRecord,
    },
};
use beemesh_quadlet::manifest::{Failover, is_workload, kind_of, workload_name};
use rpds::RedBlackTreeMapSync;

pub(crate) use assign::{ASSIGNED, claims, is_under_way};
pub(crate) use audit::changed;
pub(crate) use hosts::{DEMOTED_MS, HOSTS_MAX, LOSES};
pub(crate) use lazily::Lazily;
use manifests::Applied;
pub(crate) use revisions::{Part, Revision, no_revision};
pub(crate) use rollouts::{ROLLED, Rollout};
pub(crate) use singletons::changes_single;
pub(crate) use tokens::NO_SUCH_TOKEN;
use trail::Trail;

/// What there can be thousands of: a change costs as much as one path through the tree, and every published view of the
/// state shares the rest.
type Map<K, V> = RedBlackTreeMapSync<K, V>;

/// The result of a command: an outcome, or the reasons of a refusal.
type Decision<T = Outcome> = Result<T, Vec<Refusal>>;

/// The identity of an object within the cluster.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) kind: Kind,
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl Key {
    pub(crate) fn of(object: &Object) -> Self {
        Self {
            kind: object.kind,
            namespace: object.namespace.clone(),
            name: object.name.clone(),
        }
    }
}

/// An object and its manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Owned {
    manifest: Arc<str>,
    object: Arc<Object>,
    /// `None` below level 2.
    identity: Option<ObjectIdentity>,
}

/// A workload that the cluster should run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Workload {
    /// `NAME` or `NAMESPACE_NAME`.
    pub(crate) name: String,
    /// The name of its manifest.
    pub(crate) manifest: String,
    /// The number of changes of the workload or of the objects that it refers to.
    pub(crate) revision: u64,
    /// The log index of this revision.
    pub(crate) index: u64,
    /// When the revision was made, in milliseconds since 1970.
    pub(crate) at_ms: u64,
    /// The object itself.
    pub(crate) object: Arc<Object>,
    /// The settings of its runs if it is a Job.
    pub(crate) job: Option<assign::Job>,
    /// What happens to its pods when their host is lost.
    pub(crate) failover: Failover,
    /// Its scheduling rules, once they were read.
    pub(crate) rules: Lazily,
}

/// A named set of objects that were applied together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) name: String,
    /// The log index of its latest change.
    pub(crate) index: u64,
    /// When it was last changed, in milliseconds since 1970.
    pub(crate) at_ms: u64,
    /// In document order.
    pub(crate) objects: Vec<Arc<Object>>,
}

/// The whole replicated state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct State {
    cluster: Option<ClusterId>,
    hosts: Arc<BTreeMap<HostId, Host>>,
    manifests: Map<String, Manifest>,
    objects: Map<Key, Owned>,
    /// The size of all contents in bytes, derived from them: those of objects and of revisions, equal ones once.
    used: u64,
    /// How many objects and revisions have the contents with this hash of an object. Derived.
    kept: Map<(Key, [u8; 32]), u32>,
    workloads: Map<String, Workload>,
    /// The workloads that refer to each object. Derived from them.
    used_by: Map<Key, Arc<BTreeSet<String>>>,
    tokens: Arc<BTreeMap<[u8; 8], TokenRecord>>,
    authority: Option<Arc<Authority>>,
    users: Arc<BTreeMap<String, UserRecord>>,
    audit: Trail,
    policy: Option<Arc<PolicyRecord>>,
    /// The clusters that this one was recovered from, the latest last.
    former: Arc<[ClusterId]>,
    /// The rules by which changes are applied: see [`beemesh_protocol::state::Snapshot::level`].
    level: u32,
    /// Assignments and claims; empty below level 1.
    book: assign::Book,
    /// The kept revisions of each workload, by log index; empty below level 2.
    revisions: Map<String, Arc<Vec<Revision>>>,
    /// The rollouts in progress; empty below level 2.
    rollouts: Map<String, Arc<Rollout>>,
    /// How many objects have been created since level 2 was reached.
    created: u64,
}

impl State {
    /// Applies one command that was committed at `index`.
    pub(crate) fn apply(&mut self, index: u64, command: &Command) -> Outcome {
        let at_ms = command.at_ms;
        let record = self.record(index, command);
        let origin = command.origin.as_ref();
        let result = match &command.change {
            Change::Found { cluster, host } => self.found(*cluster, host),
            Change::Apply {
                manifest,
                objects,
                policy,
                keep,
                if_index,
            } => self
                .check_policy(*policy)
                .and_then(|()| self.check_index(manifest, *if_index))
                .and_then(|()| {
                    let applied = Applied {
                        manifest,
                        objects,
                        keep: *keep,
                    };
                    self.apply_manifest(index, at_ms, &applied, origin)
                }),
            Change::DeleteWorkload { workload } => self.delete_workload(index, at_ms, workload),
            Change::DeleteManifest { manifest } => self.delete_manifest(manifest),
            Change::PutToken(token) => self.put_token(at_ms, token),
            Change::Admit {
                token,
                secret_hash,
                host,
                replaces,
            } => {
                // A host that changes its own key requests the replacement of itself; only then is it the same machine.
                let asker = command.origin.as_ref().map(|origin| origin.host);
                let is_same = asker.is_some() && asker == *replaces;
                self.admit(at_ms, (token, secret_hash), host, *replaces, is_same)
            }
            Change::PutHost(host) => self.put_host(host),
            Change::RemoveHost { host } => self.remove_host(*host),
            Change::RevokeToken { token } => self.revoke_token(token),
            Change::LabelHost { host, set, remove } => self.label_host(*host, set, remove),
            Change::DrainHost { host, drained } => self.drain_host(*host, *drained),
            Change::DemoteHost { host } => self.demote_host(at_ms, *host),
            Change::LoseHost { host, declared } => self.lose_host(at_ms, *host, *declared),
            Change::ReturnHost { host, steady_at_ms } => self.return_host(*host, *steady_at_ms),
            Change::PutAuthority {
                authority,
                replaced,
            } => self.put_authority(authority, *replaced),
            Change::PutUser(user) => self.put_user(user),
            Change::RevokeUser { user } => self.revoke_user(user),
            Change::SetPolicy {
                document,
                if_version,
            } => self.set_policy(index, at_ms, document, *if_version),
            Change::RaiseLevel { level } | Change::RequireLevel { level } => {
                self.raise_level(index, *level)
            }
            Change::Assign {
                workload,
                ordinal,
                index: seen,
                from,
                host,
            } => self.assign((index, at_ms), (workload, *ordinal), *seen, *from, *host),
            Change::EndJob {
                workload,
                ordinal,
                index: attempt,
                succeeded,
                reason,
                again,
            } => {
                let ended = if *succeeded {
                    Ok(())
                } else {
                    Err(reason.as_str())
                };
                self.end_job(at_ms, (workload, *ordinal), *attempt, ended, *again)
            }
            Change::Roll {
                workload,
                index: seen,
                to,
                hosts,
                numbers,
            } => self.roll(
                at_ms,
                (workload, *seen),
                *to,
                rollouts::places_of(hosts, numbers),
            ),
            Change::EndRollout {
                workload,
                index: seen,
                outcome,
                reason,
                images,
            } => self.end_rollout(at_ms, (workload, *seen), (*outcome, reason), images),
            Change::PauseRollout { workload, paused } => self.pause_rollout(workload, *paused),
            Change::Undo {
                workload,
                revision,
                policy,
            } => self
                .check_policy(*policy)
                .and_then(|()| self.undo(index, at_ms, (workload, *revision), origin)),
        };
        let outcome = result.unwrap_or_else(Outcome::Refused);
        if let Some(record) = record.filter(|_| changed(&outcome)) {
            self.note(record);
        }
        outcome
    }

    /// The outcome that `apply` would have, without a change.
    pub(crate) fn preview(&self, index: u64, command: &Command) -> Outcome {
        self.clone().apply(index, command)
    }

    /// The cluster; `None` before it is founded.
    pub(crate) fn cluster(&self) -> Option<ClusterId> {
        self.cluster
    }

    /// All workloads, sorted by name.
    pub(crate) fn workloads(&self) -> impl ExactSizeIterator<Item = &Workload> {
        self.workloads.values()
    }

    /// One workload.
    pub(crate) fn workload(&self, name: &str) -> Option<&Workload> {
        self.workloads.get(name)
    }

    /// All manifests, sorted by name.
    pub(crate) fn manifests(&self) -> impl ExactSizeIterator<Item = &Manifest> {
        self.manifests.values()
    }

    /// One manifest.
    pub(crate) fn manifest(&self, name: &str) -> Option<&Manifest> {
        self.manifests.get(name)
    }

    /// The names of the workloads that came in a manifest, sorted.
    pub(crate) fn workloads_of(&self, manifest: &str) -> BTreeSet<String> {
        let manifest = self.manifests.get(manifest).into_iter();
        let objects = manifest.flat_map(|manifest| &manifest.objects);
        objects.filter_map(|object| workload_of(object)).collect()
    }

    /// The ConfigMaps, Secrets and claims that an object refers to and that exist.
    pub(crate) fn uses(&self, object: &Object) -> Vec<Arc<Object>> {
        self.references(object)
            .filter_map(|(key, _)| self.objects.get(&key))
            .map(|owned| owned.object.clone())
            .collect()
    }

    /// An object and the name of its manifest.
    pub(crate) fn object(
        &self,
        kind: Kind,
        namespace: &str,
        name: &str,
    ) -> Option<(&str, &Object)> {
        let key = Key {
            kind,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        let owned = self.objects.get(&key)?;
        Some((&owned.manifest, &owned.object))
    }

    /// The objects that an object refers to, and whether each is optional.
    fn references<'a>(&self, object: &'a Object) -> impl Iterator<Item = (Key, bool)> + use<'a> {
        object.references.iter().map(|reference| {
            let key = Key {
                kind: reference.kind,
                namespace: object.namespace.clone(),
                name: reference.name.clone(),
            };
            (key, reference.optional)
        })
    }
}

/// A refusal of the whole command.
fn refused(message: impl Into<String>) -> Vec<Refusal> {
    vec![Refusal {
        missing: false,
        object: None,
        message: message.into(),
    }]
}

/// A refusal because the named thing does not exist.
fn missing(message: impl Into<String>) -> Vec<Refusal> {
    vec![Refusal {
        missing: true,
        object: None,
        message: message.into(),
    }]
}

/// An object's kind and name for messages: `ConfigMap web-conf`.
fn title(object: &Object) -> String {
    let name = workload_name(&object.namespace, &object.name);
    format!("{} {name}", kind_of(object))
}

/// The workload's name if the object is a workload.
fn workload_of(object: &Object) -> Option<String> {
    is_workload(object.kind).then(|| workload_name(&object.namespace, &object.name))
}

#[cfg(test)]
mod tests;
