//! The JSON of the HTTP API, as both of its ends read and write it.
//!
//! Pure: shapes only. Names are camelCase on the wire; a reader ignores fields that it does not know, so that a newer
//! gateway can say more.

mod access;
mod policy;
pub mod recovery;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{ClusterId, HostId, pod::ContainerReport};

pub use crate::state::UserRole;
pub use access::{Audit, Audited, ClientConfig, User, UserAnswer, UserRequest, Users};
pub use policy::{Policy, PolicySet};

/// The header in which the command line tells the login and the unit of its caller, for the audit log. A gateway reads it from
/// callers on its own host only, keeps the first 64 bytes, and relies on it for nothing.
pub const SESSION_HEADER: &str = "beemesh-session";

/// The answer to everything that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorAnswer {
    /// What failed.
    pub error: Failure,
}

/// What failed, why, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// For programs.
    pub code: Code,
    /// In words for a person: what failed, on what.
    pub message: String,
    /// In words for a person: what to do. Empty when there is nothing to advise.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hint: String,
    /// Every problem of a manifest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Problem>,
}

/// The kinds of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Code {
    /// The request or the manifest in it is wrong: repeating it will not help.
    Invalid,
    /// It contradicts what the cluster holds.
    Conflict,
    /// What it names does not exist.
    NotFound,
    /// No quorum, no leader or no connection: the same request may succeed later.
    Unavailable,
    /// The caller may not do that.
    Forbidden,
    /// The body exceeds its limit.
    TooLarge,
    /// The gateway or something it depends on failed.
    Internal,
}

/// One thing that is wrong with a manifest, or worth a warning.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Which document of the file, from 1; 0 is the whole file.
    pub document: u32,
    /// The line of the file, from 1; 0 when unknown.
    pub line: u32,
    /// The path of the field, such as `spec.containers[0].image`; empty for the whole document.
    pub field: String,
    /// In words for a person.
    pub message: String,
}

/// The answer to `POST /v1/apply`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Applied {
    /// The manifest's name.
    pub manifest: String,
    /// The log index it was committed at; with `dryRun`, the index of the state it was tried on.
    pub index: u64,
    /// Nothing was changed: this is what would happen.
    pub dry_run: bool,
    /// With `wait`: as many pods of every workload as were asked for were ready, for as long as [`crate::rollout`] asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settled: Option<bool>,
    /// In document order, then what the manifest no longer has.
    pub objects: Vec<AppliedObject>,
    /// What is odd about the file but no error.
    pub warnings: Vec<Problem>,
    /// With `wait`: the manifest's workloads as they are now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workloads: Option<Vec<Workload>>,
}

/// What an apply did to one object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AppliedObject {
    /// `Pod`, `ConfigMap`, ...
    pub kind: String,
    /// `NAME` or `NAMESPACE_NAME`.
    pub name: String,
    /// What happened.
    pub action: Action,
    /// A workload's revision now; 0 for other kinds and for removed workloads.
    pub revision: u64,
}

/// What happened to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Action {
    /// It is new.
    Created,
    /// Its content changed, or that of an object it refers to.
    Updated,
    /// It was already like this.
    Unchanged,
    /// The manifest no longer has it.
    Removed,
}

/// The answer to a deletion.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Deleted {
    /// The log index it was committed at.
    pub index: u64,
    /// The workloads that are gone.
    pub removed: Vec<String>,
    /// With `wait`: no host has anything of them any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settled: Option<bool>,
    /// With `wait`: hosts that still have something of them, or cannot be reached to tell.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting_for: Vec<String>,
}

/// The answer to `GET /v1/workloads`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workloads {
    /// By name.
    pub workloads: Vec<Workload>,
}

/// A workload and what it does on its hosts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Workload {
    /// `NAME` or `NAMESPACE_NAME`: also the pod's name and part of the unit's.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// `Pod`, `Deployment`, ...
    pub kind: String,
    /// The manifest that it came with.
    pub manifest: String,
    /// Counts up with every change.
    pub revision: u64,
    /// The log index of this revision.
    pub index: u64,
    /// When this revision was applied, in milliseconds since 1970.
    pub applied_at_ms: u64,
    /// As many pods as were asked for are ready now, and no other host has one. [`crate::rollout`] says how long that must last.
    pub settled: bool,
    /// It is not settled and will not be by itself: where it should run it is ready, failed or stopped, or no further host may
    /// run it.
    #[serde(default)]
    pub stuck: bool,
    /// How many pods were asked for: `replicas`, or one for each host that may run it.
    #[serde(default)]
    pub asked: u32,
    /// How many of them are ready: this revision, every container healthy and none in trouble, or its work is done.
    #[serde(default)]
    pub ready: u32,
    /// Why fewer hosts run it than were asked for, in words for a person; empty when as many do. What a host itself suffers from
    /// is in its `message`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// How long a pod must be ready until it counts, as its author asks.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub min_ready_seconds: u32,
    /// The hosts that should run it, and those that still have it; by name.
    pub hosts: Vec<WorkloadHost>,
    /// The object as it was applied, in canonical form; only when one workload is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<serde_json::Value>,
}

