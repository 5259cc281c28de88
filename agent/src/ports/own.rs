//! The sockets of this process, found by its table of descriptors: libp2p neither takes nor gives its own.
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

/// Copies of the sockets that receive on one of these ports: TCP that listens, and UDP.
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

/// What the kernel calls the sockets that this process has.
pub(crate) fn inodes() -> io::Result<BTreeSet<u64>> {
    Ok(numbers()?.into_keys().collect())
}

/// A copy of the only UDP socket of this address that this process has made since `before`.
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

/// A copy of each socket of this process, by what the kernel calls it.
fn copies() -> io::Result<BTreeMap<u64, OwnedFd>> {
    let mut copies = BTreeMap::new();
    for (inode, number) in numbers()? {
        #[allow(unsafe_code, reason = "the table of descriptors has numbers only")]
        // SAFETY: whoever has the descriptor may close it meanwhile; then the copy fails, or is of another file, which is looked at
        // and closed. The borrow ends with this line.
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

/// `socket:[4711]`.
pub(super) fn socket_inode(target: &str) -> Option<u64> {
    let number = target.strip_prefix("socket:[")?.strip_suffix(']')?;
    number.parse().ok()
}
