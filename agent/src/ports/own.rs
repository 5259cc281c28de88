//! Finds the sockets of this process in its table of file descriptors, because libp2p neither accepts nor returns
//! sockets.
//!
//! Shell.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    net::IpAddr,
    os::fd::{BorrowedFd, OwnedFd, RawFd},
};

use socket2::SockRef;

use super::{Protocol, place};

/// Returns copies of the sockets that receive on one of these ports: listening TCP sockets, and UDP sockets.
pub(super) fn listening(ports: &[u16]) -> io::Result<Vec<OwnedFd>> {
    let receives = |socket: &OwnedFd| {
        let seen = SockRef::from(socket);
        place(&seen).is_some_and(|(protocol, address)| {
            let receives = protocol == Protocol::Udp || seen.is_listener().unwrap_or(false);
            receives && ports.contains(&address.port())
        })
    };
    Ok(copies()?.into_values().filter(receives).collect())
}

/// Returns the inode numbers of this process's sockets.
pub(crate) fn inodes() -> io::Result<BTreeSet<u64>> {
    Ok(numbers()?.into_keys().collect())
}

/// Returns a copy of the only UDP socket at this address that this process has created since `before`.
pub(super) fn made(before: &BTreeSet<u64>, ip: IpAddr) -> io::Result<OwnedFd> {
    let mut made = copies()?.into_iter().filter_map(|(inode, socket)| {
        let is_udp = place(&SockRef::from(&socket))
            .is_some_and(|(protocol, at)| protocol == Protocol::Udp && at.ip() == ip);
        (is_udp && !before.contains(&inode)).then_some(socket)
    });
    match (made.next(), made.next()) {
        (Some(socket), None) => Ok(socket),
        _ => Err(io::Error::other("libp2p has not made one UDP socket")),
    }
}

/// Returns a copy of each socket of this process, by inode number.
fn copies() -> io::Result<BTreeMap<u64, OwnedFd>> {
    let mut copies = BTreeMap::new();
    for (inode, number) in numbers()? {
        #[allow(unsafe_code, reason = "the table of descriptors has numbers only")]
        // SAFETY: another thread may close the descriptor at any time. Then the copy fails, or is of another file,
        // which the caller inspects and closes. The borrow ends with this line.
        let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
        if let Ok(copy) = borrowed.try_clone_to_owned() {
            copies.insert(inode, copy);
        }
    }
    Ok(copies)
}

fn numbers() -> io::Result<BTreeMap<u64, RawFd>> {
    let mut numbers = BTreeMap::new();
    for entry in fs::read_dir("/proc/self/fd")? {
        let entry = entry?;
        let number = entry.file_name().to_string_lossy().parse().ok();
        let target = fs::read_link(entry.path()).ok();
        let inode = target.and_then(|target| socket_inode(&target.to_string_lossy()));
        if let (Some(number), Some(inode)) = (number, inode) {
            numbers.insert(inode, number);
        }
    }
    Ok(numbers)
}

/// Parses `socket:[4711]`.
pub(super) fn socket_inode(target: &str) -> Option<u64> {
    let number = target.strip_prefix("socket:[")?.strip_suffix(']')?;
    number.parse().ok()
}
