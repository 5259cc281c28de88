//! The rollouts: which host runs which revision of a workload while its latest revision replaces an earlier one.
//!
//! Pure. A rollout begins with a change of its workload. The leader proposes each step ([`crate::controllers`]), and
//! every host follows the committed ones. Without a rollout, every host runs the latest revision.

use std::{collections::BTreeMap, sync::Arc};

use beemesh_protocol::{
    HostId,
    peer::Outcome,
    state::{
        Assignment, HostRevision, Place, ResolvedImages, RevisionEnd, RevisionOutcome,
        RolloutPhase, RolloutRecord,
    },
};

use super::{Decision, Revision, State, Workload, missing, refused};

/// The level from which on the state has revisions and rollouts.
pub(crate) const ROLLED: u32 = 2;

/// The rollout of the latest revision of a workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rollout {
    /// The log index of the revision that all pods run which are not in `pods`. It is that of the latest revision if
    /// no other one is there.
    pub(crate) base: u64,
    /// The log indexes of the revisions that pods run instead of the base.
    pub(crate) pods: BTreeMap<Place, u64>,
    /// Its state.
    pub(crate) phase: RolloutPhase,
    /// A user has paused it.
    pub(crate) paused: bool,
    /// When it began, or last assigned a revision to a host, in milliseconds since 1970.
    pub(crate) moved_at_ms: u64,
}

/// The places of pods with these hosts and numbers. A missing number is 0.
pub(crate) fn places_of<'a>(
    hosts: &'a [HostId],
    numbers: &'a [u32],
) -> impl Iterator<Item = Place> + 'a {
    let numbers = numbers.iter().copied().chain(std::iter::repeat(0));
    let all = hosts.iter().zip(numbers);
    all.map(|(host, number)| Place {
        host: *host,
        number,
    })
}

impl Rollout {
    /// The log index of the revision that the pod runs.
    pub(crate) fn on(&self, place: Place) -> u64 {
        self.pods.get(&place).copied().unwrap_or(self.base)
    }
}

impl State {
    /// The rollout of a workload; `None` if every host runs its latest revision.
    pub(crate) fn rollout(&self, workload: &str) -> Option<&Rollout> {
        self.rollouts.get(workload).map(|rollout| &**rollout)
    }

    /// The workloads that have a rollout, with it.
    pub(crate) fn rollouts(&self) -> impl Iterator<Item = (&Workload, &Rollout)> {
        let all = self.rollouts.iter();
        all.filter_map(|(name, rollout)| Some((self.workloads.get(name)?, &**rollout)))
    }

    /// Returns true if the rollout has ended, and is kept only because it is paused.
    pub(crate) fn is_rolled_out(&self, workload: &Workload, rollout: &Rollout) -> bool {
        let last = self.revisions(&workload.name).last();
        rollout.base == workload.index && last.is_some_and(Revision::was_ready)
    }

    /// The number and the log index of the revision that the pod has to run if there is one in this place.
    pub(crate) fn assigned(&self, workload: &Workload, place: Place) -> (u64, u64) {
        let latest = (workload.revision, workload.index);
        let Some(rollout) = self.rollouts.get(&workload.name) else {
            return latest;
        };
        let kept = self.revision_at(&workload.name, rollout.on(place));
        kept.map_or(latest, |one| (one.number, one.index))
    }

    /// Begins the rollout of a workload's latest revision; `before` is the log index of the revision before it. Hosts
    /// keep what they run. If that is nothing, all get the latest revision at once.
    pub(super) fn begin_rollout(&mut self, workload: &Workload, before: Option<u64>) {
        let present = self.rollouts.get(&workload.name).map(|one| (**one).clone());
        let rollout = match present {
            Some(present) => Rollout {
                phase: RolloutPhase::Rolling,
                moved_at_ms: workload.at_ms,
                ..present
            },
            None => {
                let (base, pods) = match before {
                    Some(before) if self.has_pods(&workload.name, before) => {
                        (before, BTreeMap::new())
                    }
                    Some(_) => self.at_once(workload),
                    None => (workload.index, BTreeMap::new()),
                };
                Rollout {
                    base,
                    pods,
                    phase: RolloutPhase::Rolling,
                    paused: false,
                    moved_at_ms: workload.at_ms,
                }
            }
        };
        self.rollouts
            .insert_mut(workload.name.clone(), Arc::new(rollout));
    }

