//! The replicated state's vocabulary: commands, their responses' inputs, and the snapshot's parts.
//!
//! A log entry carries a vector of [`Command`]s. The state machine that applies them lives in the gateway.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{ClusterId, HostId};

/// One change to the replicated state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// The proposer's clock in milliseconds since 1970: the only time the state machine knows.
    pub at_ms: u64,
    /// What to change.
    pub change: Change,
    /// Who asked for it; nothing when a host does this by itself.
    pub origin: Option<Origin>,
}

impl Command {
    /// A change that a host makes by itself, at this time in milliseconds since 1970.
    #[must_use]
    pub fn unasked(at_ms: u64, change: Change) -> Self {
        Self {
            at_ms,
            change,
            origin: None,
        }
    }
}

/// Who asked for a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The host that was asked.
    pub host: HostId,
    /// A user of the remote API, or of that host: `alice`, `uid 0`.
    pub who: String,
    /// What is known of the other end: `pid 4711`, `192.0.2.7:40112`.
    pub from: String,
}

/// What a command changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Makes a cluster of one: the first command of every log.
    Found {
        /// The new cluster's id.
        cluster: ClusterId,
        /// Its first host.
        host: Host,
    },
    /// Replaces the manifest's set of objects; all or nothing.
    Apply {
        /// The manifest's name.
        manifest: String,
        /// Its objects, in document order.
        objects: Vec<Object>,
        /// The version of the policy that accepted them; it is refused once there is another. `None` was not checked, as in a
        /// release without a policy.
        policy: Option<u64>,
    },
    /// Removes one workload, and its manifest with it when it was the last object.
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
    /// Redeems a token and adds its bearer to the hosts. Repeating it for a host that is in is a success.
    Admit {
        /// The token's id.
        token: [u8; 8],
        /// SHA-256 of the secret that was presented.
        secret_hash: [u8; 32],
        /// The new host.
        host: Host,
        /// A member whose place it takes: that one goes, and its labels, its drain and its claim to workloads stay.
        replaces: Option<HostId>,
    },
    /// Updates a member's name and addresses; the rest of it stays as it is.
    PutHost(Host),
    /// Removes a member.
    RemoveHost {
        /// The member.
        host: HostId,
    },
    /// Takes a join token back.
    RevokeToken {
        /// Its id.
        token: [u8; 8],
    },
    /// Changes a member's labels; the others stay.
    LabelHost {
        /// The member.
        host: HostId,
        /// New labels, and new values of those that it has.
        set: BTreeMap<String, String>,
        /// Those that go.
        remove: Vec<String>,
    },
    /// Takes all workloads from a member, or lets it have some again.
    DrainHost {
        /// The member.
        host: HostId,
        /// Whether it is to run nothing.
        drained: bool,
    },
    /// Has a member follow without a vote for a while, so that it can leave: what it is to leave by needs no word of it then.
    DemoteHost {
        /// The member.
        host: HostId,
    },
    /// Makes the authority that issues certificates for the remote API. All certificates of the one before it are void.
    PutAuthority {
        /// The new one.
        authority: Authority,
        /// The key of the one that it replaces, so that of two hosts that make one at once only one does.
        replaced: Option<[u8; 32]>,
    },
    /// Adds a user of the remote API, or gives one another role and certificate.
    PutUser(UserRecord),
    /// Takes a user's certificate back.
    RevokeUser {
        /// The user's name.
        user: String,
    },
    /// Replaces the policy that manifests are checked by. The same document again changes nothing.
    SetPolicy {
        /// Every rule, as its reader writes it. The state machine does not look into it.
        document: String,
        /// Only if the policy has this version.
        if_version: Option<u64>,
    },
    /// Raises the [level](Snapshot::level) of the state machine's rules, once every member runs a release that knows it. A level that
    /// is not higher changes nothing.
    RaiseLevel {
        /// The new level.
        level: u32,
    },
    /// Gives one pod of a workload to a host, or to none. Refused when the workload or its assignment changed meanwhile.
    Assign {
        /// `NAME` or `NAMESPACE_NAME`.
        workload: String,
        /// Which of its pods, from 0.
        ordinal: u32,
        /// The log index of the workload's revision that the proposer saw.
        index: u64,
        /// The host that has it, as the proposer saw it.
        from: Option<HostId>,
        /// The host that gets it.
        host: Option<HostId>,
    },
    /// Records how one attempt of a Job ended. Refused when the attempt is not the current one.
    EndJob {
        /// `NAME` or `NAMESPACE_NAME`.
        workload: String,
        /// Which of its pods, from 0.
        ordinal: u32,
        /// The log index of the assignment that made the attempt.
        index: u64,
        /// Whether it has done its work.
        succeeded: bool,
        /// Why not, in words for a person.
        reason: String,
        /// Whether another attempt may follow a failed one.
        again: bool,
    },
}

