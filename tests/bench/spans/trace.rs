//! The times when processes received bytes and flushed files, from `perf` events of their system calls.
//!
//! Shell around `perf record`; the pure [`parse`] reads its text.

use std::{
    fs::File,
    io::Read as _,
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::probe::now;

/// System calls that receive bytes.
const READS: [&str; 5] = ["read", "readv", "recvfrom", "recvmsg", "recvmmsg"];

/// An action of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    /// It received bytes.
    Got,
    /// It began to flush a file.
    FlushBegun,
    /// The file was flushed.
    Flushed,
}

/// An action of a process with its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Event {
    /// The time in microseconds: of the kernel's monotonic clock, and since 1970 after [`Trace::stop`].
    pub(super) at: u64,
    /// The PID.
    pub(super) pid: u32,
    pub(super) act: Act,
}

/// A running `perf`.
pub(super) struct Trace {
    child: Child,
    file: tempfile::NamedTempFile,
}

impl Trace {
    /// Starts to trace these processes.
    pub(super) fn start(pids: &[u32]) -> Result<Self> {
        let reads = READS.map(|call| format!("syscalls:sys_exit_{call}"));
        let flushes = ["enter", "exit"].map(|end| format!("syscalls:sys_{end}_fdatasync"));
        let events = [&reads[..], &flushes[..]].concat().join(",");
        let pids: Vec<_> = pids.iter().map(u32::to_string).collect();
        let file = tempfile::NamedTempFile::new()?;
        let child = Command::new("perf")
            .args([
                "record",
                "-q",
                "-k",
                "CLOCK_MONOTONIC",
                "-e",
                &events,
                "-p",
                &pids.join(","),
            ])
            .arg("-o")
            .arg(file.path())
            .stderr(Stdio::inherit())
            .spawn()
            .context("run perf: is it installed?")?;
        Ok(Self { child, file })
    }

    /// Stops the trace and returns its events in order.
    pub(super) fn stop(mut self) -> Result<Vec<Event>> {
        kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGINT)?;
        let _ = self.child.wait()?;
        let output = Command::new("perf")
            .args([
                "script",
                "--ns",
                "-F",
                "comm,pid,tid,time,event,trace",
                "-i",
            ])
            .arg(self.file.path())
            .output()?;
        ensure!(
            output.status.success(),
            "perf script: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let text = String::from_utf8_lossy(&output.stdout);
        // `perf` supports no clock that counts from 1970.
        let since_1970 = now() - monotonic()?;
        let mut events: Vec<_> = text.lines().filter_map(parse).collect();
        for event in &mut events {
            event.at += since_1970;
        }
        events.sort_by_key(|event| event.at);
        Ok(events)
    }
}

/// The kernel's monotonic clock, in microseconds.
fn monotonic() -> Result<u64> {
    let mut head = [0; 128];
    let length = File::open("/proc/timer_list")?.read(&mut head)?;
    let head = String::from_utf8_lossy(&head[..length]);
    let nanos = head
        .split_once("now at ")
        .and_then(|(_, rest)| rest.split_once(' '));
    let nanos: u64 = nanos.context("no time in /proc/timer_list")?.0.parse()?;
    Ok(nanos / 1000)
}

/// Parses a line such as `beemesh-agent 12/13 4839.599230643: syscalls:sys_exit_recvfrom: 0x1`.
fn parse(line: &str) -> Option<Event> {
    let (before, after) = line.split_once(": ")?;
    let mut words = before.rsplit(' ').filter(|word| !word.is_empty());
    let (time, ids) = (words.next()?, words.next()?);
    let (seconds, nanos) = time.split_once('.')?;
    let at = seconds.parse::<u64>().ok()? * 1_000_000 + nanos.parse::<u64>().ok()? / 1000;
    let pid = ids.split_once('/')?.0.parse().ok()?;
    let (call, rest) = after
        .trim()
        .strip_prefix("syscalls:sys_")?
        .split_once(": ")?;
    let act = match call.split_once('_')? {
        ("enter", "fdatasync") => Act::FlushBegun,
        ("exit", "fdatasync") => Act::Flushed,
        ("exit", _) => {
            let got = u64::from_str_radix(rest.trim().strip_prefix("0x")?, 16).ok()?;
            // A negative result is an error, and 0 is the end of a stream.
            (got.cast_signed() > 0).then_some(Act::Got)?
        }
        _ => return None,
    };
    Some(Event { at, pid, act })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_perf_are_read() {
        let event = |pid, act| {
            let at = 4_839_599_230;
            Some(Event { at, pid, act })
        };
        for (line, expected) in [
            (
                "  beemesh agent 12/13  4839.599230643:   syscalls:sys_exit_recvfrom: 0x1",
                event(12, Act::Got),
            ),
            (
                "python3 7/7  4839.599230643: syscalls:sys_enter_fdatasync: fd: 0x00000005",
                event(7, Act::FlushBegun),
            ),
            (
                "python3 7/7  4839.599230643:  syscalls:sys_exit_fdatasync: 0x0",
                event(7, Act::Flushed),
            ),
            (
                "python3 7/7  4839.599230643: syscalls:sys_exit_read: 0xfffffffffffffff5",
                None,
            ),
            ("nonsense", None),
        ] {
            assert_eq!(parse(line), expected, "{line}");
        }
    }
}
