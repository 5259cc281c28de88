//! Moves the processes that watch a pod's containers into its unit's control group.
//!
//! Input: the unit and the processes. From then on `systemctl status` lists them and what they log is the unit's. Needs
//! `Delegate=yes` on the unit. The D-Bus connection lives for one call: a supervisor adopts seldom and lives long.

mod stuck;

use std::time::Duration;

pub use stuck::{free, is_shutting_down};

/// systemd answers in milliseconds; during a daemon-reload with many units in a second or two.
const ATTACH_TIME_MAX: Duration = Duration::from_secs(10);

/// Moves `pids`; gives those that are there now. The others may have ended, or are tried again at the next look.
pub async fn attach(unit: &str, pids: &[u32]) -> Vec<u32> {
    match tokio::time::timeout(ATTACH_TIME_MAX, attach_each(unit, pids)).await {
        Ok(Ok(attached)) => attached,
        Ok(Err(error)) => {
            tracing::warn!(%error, unit, "containers not adopted, will retry");
            Vec::new()
        }
        Err(_) => {
            tracing::warn!(
                unit,
                "containers not adopted: systemd did not answer, will retry"
            );
            Vec::new()
        }
    }
}

async fn attach_each(unit: &str, pids: &[u32]) -> zbus::Result<Vec<u32>> {
    let bus = zbus::Connection::system().await?;
    // Together: each call waits its turn behind what else systemd is doing.
    let attached = match attach_call(&bus, unit, pids).await? {
        Ok(()) => pids.to_vec(),
        // A single process that has just ended fails them all.
        Err(_) => {
            let mut attached = Vec::new();
            for pid in pids {
                match attach_call(&bus, unit, &[*pid]).await? {
                    Ok(()) => attached.push(*pid),
                    Err(words) => tracing::warn!(pid, words, "process not adopted"),
                }
            }
            attached
        }
    };
    bus.close().await?;
    Ok(attached)
}

/// The inner error is systemd's refusal, in its words.
async fn attach_call(
    bus: &zbus::Connection,
    unit: &str,
    pids: &[u32],
) -> zbus::Result<Result<(), String>> {
    let answer = bus
        .call_method(
            Some("org.freedesktop.systemd1"),
            "/org/freedesktop/systemd1",
            Some("org.freedesktop.systemd1.Manager"),
            "AttachProcessesToUnit",
            &(unit, "", pids),
        )
        .await;
    match answer {
        Ok(_) => Ok(Ok(())),
        Err(zbus::Error::MethodError(name, words, _)) => {
            Ok(Err(words.unwrap_or_else(|| name.to_string())))
        }
        // D-Bus' own errors: one says that there is no such process.
        Err(zbus::Error::FDO(error)) => Ok(Err(error.to_string())),
        Err(error) => Err(error),
    }
}