/// A member of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Its key.
    pub id: HostId,
    /// Its name for people, unique in the cluster.
    pub name: String,
    /// Multiaddrs it can be dialled at.
    pub addresses: Vec<String>,
    /// Labels for `nodeSelector`.
    pub labels: BTreeMap<String, String>,
    /// It is to run no workloads.
    pub drained: bool,
    /// The key by which workloads are placed on it, when that is not its own: it took the place of the host with that key.
    pub claims_as: Option<HostId>,
    /// When it may have a vote again, in milliseconds since 1970 by the leader's clock; 0 is at any time.
    pub votes_from_ms: u64,
}

/// A join token as it is replicated: without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRecord {
    /// Its id.
    pub id: [u8; 8],
    /// SHA-256 of its secret.
    pub secret_hash: [u8; 32],
    /// When it stops working, in milliseconds since 1970.
    pub expires_ms: u64,
    /// How often it can still be used.
    pub uses: u32,
}

/// What a user of the remote API may do. Each role may do what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UserRole {
    /// Look at workloads, their output and hosts.
    Viewer,
    /// Apply and delete.
    Deployer,
    /// Everything: hosts, tokens, users, backups.
    Admin,
}

impl UserRole {
    /// As people write it.
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
    /// Unique.
    pub name: String,
    /// What the user may do.
    pub role: UserRole,
    /// SHA-256 of the one certificate, in DER, that is taken from this user.
    pub certificate: [u8; 32],
    /// When it was made, in milliseconds since 1970.
    pub made_ms: u64,
    /// When it stops working, in milliseconds since 1970.
    pub expires_ms: u64,
}

/// What issues the certificates of the remote API.
#[derive(Clone, PartialEq, Eq)]
pub struct Authority {
    /// Its own certificate, in DER.
    pub certificate: Vec<u8>,
    /// SHA-256 of the key that `sealed` is encrypted with, which members hand to each other and which is in no log.
    pub key: [u8; 32],
    /// Its private key (PKCS #8), encrypted.
    pub sealed: Vec<u8>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Encrypted, and yet nothing for a log.
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

/// The kinds that Beemesh keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A workload.
    Pod,
    /// A workload.
    Deployment,
    /// A workload.
    DaemonSet,
    /// A workload.
    Job,
    /// Data for workloads.
    ConfigMap,
    /// Data for workloads.
    Secret,
    /// A volume for workloads.
    PersistentVolumeClaim,
}

/// One object of a manifest, checked and in canonical form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// What it is.
    pub kind: Kind,
    /// `default` or another.
    pub namespace: String,
    /// Its `metadata.name`.
    pub name: String,
    /// Canonical JSON: sorted keys, no insignificant space.
    pub body: Vec<u8>,
    /// SHA-256 of `body`.
    pub hash: [u8; 32],
    /// The ConfigMaps, Secrets and claims that a workload uses, sorted, in its own namespace.
    pub references: Vec<Reference>,
    /// `spec.replicas` of a Deployment: on how many hosts it runs. `None` is every host.
    pub replicas: Option<u32>,
    /// `nodeSelector`: only hosts with all these labels run it.
    pub selector: BTreeMap<String, String>,
}

