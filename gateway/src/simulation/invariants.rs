//! What must hold of rollouts at every step: after each change of the replicated state, and of a unit of any host.
//!
//! The simulation tells what has happened ([`Checks::state`], [`Checks::units`], [`Checks::trouble`]), and each invariant
//! is a function of that. None of them depends on what a leader knows.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use beemesh_protocol::{
    HostId,
    ipc::UnitState,
    state::{Place, RevisionOutcome, RolloutPhase},
    workload::{pod_name, split_pod_name},
};
use beemesh_quadlet::{
    health::{Status, parse},
    render::read_quadlet,
};
use tokio::time::Instant;

use super::{jobs::is_job, pods::Behaviour, world::name};
use crate::{
    cluster::{
        placement,
        state::{Rollout, State, Workload},
        strategy::Strategy,
    },
    raft::View,
};

/// The time for which a pod of a new revision must be ready before the next one is replaced.
const STABLE: Duration = Duration::from_secs(2);
/// A pod counts as ready, to its leader, too, when it has been ready for this long: longer than a report and a commit
/// take.
const STEADY: Duration = Duration::from_secs(2);
/// How long the last trouble of a host must be over for its leader to know of it.
const CALM: Duration = Duration::from_secs(5);

/// A pod, as it really is.
#[derive(Debug, Clone, Copy)]
struct Pod {
    /// The log index of its revision on the disk.
    index: u64,
    /// The pod of that revision runs, not that of an earlier one.
    is_current: bool,
    /// The number of the revision that runs.
    revision: u64,
    /// Since when it is ready.
    ready: Option<Instant>,
}

/// A ready pod that was replaced because the state assigned another revision to its host.
#[derive(Debug, Clone, Copy)]
struct Taken {
    /// The log index of the latest revision at that time.
    latest: u64,
}

/// What is known of all hosts.
#[derive(Default)]
struct Facts {
    /// The latest state that any host has applied.
    view: Option<Arc<View>>,
    pods: BTreeMap<(String, Place), Pod>,
    /// The log indexes of the revisions that the state has ever assigned to a pod, by workload and place.
    assigned: BTreeMap<(String, Place), BTreeSet<u64>>,
    /// The hosts whose gateway does not run.
    down: BTreeSet<HostId>,
    /// When the gateway of a host last began.
    begun: BTreeMap<HostId, Instant>,
    /// The hosts whose network or disk is in trouble, and when the last trouble of others ended.
    trouble: BTreeMap<HostId, Option<Instant>>,
    taken: BTreeMap<(String, Place), Taken>,
    /// The ready pods that a revision has replaced.
    spent: BTreeMap<(String, u64), BTreeSet<Place>>,
}

/// Collects what happens, and what is wrong with it.
pub(super) struct Checks {
    begun: Instant,
    facts: Mutex<Facts>,
    violations: Mutex<Vec<String>>,
}

impl Checks {
    pub(super) fn new() -> Self {
        Self {
            begun: Instant::now(),
            facts: Mutex::default(),
            violations: Mutex::default(),
        }
    }

    fn say(&self, what: &str) {
        eprintln!("at {:.6}: {what}", self.begun.elapsed().as_secs_f64());
    }

    /// Returns the violations found so far.
    pub(super) fn violations(&self) -> Vec<String> {
        self.violations.lock().unwrap().clone()
    }

    fn violated(&self, found: impl IntoIterator<Item = String>) {
        for what in found {
            self.say(&format!("violated: {what}"));
            self.violations.lock().unwrap().push(what);
        }
    }

    /// Records that the gateway of a host has ended.
    pub(super) fn ends(&self, host: HostId) {
        let mut facts = self.facts.lock().unwrap();
        facts.down.insert(host);
        facts.excuse(host);
    }

    /// Records that the gateway of a host has begun.
    pub(super) fn begins(&self, host: HostId) {
        let mut facts = self.facts.lock().unwrap();
        facts.down.remove(&host);
        facts.begun.insert(host, Instant::now());
    }

    /// Records that a host is unreachable or slow, or that this has ended.
    pub(super) fn trouble(&self, host: HostId, is_over: bool) {
        let mut facts = self.facts.lock().unwrap();
        let at = is_over.then(Instant::now);
        facts.trouble.insert(host, at);
        facts.excuse(host);
    }

