//! The types of the replicated state: commands, the input for their responses, and the parts of a snapshot.
//!
//! A log entry has a vector of [`Command`]s. The gateway has the state machine that applies them.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{ClusterId, HostId, Uid};

mod assignments;
mod moved;
mod revisions;

pub use assignments::{Assignment, Assignments, ClaimRecord, JobEnd, Place};
pub use moved::{MoveReason, Moved};
pub use revisions::{
    HostRevision, RESOLVED_MAX, ResolvedImage, ResolvedImages, RevisionEnd, RevisionOutcome,
    RevisionRecord, Revisions, RolloutPhase, RolloutRecord,
};

/// One change to the replicated state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// The proposer's clock in milliseconds since 1970. The state machine knows no other time.
    pub at_ms: u64,
    /// The change.
    pub change: Change,
    /// Who requested it; `None` if a host proposes it without a request.
    pub origin: Option<Origin>,
}

impl Command {
    /// A change that a host proposes without a request, at this time in milliseconds since 1970.
    #[must_use]
    pub fn unasked(at_ms: u64, change: Change) -> Self {
        Self {
            at_ms,
            change,
            origin: None,
        }
    }
}

/// Who requested a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The host that received the request.
    pub host: HostId,
    /// A user of the remote API, or of that host: `alice`, `uid 0`.
    pub who: String,
    /// The client's address or process: `pid 4711`, `192.0.2.7:40112`.
    pub from: String,
}

