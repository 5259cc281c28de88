//! Resources that hosts and their processes use, as the kernel counts them: CPU time, bytes on the disk, memory and
//! wake-ups.
//!
//! Shell: reads `/proc`, `/sys` and the hosts' cgroups from outside. No process runs on a host for it.

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

/// The unit of the block layer's counters, independent of the device's sector size.
const SECTOR_BYTES: u64 = 512;

/// Resources that hosts have used since they booted.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    /// CPU time of all their processes, in microseconds.
    pub(crate) cpu_micros: u64,
    /// Bytes written to their block devices.
    pub(crate) written: u64,
}

impl Usage {
    /// The sum over these hosts. Dirty pages of their disks are written first.
    pub(crate) fn of(hosts: &[Host]) -> Result<Self> {
        let mut usage = Usage::default();
        for host in hosts {
            flush(host)?;
            usage.cpu_micros += cpu_micros(&host.cgroup())?;
            usage.written += written(&host.device())?;
        }
        Ok(usage)
    }

    /// The resources used after `earlier`.
    pub(crate) fn since(self, earlier: Usage) -> Usage {
        Usage {
            cpu_micros: self.cpu_micros.saturating_sub(earlier.cpu_micros),
            written: self.written.saturating_sub(earlier.written),
        }
    }
}

/// Writes the dirty pages of a host to its disk.
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

/// Bytes written to a block device since it was created.
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

/// Resources that a process has used since it started.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Process {
    /// CPU time, in microseconds.
    pub(crate) cpu_micros: u64,
    /// Bytes that it caused to be written to a disk.
    pub(crate) written: u64,
    /// How often one of its threads went to sleep voluntarily.
    pub(crate) sleeps: u64,
    /// Its current memory in bytes (PSS): each shared page is divided among the processes that share it.
    pub(crate) pss: u64,
    /// The part of `pss` that is not backed by a file.
    pub(crate) anonymous: u64,
}

impl Process {
    /// The current counters of a process; zeros for a process that has ended.
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

/// The CPU time of a process in microseconds, including that of its ended threads.
fn cpu_clock(pid: u32) -> Result<u64> {
    let clock = clock_getcpuclockid(Pid::from_raw(pid.cast_signed()))?;
    let spent = Duration::from(clock_gettime(clock)?);
    Ok(u64::try_from(spent.as_micros())?)
}

/// The number after a name in a file of `/proc`; 0 if it is missing.
fn field(path: &Path, name: &str) -> u64 {
    let text = fs::read_to_string(path).unwrap_or_default();
    let rest = text.lines().find_map(|line| line.strip_prefix(name));
    rest.and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}
