//! The rollout of a workload, and its revisions, as types of the API.
//!
//! Pure, like its parent.

use std::collections::BTreeSet;

use beemesh_protocol::{
    api::{self, Revision, RevisionImage, RevisionObject, Rollout, RolloutPhase},
    hex::Hex,
    peer,
    state::{self, Kind, Place, ResolvedImage, RevisionOutcome},
};
use beemesh_quadlet::manifest::{is_stopped, kind_of, workload_name};

use super::{Scene, asked::Asked};
use crate::cluster::{
    state::{self as replicated, Workload},
    strategy::Strategy,
};

impl Scene {
    /// The rollout of the workload's latest revision. `None` if all of `places` have to run it: their reports then say
    /// how far it is.
    pub(super) fn rollout(&self, workload: &Workload, places: &BTreeSet<Place>) -> Option<Rollout> {
        let rollout = self.state.rollout(&workload.name)?;
        let has_latest = |place: &&Place| rollout.on(**place) == workload.index;
        let updated = places.iter().filter(has_latest).count();
        let is_failed = rollout.phase != state::RolloutPhase::Rolling;
        if updated == places.len() && !is_failed || rollout.base == workload.index {
            return None;
        }
        let strategy = Strategy::of(&workload.object);
        let phase = match rollout.phase {
            state::RolloutPhase::Rolling if rollout.paused || strategy.paused => {
                RolloutPhase::Paused
            }
            state::RolloutPhase::Rolling => RolloutPhase::Rolling,
            state::RolloutPhase::RollingBack if self.is_back(workload, rollout, places) => {
                RolloutPhase::RolledBack
            }
            state::RolloutPhase::RollingBack => RolloutPhase::RollingBack,
            state::RolloutPhase::Halted => RolloutPhase::Failed,
        };
        let base = self.state.revision_at(&workload.name, rollout.base);
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        Some(Rollout {
            phase,
            from: base.map_or(0, |base| base.number),
            updated: count(updated),
            max_unavailable: count(strategy.unavailable_of(places.len())),
        })
    }

    /// Returns true if all pods on reachable hosts run the base again.
    fn is_back(
        &self,
        workload: &Workload,
        rollout: &replicated::Rollout,
        places: &BTreeSet<Place>,
    ) -> bool {
        let mut there = places
            .iter()
            .filter(|place| self.reachable.contains(&place.host));
        there.all(|place| {
            let report = self.report(*place, &workload.name);
            let runs = |report: &peer::WorkloadReport| {
                let is_base = report.index == rollout.base;
                let is_done = match report.phase {
                    peer::Phase::Running => report.healthy == report.total,
                    peer::Phase::Succeeded | peer::Phase::Stopped | peer::Phase::Failed => true,
                    _ => false,
                };
                is_base && is_done
            };
            rollout.on(*place) == rollout.base && report.is_some_and(runs)
        })
    }

    /// Returns true if the workload stays as it is without a change by a user.
    pub(super) fn is_without_progress(
        &self,
        workload: &Workload,
        asked: &Asked,
        ready: usize,
        rollout: Option<&Rollout>,
    ) -> bool {
        match rollout.map(|rollout| rollout.phase) {
            None => self.is_stuck(workload, asked, ready),
            Some(RolloutPhase::Rolling | RolloutPhase::RollingBack) => false,
            Some(RolloutPhase::Paused | RolloutPhase::RolledBack | RolloutPhase::Failed) => true,
        }
    }

    /// Why the workload is not as requested: that of its rollout, or `reason`.
    pub(super) fn reason(
        &self,
        workload: &Workload,
        reason: String,
        rollout: Option<&Rollout>,
    ) -> String {
        let Some(rollout) = rollout else {
            return reason;
        };
        let last = self.state.revisions(&workload.name).last();
        let why = last.and_then(|last| last.end.as_ref());
        let why = why.map_or("", |end| end.reason.as_str());
        let (number, from) = (workload.revision, rollout.from);
        match rollout.phase {
            RolloutPhase::Rolling => reason,
            RolloutPhase::Paused => format!("the rollout of revision {number} is paused"),
            RolloutPhase::RollingBack => {
                format!("revision {number} is being rolled back to revision {from}: {why}")
            }
            RolloutPhase::RolledBack => {
                format!("revision {number} was rolled back to revision {from}: {why}")
            }
            RolloutPhase::Failed => format!("revision {number} failed: {why}"),
        }
    }

    /// The kept revisions of a workload, the latest first; `None` if there is no workload of that name.
    pub(crate) fn revisions(
        &self,
        workload: &str,
        keyed: impl Fn(&[u8; 32]) -> String,
    ) -> Option<Vec<Revision>> {
        self.state.workload(workload)?;
        let shown = |one: &replicated::Revision| Revision {
            revision: one.number,
            index: one.index,
            made_at_ms: one.at_ms,
            who: one.who.clone(),
            cause: one.cause.clone(),
            outcome: one.end.as_ref().map(|end| outcome(end.outcome)),
            reason: one
                .end
                .as_ref()
                .map_or_else(String::new, |end| end.reason.clone()),
            stopped: one.object().is_some_and(|object| is_stopped(object)),
            objects: one.parts.iter().map(|part| object(part, &keyed)).collect(),
            images: one.images.0.iter().map(image).collect(),
            pinned: one.pinned,
        };
        let kept = self.state.revisions(workload).iter();
        Some(kept.rev().map(shown).collect())
    }
}

fn outcome(outcome: RevisionOutcome) -> api::RevisionOutcome {
    match outcome {
        RevisionOutcome::Ready => api::RevisionOutcome::Ready,
        RevisionOutcome::RolledBack => api::RevisionOutcome::RolledBack,
        RevisionOutcome::Failed => api::RevisionOutcome::Failed,
        RevisionOutcome::Superseded => api::RevisionOutcome::Superseded,
    }
}

fn image(image: &ResolvedImage) -> RevisionImage {
    let hex = |hash: &[u8; 32]| Hex(hash).to_string();
    RevisionImage {
        reference: image.reference.clone(),
        id: image.id.as_ref().map(hex),
        digest: image
            .digest
            .as_ref()
            .map(|one| format!("sha256:{}", hex(one))),
    }
}

fn object(part: &replicated::Part, keyed: &impl Fn(&[u8; 32]) -> String) -> RevisionObject {
    let Some(object) = &part.object else {
        return RevisionObject {
            kind: String::new(),
            name: String::new(),
            hash: keyed(&part.hash),
        };
    };
    RevisionObject {
        kind: kind_of(object).to_owned(),
        name: workload_name(&object.namespace, &object.name),
        hash: match object.kind {
            Kind::Secret => keyed(&part.hash),
            _ => Hex(&part.hash).to_string(),
        },
    }
}
