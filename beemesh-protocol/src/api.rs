//! The JSON of the HTTP API, for the client and the server.
//!
//! Pure: types only. Names are camelCase in JSON. A reader ignores fields that it does not know, so that a newer
//! gateway can add fields.

mod access;
mod applied;
mod compared;
mod moved;
mod pods;
mod policy;
pub mod recovery;
mod rollout;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{ClusterId, HostId};

pub use crate::state::{ObjectIdentity, UserRole};
pub use access::{Audit, Audited, ClientConfig, User, UserAnswer, UserRequest, Users};
pub use applied::{Action, Applied, AppliedObject, Deleted};
pub use compared::{Compared, ComparedObject};
pub use moved::{MoveReason, MovedFrom};
pub use pods::{Phase, WorkloadHost};
pub use policy::{Policy, PolicySet};
pub use rollout::{
    Revision, RevisionImage, RevisionObject, RevisionOutcome, Revisions, Rollout, RolloutAction,
    RolloutChange, RolloutChanged, RolloutPhase,
};

/// The header in which the command line tells the login and the unit of its caller, for the audit log. A gateway reads it from
/// callers on its own host only, keeps the first 64 bytes, and relies on it for nothing.
pub const SESSION_HEADER: &str = "beemesh-session";

/// The response to a failed request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorAnswer {
    /// The failure.
    pub error: Failure,
}

/// What failed, why, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The kind of failure, for programs.
    pub code: Code,
    /// What failed and on what, as a message.
    pub message: String,
    /// What to do, as a message. Empty if there is no advice.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hint: String,
    /// Every problem of the manifest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Problem>,
    /// Hosts are pulling images. The same request succeeds when they have them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pulling: bool,
}

/// The kinds of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Code {
    /// The request or its manifest is wrong. A retry fails in the same way.
    Invalid,
    /// The request contradicts the state of the cluster.
    Conflict,
    /// The request names an object that does not exist.
    NotFound,
    /// No quorum, no leader or no connection. A retry may succeed later.
    Unavailable,
    /// The caller has no permission.
    Forbidden,
    /// The body exceeds its limit.
    TooLarge,
    /// The gateway or a program that it uses failed.
    Internal,
}

/// An error in a manifest, or a warning about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The number of the document in the manifest, from 1; 0 for the whole manifest.
    pub document: u32,
    /// The line of the manifest, from 1; 0 if unknown.
    pub line: u32,
    /// The path of the field, such as `spec.containers[0].image`; empty for the whole document.
    pub field: String,
    /// What is wrong, as a message.
    pub message: String,
}

/// The response to `GET /v1/workloads`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workloads {
    /// The workloads, sorted by name.
    pub workloads: Vec<Workload>,
}

/// A workload and its state on its hosts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Workload {
    /// `NAME` or `NAMESPACE_NAME`: the name of the pod and a part of the unit's name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its kind, such as `Pod` or `Deployment`.
    pub kind: String,
    /// The manifest that contains it.
    pub manifest: String,
    /// The number of its version, which increases with every change.
    pub revision: u64,
    /// The log index of this revision.
    pub index: u64,
    /// When this revision was applied, in milliseconds since 1970.
    pub applied_at_ms: u64,
    /// All requested pods are ready now, and no other host has one. [`crate::rollout`] defines how long that must last.
    pub settled: bool,
    /// The workload is not settled and stays so without a change by a user. Each of its hosts reports it as ready,
    /// failed or stopped, or no other host may run it.
    #[serde(default)]
    pub stuck: bool,
    /// A user has stopped it, with the annotation `beemesh.io/stopped`: no pod is requested.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stopped: bool,
    /// The number of requested pods: `replicas`, or one for each host that may run it.
    #[serde(default)]
    pub asked: u32,
    /// The number of ready pods. A pod is ready if it has the revision that its host is to run and every container is healthy and none has
    /// ended lately, or if it has completed.
    #[serde(default)]
    pub ready: u32,
    /// Why fewer hosts run it than requested, as a message; empty if as many do. A problem of a host is in its
    /// `message`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// The rollout of this revision, from its begin to its end; a failed one stays until the next change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Rollout>,
    /// How long a pod must be ready before it counts, from the manifest.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub min_ready_seconds: u32,
    /// The pods that it should have and those that are still there, sorted by the names of their hosts and their own.
    pub hosts: Vec<WorkloadHost>,
    /// The UID and generation of its object, and the log index of the object's last change; absent until all members run
    /// 0.4.0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<ObjectIdentity>,
    /// The applied object in canonical form; only in the response for one workload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<serde_json::Value>,
}

