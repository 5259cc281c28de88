//! Breaks a deadlock between Podman and systemd at a shutdown.
//!
//! At a shutdown systemd stops the scope of each conmon that no unit has adopted. It sends SIGTERM to the processes in
//! the scope once. conmon then starts a cleanup process in the same scope, which has not received that signal. The
//! cleanup process may wait for the pod's lock, while the process that holds the lock waits until systemd has stopped
//! the pod's slice. All of them wait until systemd kills the processes in the scope after 90 s. Podman answers no
//! request in that time. When the cleanup process is in another control group, systemd no longer waits for it.
//!
//! Input: systemd's state and the control groups. Output: the stuck processes are in the unit's control group.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use super::attach_call;

/// The folder in which systemd keeps the slices of Podman's pods. Each slice has the scopes of its containers' conmons.
const SLICES: &str = "/sys/fs/cgroup/machine.slice";
/// systemd answers in milliseconds, and the caller tries again.
const FREE_TIME_MAX: Duration = Duration::from_secs(2);

/// During a shutdown, moves Podman's cleanup processes from scopes that systemd is stopping into the unit's control
/// group. At any other time it does nothing.
pub async fn free(unit: &str) {
    match tokio::time::timeout(FREE_TIME_MAX, try_free(unit)).await {
        Ok(Ok(0)) => {}
        Ok(Ok(count)) => tracing::warn!(
            count,
            "moved processes of Podman into this unit, because the shutdown would have waited for them"
        ),
        Ok(Err(error)) => tracing::warn!(%error, "systemd does not say whether it shuts down"),
        Err(_) => tracing::warn!("systemd does not answer"),
    }
}

/// Whether systemd is shutting the host down. The result is `false` if systemd does not answer in time.
pub async fn is_shutting_down() -> bool {
    let asked = async {
        let bus = zbus::Connection::system().await?;
        is_stopping(&bus).await
    };
    matches!(
        tokio::time::timeout(FREE_TIME_MAX, asked).await,
        Ok(Ok(true))
    )
}

async fn try_free(unit: &str) -> zbus::Result<usize> {
    let bus = zbus::Connection::system().await?;
    let mut freed = 0;
    if is_stopping(&bus).await? {
        for pids in cleaning(Path::new(SLICES), Path::new("/proc")) {
            match attach_call(&bus, unit, &pids).await? {
                Ok(()) => freed += pids.len(),
                Err(words) => tracing::warn!(?pids, words, "processes not moved"),
            }
        }
    }
    bus.close().await?;
    Ok(freed)
}

async fn is_stopping(bus: &zbus::Connection) -> zbus::Result<bool> {
    let properties = zbus::fdo::PropertiesProxy::builder(bus)
        .destination("org.freedesktop.systemd1")
        .path("/org/freedesktop/systemd1")
        .build()
        .await?;
    let manager =
        zbus::names::InterfaceName::from_static_str_unchecked("org.freedesktop.systemd1.Manager");
    let state = properties.get(manager, "SystemState").await?;
    Ok(<&str>::try_from(&state).is_ok_and(|state| state == "stopping"))
}

/// The processes of each conmon scope in which Podman cleans up.
fn cleaning(slices: &Path, processes: &Path) -> Vec<Vec<u32>> {
    let is_podman = |pid: &u32| {
        let name = fs::read_to_string(processes.join(pid.to_string()).join("comm"));
        name.is_ok_and(|name| name.trim_end() == "podman")
    };
    children(slices, "machine-libpod_pod_")
        .iter()
        .flat_map(|slice| children(slice, "libpod-conmon-"))
        .filter_map(|scope| fs::read_to_string(scope.join("cgroup.procs")).ok())
        .map(|pids| pids.lines().filter_map(|pid| pid.parse().ok()).collect())
        .filter(|pids: &Vec<u32>| pids.iter().any(is_podman))
        .collect()
}

fn children(folder: &Path, prefix: &str) -> Vec<PathBuf> {
    let begins = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().starts_with(prefix);
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter(begins).map(|entry| entry.path()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_scopes_in_which_podman_cleans_up_are_freed() {
        let root = tempfile::tempdir().expect("a folder");
        let (slices, processes) = (root.path().join("machine.slice"), root.path().join("proc"));
        for (place, pids) in [
            (
                "machine-libpod_pod_a.slice/libpod-conmon-1.scope",
                "11\n12\n",
            ),
            ("machine-libpod_pod_a.slice/libpod-2.scope", "12\n"),
            ("machine-libpod_pod_b.slice/libpod-conmon-3.scope", "13\n"),
            ("libpod-conmon-4.scope", "12\n"),
        ] {
            let scope = slices.join(place);
            fs::create_dir_all(&scope).expect("made");
            fs::write(scope.join("cgroup.procs"), pids).expect("written");
        }
        for (pid, name) in [("11", "conmon\n"), ("12", "podman\n"), ("13", "conmon\n")] {
            fs::create_dir_all(processes.join(pid)).expect("made");
            fs::write(processes.join(pid).join("comm"), name).expect("written");
        }
        assert_eq!(cleaning(&slices, &processes), [[11, 12]]);
        assert_eq!(
            cleaning(&root.path().join("absent"), &processes),
            Vec::<Vec<u32>>::new()
        );
    }
}
