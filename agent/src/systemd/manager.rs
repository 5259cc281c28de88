//! The calls of `org.freedesktop.systemd1` that the agent needs.
//!
//! Shell. Start and stop wait for their job, and return a message unless systemd reports it as `done`.

use std::time::Duration;

use futures::StreamExt;
use zbus::{
    Connection, OwnedObjectPath, OwnedVariant, fdo::PropertiesProxy, names::InterfaceName,
    proxy::CacheProperties,
};

use super::{JOB_SECONDS_MAX, lifecycle::job_outcome, table::Changed};

pub(super) const SERVICE: &str = "org.freedesktop.systemd1";
pub(super) const UNIT: &str = "org.freedesktop.systemd1.Unit";
pub(super) const UNIT_SERVICE: &str = "org.freedesktop.systemd1.Service";
pub(super) const UNITS: &str = "/org/freedesktop/systemd1/unit";

/// The program that watches a container for Podman. It is the main process of a plain `.kube` unit.
const WATCHER: &str = "conmon";
const SIGKILL: i32 = 9;

/// An entry of `ListUnits`: name, description, load, active and sub state, followed unit, path, job id, job type and
/// job path.
pub(super) type Listed = (
    String,
    String,
    String,
    String,
    String,
    String,
    OwnedObjectPath,
    u32,
    String,
    OwnedObjectPath,
);

#[zbus::proxy(
    interface = "org.freedesktop.systemd1.Manager",
    default_service = "org.freedesktop.systemd1",
    default_path = "/org/freedesktop/systemd1"
)]
pub(super) trait Manager {
    fn subscribe(&self) -> zbus::Result<()>;
    fn reload(&self) -> zbus::Result<()>;
    fn start_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    fn stop_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    fn reset_failed_unit(&self, name: &str) -> zbus::Result<()>;
    fn kill_unit(&self, name: &str, whom: &str, signal: i32) -> zbus::Result<()>;
    fn load_unit(&self, name: &str) -> zbus::Result<OwnedObjectPath>;
    fn list_units_by_patterns(
        &self,
        states: &[&str],
        patterns: &[&str],
    ) -> zbus::Result<Vec<Listed>>;

    #[zbus(signal)]
    fn job_removed(
        &self,
        id: u32,
        job: OwnedObjectPath,
        unit: String,
        result: String,
    ) -> zbus::Result<()>;
    #[zbus(signal)]
    fn unit_removed(&self, id: String, unit: OwnedObjectPath) -> zbus::Result<()>;
    #[zbus(signal)]
    fn reloading(&self, active: bool) -> zbus::Result<()>;
}

/// The reason why a unit was not started.
pub(super) enum StartError {
    /// systemd finds no unit of this name.
    Unknown(String),
    /// Another reason, as a message for the user.
    Words(String),
}

impl From<StartError> for String {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Unknown(unit) => format!(
                "start {unit}: systemd does not know it; `journalctl -t quadlet-generator -b` on this host may say why Podman's generator made none"
            ),
            StartError::Words(words) => words,
        }
    }
}

/// Starts the unit. Returns `Ok` when the job is done, which is at once if the unit is active.
pub(super) async fn start(bus: &Connection, unit: &str) -> Result<(), StartError> {
    // Earlier failures must not count against an explicit start.
    reset_failed(bus, unit).await.map_err(StartError::Words)?;
    match run_job(bus, unit, Verb::Start).await {
        Err(JobError::NoSuchUnit) => Err(StartError::Unknown(unit.to_owned())),
        Err(JobError::Words(words)) => Err(StartError::Words(words)),
        Ok(()) => Ok(()),
    }
}

/// Stops the unit. Returns `Ok` when the job is done, or if systemd does not know the unit.
pub(super) async fn stop(bus: &Connection, unit: &str) -> Result<(), String> {
    match run_job(bus, unit, Verb::Stop).await {
        Err(JobError::Words(words)) => Err(words),
        Err(JobError::NoSuchUnit) | Ok(()) => Ok(()),
    }
}

/// Kills the unit's main process, and no other, if it is Podman's watcher of a container.
pub(super) async fn kill_watcher(bus: &Connection, unit: &str) -> Result<(), String> {
    let manager = ManagerProxy::new(bus).await.map_err(words)?;
    let path = manager.load_unit(unit).await.map_err(words)?;
    let properties = PropertiesProxy::builder(bus)
        .destination(SERVICE)
        .path(path)
        .cache_properties(CacheProperties::No)
        .build()
        .await
        .map_err(words)?;
    let interface = InterfaceName::from_static_str_unchecked(UNIT_SERVICE);
    let pid = properties.get(interface, "MainPID").await;
    let pid = pid.map_err(|error| words(error.into()))?;
    let pid = u32::try_from(pid).map_err(|error| error.to_string())?;
    let name = tokio::fs::read_to_string(format!("/proc/{pid}/comm")).await;
    if name.is_ok_and(|name| name.trim_end() == WATCHER) {
        let killed = manager.kill_unit(unit, "main", SIGKILL).await;
        return killed
            .map_err(|error| format!("kill the main process of {unit}: {}", words(error)));
    }
    Ok(())
}