/// The response to `GET /v1/manifests`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifests {
    /// The manifests, sorted by name.
    pub manifests: Vec<Manifest>,
}

/// A manifest and the names of its objects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Its name.
    pub name: String,
    /// The log index of its last change.
    pub index: u64,
    /// When it was last changed, in milliseconds since 1970.
    pub applied_at_ms: u64,
    /// Its objects, in document order.
    pub objects: Vec<ManifestObject>,
}

/// An object of a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestObject {
    /// Its kind, such as `Pod` or `ConfigMap`.
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// Its `metadata.name`.
    pub name: String,
    /// Its UID, generation and the log index of its last change; absent until all members run 0.4.0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<ObjectIdentity>,
}

/// The response to `GET /v1/hosts`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hosts {
    /// The hosts, sorted by name.
    pub hosts: Vec<Host>,
}

/// A member of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// Its name.
    pub name: String,
    /// Its identity key.
    pub id: HostId,
    /// The multiaddrs at which other hosts reach it.
    pub addresses: Vec<String>,
    /// Its role in the consensus.
    pub role: Role,
    /// Whether the answering host is connected to it.
    pub reachable: bool,
    /// When the answering host lost its connection to it, in milliseconds since 1970. Absent while it is reachable, and
    /// if the gateway of the answering host started after that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost_at_ms: Option<u64>,
    /// Present if the cluster has given the host up: no member reached it for too long, or a user said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<LostHost>,
    /// Until when the host gets no further pods because it comes and goes, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steady_at_ms: Option<u64>,
    /// What it has; absent from releases before 0.5.0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<Capacity>,
    /// What a `nodeSelector` can ask for.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Whether the host is drained and runs no workloads.
    #[serde(default)]
    pub drained: bool,
    /// The last log index that it has applied, from its last report.
    pub applied: u64,
    /// Its Beemesh version; empty if unknown.
    pub version: String,
    /// Its Podman version; empty if unknown.
    pub podman: String,
    /// What it waits for, or its problem, as a message; empty if there is none.
    pub trouble: String,
}

/// What a host has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Capacity {
    /// Its processors, in thousandths of a core.
    pub cpu_millis: u32,
    /// Its memory, in bytes.
    pub memory_bytes: u64,
}

/// A host that the cluster has given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LostHost {
    /// Since when, in milliseconds since 1970.
    pub since_ms: u64,
    /// A user has said so.
    pub declared: bool,
}

/// The role of a host in the consensus.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Role {
    /// It orders the changes.
    Leader,
    /// It votes and is not the leader.
    Follower,
    /// It is standing for election.
    Candidate,
    /// It receives the log and does not vote.
    Learner,
    /// It is no longer a member of its cluster.
    Removed,
}

impl Role {
    /// The name of the role in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Role::Leader => "leader",
            Role::Follower => "follower",
            Role::Candidate => "candidate",
            Role::Learner => "learner",
            Role::Removed => "removed",
        }
    }
}

/// The response to `GET /v1/status`: the data of the answering host, which asks no other host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The id of the cluster; absent until the host founds or joins one.
    pub cluster: Option<ClusterId>,
    /// The answering host's name.
    pub host: String,
    /// Its identity key.
    pub id: HostId,
    /// Its role in the consensus.
    pub role: Role,
    /// The leader that it hears.
    pub leader: Option<Leader>,
    /// The leader that a reachable member hears, if this host hears none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub elsewhere: Option<Leader>,
    /// The Raft term.
    pub term: u64,
    /// The last log index that it has applied.
    pub applied: u64,
    /// Whether the cluster can commit changes, as far as this host knows.
    pub quorum: bool,
    /// Names of the voters.
    pub voters: Vec<String>,
    /// Names of the learners.
    pub learners: Vec<String>,
    /// The numbers of hosts.
    pub hosts: HostCounts,
    /// The numbers of workloads.
    pub workloads: WorkloadCounts,
    /// Its Beemesh version.
    pub version: String,
    /// Its Podman version; empty if unknown.
    pub podman: String,
    /// What it waits for, or its problem, as a message; empty if there is none.
    pub trouble: String,
}

/// The leader of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leader {
    /// Its name.
    pub name: String,
    /// Its identity key.
    pub id: HostId,
}

/// The numbers of hosts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostCounts {
    /// Members of the cluster.
    pub total: usize,
    /// The hosts that the answering host reaches, including itself.
    pub reachable: usize,
    /// Names of the unreachable hosts.
    pub missing: Vec<String>,
}