/// A workload on one host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkloadHost {
    /// The host's name.
    pub host: String,
    /// The host's key.
    pub id: HostId,
    /// What the workload does there.
    pub phase: Phase,
    /// The revision that is there; 0 when none is.
    pub revision: u64,
    /// Containers that are healthy.
    pub healthy: u32,
    /// Containers it has.
    pub total: u32,
    /// Restarts of its containers since the pod was made.
    pub restarts: u32,
    /// Why it is not running, or what is going on.
    pub message: String,
    /// Whether the host can be reached; when not, the rest is what it said last.
    pub reachable: bool,
    /// Its containers that have more to tell than that they run: those that are down, were restarted, or have a probe that fails.
    /// At most [eight](crate::pod::CONTAINERS_TOLD_MAX).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub containers: Vec<ContainerReport>,
}

/// What a workload does on a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Phase {
    /// Work on it has not begun.
    Pending,
    /// Its images are being pulled, its pod is being made or replaced.
    Starting,
    /// Its pod runs.
    Running,
    /// Its pod has done its job and exited.
    Succeeded,
    /// The administrator of the host stopped the unit.
    Stopped,
    /// It could not be started or was given up.
    Failed,
    /// It is being removed.
    Removing,
}

/// The answer to `GET /v1/manifests`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifests {
    /// By name.
    pub manifests: Vec<Manifest>,
}

/// A manifest and what it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Its name.
    pub name: String,
    /// The log index that last changed it.
    pub index: u64,
    /// When that was, in milliseconds since 1970.
    pub applied_at_ms: u64,
    /// In document order.
    pub objects: Vec<ObjectName>,
}

/// Names an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectName {
    /// `Pod`, `ConfigMap`, ...
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// Its `metadata.name`.
    pub name: String,
}

/// The answer to `GET /v1/hosts`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hosts {
    /// By name.
    pub hosts: Vec<Host>,
}

/// A member of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// Its name.
    pub name: String,
    /// Its key.
    pub id: HostId,
    /// Multiaddrs it can be dialled at.
    pub addresses: Vec<String>,
    /// Its part in the consensus.
    pub role: Role,
    /// Whether the answering host is connected to it.
    pub reachable: bool,
    /// When the answering host lost its connection to it, in milliseconds since 1970. Absent while it is reachable, and
    /// if the gateway of the answering host started after that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost_at_ms: Option<u64>,
    /// What a `nodeSelector` can ask for.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// It is to run no workloads.
    #[serde(default)]
    pub drained: bool,
    /// The last log index it has applied, as it said last.
    pub applied: u64,
    /// Its Beemesh version; empty while unknown.
    pub version: String,
    /// Its Podman version; empty while unknown.
    pub podman: String,
    /// What it waits for or suffers from; empty when all is well.
    pub trouble: String,
}

/// A host's part in the consensus.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Role {
    /// It proposes what all others follow.
    Leader,
    /// It votes.
    Follower,
    /// It is asking to become leader.
    Candidate,
    /// It follows without a vote.
    Learner,
    /// It is no member of its cluster any more.
    Removed,
}