    /// Records that the trouble of all these hosts has ended.
    pub(super) fn calm(&self, hosts: &BTreeSet<HostId>) {
        let mut facts = self.facts.lock().unwrap();
        for (host, ended) in &mut facts.trouble {
            if hosts.contains(host) {
                ended.get_or_insert_with(Instant::now);
            }
        }
    }

    /// Records a state that a host has applied.
    pub(super) fn state(&self, view: &Arc<View>) {
        let mut facts = self.facts.lock().unwrap();
        facts.assign(&view.state);
        let before = facts.view.clone();
        if before
            .as_ref()
            .is_some_and(|one| one.applied >= view.applied)
        {
            return;
        }
        facts.view = Some(Arc::clone(view));
        self.violated(keeps_what_is_needed(&view.state));
        let Some(before) = before else { return };
        for workload in view.state.workloads() {
            let Some(step) = Step::of(&before.state, &view.state, workload) else {
                continue;
            };
            if let Some(news) = step.news() {
                self.say(&news);
            }
            self.violated(a_failed_revision_reaches_no_further_host(&step));
            self.violated(no_step_is_reset(&step));
            self.violated(a_rollout_ends_with_its_revision(&step));
            self.violated(a_rollout_ends_when_all_are_available(&facts, &step));
            let spends = facts.take(&step);
            if spends {
                self.violated(no_more_pods_lack_than_may_be_unavailable(&mut facts, &step));
                self.violated(a_bad_revision_takes_no_more_than_may_be_unavailable(
                    &facts, &step,
                ));
            }
        }
    }

    /// Records the units of a host.
    pub(super) fn units(&self, host: HostId, units: &BTreeMap<String, UnitState>) {
        let mut facts = self.facts.lock().unwrap();
        facts.pods.retain(|(workload, of), _| {
            of.host != host || units.contains_key(&pod_name(workload, of.number))
        });
        for (pod, unit) in units.iter().filter(|(_, unit)| !is_job(unit)) {
            let (workload, number) = split_pod_name(pod).expect("the name of a pod");
            let place = Place { host, number };
            let Some(quadlet) = read_quadlet(&unit.kube) else {
                continue;
            };
            let key = (workload.to_owned(), place);
            let (revision, is_ready) = match parse(&unit.status).map(|report| report.status) {
                Some(Status::Running { health, revision }) if unit.active == "active" => {
                    (revision, health.healthy == health.total)
                }
                _ => (0, false),
            };
            let before = facts.pods.get(&key);
            let since = before.filter(|one| one.revision == revision);
            let since = since.and_then(|one| one.ready);
            let pod = Pod {
                index: quadlet.index,
                is_current: revision == quadlet.revision,
                revision,
                ready: is_ready.then(|| since.unwrap_or_else(Instant::now)),
            };
            facts.pods.insert(key, pod);
            self.violated(runs_only_what_was_assigned(&facts, workload, place));
        }
    }
}

/// One step of a workload: two states of it with the same latest revision, or with a rollout that went on.
struct Step<'a> {
    before: &'a State,
    after: &'a State,
    /// The workload in the earlier state.
    was: &'a Workload,
    workload: &'a Workload,
    rollout: Option<&'a Rollout>,
}

impl<'a> Step<'a> {
    /// `None` if the workload has no revisions, or is new.
    fn of(before: &'a State, after: &'a State, workload: &'a Workload) -> Option<Self> {
        let was = before.workload(&workload.name)?;
        let is_same =
            was.revision <= workload.revision && before.is_rolled(was) && after.is_rolled(workload);
        is_same.then(|| Self {
            before,
            after,
            was,
            workload,
            rollout: after.rollout(&workload.name),
        })
    }

    /// Returns true if the latest revision is the same.
    fn is_within_revision(&self) -> bool {
        self.was.index == self.workload.index
    }

    /// The log indexes of the revisions that the pod had to run, and has to run now.
    fn on(&self, place: Place) -> (u64, u64) {
        let (_, was) = self.before.assigned(self.was, place);
        let (_, is) = self.after.assigned(self.workload, place);
        (was, is)
    }

    fn places(&self) -> BTreeSet<Place> {
        placement::places(self.after, self.workload)
    }

    fn max(&self) -> usize {
        Strategy::of(&self.workload.object).unavailable_of(self.places().len())
    }

