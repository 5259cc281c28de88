//! A lock that lets one process at a time play a workload's pod: the gateway or the supervisor of its unit.
//!
//! Shell: a lock on a file below `/run/beemesh`. The gateway takes it ([`hold`]) before its play waits in the queue,
//! and holds it while it takes the old pod down and plays the new one. The unit may be started in that time: its
//! supervisor, or one whose pod is replaced, waits for the lock ([`wait`]) and then adopts the pod that it finds. A
//! hundred supervisors that looked at their pods in that time would leave Podman no time to play. A supervisor that has
//! to play holds the lock, too: of two plays of one pod one fails, and its cleanup would take down the other's pod. The
//! kernel releases the lock of a process that dies; the file that it leaves tells that the play was interrupted
//! ([`was_interrupted`]). The same holds for a play that its process gives up in the middle ([`PlayLock::end`]).
//!
//! Podman continues a play after its caller has ended, so a caller looks at the pod itself before it takes the pod down
//! ([`settle`]).

use std::{
    fs::{self, OpenOptions},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};

use crate::{
    file_lock,
    health::{Role, Run},
    podman::{Pod, Podman},
};

/// The pause between two attempts to take the lock. Supervisors that have waited for it hold it for microseconds.
const HOLD_STEP: Duration = Duration::from_millis(10);
/// The longest wait for the lock: longer than a play behind a hundred others, which Podman carries out one after the
/// other.
const HOLD_TIME_MAX: Duration = Duration::from_secs(300);
/// How long a pod that is to be taken down may still start. The remains of a failed play never start.
const SETTLE_TIME_MAX: Duration = Duration::from_secs(20);
/// The pause between two checks of the pod.
const SETTLE_STEP: Duration = Duration::from_millis(200);

/// The lock, held until it is dropped.
#[derive(Debug)]
pub struct PlayLock {
    path: PathBuf,
    waited: bool,
    _lock: Flock<fs::File>,
}

impl PlayLock {
    /// Whether this process waited for another one that held the lock. Data that was read before the wait may then be
    /// outdated.
    #[must_use]
    pub fn has_waited(&self) -> bool {
        self.waited
    }

    /// Releases the lock after the play has ended, with or without success. A lock that is only dropped counts as an
    /// interrupted play.
    pub fn end(self) {
        // The file is removed while the lock is held: no other process can create it, and each waiting process has it
        // open.
        drop(fs::remove_file(&self.path));
    }
}

fn file(folder: &Path, workload: &str) -> PathBuf {
    folder.join(format!("playing-{workload}.lock"))
}

/// Takes the lock of a workload in `folder`.
///
/// # Errors
///
/// The file cannot be created, or another process holds the lock for more than five minutes.
pub async fn hold(folder: &Path, workload: &str) -> io::Result<PlayLock> {
    let held = hold_patiently(folder, workload);
    let held = tokio::time::timeout(HOLD_TIME_MAX, held).await;
    held.unwrap_or_else(|late| Err(io::Error::new(io::ErrorKind::TimedOut, late)))
}

async fn hold_patiently(folder: &Path, workload: &str) -> io::Result<PlayLock> {
    let path = file(folder, workload);
    let mut waited = false;
    loop {
        // The file is created for each attempt, because the last holder has removed it.
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) if is_at(&lock, &path) => {
                return Ok(PlayLock {
                    path,
                    waited,
                    _lock: lock,
                });
            }
            // The file was removed before it was locked.
            Ok(_) => continue,
            Err((_, Errno::EWOULDBLOCK)) => {}
            Err((_, errno)) => return Err(errno.into()),
        }
        waited = true;
        wait(folder, workload).await;
        tokio::time::sleep(HOLD_STEP).await;
    }
}

/// Whether the path still refers to this open file.
fn is_at(file: &fs::File, path: &Path) -> bool {
    let (ours, theirs) = (file.metadata(), fs::metadata(path));
    ours.is_ok_and(|ours| theirs.is_ok_and(|theirs| ours.ino() == theirs.ino()))
}

/// Returns true if a process began to play the workload's pod and did not end the play: the lock file exists, and no
/// process holds the lock.
#[must_use]
pub fn was_interrupted(folder: &Path, workload: &str) -> bool {
    let file = fs::File::open(file(folder, workload));
    file.is_ok_and(|file| Flock::lock(file, FlockArg::LockSharedNonblock).is_ok())
}