impl Role {
    /// As it is on the wire.
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

/// The answer to `GET /v1/status`: what the answering host knows, without asking others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The cluster; absent while none is founded or joined.
    pub cluster: Option<ClusterId>,
    /// The answering host's name.
    pub host: String,
    /// Its key.
    pub id: HostId,
    /// Its part in the consensus.
    pub role: Role,
    /// The leader it knows of.
    pub leader: Option<Leader>,
    /// The leader that a reachable member hears, while this host hears none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub elsewhere: Option<Leader>,
    /// The Raft term.
    pub term: u64,
    /// The last log index it has applied.
    pub applied: u64,
    /// Whether changes can be committed, as far as this host can tell.
    pub quorum: bool,
    /// Names of the hosts that vote.
    pub voters: Vec<String>,
    /// Names of the hosts that follow without a vote.
    pub learners: Vec<String>,
    /// Counts of hosts.
    pub hosts: HostCounts,
    /// Counts of workloads.
    pub workloads: WorkloadCounts,
    /// Its Beemesh version.
    pub version: String,
    /// Its Podman version; empty while unknown.
    pub podman: String,
    /// What it waits for or suffers from; empty when all is well.
    pub trouble: String,
}

/// The leader.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leader {
    /// Its name.
    pub name: String,
    /// Its key.
    pub id: HostId,
}

/// How many hosts there are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostCounts {
    /// Members of the cluster.
    pub total: usize,
    /// Those the answering host can reach, itself included.
    pub reachable: usize,
    /// Names of the others.
    pub missing: Vec<String>,
}

/// How many workloads there are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkloadCounts {
    /// All.
    pub total: usize,
    /// Those of which as many pods as were asked for are ready.
    pub healthy: usize,
}

/// The data of `event: state`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateEvent {
    /// Everything up to this log index is in the events before this one.
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
    /// How long it can be used, in seconds.
    pub ttl_seconds: u64,
    /// How many hosts can join with it. Not written when it is one, which a gateway of 0.1 takes for granted.
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

/// The answer to `POST /v1/tokens`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TokenAnswer {
    /// One line for `beemesh join`. It holds a secret.
    pub token: String,
    /// What it is called in `GET /v1/tokens`.
    #[serde(default)]
    pub id: String,
    /// When it stops working, in milliseconds since 1970.
    pub expires_at_ms: u64,
}

/// The answer to `GET /v1/tokens`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tokens {
    /// Those that can be used still; the first to expire first.
    pub tokens: Vec<JoinToken>,
}

/// A join token, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JoinToken {
    /// Sixteen hexadecimal digits.
    pub id: String,
    /// How many hosts can still join with it.
    pub uses: u32,
    /// When it stops working, in milliseconds since 1970.
    pub expires_at_ms: u64,
}

/// The answer to `DELETE /v1/tokens/ID`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Revoked {
    /// The log index of the change.
    pub index: u64,
}

impl std::fmt::Debug for TokenAnswer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The token holds a secret, which stays out of every log.
        f.debug_struct("TokenAnswer")
            .field("expires_at_ms", &self.expires_at_ms)
            .finish_non_exhaustive()
    }
}

/// The body of `PATCH /v1/hosts/NAME/labels`: new values, and `null` for labels that go (RFC 7396).
pub type LabelsPatch = BTreeMap<String, Option<String>>;

/// The answer to a change of a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostChanged {
    /// The log index it was committed at.
    pub index: u64,
    /// The host's name.
    pub host: String,
    /// With `wait`, and where the host is removed: what was asked for is so everywhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settled: Option<bool>,
    /// What is not so yet, such as `web on h1`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting_for: Vec<String>,
    /// What a drained host keeps, such as `ledger stops, and waits for h2, which has its claim data`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leaves: Vec<String>,
    /// A pod stays for data that it has on the drained host. 0.2 does not say so.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub leaves_data: bool,
}

/// The answer to `POST /v1/restore`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Restored {
    /// The log index of the last change, or of the state that was found when there was nothing to change.
    pub index: u64,
    /// The manifests in the backup.
    pub manifests: usize,
    /// Those of them that the cluster had already.
    pub unchanged: usize,
}

/// The body of `POST /v1/join`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinBody {
    /// The line that `POST /v1/tokens` gave.
    pub token: String,
    /// IP addresses at which the other hosts reach this one; none for those of its interfaces, or those that were given
    /// before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub advertise: Vec<core::net::IpAddr>,
    /// The member that is lost and whose place this host takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replace: Option<String>,
}

impl std::fmt::Debug for JoinBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JoinBody").finish_non_exhaustive()
    }
}

/// The answer to `POST /v1/join`: a member admitted this host, which now catches up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joining {
    /// The cluster.
    pub cluster: ClusterId,
    /// Names of its members.
    pub members: Vec<String>,
}

/// The answer to `POST /v1/key`: the host has another key, and its gateway begins again with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyChanged {
    /// The new one.
    pub id: HostId,
    /// The one that opens nothing any more.
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