/// The change that a command makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Founds a cluster of one host. This is the first command of every log.
    Found {
        /// The new cluster's id.
        cluster: ClusterId,
        /// Its first host.
        host: Host,
    },
    /// Changes the manifest's set of objects atomically.
    Apply {
        /// The manifest's name.
        manifest: String,
        /// Its objects, in document order.
        objects: Vec<Object>,
        /// The version of the policy that the objects were checked against. The state machine refuses the change if the
        /// policy has another version. `None` means that no policy was checked, as in a release without one.
        policy: Option<u64>,
        /// Objects of the manifest that are not among these stay in it. Below level 2 they are always removed.
        keep: bool,
        /// The state machine refuses the change if the manifest has another log index. `None` accepts each.
        if_index: Option<u64>,
    },
    /// Removes one workload. If it was the last object of its manifest, the manifest is removed, too.
    DeleteWorkload {
        /// `NAME` or `NAMESPACE_NAME`.
        workload: String,
    },
    /// Removes a manifest and its objects.
    DeleteManifest {
        /// Its name.
        manifest: String,
    },
    /// Adds a join token.
    PutToken(TokenRecord),
    /// Uses a token and adds its bearer to the hosts. It also succeeds for a host that is a member already.
    Admit {
        /// The token's id.
        token: [u8; 8],
        /// SHA-256 of the secret that was presented.
        secret_hash: [u8; 32],
        /// The new host.
        host: Host,
        /// A member that the host replaces. That member is removed; the host keeps its labels, its drained state and
        /// its claim to workloads.
        replaces: Option<HostId>,
    },
    /// Updates a member's name and addresses; its other fields do not change.
    PutHost(Host),
    /// Removes a member.
    RemoveHost {
        /// The member.
        host: HostId,
    },
    /// Revokes a join token.
    RevokeToken {
        /// Its id.
        token: [u8; 8],
    },
    /// Changes a member's labels. Labels not named here do not change.
    LabelHost {
        /// The member.
        host: HostId,
        /// Labels to add or to change.
        set: BTreeMap<String, String>,
        /// Labels to remove.
        remove: Vec<String>,
    },
    /// Evicts all workloads from a member, or lets it run workloads again.
    DrainHost {
        /// The member.
        host: HostId,
        /// Whether the member must run no workloads.
        drained: bool,
    },
    /// Makes a voter a learner for a limited time before its removal, so that the removal does not need its vote.
    DemoteHost {
        /// The member.
        host: HostId,
    },
    /// Sets the certificate authority of the remote API. All certificates of the previous authority become invalid.
    PutAuthority {
        /// The new authority.
        authority: Authority,
        /// The key of the authority that it replaces. If two hosts propose a new authority at the same time, only one
        /// succeeds.
        replaced: Option<[u8; 32]>,
    },
    /// Adds a user of the remote API, or changes a user's role and certificate.
    PutUser(UserRecord),
    /// Revokes a user's certificate.
    RevokeUser {
        /// The user's name.
        user: String,
    },
    /// Replaces the policy that manifests are checked against. The same document changes nothing.
    SetPolicy {
        /// All rules, as the policy's module writes them. The state machine does not parse the document.
        document: String,
        /// If set, the change applies only to a policy with this version.
        if_version: Option<u64>,
    },
    /// Raises the [level](Snapshot::level) of the state machine's rules, after every member runs a release that knows
    /// it. A level that is not higher changes nothing.
    RaiseLevel {
        /// The new level.
        level: u32,
    },
    /// The same for levels from 2 on. A gateway of a release before these levels does not know this change, so it stops
    /// rather than apply later changes by other rules.
    RequireLevel {
        /// The new level.
        level: u32,
    },
    /// Assigns one pod of a workload to a host or to no host. Refused if the workload or its assignment has changed
    /// since the proposal.
    Assign {
        /// `NAME` or `NAMESPACE_NAME`.
        workload: String,
        /// The number of the pod, from 0.
        ordinal: u32,
        /// The log index of the workload's revision that the proposer saw.
        index: u64,
        /// The host that the proposer saw as its host.
        from: Option<HostId>,
        /// The new host.
        host: Option<HostId>,
    },
    /// Records how one attempt of a Job ended. Refused if the attempt is not the current one.
    EndJob {
        /// `NAME` or `NAMESPACE_NAME`.
        workload: String,
        /// The number of the pod, from 0.
        ordinal: u32,
        /// The log index of the assignment that started the attempt.
        index: u64,
        /// Whether the attempt succeeded.
        succeeded: bool,
        /// The reason of a failure, as a message.
        reason: String,
        /// Whether another attempt may follow a failed one.
        again: bool,
    },
    /// Assigns a revision of a workload to some of its pods. Refused if the workload has no rollout, or has changed
    /// since the proposal.
    Roll {
        /// `NAME` or `NAMESPACE_NAME`.
        workload: String,
        /// The log index of the workload's latest revision, as the proposer saw it.
        index: u64,
        /// The log index of the revision that the hosts are to run: that of the latest revision, or that of the
        /// rollout's base.
        to: u64,
        /// The hosts.
        hosts: Vec<HostId>,
        /// The number of the pod on each of the hosts, from level 3 on; a missing number is 0.
        numbers: Vec<u32>,
    },
    /// Records how the rollout of the latest revision of a workload ended. Refused if the workload has no rollout, or has
    /// changed since the proposal.
    EndRollout {
        /// `NAME` or `NAMESPACE_NAME`.
        workload: String,
        /// The log index of the latest revision, as the proposer saw it.
        index: u64,
        /// How it ended. After [`RevisionOutcome::RolledBack`] the hosts go back to the base.
        outcome: RevisionOutcome,
        /// The hosts that are not reached, or the reason of a failure, as a message.
        reason: String,
        /// The images that all hosts run, if the revision is ready. A later return to it runs these.
        images: ResolvedImages,
    },
    /// Pauses the rollouts of a workload, or lets them go on.
    PauseRollout {
        /// `NAME` or `NAMESPACE_NAME`.
        workload: String,
        /// True pauses them, false lets them go on.
        paused: bool,
    },
    /// Gives up a host that no member reaches: its pods start elsewhere, as far as their workloads allow.
    LoseHost {
        /// The host.
        host: HostId,
        /// A user says so.
        declared: bool,
    },
    /// Takes a host back that was lost, or holds back further pods from one that comes and goes.
    ReturnHost {
        /// The host.
        host: HostId,
        /// Until when it gets no further pods, in milliseconds since 1970; 0 if it gets them at once.
        steady_at_ms: u64,
    },
    /// Makes a new revision of a workload with the contents of an earlier one.
    Undo {
        /// `NAME` or `NAMESPACE_NAME`.
        workload: String,
        /// The number of the earlier revision.
        revision: u64,
        /// The version of the policy that the contents were checked against, as for [`Change::Apply`].
        policy: Option<u64>,
    },
}

