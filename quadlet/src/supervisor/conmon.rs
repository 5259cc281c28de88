//! Ends the processes that Podman leaves behind after a command in a container.
//!
//! Shell: reads `/sys/fs/cgroup` and `/proc`. Podman's API starts conmon for each command. When the command has ended,
//! two processes of conmon wait for `exit_command_delay` (containers.conf(5), five minutes by default) before they start
//! Podman to remove the session. With a probe every ten seconds, sixty processes would wait for each probe, and Podman
//! would be started once more for each of its runs. A session that has been removed needs none of that.

use std::{fs, path::Path};

use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// Where the control groups are: unified, beside the first version, and of the first version.
const CGROUPS: [&str; 3] = [
    "/sys/fs/cgroup/machine.slice",
    "/sys/fs/cgroup/unified/machine.slice",
    "/sys/fs/cgroup/systemd/machine.slice",
];
/// The slices of pods in it.
const POD_SLICE: &str = "machine-libpod_pod_";

/// Ends the processes that wait for a session which has been removed.
pub(super) fn end(container: &str, session: &str) {
    for group in CGROUPS.map(Path::new) {
        for pid in members(group, container) {
            if is_of(pid, session) {
                match kill(Pid::from_raw(pid), Signal::SIGKILL) {
                    Ok(()) | Err(Errno::ESRCH) => {}
                    Err(error) => tracing::debug!(pid, %error, "conmon was not ended"),
                }
            }
        }
    }
}

/// The processes in the control groups of this container's conmons.
fn members(machine: &Path, container: &str) -> Vec<i32> {
    let scope = format!("libpod-conmon-{container}.scope/cgroup.procs");
    let slices = fs::read_dir(machine).into_iter().flatten().flatten();
    let slices = slices.filter(|entry| {
        let name = entry.file_name();
        name.to_str()
            .is_some_and(|name| name.starts_with(POD_SLICE))
    });
    let lists = slices.filter_map(|slice| fs::read_to_string(slice.path().join(&scope)).ok());
    let pids = lists.flat_map(|list| {
        let pids = list.lines().map(|line| line.parse().ok());
        pids.flatten().collect::<Vec<i32>>()
    });
    // As a process, 1 is the init, and a negative number a group.
    pids.filter(|pid| *pid > 1).collect()
}

/// Returns true if the process is a conmon of this session: it has the session behind `-u`.
fn is_of(pid: i32, session: &str) -> bool {
    let line = fs::read(format!("/proc/{pid}/cmdline"));
    line.is_ok_and(|line| names(&line, session))
}

fn names(command_line: &[u8], session: &str) -> bool {
    let words: Vec<&[u8]> = command_line.split(|byte| *byte == 0).collect();
    let is_conmon = words.first().is_some_and(|word| word.ends_with(b"conmon"));
    let mut pairs = words.windows(2);
    is_conmon && pairs.any(|pair| pair[0] == b"-u" && pair[1] == session.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conmon_is_known_by_its_session_and_a_container_by_its_own() {
        let line = |unit: &str| {
            format!("/usr/bin/conmon\0--api-version\x001\0-c\0c1\0-u\0{unit}\0-r\0crun\0")
        };
        assert!(names(line("s1").as_bytes(), "s1"));
        for other in ["s2", "c1", "s11"] {
            assert!(!names(line(other).as_bytes(), "s1"), "{other}");
        }
        assert!(!names(b"sleep\0-u\0s1\0", "s1"), "another program");
        assert!(!names(b"", "s1"));
    }

    #[test]
    fn the_processes_of_one_container_are_found() -> std::io::Result<()> {
        let folder = tempfile::tempdir()?;
        for (slice, scope, list) in [
            (
                "machine-libpod_pod_a.slice",
                "libpod-conmon-c1.scope",
                "12\n13\n1\n",
            ),
            (
                "machine-libpod_pod_a.slice",
                "libpod-conmon-c2.scope",
                "14\n",
            ),
            ("other.slice", "libpod-conmon-c1.scope", "15\n"),
        ] {
            let scope = folder.path().join(slice).join(scope);
            fs::create_dir_all(&scope)?;
            fs::write(scope.join("cgroup.procs"), list)?;
        }
        assert_eq!(members(folder.path(), "c1"), [12, 13]);
        assert!(members(&folder.path().join("absent"), "c1").is_empty());
        Ok(())
    }
}
