//! Moves the processes that watch a pod's containers into its unit's control group.
//!
//! Input: the unit and the processes. From then on `systemctl status` lists them and what they log is the unit's. Needs
//! `Delegate=yes` on the unit. The D-Bus connection lives for one call: a supervisor adopts seldom and lives long.

mod stuck;

use std::time::Duration;

pub use stuck::free;

/// systemd answers in milliseconds; during a daemon-reload with many units in a second or two.
const ATTACH_TIME_MAX: Duration = Duration::from_secs(10);

/// The path and interface of what all of systemd's units are asked of.
const MANAGER: (&str, &str) = (
    "/org/freedesktop/systemd1",
    "org.freedesktop.systemd1.Manager",
);

/// What came of moving processes into a unit.
#[derive(Debug, Default)]
pub struct Attached {
    /// Those that are there now.
    pub pids: Vec<u32>,
    /// The unit's main process was not restarted since somebody started the unit: no other supervisor has adopted any of them.
    pub is_first: bool,
}

/// Moves `pids`. Those that are not there then may have ended, or are tried again at the next look.
pub async fn attach(unit: &str, pids: &[u32]) -> Attached {
    match tokio::time::timeout(ATTACH_TIME_MAX, attach_each(unit, pids)).await {
        Ok(Ok(attached)) => attached,
        Ok(Err(error)) => {
            tracing::warn!(%error, unit, "containers not adopted, will retry");
            Attached::default()
        }
        Err(_) => {
            tracing::warn!(
                unit,
                "containers not adopted: systemd did not answer, will retry"
            );
            Attached::default()
        }
    }
}

async fn attach_each(unit: &str, pids: &[u32]) -> zbus::Result<Attached> {
    let bus = zbus::Connection::system().await?;
    // Together: each call waits its turn behind what else systemd is doing.
    let pids = match attach_call(&bus, unit, pids).await? {
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
    let is_first = matches!(restarts(&bus, unit).await, Ok(0));
    bus.close().await?;
    Ok(Attached { pids, is_first })
}

/// How often systemd has restarted the unit's main process by itself since the unit was last started.
async fn restarts(bus: &zbus::Connection, unit: &str) -> zbus::Result<u32> {
    let manager = (
        "/org/freedesktop/systemd1",
        "org.freedesktop.systemd1.Manager",
    );
    let answer = call(bus, manager, "GetUnit", &unit).await?;
    let path: zbus::OwnedObjectPath = answer.body().deserialize()?;
    let properties = (path.as_str(), "org.freedesktop.DBus.Properties");
    let wanted = ("org.freedesktop.systemd1.Service", "NRestarts");
    let answer = call(bus, properties, "Get", &wanted).await?;
    let value: zbus::OwnedVariant = answer.body().deserialize()?;
    u32::try_from(value)
}

/// One method of systemd's, by the object's path and interface.
async fn call<B>(
    bus: &zbus::Connection,
    (path, interface): (&str, &str),
    method: &str,
    body: &B,
) -> zbus::Result<zbus::Message>
where
    B: serde::Serialize + zbus::zvariant::DynamicType,
{
    let service = Some("org.freedesktop.systemd1");
    bus.call_method(service, path, Some(interface), method, body)
        .await
}

/// The inner error is systemd's refusal, in its words.
async fn attach_call(
    bus: &zbus::Connection,
    unit: &str,
    pids: &[u32],
) -> zbus::Result<Result<(), String>> {
    let answer = call(bus, MANAGER, "AttachProcessesToUnit", &(unit, "", pids)).await;
    match answer {
        Ok(_) => Ok(Ok(())),
        Err(zbus::Error::MethodError(name, words, _)) => {
            Ok(Err(words.unwrap_or_else(|| name.to_string())))
        }
        Err(error) => Err(error),
    }
}