/// A member of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Its key.
    pub id: HostId,
    /// Its display name, unique in the cluster.
    pub name: String,
    /// Multiaddrs to dial it.
    pub addresses: Vec<String>,
    /// Labels for `nodeSelector`.
    pub labels: BTreeMap<String, String>,
    /// Whether it is drained and must run no workloads.
    pub drained: bool,
    /// The key to use for the placement of workloads if it is not the host's own key: the host replaced the host with
    /// that key.
    pub claims_as: Option<HostId>,
    /// When it may become a voter again, in milliseconds since 1970 by the leader's clock; 0 means at any time.
    pub votes_from_ms: u64,
    /// When the cluster gave it up because no member reached it, in milliseconds since 1970 by the leader's clock; 0 if it
    /// has not.
    pub lost_at_ms: u64,
    /// A user has said that it is lost.
    pub declared_lost: bool,
    /// It comes and goes, so it gets no further pods before this time, in milliseconds since 1970; 0 means at once.
    pub steady_at_ms: u64,
}

/// A join token in the replicated state: without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRecord {
    /// Its id.
    pub id: [u8; 8],
    /// SHA-256 of its secret.
    pub secret_hash: [u8; 32],
    /// When it expires, in milliseconds since 1970.
    pub expires_ms: u64,
    /// How many joins it still permits.
    pub uses: u32,
}

/// What a user of the remote API may do. Each role may do what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UserRole {
    /// May read workloads, their logs and hosts.
    Viewer,
    /// May also apply and delete manifests.
    Deployer,
    /// May do everything: hosts, tokens, users, backups.
    Admin,
}

impl UserRole {
    /// The role's name in messages and on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Deployer => "deployer",
            Self::Admin => "admin",
        }
    }
}

/// A user of the remote API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserRecord {
    /// Unique name.
    pub name: String,
    /// What the user may do.
    pub role: UserRole,
    /// SHA-256 of the user's only valid certificate, in DER.
    pub certificate: [u8; 32],
    /// When it was issued, in milliseconds since 1970.
    pub made_ms: u64,
    /// When it expires, in milliseconds since 1970.
    pub expires_ms: u64,
}

/// The certificate authority of the remote API.
#[derive(Clone, PartialEq, Eq)]
pub struct Authority {
    /// Its own certificate, in DER.
    pub certificate: Vec<u8>,
    /// SHA-256 of the key that encrypts `sealed`. Members send that key to each other, and no log contains it.
    pub key: [u8; 32],
    /// Its private key (PKCS #8), encrypted.
    pub sealed: Vec<u8>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The key is encrypted, but must still not be logged.
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

/// The kinds of objects that Beemesh supports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A workload: one pod.
    Pod,
    /// A workload: a number of identical pods. A ReplicaSet or ReplicationController is carried as one, too.
    Deployment,
    /// A workload: one pod on every host.
    DaemonSet,
    /// A workload: a pod that runs to completion.
    Job,
    /// Configuration data for workloads.
    ConfigMap,
    /// Confidential data for workloads.
    Secret,
    /// A volume for workloads.
    PersistentVolumeClaim,
}

/// One object of a manifest, checked and in canonical form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace; `default` if the manifest names none.
    pub namespace: String,
    /// Its `metadata.name`.
    pub name: String,
    /// Canonical JSON: sorted keys, no insignificant space.
    pub body: Vec<u8>,
    /// SHA-256 of `body`.
    pub hash: [u8; 32],
    /// The ConfigMaps, Secrets and claims that a workload uses, sorted, from its namespace.
    pub references: Vec<Reference>,
    /// `spec.replicas` of a Deployment: the number of hosts that run it. `None` means every host.
    pub replicas: Option<u32>,
    /// `nodeSelector`: only hosts with all these labels run it.
    pub selector: BTreeMap<String, String>,
}