    fn has_pods(&self, name: &str, index: u64) -> bool {
        let revision = self.revision_at(name, index);
        revision.is_none_or(Revision::has_pods)
    }

    /// The base and the pods of a rollout that gives the latest revision to all hosts, because the one before it had no
    /// pods. The base is the last revision that was ready with pods, unless the latest one has its contents: then there is
    /// nothing else to go back to.
    fn at_once(&self, workload: &Workload) -> (u64, BTreeMap<Place, u64>) {
        let alone = (workload.index, BTreeMap::new());
        let Some((latest, earlier)) = self.revisions(&workload.name).split_last() else {
            return alone;
        };
        let mut earlier = earlier.iter().rev();
        match earlier.find(|one| one.was_ready() && one.has_pods()) {
            Some(base) if !base.has_contents_of(&latest.parts) => {
                let first = self.hosts.keys().map(|host| Place::first(*host));
                let seats = self.seats(&workload.name).iter();
                let seated = seats.filter_map(Assignment::place);
                let all = first.chain(seated).map(|place| (place, workload.index));
                (base.index, all.collect())
            }
            Some(_) | None => alone,
        }
    }

    /// Begins a pod beside others with the revision that the first one on its host is to run.
    pub(super) fn begin_as_the_first(&mut self, name: &str, place: Place) {
        let Some(rollout) = self.rollouts.get(name).filter(|_| place.number > 0) else {
            return;
        };
        let mut rollout = (**rollout).clone();
        let first = Place::first(place.host);
        let mut seats = self.seats(name).iter();
        let has_first = seats.any(|seat| seat.place() == Some(first));
        match rollout.pods.get(&first).copied().filter(|_| has_first) {
            Some(index) => rollout.pods.insert(place, index),
            None => rollout.pods.remove(&place),
        };
        self.rollouts.insert_mut(name.to_owned(), Arc::new(rollout));
        self.trim_present(name);
    }

    /// Assigns a revision to pods.
    pub(super) fn roll(
        &mut self,
        at_ms: u64,
        (name, seen): (&str, u64),
        to: u64,
        places: impl Iterator<Item = Place>,
    ) -> Decision {
        let mut rollout = self.rolling(name, seen)?;
        if to != seen && to != rollout.base {
            return Err(refused(format!(
                "workload `{name}` is not rolled out to the revision of log index {to}"
            )));
        }
        for place in places {
            if !self.hosts.contains_key(&place.host) {
                return Err(missing(format!("host {} is not a member", place.host)));
            }
            if to == rollout.base {
                rollout.pods.remove(&place);
            } else {
                rollout.pods.insert(place, to);
            }
        }
        rollout.moved_at_ms = at_ms;
        self.rollouts.insert_mut(name.to_owned(), Arc::new(rollout));
        self.trim_present(name);
        Ok(Outcome::Done)
    }

    /// Records how the rollout of the latest revision ended.
    pub(super) fn end_rollout(
        &mut self,
        at_ms: u64,
        (name, seen): (&str, u64),
        (outcome, reason): (RevisionOutcome, &str),
        images: &ResolvedImages,
    ) -> Decision {
        let rollout = self.rolling(name, seen)?;
        let phase = match outcome {
            RevisionOutcome::Ready => None,
            RevisionOutcome::RolledBack if rollout.base == seen => {
                return Err(refused(format!(
                    "workload `{name}` has no revision to go back to"
                )));
            }
            RevisionOutcome::RolledBack => Some(RolloutPhase::RollingBack),
            RevisionOutcome::Failed => Some(RolloutPhase::Halted),
            RevisionOutcome::Superseded => {
                return Err(refused(
                    "only a change of the workload supersedes a revision",
                ));
            }
        };
        match phase {
            Some(phase) => {
                let rollout = Rollout {
                    phase,
                    moved_at_ms: at_ms,
                    ..rollout
                };
                self.rollouts.insert_mut(name.to_owned(), Arc::new(rollout));
            }
            // A workload that stays paused keeps its rollout, with the latest revision as the base of the next one.
            None if rollout.paused => {
                let rollout = Rollout {
                    base: seen,
                    pods: BTreeMap::new(),
                    phase: RolloutPhase::Rolling,
                    ..rollout
                };
                self.rollouts.insert_mut(name.to_owned(), Arc::new(rollout));
            }
            None => {
                self.rollouts.remove_mut(name);
            }
        }
        let end = RevisionEnd {
            outcome,
            reason: reason.to_owned(),
            at_ms,
        };
        self.end_revision(name, seen, end, images);
        self.trim_present(name);
        Ok(Outcome::Done)
    }

