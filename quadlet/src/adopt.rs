//! Moves the processes that watch a pod's containers into its unit's control group.
//!
//! Input: the unit and the processes. From then on `systemctl status` lists them and what they log is the unit's. Needs
//! `Delegate=yes` on the unit. The D-Bus connection lives for one call: a supervisor adopts seldom and lives long.

use std::time::Duration;

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
    let mut attached = Vec::new();
    for pid in pids {
        // One by one: a single process that has just ended would fail them all.
        let answer = bus
            .call_method(
                Some("org.freedesktop.systemd1"),
                "/org/freedesktop/systemd1",
                Some("org.freedesktop.systemd1.Manager"),
                "AttachProcessesToUnit",
                &(unit, "", [*pid].as_slice()),
            )
            .await;
        match answer {
            Ok(_) => attached.push(*pid),
            Err(zbus::Error::MethodError(name, words, _)) => {
                tracing::warn!(pid, %name, words = words.unwrap_or_default(), "process not adopted");
            }
            Err(error) => return Err(error),
        }
    }
    bus.close().await?;
    Ok(attached)
}
