//! Rollouts and revisions.
//!
//! Pure: types.

use serde::{Deserialize, Serialize};

/// The rollout of a workload's latest revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rollout {
    /// Its state.
    pub phase: RolloutPhase,
    /// The revision that the other pods run, and to which a failed rollout goes back.
    pub from: u64,
    /// The number of pods that are to run the latest revision.
    pub updated: u32,
    /// The number of pods that may be not ready at a time.
    pub max_unavailable: u32,
}

/// The state of a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RolloutPhase {
    /// The pods get the latest revision one after the other.
    Rolling,
    /// A user or the manifest has paused it.
    Paused,
    /// The latest revision has failed, and the pods go back to the revision before it.
    RollingBack,
    /// All pods on reachable hosts run the revision before it again.
    RolledBack,
    /// The latest revision has failed, and each host keeps what it has.
    Failed,
}

/// The response to `GET /v1/workloads/NAME/revisions`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revisions {
    /// The kept revisions, the latest first.
    pub revisions: Vec<Revision>,
}

/// A kept revision of a workload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Revision {
    /// Its number, from 1.
    pub revision: u64,
    /// The log index of the change that made it.
    pub index: u64,
    /// When it was made, in milliseconds since 1970.
    pub made_at_ms: u64,
    /// Who made it, such as `uid 0`; empty if unknown.
    pub who: String,
    /// The annotation `kubernetes.io/change-cause` of the workload; empty if absent.
    pub cause: String,
    /// How it ended: `ready`, `rolledBack`, `failed` or `superseded`; absent during its rollout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<RevisionOutcome>,
    /// Hosts that were not reached, or the reason of a failure.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// It was stopped: no host ran it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stopped: bool,
    /// What it runs with: the workload, then the ConfigMaps, Secrets and claims that it refers to.
    pub objects: Vec<RevisionObject>,
    /// The images that its pods ran when it was ready; empty if unknown. An undo runs these again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<RevisionImage>,
    /// It is an undo: it runs `images`, and not what their references stand for today.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pinned: bool,
}

/// An image of a revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevisionImage {
    /// Its reference in the manifest.
    pub reference: String,
    /// Podman's ID of it, in hexadecimal digits; absent if the hosts have different ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The digest in its registry, such as `sha256:3f…`; absent if it is unknown, or if the hosts have different ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
}

/// How a revision ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RevisionOutcome {
    /// All pods were ready for long enough.
    Ready,
    /// It failed, and the hosts went back to the revision before it.
    RolledBack,
    /// It failed, and stays where it is.
    Failed,
    /// A later revision took over before it ended.
    Superseded,
}

/// An object of a revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevisionObject {
    /// Its kind; empty if it was a Secret that has been deleted since.
    pub kind: String,
    /// `NAME` or `NAMESPACE_NAME`.
    pub name: String,
    /// SHA-256 of its contents. That of a Secret is keyed, so that no value can be guessed from it.
    pub hash: String,
}

/// The body of `POST /v1/workloads/NAME/rollout`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RolloutChange {
    /// What to do.
    pub action: RolloutAction,
    /// For `undo`: the revision whose contents become the latest revision. By default the one before the latest that
    /// was ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_revision: Option<u64>,
    /// For `scale`: the number of replicas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<u32>,
    /// Goes on where a host doubts that it can get an image, or does not answer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
}

/// A change of a workload's rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RolloutAction {
    /// Stop before the next host.
    Pause,
    /// Go on.
    Resume,
    /// Replace all pods, as an update does.
    Restart,
    /// Return to the contents of an earlier revision.
    Undo,
    /// Set the number of replicas.
    Scale,
    /// End all pods, and start none until the action `start`.
    Stop,
    /// Run the workload again after `stop`.
    Start,
}

/// The response to `POST /v1/workloads/NAME/rollout`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RolloutChanged {
    /// The log index at which it was committed.
    pub index: u64,
    /// The latest revision of the workload after it.
    pub revision: u64,
    /// It changed the cluster; false if the workload has these contents already.
    pub changed: bool,
    /// The workload is stopped after it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stopped: bool,
}