/// Resets the unit's failed state.
pub(super) async fn reset_failed(bus: &Connection, unit: &str) -> Result<(), String> {
    let manager = ManagerProxy::new(bus).await.map_err(words)?;
    match manager.reset_failed_unit(unit).await {
        Err(err) if !is_no_such_unit(&err) => Err(format!("reset {unit}: {}", words(err))),
        Err(_) | Ok(()) => Ok(()),
    }
}

/// The properties of a unit that the gateway receives. `active` and `sub` come with the list.
pub(super) async fn properties(bus: &Connection, path: OwnedObjectPath) -> zbus::Result<Changed> {
    let properties = PropertiesProxy::builder(bus)
        .destination(SERVICE)
        .path(path)
        .cache_properties(CacheProperties::No)
        .build()
        .await?;
    let get = async |interface, name| {
        properties
            .get(InterfaceName::from_static_str_unchecked(interface), name)
            .await
    };
    let text = |value: OwnedVariant| String::try_from(value).ok();
    Ok(Changed {
        active: None,
        sub: None,
        result: text(get(UNIT_SERVICE, "Result").await?),
        status: text(get(UNIT_SERVICE, "StatusText").await?),
        started: u64::try_from(get(UNIT, "ActiveEnterTimestamp").await?)
            .ok()
            .map(|time| time != 0),
    })
}

/// The message of the bus or of systemd, without the name of the error.
pub(super) fn words(err: zbus::Error) -> String {
    match err {
        zbus::Error::MethodError(_, Some(text), _) => text,
        other => other.to_string(),
    }
}

#[derive(Debug, Clone, Copy)]
enum Verb {
    Start,
    Stop,
}

enum JobError {
    NoSuchUnit,
    Words(String),
}

async fn run_job(bus: &Connection, unit: &str, verb: Verb) -> Result<(), JobError> {
    let name = match verb {
        Verb::Start => "start",
        Verb::Stop => "stop",
    };
    let say = |text: &str| JobError::Words(format!("{name} {unit}: {text}"));
    let refused = |err| {
        if is_no_such_unit(&err) {
            JobError::NoSuchUnit
        } else {
            say(&words(err))
        }
    };
    let manager = ManagerProxy::new(bus).await.map_err(refused)?;
    // Subscribed before the call, because a job may be done before its number is known.
    let mut removed = manager
        .receive_job_removed_with_args(&[(2, unit)])
        .await
        .map_err(refused)?;
    let job = match verb {
        Verb::Start => manager.start_unit(unit, "replace").await,
        Verb::Stop => manager.stop_unit(unit, "replace").await,
    };
    let job = job.map_err(refused)?;
    let wait = async {
        while let Some(signal) = removed.next().await {
            let args = signal.args().map_err(refused)?;
            if args.job == job {
                return Ok(args.result);
            }
        }
        Err(say(
            "the connection to systemd was lost before the job was done",
        ))
    };
    let result = tokio::time::timeout(Duration::from_secs(JOB_SECONDS_MAX), wait)
        .await
        .map_err(|_| say(&format!("its job is not done after {JOB_SECONDS_MAX} s")))??;
    if result == "done" {
        return Ok(());
    }
    let Changed {
        result: cause,
        status,
        ..
    } = failure(bus, &manager, unit).await.map_err(refused)?;
    job_outcome(
        name,
        unit,
        &result,
        &cause.unwrap_or_default(),
        &status.unwrap_or_default(),
    )
    .map_err(JobError::Words)
}

/// The properties of a unit whose job failed; empty if systemd has unloaded it.
async fn failure(
    bus: &Connection,
    manager: &ManagerProxy<'_>,
    unit: &str,
) -> zbus::Result<Changed> {
    match manager.list_units_by_patterns(&[], &[unit]).await?.pop() {
        Some((.., path, _, _, _)) => properties(bus, path).await,
        None => Ok(Changed::default()),
    }
}

fn is_no_such_unit(err: &zbus::Error) -> bool {
    matches!(err, zbus::Error::MethodError(name, _, _) if name.as_str() == "org.freedesktop.systemd1.NoSuchUnit")
}
