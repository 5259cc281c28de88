//! Takes the pod of a workload down: at a stop of its unit, after its supervisor, before a play, and when a lease ends.
//! Shell: decides nothing but what the end of the supervisor requires.

use std::time::Duration;

use super::guard::{Guard, cgroups};
use super::shell::Settings;
use super::sight::Eye;
use super::{EXIT_BEYOND_REPAIR, memory, report_file, stop};
use crate::podman::{Pod, Podman, PodmanError};
use crate::{adopt, play_lock, render};

/// How long a stop of the unit waits for the end of a play in progress, which Podman cannot interrupt.
pub(super) const STOP_PATIENCE: Duration = Duration::from_secs(20);
/// How long the kernel may take to end the killed processes of a singleton, before its pod is removed anyway.
const KILL_TIME_MAX: Duration = Duration::from_secs(10);
/// How long Podman may take to remove a pod whose containers have ended.
const REMOVE_TIME_MAX: Duration = Duration::from_secs(60);
/// How long to wait for the lock of a play. The gateway holds it for longer only while it plays the pod.
const LOCK_TIME_MAX: Duration = Duration::from_millis(100);

/// Runs after the main process: takes the pod down if systemd does not restart the supervisor.
pub async fn after_stop(
    settings: &Settings,
    result: &str,
    status: &str,
) -> Result<(), PodmanError> {
    if needs_lease(settings) {
        return after_stop_of_leased(settings, result).await;
    }
    if !is_over(result, status) {
        return Ok(());
    }
    let ledger = memory::recall(settings);
    if status == EXIT_BEYOND_REPAIR.to_string() && ledger.over {
        let pod = Podman::new(&settings.socket)
            .pod(&settings.workload)
            .await?;
        // The output of its containers can be read until the workload is started again, changed or removed.
        if pod.is_some_and(|pod| pod.id == ledger.pod) {
            return Ok(());
        }
    }
    end(&Eye::new(settings), settings).await?;
    memory::forget(settings);
    if result != "exit-code" {
        report_file::forget(&settings.run, &settings.workload);
    }
    Ok(())
}

/// Returns true if the workload is a singleton: its Quadlet says so, or its supervisor has kept the control groups of the
/// pod.
fn needs_lease(settings: &Settings) -> bool {
    let persisted = Eye::new(settings).persisted();
    persisted.is_some_and(|(_, yaml)| render::needs_lease(&yaml))
        || cgroups::recall(&settings.run, &settings.workload).is_some()
}

/// Runs after the main process of a singleton: its pod must not run without a supervisor, whatever ended that.
async fn after_stop_of_leased(settings: &Settings, result: &str) -> Result<(), PodmanError> {
    let Settings { run, workload, .. } = settings;
    // This needs no answer of Podman.
    let known = cgroups::recall(run, workload).unwrap_or_default();
    let is_empty = cgroups::kill_within(cgroups::MOUNTS, &known, KILL_TIME_MAX);
    if let Some(pod) = Podman::new(&settings.socket).pod(workload).await?
        && pod.workload() == Some(workload)
    {
        let groups = cgroups::of_pod(&pod.id, []);
        cgroups::kill_within(cgroups::MOUNTS, &groups, KILL_TIME_MAX);
    }
    end(&Eye::new(settings), settings).await?;
    memory::forget(settings);
    if is_empty {
        cgroups::forget(run, workload);
    }
    if result != "exit-code" {
        report_file::forget(run, workload);
    }
    Ok(())
}

/// Returns true if systemd does not restart the supervisor. A supervisor that was killed is restarted, and finds its pod.
fn is_over(result: &str, status: &str) -> bool {
    match result {
        "success" | "timeout" => true,
        "exit-code" => status == EXIT_BEYOND_REPAIR.to_string(),
        _ => false,
    }
}