    /// What has changed of the rollout, in words.
    fn news(&self) -> Option<String> {
        let before = self.before.rollout(&self.workload.name);
        if before == self.rollout {
            return None;
        }
        let Some(rollout) = self.rollout else {
            return Some(format!("{} is rolled out", self.title()));
        };
        let Rollout {
            base,
            pods,
            phase,
            paused,
            ..
        } = rollout;
        let paused = if *paused { ", paused" } else { "" };
        let pods = pods.iter().map(|(place, on)| (called(*place), on));
        let pods: BTreeMap<_, _> = pods.collect();
        let title = self.title();
        Some(format!("{title}, base {base}: {phase:?}{paused}, {pods:?}"))
    }

    fn title(&self) -> String {
        let Workload { name, index, .. } = self.workload;
        format!("{name}, latest revision of entry {index}")
    }
}

/// `h1`, or `h1/2` for a pod beside others.
fn called(place: Place) -> String {
    match place.number {
        0 => name(place.host),
        number => format!("{}/{number}", name(place.host)),
    }
}

impl Facts {
    fn assign(&mut self, state: &State) {
        for workload in state.workloads().filter(|one| one.job.is_none()) {
            for place in placement::places(state, workload) {
                let (_, index) = state.assigned(workload, place);
                let key = (workload.name.clone(), place);
                self.assigned.entry(key).or_default().insert(index);
            }
        }
    }

    /// Forgets what the host lacks: it is not, or not only, for the sake of a rollout.
    fn excuse(&mut self, host: HostId) {
        self.taken.retain(|(_, of), _| of.host != host);
        for places in self.spent.values_mut() {
            places.retain(|place| place.host != host);
        }
    }

    /// Returns true if nothing keeps the host from its leader, and nothing has lately. A gateway that was restarted has
    /// kept nothing from anybody: its pods go on.
    fn is_calm(&self, host: HostId) -> bool {
        if self.down.contains(&host) {
            return false;
        }
        match self.trouble.get(&host) {
            None => true,
            Some(None) => false,
            Some(Some(ended)) => ended.elapsed() > CALM,
        }
    }

    /// Returns true if the gateway of the host has run for so long that its leader knows.
    fn is_known(&self, host: HostId) -> bool {
        let begun = self.begun.get(&host);
        self.is_calm(host) && begun.is_none_or(|begun| begun.elapsed() > CALM)
    }

    fn pod(&self, workload: &str, place: Place) -> Option<&Pod> {
        self.pods.get(&(workload.to_owned(), place))
    }

    /// Records which ready pods are replaced by this step. Returns true if there are any.
    fn take(&mut self, step: &Step<'_>) -> bool {
        let workload = step.workload;
        let there = placement::places(step.before, step.was);
        let latest = workload.index;
        let mut any = false;
        for place in step.places().intersection(&there) {
            let (was, is) = step.on(*place);
            let steady = self.pod(&workload.name, *place).and_then(|pod| pod.ready);
            let is_steady = steady.is_some_and(|since| since.elapsed() > STEADY);
            if was != is && is_steady && self.is_calm(place.host) {
                let key = (workload.name.clone(), *place);
                // One that lacks its pod already takes no other.
                let lacked = self.taken.get(&key).copied();
                let lacked = lacked.is_some_and(|taken| self.lacked(step, *place, taken));
                self.taken.insert(key, Taken { latest });
                if is == latest {
                    let spent = self.spent.entry((workload.name.clone(), latest));
                    spent.or_default().insert(*place);
                }
                any |= !lacked;
            }
        }
        any
    }

    /// Returns true if the pod for which a ready one was taken was still missing before this step.
    fn lacked(&self, step: &Step<'_>, place: Place, taken: Taken) -> bool {
        let (on, _) = step.on(place);
        let rollout = step.before.rollout(&step.was.name);
        self.is_missing(step.was, rollout, (place, on), taken)
    }

    /// Returns true if the pod for which a ready one was taken is still missing.
    fn lacks(&self, step: &Step<'_>, place: Place, taken: Taken) -> bool {
        let (_, on) = step.on(place);
        self.is_missing(step.workload, step.rollout, (place, on), taken)
    }

