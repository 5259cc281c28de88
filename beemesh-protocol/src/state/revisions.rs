//! The kept revisions of workloads, and their rollouts.
//!
//! Pure: types.

use std::{collections::BTreeMap, sync::Arc};

use super::Object;
use crate::HostId;

/// How a revision of a workload ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RevisionOutcome {
    /// All pods were ready for long enough.
    Ready,
    /// It failed on a host, and the hosts went back to the revision before it that was ready.
    RolledBack,
    /// It failed, and stays where it is.
    Failed,
    /// A later revision took over before it ended.
    Superseded,
}

/// The end of a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevisionEnd {
    /// How it ended.
    pub outcome: RevisionOutcome,
    /// The hosts that were not reached, or the reason of a failure, as a message.
    pub reason: String,
    /// When it ended, in milliseconds since 1970.
    pub at_ms: u64,
}

/// Maximum number of images of a workload that are resolved.
pub const RESOLVED_MAX: usize = 32;

/// Maximum length of a resolved reference, in bytes. A host may report any.
const REFERENCE_BYTES_MAX: usize = 1024;

/// An image of a workload, and what its reference stood for when the pods were played.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ResolvedImage {
    /// The reference in the manifest.
    pub reference: String,
    /// The hash of the image's configuration, which Podman calls its ID; `None` if the hosts have different ones.
    pub id: Option<[u8; 32]>,
    /// The digest of the manifest by which its registry has it; `None` if no registry has it, or the hosts have different
    /// ones.
    pub digest: Option<[u8; 32]>,
}

/// The resolved images of a workload, sorted by reference; at most [`RESOLVED_MAX`]. An empty list is absent on the wire,
/// as in messages of older releases.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResolvedImages(pub Vec<ResolvedImage>);

impl ResolvedImages {
    /// Keeps what these hosts agree on. A host without an image of this reference says nothing of it.
    #[must_use]
    pub fn agreed<'a>(all: impl IntoIterator<Item = &'a Self>) -> Self {
        let mut agreed: BTreeMap<&str, ResolvedImage> = BTreeMap::new();
        let all = all.into_iter().flat_map(|images| &images.0);
        for image in all.filter(|image| image.reference.len() <= REFERENCE_BYTES_MAX) {
            let known = agreed.entry(&image.reference);
            let known = known.or_insert_with(|| image.clone());
            known.id = known.id.filter(|id| image.id == Some(*id));
            known.digest = known.digest.filter(|one| image.digest == Some(*one));
        }
        let of = agreed.into_values();
        let of = of.filter(|image| image.id.is_some() || image.digest.is_some());
        Self(of.take(RESOLVED_MAX).collect())
    }
}

/// A kept revision of a workload in a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevisionRecord {
    /// `NAME` or `NAMESPACE_NAME`.
    pub workload: String,
    /// Its number, from 1.
    pub revision: u64,
    /// The log index of the change that made it.
    pub index: u64,
    /// When it was made, in milliseconds since 1970.
    pub at_ms: u64,
    /// Who made it; empty if unknown.
    pub who: String,
    /// The annotation `kubernetes.io/change-cause` of the workload; empty if absent.
    pub cause: String,
    /// The hashes of what it runs with: the workload itself, then the ConfigMaps, Secrets and claims that it refers to.
    pub objects: Vec<[u8; 32]>,
    /// How it ended; `None` during its rollout.
    pub end: Option<RevisionEnd>,
    /// The images that it ran, or is to run; empty if unknown.
    pub images: ResolvedImages,
    /// It must run `images`, because it is a return to an earlier revision.
    pub pinned: bool,
}

/// A pod and the log index of a revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostRevision {
    /// The host.
    pub host: HostId,
    /// The log index of the revision that it is to run.
    pub index: u64,
    /// The number of the pod among those of the workload on the host, from 0.
    pub number: u32,
}

/// The state of a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RolloutPhase {
    /// The hosts get the latest revision one after the other.
    Rolling,
    /// The latest revision has failed, and the hosts go back to the base.
    RollingBack,
    /// The latest revision has failed, and each host keeps what it has.
    Halted,
}

/// A rollout in a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RolloutRecord {
    /// `NAME` or `NAMESPACE_NAME`.
    pub workload: String,
    /// The log index of the revision of all pods that are not in `hosts`. It equals the index of the latest
    /// revision if there is none to go back to.
    pub base: u64,
    /// The pods that have another revision than the base, sorted by host and number.
    pub hosts: Vec<HostRevision>,
    /// Its state.
    pub phase: RolloutPhase,
    /// A user has paused it.
    pub paused: bool,
    /// When it began, or last assigned a revision to a host, in milliseconds since 1970.
    pub moved_at_ms: u64,
}

/// The kept revisions of all workloads, and the rollouts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Revisions {
    /// The objects of revisions that are no longer in a manifest, sorted by hash.
    pub objects: Vec<Arc<Object>>,
    /// Sorted by workload and index.
    pub revisions: Vec<RevisionRecord>,
    /// Sorted by workload.
    pub rollouts: Vec<RolloutRecord>,
}
