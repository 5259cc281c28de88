//! Repairs Podman's storage after a power cut.
//!
//! `beemesh-repair.service` does the work ([`storage`]), because a supervisor lacks the rights that it needs. This
//! module orders the repairs: one supervisor at a time starts the unit, and the others wait and find the storage
//! repaired.

use std::fs::{File, OpenOptions};
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use tokio::process::Command;

pub mod storage;

/// The unit that repairs the storage.
const UNIT: &str = "beemesh-repair.service";
/// The time limit of a repair. Podman reads every layer of its storage, which takes minutes on a full and slow disk.
const REPAIR_TIME_MAX: Duration = Duration::from_secs(900);
/// The pause between two attempts to take a lock that another supervisor holds.
const LOCK_STEP: Duration = Duration::from_millis(500);

/// Repairs the storage, or waits until another supervisor has repaired it. The lock is in the folder `run`. An error is
/// text for a person.
pub async fn repair(run: &Path) -> Result<(), String> {
    match tokio::time::timeout(REPAIR_TIME_MAX, once(&run.join("repair.lock"))).await {
        Ok(outcome) => outcome,
        Err(_) => Err(format!(
            "it takes longer than {} s",
            REPAIR_TIME_MAX.as_secs()
        )),
    }
}

async fn once(path: &Path) -> Result<(), String> {
    let words = |error: &dyn std::fmt::Display| format!("lock {}: {error}", path.display());
    let open = || {
        OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)
    };
    let mut file: File = open().map_err(|error| words(&error))?;
    let mut waited = false;
    let lock = loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => break lock,
            Err((unlocked, Errno::EWOULDBLOCK)) => file = unlocked,
            Err((_, error)) => return Err(words(&error)),
        }
        waited = true;
        tokio::time::sleep(LOCK_STEP).await;
    };
    if waited {
        return Ok(());
    }
    tracing::warn!("Podman's storage is damaged: {UNIT} repairs it");
    let output = Command::new("systemctl")
        .args(["start", UNIT])
        .kill_on_drop(true)
        .output()
        .await;
    drop(lock);
    let output = output.map_err(|error| format!("run systemctl: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(if words.is_empty() {
        format!("{UNIT} failed: {}", output.status)
    } else {
        words
    })
}