/// A workload's use of another object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    /// What is used.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// Whether the workload can do without it.
    pub optional: bool,
}

/// A workload in a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkloadRecord {
    /// `NAME` or `NAMESPACE_NAME`.
    pub workload: String,
    /// Counts up with every change of the workload or of what it refers to.
    pub revision: u64,
    /// The log index that made this revision.
    pub index: u64,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
}

/// A manifest in a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestRecord {
    /// Its name.
    pub manifest: String,
    /// The log index that last changed it.
    pub index: u64,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// Its objects, in document order.
    pub objects: Vec<Object>,
}

/// A change that somebody asked for and that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRecord {
    /// The log index of the change.
    pub index: u64,
    /// When it was asked for, in milliseconds since 1970.
    pub at_ms: u64,
    /// Who asked for it.
    pub origin: Origin,
    /// What was done: `manifest applied`.
    pub what: String,
    /// To what: `web`.
    pub name: String,
    /// What else there is to say; `None` in records of releases before 0.3.0.
    pub context: Option<AuditContext>,
}

/// What belongs to a change in the audit log and is in no other place of the state once time has passed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditContext {
    /// What was changed of the subject: `zone=a`. Empty where [`AuditRecord::what`] says all.
    pub detail: String,
    /// The name that the host of [`AuditRecord::origin`] had then: its name or its key may have changed since.
    pub host_name: String,
}

/// Who may use the remote API, and who changed what.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Access {
    /// What issues certificates, once somebody needed one.
    pub authority: Option<Authority>,
    /// By name.
    pub users: Vec<UserRecord>,
    /// The latest changes, the oldest first.
    pub audit: Vec<AuditRecord>,
}

/// The policy that manifests are checked by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyRecord {
    /// Counts up with every change; the first that is set has 1.
    pub version: u64,
    /// The log index that set it.
    pub index: u64,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// Every rule, as its reader writes it.
    pub document: String,
}

/// How a Job ended, for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobEnd {
    /// Whether it has done its work.
    pub succeeded: bool,
    /// Why not, in words for a person.
    pub reason: String,
    /// When that was recorded, in milliseconds since 1970.
    pub at_ms: u64,
}

/// Which host has one pod of a workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// `NAME` or `NAMESPACE_NAME`.
    pub workload: String,
    /// Which of its pods, from 0.
    pub ordinal: u32,
    /// The host; `None` while no host has it.
    pub host: Option<HostId>,
    /// The log index that gave it to the host. Of a Job it names the attempt, and is 0 between two of them; an attempt without a host
    /// is one whose host is gone.
    pub index: u64,
    /// Attempts of a Job that failed.
    pub failures: u32,
    /// When the last of them failed, in milliseconds since 1970; 0 when none did.
    pub failed_at_ms: u64,
    /// How the Job ended.
    pub end: Option<JobEnd>,
}

/// A host that has data of a claim.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClaimRecord {
    /// The claim's namespace.
    pub namespace: String,
    /// The claim's name.
    pub name: String,
    /// The host.
    pub host: HostId,
}

/// Who runs what is not run by every host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Assignments {
    /// By workload and ordinal.
    pub assigned: Vec<Assignment>,
    /// By claim and host.
    pub claims: Vec<ClaimRecord>,
}

/// The whole replicated state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The cluster, once founded.
    pub cluster: Option<ClusterId>,
    /// By id.
    pub hosts: Vec<Host>,
    /// By name.
    pub manifests: Vec<ManifestRecord>,
    /// By name.
    pub workloads: Vec<WorkloadRecord>,
    /// By id.
    pub tokens: Vec<TokenRecord>,
    /// What 0.1 does not write.
    pub access: Option<Access>,
    /// The policy; `None` while nobody has set one.
    pub policy: Option<PolicyRecord>,
    /// The clusters that this one was recovered from, the latest last.
    pub former: Vec<ClusterId>,
    /// Which rules the state machine applies changes by: 0 those of 0.2.0, 1 those that keep assignments.
    pub level: u32,
    /// `None` below level 1.
    pub assignments: Option<Assignments>,
}