/// A workload's use of another object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    /// The kind of the used object.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// Whether the workload can run without it.
    pub optional: bool,
}

/// A workload in a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkloadRecord {
    /// `NAME` or `NAMESPACE_NAME`.
    pub workload: String,
    /// The number of changes of the workload or of the objects that it refers to.
    pub revision: u64,
    /// The log index of this revision.
    pub index: u64,
    /// When the revision was made, in milliseconds since 1970.
    pub at_ms: u64,
}

/// What an object has beside its contents, as in Kubernetes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectIdentity {
    /// Its UID.
    pub uid: Uid,
    /// The number of its contents so far, from 1; 0 only for an object without an identity.
    pub generation: u64,
    /// The log index of the last change of its contents.
    pub index: u64,
}

/// The identities of all objects in a snapshot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identities {
    /// How many objects the cluster has created since it has identities.
    pub created: u64,
    /// Those of the objects of all manifests, in the order in which the snapshot has them.
    pub objects: Vec<ObjectIdentity>,
}

/// A manifest in a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestRecord {
    /// Its name.
    pub manifest: String,
    /// The log index of its latest change.
    pub index: u64,
    /// When it was last changed, in milliseconds since 1970.
    pub at_ms: u64,
    /// Its objects, in document order.
    pub objects: Vec<Arc<Object>>,
}

/// A change in the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRecord {
    /// The log index of the change.
    pub index: u64,
    /// When it was requested, in milliseconds since 1970.
    pub at_ms: u64,
    /// Who requested it.
    pub origin: Origin,
    /// The action: `manifest applied`.
    pub what: String,
    /// The object of the action: `web`.
    pub name: String,
    /// Further data; `None` in records of releases before 0.3.0.
    pub context: Option<AuditContext>,
}

/// Data of a change in the audit log that the state does not keep in another place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditContext {
    /// What was changed of the subject: `zone=a`. Empty if [`AuditRecord::what`] says all.
    pub detail: String,
    /// The name of the host of [`AuditRecord::origin`] at that time. The host's name or key may have changed since.
    pub host_name: String,
}

/// Users of the remote API, and the audit log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Access {
    /// The certificate authority; `None` until it is first needed.
    pub authority: Option<Authority>,
    /// Sorted by name.
    pub users: Vec<UserRecord>,
    /// The latest changes, the oldest first.
    pub audit: Vec<AuditRecord>,
}

/// The policy that manifests are checked against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyRecord {
    /// The number of changes so far; the first policy that a user sets has 1.
    pub version: u64,
    /// The log index of its latest change.
    pub index: u64,
    /// When it was set, in milliseconds since 1970.
    pub at_ms: u64,
    /// All rules, as the policy's module writes them.
    pub document: String,
}

/// The whole replicated state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The cluster; `None` before it is founded.
    pub cluster: Option<ClusterId>,
    /// Sorted by id.
    pub hosts: Vec<Host>,
    /// Sorted by name.
    pub manifests: Vec<ManifestRecord>,
    /// Sorted by name.
    pub workloads: Vec<WorkloadRecord>,
    /// Sorted by id.
    pub tokens: Vec<TokenRecord>,
    /// Users and the audit log; 0.1 does not write them.
    pub access: Option<Access>,
    /// The policy; `None` if no user has set one.
    pub policy: Option<PolicyRecord>,
    /// The clusters that this one was recovered from, the latest last.
    pub former: Vec<ClusterId>,
    /// The rules by which the state machine applies changes: 0 means those of 0.2.0, 1 those that keep assignments, 2
    /// those that keep revisions and roll them out.
    pub level: u32,
    /// The assignments; `None` below level 1.
    pub assignments: Option<Assignments>,
    /// The revisions and rollouts; `None` below level 2.
    pub revisions: Option<Revisions>,
    /// The identities of the objects; `None` below level 2.
    pub identities: Option<Identities>,
}
