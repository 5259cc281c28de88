//! Bounds how many commands of probes run on a host at a time.
//!
//! Shell: locks on files below `/run/beemesh`, which all supervisors of the host share. Each command costs Podman several
//! transactions of its database, which carries out one at a time. With hundreds of commands at once most of the time goes
//! into waiting for each other, and no pod can be started. The kernel releases the lock of a supervisor that dies.

use std::{
    fs::{File, OpenOptions},
    io,
    path::Path,
    pin::pin,
    process,
    time::Duration,
};

use nix::fcntl::{Flock, FlockArg};
use tokio::time::timeout;

use crate::file_lock;

/// Maximum number of commands at a time. Each takes some 50 ms, so that this is more than a busy host needs.
const TURNS: u32 = 4;
/// The longest wait for a turn. A command that has waited for so long runs without one: a probe must run.
const WAIT_MAX: Duration = Duration::from_secs(20);
/// How long a command may keep its turn. One that takes longer costs Podman nothing meanwhile.
const HELD_MAX: Duration = Duration::from_secs(1);

/// The turn of one command, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    _lock: Flock<File>,
}

impl Turn {
    /// Waits for a turn. `None`: there was none in time, or the files in `run` cannot be locked.
    pub(super) async fn take(run: &Path) -> Option<Self> {
        let first = process::id() % TURNS;
        for number in 0..TURNS {
            let file = open(run, (first + number) % TURNS).ok()?;
            if let Ok(lock) = Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                return Some(Self { _lock: lock });
            }
        }
        let waits = file_lock::wait(open(run, first).ok()?, FlockArg::LockExclusive);
        let lock = timeout(WAIT_MAX, waits).await.ok()??;
        Some(Self { _lock: lock })
    }
}

/// Does the work, and gives the turn up when the work takes long.
pub(super) async fn within<T>(turn: Option<Turn>, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    match timeout(HELD_MAX, &mut work).await {
        Ok(done) => done,
        Err(_) => {
            drop(turn);
            work.await
        }
    }
}

fn open(run: &Path, number: u32) -> io::Result<File> {
    let path = run.join(format!("probing-{number}.lock"));
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).write(true).open(path)
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;

    #[tokio::test]
    async fn no_more_than_the_turns_are_taken_at_a_time() {
        let run = tempfile::tempdir().unwrap();
        let mut held = Vec::new();
        for _ in 0..TURNS {
            held.push(Turn::take(run.path()).await.expect("a turn"));
        }
        let next = Turn::take(run.path());
        let mut next = pin!(next);
        let early = timeout(Duration::from_millis(100), &mut next).await;
        assert!(early.is_err(), "a turn beyond all");
        held.clear();
        let late = timeout(Duration::from_secs(5), next).await;
        assert!(late.expect("in time").is_some());
    }

    #[tokio::test]
    async fn long_work_gives_its_turn_up() {
        let run = tempfile::tempdir().unwrap();
        // One waits for the turn that this process takes first.
        let turn = Turn::take(run.path()).await;
        let mut held = Vec::new();
        for _ in 1..TURNS {
            held.push(Turn::take(run.path()).await.expect("a turn"));
        }
        let long = within(turn, sleep(Duration::from_secs(4)));
        let other = timeout(Duration::from_secs(3), Turn::take(run.path()));
        let ((), other) = tokio::join!(long, other);
        assert!(other.expect("while the work goes on").is_some());
    }

    #[tokio::test]
    async fn without_a_folder_there_is_no_turn_and_no_wait() {
        assert!(Turn::take(Path::new("/nonexistent")).await.is_none());
    }
}