/// Takes the workload's pod down if it exists. Usually another process has done so before.
pub(super) async fn end(eye: &Eye, settings: &Settings) -> Result<(), PodmanError> {
    let podman = Podman::new(&settings.socket);
    let wait = play_lock::wait(&settings.run, &settings.workload);
    if tokio::time::timeout(STOP_PATIENCE, wait).await.is_err() {
        tracing::warn!("the gateway is still playing the pod; taking it down");
    }
    if let Some(pod) = podman.pod(&settings.workload).await? {
        if play_lock::is_unstarted(&pod) && adopt::is_shutting_down().await {
            // systemd starts no container during a shutdown, so the play fails by itself, and no process runs that
            // should end gracefully.
            tracing::info!("the pod was not started yet: it will be played again after the boot");
            return Ok(());
        }
        play_lock::settle(&podman, &pod).await;
        return down_pod(eye, settings, Some(&pod)).await;
    }
    match eye.persisted() {
        Some((_, yaml)) => podman.remove_service_container(&yaml).await,
        None => Ok(()),
    }
}

/// Ends the containers of a singleton's pod within this time, because the lease ends, kills those that are left, and removes
/// the pod. The supervisor plays it again when the lease is back.
pub(super) async fn yield_pod(eye: &Eye, settings: &Settings, guard: &Guard, within: Duration) {
    let ended = tokio::time::timeout(within, end_soon(eye, settings, within));
    match ended.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "the containers are killed"),
        Err(_) => tracing::warn!("the containers have not ended in time, and are killed"),
    }
    guard.kill();
    let removed = tokio::time::timeout(REMOVE_TIME_MAX, remove(eye, settings));
    match removed.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "the pod is not removed yet, will retry"),
        Err(_) => tracing::warn!("the pod is not removed yet, because Podman does not answer"),
    }
}

async fn end_soon(eye: &Eye, settings: &Settings, within: Duration) -> Result<(), PodmanError> {
    let podman = Podman::new(&settings.socket);
    let pod = podman.pod(&settings.workload).await?;
    let ours = pod.filter(|pod| pod.workload() == Some(&settings.workload));
    match (ours, eye.persisted()) {
        (Some(pod), Some((_, yaml))) => stop::end_pod_within(&podman, &pod, &yaml, within).await,
        _ => Ok(()),
    }
}

/// Removes the pod, unless the gateway is playing it: then its containers are not started.
async fn remove(eye: &Eye, settings: &Settings) -> Result<(), PodmanError> {
    let lock = play_lock::hold(&settings.run, &settings.workload);
    let Ok(Ok(lock)) = tokio::time::timeout(LOCK_TIME_MAX, lock).await else {
        return Ok(());
    };
    let removed = down(eye, settings).await;
    lock.end();
    removed
}

/// Takes down the workload's pod of any revision, and any remains that would block a play.
pub(super) async fn down(eye: &Eye, settings: &Settings) -> Result<(), PodmanError> {
    let pod = Podman::new(&settings.socket)
        .pod(&settings.workload)
        .await?;
    down_pod(eye, settings, pod.as_ref()).await
}

/// Takes a pod down, except one that does not belong to Beemesh.
async fn down_pod(eye: &Eye, settings: &Settings, pod: Option<&Pod>) -> Result<(), PodmanError> {
    let podman = Podman::new(&settings.socket);
    let workload = settings.workload.as_str();
    if pod.is_some_and(|pod| pod.workload() != Some(workload)) {
        return Ok(());
    }
    if let Some((_, yaml)) = eye.persisted() {
        if let Some(pod) = pod
            && let Err(error) = stop::end_pod(&podman, pod, &yaml).await
        {
            tracing::warn!(%error, "the containers are ended without their preStop hooks");
        }
        match podman.down(&yaml).await {
            Ok(()) => {}
            Err(error) if error.is_passing() => return Err(error),
            Err(error) => tracing::warn!(%error, "the pod is removed by its name"),
        }
    }
    podman.remove_pod(workload).await
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_pod_is_taken_down_only_if_its_supervisor_is_not_restarted() {
        for (result, status, expected) in [
            ("success", "0", true),
            ("timeout", "KILL", true),
            ("exit-code", "70", true),
            ("exit-code", "75", false),
            ("exit-code", "101", false),
            ("signal", "KILL", false),
            ("core-dump", "ABRT", false),
            ("watchdog", "ABRT", false),
            ("oom-kill", "KILL", false),
        ] {
            assert_eq!(
                super::is_over(result, status),
                expected,
                "{result} {status}"
            );
        }
    }
}