/// Waits until no process holds the lock of a workload in `folder`. A lock that cannot be read counts as free.
///
/// A thread sleeps in the kernel meanwhile. It ends when the lock is free, even if its caller has stopped waiting.
pub async fn wait(folder: &Path, workload: &str) {
    let Ok(file) = fs::File::open(file(folder, workload)) else {
        return;
    };
    let Err((file, Errno::EWOULDBLOCK)) = Flock::lock(file, FlockArg::LockSharedNonblock) else {
        return;
    };
    drop(file_lock::wait(file, FlockArg::LockShared).await);
}

/// Waits until all containers of a pod have been started or the pod is removed, for at most [`SETTLE_TIME_MAX`]. Call
/// it before the pod is taken down, unless its play has failed.
///
/// Podman 5.4 starts a pod by taking the pod's lock and then the service container's lock, and takes a pod down by
/// taking them in the opposite order. At the same moment the two operations deadlock, and soon Podman answers no
/// request. Podman has both locks before it starts the first container.
pub async fn settle(podman: &Podman, pod: &Pod) {
    let settled = async {
        let mut unstarted = is_unstarted(pod);
        while unstarted {
            tokio::time::sleep(SETTLE_STEP).await;
            let pod = podman.pod(&pod.name).await;
            unstarted = pod.is_ok_and(|pod| pod.is_some_and(|pod| is_unstarted(&pod)));
        }
    };
    if tokio::time::timeout(SETTLE_TIME_MAX, settled)
        .await
        .is_err()
    {
        tracing::warn!(
            pod = pod.name,
            "taken down although a container of it was never started"
        );
    }
}

/// Whether a container of the pod was created and never started, although Podman should start it.
#[must_use]
pub fn is_unstarted(pod: &Pod) -> bool {
    // The supervisor starts the containers, each when it is due.
    if pod.is_started_by_supervisor() {
        return false;
    }
    let mut containers = pod.containers.iter();
    containers.any(|container| container.run == Run::Created && container.role != Role::Holder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_waiting_process_proceeds_when_the_lock_is_released() {
        let folder = tempfile::tempdir().expect("a folder");
        let wait_shortly =
            || tokio::time::timeout(Duration::from_millis(50), wait(folder.path(), "web"));
        wait_shortly().await.expect("nobody plays");
        let held = hold(folder.path(), "web").await.expect("taken");
        assert!(wait_shortly().await.is_err(), "held");
        assert!(!held.has_waited());
        let soon = tokio::time::timeout(Duration::from_millis(50), hold(folder.path(), "web"));
        assert!(soon.await.is_err(), "one at a time");
        let other = tokio::time::timeout(Duration::from_millis(50), wait(folder.path(), "db"));
        other.await.expect("another workload's");
        let waiting = wait(folder.path(), "web");
        held.end();
        waiting.await;
        let held = hold(folder.path(), "web").await.expect("taken");
        let next = tokio::spawn({
            let folder = folder.path().to_owned();
            async move { hold(&folder, "web").await }
        });
        tokio::task::yield_now().await;
        held.end();
        let next = next.await.expect("no panic").expect("taken in turn");
        assert!(next.has_waited());
        next.end();
        assert_eq!(
            fs::read_dir(folder.path()).expect("listed").count(),
            0,
            "nothing is left behind"
        );
    }

    #[tokio::test]
    async fn a_lock_file_of_a_dead_gateway_delays_no_process() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(!was_interrupted(folder.path(), "web"), "no play");
        fs::write(file(folder.path(), "web"), "").expect("written");
        wait(folder.path(), "web").await;
        assert!(was_interrupted(folder.path(), "web"));
        let lock = hold(folder.path(), "web").await.expect("taken again");
        assert!(!was_interrupted(folder.path(), "web"), "a play goes on");
        drop(lock);
        assert!(was_interrupted(folder.path(), "web"), "it was given up");
        hold(folder.path(), "web")
            .await
            .expect("taken once more")
            .end();
        assert!(!was_interrupted(folder.path(), "web"), "and has ended");
    }
}
