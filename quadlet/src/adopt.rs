//! Moves the conmon processes of a pod's containers into the control group of the workload's unit.
//!
//! Input: the unit and the processes. After the move `systemctl status` lists the processes, and journald attributes
//! their output to the unit. The unit needs `Delegate=yes`. Each call opens its own D-Bus connection: a supervisor
//! adopts processes rarely and lives long.

mod stuck;

use std::time::Duration;

pub use stuck::{free, is_shutting_down};

/// systemd answers in milliseconds; during a daemon-reload with many units it takes one or two seconds.
const ATTACH_TIME_MAX: Duration = Duration::from_secs(10);

/// Moves `pids` and returns those that are in the unit now. A process that is missing from the result has ended, or the
/// supervisor tries it again at its next look.
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
    // All in one call: each call waits in the queue behind systemd's other work.
    let attached = match attach_call(&bus, unit, pids).await? {
        Ok(()) => pids.to_vec(),
        // One process that has just ended makes the whole call fail.
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

/// The inner error is systemd's refusal, in systemd's words.
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
        // An error of D-Bus itself, such as the one for a process that does not exist.
        Err(zbus::Error::FDO(error)) => Ok(Err(error.to_string())),
        Err(error) => Err(error),
    }
}
