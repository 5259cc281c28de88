//! Renews the leases of the singletons that this host has to run, and writes them where their supervisors read them.
//!
//! Shell: one task asks the leader of the moment, and writes each lease to [`beemesh_quadlet::lease`]. Input: the
//! replicated state, which says what to ask for; the leader decides. A lease counts from before its request, on the clock
//! that the supervisor reads. A lease that is not renewed ends by itself: its file is removed afterwards, so that the pod
//! has the time to end.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use beemesh_protocol::{HostId, backoff::doubled, state::Place, workload::pod_name};
use beemesh_quadlet::lease;
use tokio::time::{Instant, sleep_until};

use crate::{
    cluster::{placement, state::State},
    raft::{LEASES_MAX, Node},
    workloads::run::caught_up,
};

/// How often each lease is renewed: often enough that some answers may be late or lost.
const EVERY: Duration = Duration::from_secs(2);
/// Timeout of one request.
const ASK_MAX: Duration = Duration::from_secs(2);
/// The pause after a request that did not get all leases; it doubles with each further one, up to [`EVERY`].
const PAUSE_MIN: Duration = Duration::from_millis(250);

/// The parameters of [`renew`].
pub(crate) struct Settings {
    /// The host's node.
    pub(crate) node: Node,
    /// The folder of the sockets, below which the leases are.
    pub(crate) run: PathBuf,
}

/// Renews the leases of this host as long as the runtime lives.
pub(crate) async fn renew(settings: Settings) {
    let Settings { node, run } = settings;
    let (mut view, mut consensus) = (node.state(), node.consensus());
    caught_up(&mut view, &mut consensus).await;
    let mut renewal = Renewal::default();
    loop {
        let wanted = {
            let view = view.borrow_and_update().clone();
            own(&view.state, node.host())
        };
        renewal.want(wanted, &run);
        let now = Instant::now();
        if let Some(asked) = renewal.due(now) {
            let granted = ask(&node, &run, asked.clone()).await;
            renewal.asked(now, &asked, &granted);
        }
        let next = renewal.next();
        let changed = tokio::select! {
            changed = view.changed() => changed,
            () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => Ok(()),
        };
        if changed.is_err() {
            return;
        }
    }
}

/// Asks for these leases and writes those that are granted. Returns them.
async fn ask(node: &Node, run: &Path, workloads: BTreeSet<String>) -> BTreeSet<String> {
    // The leader counts from later on.
    let Ok(sent) = lease::now() else {
        return BTreeSet::new();
    };
    let names = workloads.iter().take(LEASES_MAX).cloned().collect();
    let granted = node.lease(names, Instant::now() + ASK_MAX).await;
    let granted = granted.into_iter().flatten();
    let granted = granted.filter(|name| workloads.contains(name));
    let written = granted.filter(|name| {
        let written = write(run, &pod_name(name, 0), sent + lease::TERM);
        if let Err(error) = &written {
            tracing::warn!(workload = name, %error, "a lease was not written, will retry");
        }
        written.is_ok()
    });
    written.collect()
}

/// Writes the end of a lease, unless the file has a later one.
fn write(run: &Path, pod: &str, end: Duration) -> io::Result<()> {
    let present = lease::read(run, pod);
    // No lease ends so late: the file has another origin.
    let most = lease::now()? + lease::TERM;
    match present.is_some_and(|present| present >= end && present <= most) {
        true => Ok(()),
        false => lease::write(run, pod, end),
    }
}

/// The singletons that the state assigns to this host, by name.
pub(crate) fn own(state: &State, host: HostId) -> BTreeSet<String> {
    let singletons = state.workloads().filter(|one| state.is_singleton(one));
    let own = singletons.filter(|one| placement::runs(state, one, Place::first(host)).is_some());
    own.map(|one| one.name.clone()).collect()
}

/// When to ask for which lease.
#[derive(Debug, Default)]
pub(crate) struct Renewal {
    /// When to ask next for the lease of each workload that this host has to run, and how many requests in a row did not
    /// get it.
    wanted: BTreeMap<String, (Option<Instant>, u32)>,
    /// The workloads whose file may still be there.
    files: BTreeSet<String>,
}

