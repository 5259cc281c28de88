//! The guard of a singleton: a thread that kills the processes of the pod before the lease of its host is over.
//!
//! Shell. The thread needs neither Podman nor the event loop of the supervisor, which may both hang, and never waits for
//! another process. Input: the lease in its file, and the control groups that the looks of the supervisor have found.
//! Output: [`Event::LeaseEnds`] and [`Event::LeaseBegins`] for the event loop, signals, and messages for systemd's
//! watchdog. These are sent only while the event loop works, too: systemd kills a supervisor that hangs or was stopped,
//! and its `ExecStopPost=` ends the pod.

pub(super) mod cgroups;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{io, thread};

use tokio::sync::Notify;

use self::ping::Pings;
use super::Event;
use super::shell::Settings;
use crate::lease::{KILL_AT, STOP_AT, left};

mod ping;

/// The pause between two looks at the lease.
const STEP: Duration = Duration::from_millis(100);
/// Interval of the beats of an event loop that has a guard.
pub(super) const BEAT: Duration = Duration::from_secs(1);
/// An event loop that has not beaten for this long hangs. It reads files of a disk, which may be slow.
const LOOP_TIME_MAX: Duration = Duration::from_secs(10);
/// The stack of the thread, in bytes: it formats short texts.
const STACK: usize = 256 << 10;

/// What the guard does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deed {
    /// Nothing: the pod may run.
    Nothing,
    /// Tell the event loop to end the pod.
    Stop,
    /// Kill the processes of the pod.
    Kill,
}

/// Pure: what to do if this much of the lease is left.
fn deed(left: Duration) -> Deed {
    match left {
        left if left <= KILL_AT => Deed::Kill,
        left if left <= STOP_AT => Deed::Stop,
        _ => Deed::Nothing,
    }
}

/// What the thread and the event loop share.
#[derive(Debug)]
struct Shared {
    run: PathBuf,
    workload: String,
    mounts: Vec<PathBuf>,
    /// True for a singleton.
    needed: AtomicBool,
    groups: Mutex<BTreeSet<String>>,
    /// When the event loop last worked.
    beaten: Mutex<Instant>,
    /// The last news that the thread had for the event loop: true if the lease ends.
    is_short: AtomicBool,
    told: Notify,
    /// The supervisor sets it to end the thread.
    over: AtomicBool,
}

/// The guard of one workload. Its thread runs only if the workload was a singleton at one of its looks.
#[derive(Debug)]
pub(super) struct Guard {
    shared: Arc<Shared>,
    runs: bool,
    /// True while a file with control groups of a singleton may exist.
    is_kept: bool,
}

impl Guard {
    /// Creates a guard that knows the control groups of the previous supervisor. Its thread does not run yet.
    pub(super) fn new(settings: &Settings) -> Self {
        let mounts = cgroups::MOUNTS.iter().map(PathBuf::from);
        Self::over(settings, mounts.collect())
    }

    fn over(settings: &Settings, mounts: Vec<PathBuf>) -> Self {
        let Settings { workload, run, .. } = settings;
        let kept = cgroups::recall(run, workload);
        let is_kept = kept.is_some();
        let shared = Shared {
            run: run.clone(),
            workload: workload.clone(),
            mounts,
            needed: AtomicBool::new(false),
            groups: Mutex::new(kept.unwrap_or_default()),
            beaten: Mutex::new(Instant::now()),
            is_short: AtomicBool::new(false),
            told: Notify::new(),
            over: AtomicBool::new(false),
        };
        Self {
            shared: Arc::new(shared),
            runs: false,
            is_kept,
        }
    }

    /// Returns true if the thread runs: then it feeds the watchdog in place of the event loop.
    pub(super) fn runs(&self) -> bool {
        self.runs
    }

    /// Sets whether the workload is a singleton, and adds the control groups of its pod. Groups that are gone are forgotten.
    /// Returns true if the thread was started by this call.
    ///
    /// # Errors
    ///
    /// The thread cannot be started.
    pub(super) fn watch(&mut self, needed: bool, found: &BTreeSet<String>) -> io::Result<bool> {
        self.shared.needed.store(needed, Ordering::SeqCst);
        if !needed {
            // A singleton of this name was here before.
            if std::mem::take(&mut self.is_kept) {
                self.forget();
            }
            return Ok(false);
        }
        self.is_kept = true;
        self.shared.add(found);
        if self.runs {
            return Ok(false);
        }
        let shared = Arc::clone(&self.shared);
        let thread = thread::Builder::new().stack_size(STACK);
        thread
            .name("guard".into())
            .spawn(move || shared.guard(Pings::to_systemd()))?;
        self.runs = true;
        Ok(true)
    }

    /// Records that the event loop works.
    pub(super) fn beat(&self) {
        *lock(&self.shared.beaten) = Instant::now();
    }

    /// Returns true if no container may be started now.
    pub(super) fn is_short(&self) -> bool {
        deed(self.shared.left()) != Deed::Nothing
    }

    /// Waits until the lease ends or begins.
    pub(super) async fn changed(&self) -> Event {
        self.shared.told.notified().await;
        match self.shared.is_short.load(Ordering::SeqCst) {
            true => Event::LeaseEnds,
            false => Event::LeaseBegins,
        }
    }

    /// Forgets the control groups of the pod, which is gone.
    pub(super) fn forget(&self) {
        lock(&self.shared.groups).clear();
        cgroups::forget(&self.shared.run, &self.shared.workload);
    }

    /// Kills all processes of the pod, in a tenth of a second at most.
    pub(super) fn kill(&self) {
        self.shared.kill();
    }
}

impl Drop for Guard {
    /// The supervisor ends, in whatever way: without it nothing of the pod may run.
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::SeqCst);
        if self.shared.needed.load(Ordering::SeqCst) {
            self.kill();
        }
    }
}

impl Shared {
    fn guard(&self, mut pings: Pings) {
        while !self.over.load(Ordering::SeqCst) {
            let deed = deed(self.left());
            self.tell(deed != Deed::Nothing);
            if deed == Deed::Kill {
                self.kill();
            }
            if lock(&self.beaten).elapsed() < LOOP_TIME_MAX {
                pings.send();
            }
            thread::sleep(STEP);
        }
    }

    /// How much of the lease is left; for a workload without one as much as ever.
    fn left(&self) -> Duration {
        match self.needed.load(Ordering::SeqCst) {
            true => left(&self.run, &self.workload),
            false => Duration::MAX,
        }
    }

    fn tell(&self, is_short: bool) {
        if self.is_short.swap(is_short, Ordering::SeqCst) != is_short {
            self.told.notify_one();
        }
    }

    fn kill(&self) {
        // The lock is not held while processes are killed.
        let groups = lock(&self.groups).clone();
        cgroups::kill_all(&self.mounts, &groups);
    }

    fn add(&self, found: &BTreeSet<String>) {
        let mut groups = lock(&self.groups);
        let mut all = found.clone();
        let earlier = groups.iter();
        all.extend(
            earlier
                .filter(|one| cgroups::exists(&self.mounts, one))
                .cloned(),
        );
        // The file tells `ExecStopPost=` that the workload is a singleton, also while it has no pod.
        let is_kept = cgroups::recall(&self.run, &self.workload).is_some_and(|kept| kept == all);
        if !is_kept && let Err(error) = cgroups::keep(&self.run, &self.workload, &all) {
            tracing::warn!(%error, "the control groups of the pod are not kept for the next supervisor, will retry");
        }
        *groups = all;
    }
}

/// Locks a value that no panic can leave half-written.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