/// The numbers of workloads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkloadCounts {
    /// All workloads.
    pub total: usize,
    /// The workloads with all requested pods ready.
    pub healthy: usize,
}

/// The data of `event: state`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateEvent {
    /// The events before this one include all changes up to this log index.
    pub index: u64,
}

/// The data of `event: gone`: a workload that the cluster no longer has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GoneEvent {
    /// Its name.
    pub name: String,
}

/// The body of `POST /v1/tokens`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TokenRequest {
    /// How long it is valid, in seconds.
    pub ttl_seconds: u64,
    /// The number of hosts that can join with it. Omitted if it is one, which a gateway of 0.1 assumes.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub uses: u32,
}

fn one() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes it so")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes it so")]
fn is_one(uses: &u32) -> bool {
    *uses == 1
}

/// The response to `POST /v1/tokens`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TokenAnswer {
    /// The token for `beemesh join`, on one line. It contains a secret.
    pub token: String,
    /// Its id in `GET /v1/tokens`.
    #[serde(default)]
    pub id: String,
    /// When it expires, in milliseconds since 1970.
    pub expires_at_ms: u64,
}

/// The response to `GET /v1/tokens`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tokens {
    /// The valid tokens, sorted by expiry.
    pub tokens: Vec<JoinToken>,
}

/// A join token, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JoinToken {
    /// Its id: sixteen hexadecimal digits.
    pub id: String,
    /// The number of hosts that can still join with it.
    pub uses: u32,
    /// When it expires, in milliseconds since 1970.
    pub expires_at_ms: u64,
}

/// The response to `DELETE /v1/tokens/ID`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Revoked {
    /// The log index of the change.
    pub index: u64,
}

impl std::fmt::Debug for TokenAnswer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The token contains a secret, which must not be logged.
        f.debug_struct("TokenAnswer")
            .field("expires_at_ms", &self.expires_at_ms)
            .finish_non_exhaustive()
    }
}

/// The body of `PATCH /v1/hosts/NAME/labels`: new values, and `null` for labels to remove (RFC 7396).
pub type LabelsPatch = BTreeMap<String, Option<String>>;

/// The response to a change of a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostChanged {
    /// The log index at which it was committed.
    pub index: u64,
    /// The host's name.
    pub host: String,
    /// With `wait`, and if the host is removed: whether all hosts have carried out the change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settled: Option<bool>,
    /// What is not carried out yet, such as `web on h1`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting_for: Vec<String>,
    /// The workloads that stay on a drained host, such as `ledger stops, and waits for h2, which has its claim data`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leaves: Vec<String>,
    /// Whether a pod stays because its data is on the drained host. 0.2 does not send this field.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub leaves_data: bool,
}

/// The response to `POST /v1/restore`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Restored {
    /// The log index of the last change; if there was nothing to change, that of the state.
    pub index: u64,
    /// The number of manifests in the backup.
    pub manifests: usize,
    /// The number of those that the cluster had already.
    pub unchanged: usize,
}

/// The body of `POST /v1/join`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinBody {
    /// The token from `POST /v1/tokens`.
    pub token: String,
    /// IP addresses at which the other hosts reach this one. If empty, the previous ones are used, or else those of its
    /// interfaces.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub advertise: Vec<core::net::IpAddr>,
    /// The lost member that this host replaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replace: Option<String>,
}

impl std::fmt::Debug for JoinBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JoinBody").finish_non_exhaustive()
    }
}

/// The response to `POST /v1/join`: a member has admitted this host, which now catches up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joining {
    /// The id of the cluster.
    pub cluster: ClusterId,
    /// Names of its members.
    pub members: Vec<String>,
}

/// The response to `POST /v1/key`: the host has a new key, with which its gateway restarts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyChanged {
    /// The new key.
    pub id: HostId,
    /// The old key, which is no longer valid.
    pub old: HostId,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_for_one_host_is_asked_for_in_words_that_0_1_knows() {
        for (uses, body) in [
            (1, r#"{"ttlSeconds":60}"#),
            (3, r#"{"ttlSeconds":60,"uses":3}"#),
        ] {
            let request = TokenRequest {
                ttl_seconds: 60,
                uses,
            };
            assert_eq!(serde_json::to_string(&request).expect("it is JSON"), body);
            let read: TokenRequest = serde_json::from_str(body).expect("it is a request");
            assert_eq!(read, request);
        }
    }
}
