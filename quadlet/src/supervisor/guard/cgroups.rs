//! Kills the processes of a singleton's pod by its control groups, without Podman.
//!
//! Shell: reads `/sys/fs/cgroup`, sends signals, and keeps the names of the groups in a file below `/run/beemesh`, so that
//! the next supervisor and the `ExecStopPost=` of the unit know them too. The processes by which Podman watches a
//! container are spared: they are no part of the workload, and Podman needs them to notice the end.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{fs, io, thread};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Where the control groups are: unified, beside the first version, and of the first version.
pub(in super::super) const MOUNTS: &[&str] = &[
    "/sys/fs/cgroup",
    "/sys/fs/cgroup/unified",
    "/sys/fs/cgroup/systemd",
];
/// The largest number of kept groups. A pod has two, and one for each container of which the group is somewhere else.
const GROUPS_MAX: usize = 512;
/// The largest size of the file, in bytes: that many groups of this pod.
const BYTES_MAX: u64 = 256 << 10;
/// The largest number of folders that are read of one group. A container can make groups of its own.
const FOLDERS_MAX: usize = 10_000;
/// Rounds of one kill. A process that forks while it is killed needs another round.
const ROUNDS_MAX: usize = 20;
/// The pause between two rounds, in which the kernel ends the killed processes.
const ROUND_PAUSE: Duration = Duration::from_millis(2);
/// The pause between two kills of processes that do not end.
const KILL_PAUSE: Duration = Duration::from_millis(100);

fn file(run: &Path, workload: &str) -> PathBuf {
    run.join(format!("cgroups-{workload}"))
}

/// The groups that the pod of this id may have, and those in which its containers are. They are paths below one of
/// [`MOUNTS`].
pub(in super::super) fn of_pod<'a>(
    id: &str,
    containers: impl IntoIterator<Item = &'a str>,
) -> BTreeSet<String> {
    if !is_id(id) {
        return BTreeSet::new();
    }
    // Podman names them so for each of its two managers of control groups.
    let known = [
        format!("machine.slice/machine-libpod_pod_{id}.slice"),
        format!("libpod_parent/{id}"),
    ];
    let found = containers.into_iter().filter_map(|path| top(path, id));
    known.into_iter().chain(found).collect()
}

fn is_id(id: &str) -> bool {
    !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The group of the pod in the path of a container's group, or else that of the container. `None` if neither is in it: then
/// the group has other processes too.
fn top(path: &str, pod: &str) -> Option<String> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let of_pod = parts.iter().position(|part| part.contains(pod));
    let of_container = || parts.iter().position(|part| is_container(part));
    let at = of_pod.or_else(of_container)?;
    Some(parts[..=at].join("/")).filter(|group| is_group(group))
}

/// Returns true if this can be the group of a pod or of a container of Podman, and of nothing else.
fn is_group(group: &str) -> bool {
    let mut parts = group.split('/');
    let last = parts.clone().next_back().unwrap_or_default();
    parts.all(|part| !part.is_empty() && part != "..")
        && (last.contains("libpod_pod_") || is_container(last) || {
            group.contains("libpod_parent/") && is_id(last)
        })
}

fn is_container(name: &str) -> bool {
    name.starts_with("libpod-") && !is_watching(name)
}

/// Returns true if the group of this name has the processes by which Podman watches a container.
fn is_watching(name: &str) -> bool {
    name.starts_with("libpod-conmon-") || name == "conmon"
}

/// The groups that an earlier supervisor of this workload knew; `None` if there was none, or the workload was no singleton.
pub(in super::super) fn recall(run: &Path, workload: &str) -> Option<BTreeSet<String>> {
    let mut text = String::new();
    let file = fs::File::open(file(run, workload)).ok()?;
    file.take(BYTES_MAX).read_to_string(&mut text).ok()?;
    let groups = text.lines().filter(|group| is_group(group));
    Some(groups.map(str::to_owned).collect())
}

/// Writes the groups for the next supervisor.
///
/// # Errors
///
/// The file cannot be written. The earlier one stays.
pub(in super::super) fn keep(
    run: &Path,
    workload: &str,
    groups: &BTreeSet<String>,
) -> io::Result<()> {
    let lines: Vec<&str> = groups.iter().take(GROUPS_MAX).map(String::as_str).collect();
    // No workload has a name with this character.
    let new = run.join(format!("cgroups-{workload}~"));
    fs::write(&new, lines.join("\n") + "\n")?;
    fs::rename(new, file(run, workload))
}

/// Removes the file, because the pod is gone.
pub(in super::super) fn forget(run: &Path, workload: &str) {
    drop(fs::remove_file(file(run, workload)));
}

/// Returns true if the group exists.
pub(super) fn exists(mounts: &[impl AsRef<Path>], group: &str) -> bool {
    let mut mounts = mounts.iter();
    mounts.any(|mount| mount.as_ref().join(group).exists())
}

/// Kills all processes in these groups, until there are none or this time is over. Returns true if there are none.
pub(in super::super) fn kill_within(
    mounts: &[impl AsRef<Path>],
    groups: &BTreeSet<String>,
    within: Duration,
) -> bool {
    let began = Instant::now();
    loop {
        if kill_all(mounts, groups) {
            return true;
        }
        if began.elapsed() >= within {
            return false;
        }
        thread::sleep(KILL_PAUSE);
    }
}

/// Kills all processes in these groups, in a tenth of a second at most. Returns true if there are none.
pub(super) fn kill_all(mounts: &[impl AsRef<Path>], groups: &BTreeSet<String>) -> bool {
    for round in 0..ROUNDS_MAX {
        if round > 0 {
            thread::sleep(ROUND_PAUSE);
        }
        if !kill_once(mounts, groups) {
            return true;
        }
    }
    false
}

/// Kills the processes that are in these groups now. Returns true if there were any.
fn kill_once(mounts: &[impl AsRef<Path>], groups: &BTreeSet<String>) -> bool {
    let mut found = Vec::new();
    for mount in mounts {
        for group in groups {
            gather(mount.as_ref().join(group), &mut found);
        }
    }
    let own = i32::try_from(std::process::id()).unwrap_or_default();
    let mut were_any = false;
    // As a process, 1 is the init, 0 one of another namespace, and a negative number a group.
    for pid in found.into_iter().filter(|pid| *pid > 1 && *pid != own) {
        were_any |= kill(Pid::from_raw(pid), Signal::SIGKILL).is_ok();
    }
    were_any
}

/// Adds the processes of a group and of those below it. The kernel kills those of a container at once if this process may
/// write to control groups, which the sandbox of the supervisor forbids.
fn gather(group: PathBuf, found: &mut Vec<i32>) {
    let mut rest = vec![group];
    let mut read = 0;
    while let Some(folder) = rest.pop()
        && read < FOLDERS_MAX
    {
        read += 1;
        let name = folder.file_name().and_then(|name| name.to_str());
        if name.is_some_and(is_watching) {
            continue;
        }
        if name.is_some_and(is_container) {
            let file = fs::OpenOptions::new()
                .write(true)
                .open(folder.join("cgroup.kill"));
            drop(file.and_then(|mut file| io::Write::write_all(&mut file, b"1")));
        }
        let list = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
        found.extend(list.lines().filter_map(|pid| pid.parse::<i32>().ok()));
        let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
        let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        rest.extend(folders.map(|entry| entry.path()));
    }
}

#[cfg(test)]
pub(super) mod tests;
