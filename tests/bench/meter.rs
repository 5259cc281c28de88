//! What hosts and their processes take: CPU time, bytes on the disk, memory and wake-ups, as the kernel counts them.
//!
//! Shell: reads `/proc`, `/sys` and the hosts' cgroups from outside. Nothing runs on a host for it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use harness::Host;
use nix::{
    time::{clock_getcpuclockid, clock_gettime},
    unistd::Pid,
};

/// A sector of the block layer's counters, whatever the device's own is.
const SECTOR_BYTES: u64 = 512;

/// What hosts have taken since they were booted.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    /// CPU time of all their processes, in microseconds.
    pub(crate) cpu_micros: u64,
    /// What reached their block devices, in bytes.
    pub(crate) written: u64,
}

impl Usage {
    /// Of these hosts together. What they have in memory for their disks is written first.
    pub(crate) fn of(hosts: &[Host]) -> Result<Self> {
        let mut usage = Usage::default();
        for host in hosts {
            flush(host)?;
            usage.cpu_micros += cpu_micros(&host.cgroup())?;
            usage.written += written(&host.device())?;
        }
        Ok(usage)
    }

    /// What was taken after `earlier`.
    pub(crate) fn since(self, earlier: Usage) -> Usage {
        Usage {
            cpu_micros: self.cpu_micros.saturating_sub(earlier.cpu_micros),
            written: self.written.saturating_sub(earlier.written),
        }
    }
}

/// Writes to the disk of a host what waits for it in memory.
pub(crate) fn flush(host: &Host) -> Result<()> {
    let disk = host.root().with_file_name("disk");
    let done = Command::new("sync").arg("-f").arg(&disk).status()?;
    ensure!(done.success(), "sync {}", disk.display());
    Ok(())
}

fn cpu_micros(cgroup: &Path) -> Result<u64> {
    let path = cgroup.join("cpu.stat");
    let stat = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let usage = stat
        .lines()
        .find_map(|line| line.strip_prefix("usage_usec "));
    usage
        .and_then(|micros| micros.parse().ok())
        .with_context(|| format!("no usage_usec in {}", path.display()))
}

/// What a block device has written since it exists, in bytes.
pub(crate) fn written(device: &Path) -> Result<u64> {
    let name = device.file_name().unwrap_or_default();
    let path = Path::new("/sys/block").join(name).join("stat");
    let stat = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let sectors = stat
        .split_whitespace()
        .nth(6)
        .and_then(|field| field.parse::<u64>().ok());
    Ok(sectors.context("no sectors written in the device's stat")? * SECTOR_BYTES)
}

/// What a process has taken since it began.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Process {
    /// CPU time, in microseconds.
    pub(crate) cpu_micros: u64,
    /// What it caused to be written to a disk, in bytes.
    pub(crate) written: u64,
    /// How often one of its threads went to sleep by itself.
    pub(crate) sleeps: u64,
    /// Memory, with each shared page divided among those who share it, in bytes; as it is now.
    pub(crate) pss: u64,
    /// What of `pss` is no page of a file.
    pub(crate) anonymous: u64,
}

impl Process {
    /// Of one process as it is now; nothing of one that has ended.
    pub(crate) fn of(pid: u32) -> Self {
        let at = PathBuf::from(format!("/proc/{pid}"));
        let tasks = fs::read_dir(at.join("task"))
            .into_iter()
            .flatten()
            .flatten();
        let sleeps =
            tasks.map(|task| field(&task.path().join("status"), "voluntary_ctxt_switches:"));
        let memory = at.join("smaps_rollup");
        Self {
            cpu_micros: cpu_clock(pid).unwrap_or_default(),
            written: field(&at.join("io"), "write_bytes:"),
            sleeps: sleeps.sum(),
            pss: field(&memory, "Pss:") * 1024,
            anonymous: field(&memory, "Pss_Anon:") * 1024,
        }
    }
}

/// The CPU time of a process, that of its ended threads included, in microseconds.
fn cpu_clock(pid: u32) -> Result<u64> {
    let clock = clock_getcpuclockid(Pid::from_raw(pid.cast_signed()))?;
    let spent = Duration::from(clock_gettime(clock)?);
    Ok(u64::try_from(spent.as_micros())?)
}

/// The number after a name in a file of `/proc`; 0 when it is not there.
fn field(path: &Path, name: &str) -> u64 {
    let text = fs::read_to_string(path).unwrap_or_default();
    let rest = text.lines().find_map(|line| line.strip_prefix(name));
    rest.and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}