    /// Pauses the rollouts of a workload, or lets them go on.
    pub(super) fn pause_rollout(&mut self, name: &str, paused: bool) -> Decision {
        let Some(workload) = self.workloads.get(name) else {
            return Err(missing(format!("workload `{name}` not found")));
        };
        if !self.is_rolled(workload) {
            return Err(refused(format!("workload `{name}` has no rollouts")));
        }
        let present = self.rollouts.get(name).map(|one| (**one).clone());
        let rollout = match present {
            Some(present) if !paused && self.is_rolled_out(workload, &present) => None,
            Some(present) => Some(Rollout { paused, ..present }),
            None => paused.then(|| Rollout {
                base: workload.index,
                pods: BTreeMap::new(),
                phase: RolloutPhase::Rolling,
                paused,
                moved_at_ms: workload.at_ms,
            }),
        };
        match rollout {
            Some(rollout) => self.rollouts.insert_mut(name.to_owned(), Arc::new(rollout)),
            None => {
                self.rollouts.remove_mut(name);
            }
        }
        Ok(Outcome::Done)
    }

    /// Removes a host from all rollouts, or puts its successor in its place.
    pub(super) fn leave_rollouts(&mut self, host: HostId, heir: Option<HostId>) {
        let of = self.rollouts.iter();
        let is_on = |place: &Place| place.host == host;
        let with = of.filter(|(_, rollout)| rollout.pods.keys().any(is_on));
        let with: Vec<_> = with
            .map(|(name, one)| (name.clone(), (**one).clone()))
            .collect();
        for (name, mut rollout) in with {
            let (gone, mut pods): (BTreeMap<_, _>, BTreeMap<_, _>) = rollout
                .pods
                .into_iter()
                .partition(|(place, _)| is_on(place));
            let moved = gone.into_iter().filter_map(|(place, on)| {
                let number = place.number;
                heir.map(|host| (Place { host, number }, on))
            });
            pods.extend(moved);
            rollout.pods = pods;
            self.rollouts.insert_mut(name, Arc::new(rollout));
        }
    }

    /// Forgets the revisions that are beyond the limit since no host is to run them any longer.
    fn trim_present(&mut self, name: &str) {
        if let Some(object) = self.workloads.get(name).map(|one| Arc::clone(&one.object)) {
            self.trim(name, &object);
        }
    }

    fn rolling(&self, name: &str, seen: u64) -> Decision<Rollout> {
        let Some(workload) = self.workloads.get(name) else {
            return Err(missing(format!("workload `{name}` not found")));
        };
        if workload.index != seen {
            return Err(refused(format!("workload `{name}` has changed since then")));
        }
        match self.rollouts.get(name) {
            Some(rollout) => Ok((**rollout).clone()),
            None => Err(refused(format!(
                "workload `{name}` is not being rolled out"
            ))),
        }
    }

    pub(super) fn rollout_records(&self) -> Vec<RolloutRecord> {
        let all = self.rollouts.iter();
        let record = |(workload, one): (&String, &Arc<Rollout>)| RolloutRecord {
            workload: workload.clone(),
            base: one.base,
            hosts: one
                .pods
                .iter()
                .map(|(place, index)| HostRevision {
                    host: place.host,
                    index: *index,
                    number: place.number,
                })
                .collect(),
            phase: one.phase,
            paused: one.paused,
            moved_at_ms: one.moved_at_ms,
        };
        all.map(record).collect()
    }
}