    fn is_missing(
        &self,
        workload: &Workload,
        rollout: Option<&Rollout>,
        (place, on): (Place, u64),
        taken: Taken,
    ) -> bool {
        let pod = self.pod(&workload.name, place);
        let ready = pod.filter(|pod| pod.index == on && pod.is_current);
        let Some(since) = ready.and_then(|pod| pod.ready) else {
            return true;
        };
        let latest = workload.index;
        let rolls = rollout.is_some_and(|one| one.phase == RolloutPhase::Rolling);
        rolls && taken.latest == latest && on == latest && since.elapsed() < STABLE
    }
}

/// At no time do more than `maxUnavailable` of the reachable hosts lack a ready pod because their ready pods were
/// replaced: by the step of a rollout, or of one that goes back. A pod of a new revision counts when it has been ready
/// for two seconds. The first revision of a workload replaces nothing.
fn no_more_pods_lack_than_may_be_unavailable(facts: &mut Facts, step: &Step<'_>) -> Option<String> {
    let (workload, places) = (step.workload, step.places());
    let taken = facts.taken.iter();
    let lacking: BTreeSet<Place> = taken
        .filter(|((of, place), _)| *of == workload.name && places.contains(place))
        .filter(|((_, place), taken)| facts.lacks(step, *place, **taken))
        .map(|((_, place), _)| *place)
        .collect();
    facts
        .taken
        .retain(|(of, place), _| *of != workload.name || lacking.contains(place));
    (lacking.len() > step.max()).then(|| {
        let names: Vec<_> = lacking.iter().map(|place| called(*place)).collect();
        let most = step.max();
        format!("{}: {names:?} lack a ready pod, {most} may", step.title())
    })
}

/// A revision that fails on every host takes no more than `maxUnavailable` ready pods before it is known to fail.
fn a_bad_revision_takes_no_more_than_may_be_unavailable(
    facts: &Facts,
    step: &Step<'_>,
) -> Option<String> {
    let workload = step.workload;
    let is_bad = Behaviour::is_bad_on_all(&workload.object, step.after.hosts().keys());
    let spent = facts.spent.get(&(workload.name.clone(), workload.index))?;
    (is_bad && spent.len() > step.max()).then(|| {
        let names: Vec<_> = spent.iter().map(|place| called(*place)).collect();
        let most = step.max();
        format!(
            "{} is bad, and took {names:?}; {most} may be unavailable",
            step.title()
        )
    })
}

/// After a revision has failed, no further host is given it.
fn a_failed_revision_reaches_no_further_host(step: &Step<'_>) -> Option<String> {
    let before = step.before.rollout(&step.workload.name)?;
    let failed = before.phase != RolloutPhase::Rolling && step.is_within_revision();
    let latest = step.workload.index;
    let there = placement::places(step.before, step.was);
    let mut places = step.places().into_iter();
    let further = places.find(|place| {
        let (was, is) = step.on(*place);
        // A pod that gets a host begins as the others there.
        let is_new = place.number > 0 && !there.contains(place);
        was != latest && is == latest && !is_new
    });
    // A revision that was halted may be ready on all hosts after all; a host that was away gets it then.
    let further = further.filter(|_| failed && step.rollout.is_some());
    further.map(|place| format!("{} has failed, and reaches {}", step.title(), called(place)))
}

/// A change of leader resets and skips nothing: while a revision is rolled out, no host that has it goes back, and the
/// phase only moves on.
fn no_step_is_reset(step: &Step<'_>) -> Option<String> {
    use RolloutPhase::{Halted, Rolling, RollingBack};
    let (before, after) = (step.before.rollout(&step.workload.name)?, step.rollout?);
    if !step.is_within_revision() {
        return None;
    }
    let phases = (before.phase, after.phase);
    if matches!(
        phases,
        (RollingBack, Rolling | Halted) | (Halted, RollingBack)
    ) {
        return Some(format!("{}: {phases:?}", step.title()));
    }
    let latest = step.workload.index;
    let there = placement::places(step.before, step.was);
    let mut places = step.places().into_iter();
    let back = places.find(|place| {
        let (was, is) = step.on(*place);
        there.contains(place) && was == latest && is != latest
    });
    let back = back.filter(|_| phases == (Rolling, Rolling));
    back.map(|place| format!("{}: {} goes back", step.title(), called(place)))
}