impl Renewal {
    /// Records what this host has to run. Removes the files of other workloads once their leases are over.
    fn want(&mut self, wanted: BTreeSet<String>, run: &Path) {
        self.wanted.retain(|name, _| wanted.contains(name));
        for name in wanted {
            self.files.insert(name.clone());
            self.wanted.entry(name).or_default();
        }
        let over = |name: &String| {
            !self.wanted.contains_key(name) && lease::left(run, &pod_name(name, 0)).is_zero()
        };
        for name in self.files.extract_if(.., over) {
            lease::forget(run, &pod_name(&name, 0));
        }
    }

    /// The workloads whose leases to ask for, if any of them is due. All are asked for at once.
    fn due(&self, now: Instant) -> Option<BTreeSet<String>> {
        let mut all = self.wanted.values();
        let any = all.any(|(next, _)| next.is_none_or(|next| next <= now));
        any.then(|| self.wanted.keys().cloned().collect())
    }

    /// Records the answer to a request that began at this time.
    fn asked(&mut self, now: Instant, asked: &BTreeSet<String>, granted: &BTreeSet<String>) {
        for name in asked {
            let Some((next, failures)) = self.wanted.get_mut(name) else {
                continue;
            };
            let pause = if granted.contains(name) {
                *failures = 0;
                EVERY
            } else {
                *failures = failures.saturating_add(1);
                doubled(PAUSE_MIN, EVERY, *failures - 1)
            };
            *next = Some(now + pause);
        }
    }

    /// When to look again: for the next request, or to remove a file.
    fn next(&self) -> Option<Instant> {
        let next = self.wanted.values().filter_map(|(next, _)| *next).min();
        let is_left = self.files.len() > self.wanted.len();
        next.into_iter()
            .chain(is_left.then(|| Instant::now() + EVERY))
            .min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
        names.map(str::to_owned).into()
    }

    #[test]
    fn a_new_singleton_is_asked_for_at_once_and_others_in_time() {
        let run = tempfile::tempdir().unwrap();
        let mut renewal = Renewal::default();
        let now = Instant::now();
        assert_eq!((renewal.due(now), renewal.next()), (None, None));
        renewal.want(names(["db"]), run.path());
        assert_eq!(renewal.due(now), Some(names(["db"])));
        renewal.asked(now, &names(["db"]), &names(["db"]));
        assert_eq!(renewal.due(now), None);
        assert_eq!(renewal.next(), Some(now + EVERY));
        renewal.want(names(["db", "web"]), run.path());
        assert_eq!(renewal.due(now), Some(names(["db", "web"])));
        let mut at = now;
        let mut pauses = Vec::new();
        for _ in 0..5 {
            renewal.asked(at, &names(["db", "web"]), &names(["db"]));
            let next = renewal.next().unwrap();
            pauses.push((next - at).as_millis());
            at = next;
        }
        assert_eq!(pauses, [250, 500, 1000, 2000, 2000]);
    }

    #[test]
    fn a_file_never_goes_back_and_goes_when_its_lease_is_over() {
        let run = tempfile::tempdir().unwrap();
        let now = lease::now().unwrap();
        let read = || lease::read(run.path(), "db").map(|end| end.as_secs());
        let late = now + Duration::from_secs(15);
        write(run.path(), "db", late).unwrap();
        write(run.path(), "db", now + Duration::from_secs(9)).unwrap();
        assert_eq!(read(), Some(late.as_secs()));
        lease::write(run.path(), "db", now + Duration::from_secs(900)).unwrap();
        write(run.path(), "db", late).unwrap();
        assert_eq!(read(), Some(late.as_secs()), "no lease is so long");

        let mut renewal = Renewal::default();
        renewal.want(names(["db"]), run.path());
        renewal.want(names([]), run.path());
        assert_eq!(read(), Some(late.as_secs()), "it lasts");
        assert!(renewal.next().is_some());
        lease::write(run.path(), "db", Duration::ZERO).unwrap();
        renewal.want(names([]), run.path());
        assert_eq!((read(), renewal.next()), (None, None));
    }
}
