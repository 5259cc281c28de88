//! Finds the process that uses a port of this host.
//!
//! Shell: reads `/proc` of all processes, which the agent's sandbox hides from the agent.

mod read;

use std::{collections::BTreeSet, fs, net::IpAddr, path::PathBuf};

use super::{Protocol, own::socket_inode};

/// Returns the process that uses a port, as `conmon (process 812, of container web-main)`; `None` if there is none.
pub(super) fn of(protocol: Protocol, port: u16) -> Option<String> {
    let sockets = sockets(protocol, port);
    if sockets.is_empty() {
        return None;
    }
    let inodes: Vec<u64> = sockets.iter().map(|socket| socket.inode).collect();
    let me = std::process::id();
    let holds = |process: &u32| *process != me && holds(*process, &inodes);
    let process = processes().into_iter().find(holds)?;
    Some(words(process))
}

/// Returns the addresses on which sockets receive on a port.
pub(super) fn addresses(protocol: Protocol, port: u16) -> BTreeSet<IpAddr> {
    let sockets = sockets(protocol, port).into_iter();
    sockets.map(|socket| socket.address).collect()
}

fn sockets(protocol: Protocol, port: u16) -> Vec<read::Receiver> {
    let tables = match protocol {
        Protocol::Udp => ["/proc/net/udp", "/proc/net/udp6"],
        Protocol::Tcp => ["/proc/net/tcp", "/proc/net/tcp6"],
    };
    let tables = tables.iter();
    let tables = tables.filter_map(|table| fs::read_to_string(table).ok());
    tables
        .flat_map(|table| read::receivers(&table, protocol, port))
        .collect()
}

fn holds(process: u32, inodes: &[u64]) -> bool {
    let Ok(entries) = fs::read_dir(format!("/proc/{process}/fd")) else {
        return false;
    };
    let targets = entries.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    targets
        .filter_map(|target| socket_inode(&target.to_string_lossy()))
        .any(|inode| inodes.contains(&inode))
}

fn words(process: u32) -> String {
    let file = |name: &str| {
        let path = PathBuf::from(format!("/proc/{process}")).join(name);
        fs::read_to_string(path).unwrap_or_default()
    };
    let name = file("comm").trim().to_owned();
    let container = read::conmon(&file("cmdline")).map(|(_, name)| name);
    let container = container.or_else(|| named(&read::container(&file("cgroup"))?));
    match container {
        Some(container) => format!("{name} (process {process}, of container {container})"),
        None => format!("{name} (process {process})"),
    }
}

/// The command line of the process that watches a container has Podman's name of the container.
fn named(id: &str) -> Option<String> {
    let lines = processes().into_iter().filter_map(|process| {
        let line = fs::read_to_string(format!("/proc/{process}/cmdline")).ok()?;
        read::conmon(&line)
    });
    let mut names = lines.filter(|(container, _)| container == id);
    names.next().map(|(_, name)| name)
}

fn processes() -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten();
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_string_lossy().parse().ok())
        .collect()
}