/// A rollout is over only when its own revision was ready, not when an earlier one was.
fn a_rollout_ends_with_its_revision(step: &Step<'_>) -> Option<String> {
    step.before.rollout(&step.workload.name)?;
    let last = step.after.revisions(&step.workload.name).last()?;
    let is_over = step.rollout.is_none();
    (is_over && !last.was_ready()).then(|| format!("{} is over: {:?}", step.title(), last.end))
}

/// A rollout ends with success when every reachable host has had a ready pod of the latest revision for two seconds.
fn a_rollout_ends_when_all_are_available(facts: &Facts, step: &Step<'_>) -> Option<String> {
    let (name_of, index) = (&step.workload.name, step.workload.index);
    let was_ready = |state: &State| {
        let end = state.revision_at(name_of, index)?.end.as_ref()?;
        Some(end.outcome == RevisionOutcome::Ready)
    };
    let ends = step.is_within_revision()
        && was_ready(step.before) != Some(true)
        && was_ready(step.after) == Some(true);
    let there = placement::places(step.before, step.was);
    let places = step.places().into_iter();
    let mut lacking = places.filter(|place| there.contains(place));
    let lacks = lacking.find(|place| {
        let pod = facts.pod(name_of, *place);
        let ready = pod.filter(|pod| pod.index == index && pod.is_current);
        let ready = ready.and_then(|pod| pod.ready);
        facts.is_known(place.host) && ready.is_none_or(|since| since.elapsed() < STABLE)
    });
    let lacks = lacks.filter(|_| ends);
    lacks.map(|place| format!("{} ends, and {} lacks it", step.title(), called(place)))
}

/// A pod has only revisions that the replicated state has assigned to it.
fn runs_only_what_was_assigned(facts: &Facts, workload: &str, place: Place) -> Option<String> {
    let key = (workload.to_owned(), place);
    let index = facts.pods.get(&key)?.index;
    let assigned = facts.assigned.get(&key);
    let is_assigned = assigned.is_some_and(|all| all.contains(&index));
    (!is_assigned).then(|| {
        format!(
            "{} runs {workload} of entry {index}: {assigned:?}",
            called(place)
        )
    })
}

/// Of each workload no more earlier revisions are kept than its manifest says, apart from those that hosts run, and the
/// contents of these are there.
fn keeps_what_is_needed(state: &State) -> Option<String> {
    let mut rolled = state.workloads().filter(|one| state.is_rolled(one));
    rolled.find_map(|workload| {
        let name = &workload.name;
        let places = placement::places(state, workload);
        let on = places
            .iter()
            .map(|place| state.assigned(workload, *place).1);
        let base = state.rollout(name).map(|rollout| rollout.base);
        let all = state.rollout(name).into_iter();
        let all = all.flat_map(|rollout| rollout.pods.values().copied());
        let needed: BTreeSet<u64> = on.chain(base).chain(all).chain([workload.index]).collect();
        let is_there = |index: &u64| {
            let kept = state.revision_at(name, *index);
            kept.is_some_and(|kept| kept.object().is_some())
        };
        if let Some(index) = needed.iter().find(|index| !is_there(index)) {
            return Some(format!("{name}: the revision of entry {index} is not kept"));
        }
        let limit = Strategy::of(&workload.object).history_limit;
        let kept = state.revisions(name).iter().map(|one| one.index);
        let others = kept.filter(|index| !needed.contains(index)).count();
        (others > limit)
            .then(|| format!("{name}: {others} earlier revisions are kept, {limit} may"))
    })
}

/// At the end of a quiet time every rollout has ended, unless a user has paused it: all hosts are to run the latest
/// revision or the base. A revision that failed is not assigned to any host if it was taken back.
pub(super) fn all_have_ended(state: &State) -> Option<String> {
    state.rollouts().find_map(|(workload, rollout)| {
        let places = placement::places(state, workload);
        let on: BTreeSet<u64> = places.iter().map(|place| rollout.on(*place)).collect();
        let is_over = match rollout.phase {
            RolloutPhase::Rolling => rollout.paused,
            RolloutPhase::RollingBack => on.iter().all(|index| *index == rollout.base),
            RolloutPhase::Halted => true,
        };
        (!is_over).then(|| format!("{} is still rolled out: {rollout:?}", workload.name))
    })
}
