//! Binds a UDP socket beside another one, so that the port is never free for other programs.
//!
//! Shell. libp2p creates and binds the agent's UDP socket itself, so the agent cannot set an option before the bind.
//! But disconnecting a socket releases a port that the kernel has chosen, and the socket can then be bound again, with
//! other options. Two sockets share a port if both set SO_REUSEPORT and belong to one user. For the time of the rebind,
//! that is a random user id, so no other program can share the port.

use std::{io, net::SocketAddr};

use nix::unistd::{Uid, fchown};
use socket2::{SockAddr, SockAddrStorage, Socket};

/// Binds `socket` to `address`. If `held` is bound to it, the two share the port for a moment.
pub(super) fn rebind(
    socket: &Socket,
    held: Option<&Socket>,
    address: SocketAddr,
) -> io::Result<()> {
    #[allow(
        unsafe_code,
        reason = "an address without family is how the kernel is told to disconnect"
    )]
    // SAFETY: all zeros is an address of the family AF_UNSPEC, of which the kernel reads only the family.
    let nowhere = unsafe {
        let zeros = SockAddrStorage::zeroed();
        let length = zeros.size_of();
        SockAddr::new(zeros, length)
    };
    socket.connect(&nowhere)?;
    let Some(held) = held else {
        return socket.bind(&address.into());
    };
    let user = somebody()?;
    for one in [held, socket] {
        fchown(one, Some(user), None)?;
        one.set_reuse_port(true)?;
    }
    let bound = socket.bind(&address.into());
    for one in [held, socket] {
        one.set_reuse_port(false)?;
        fchown(one, Some(Uid::from_raw(0)), None)?;
    }
    bound
}

/// Returns a random user id, which no user of the host has.
fn somebody() -> io::Result<Uid> {
    let random = getrandom::u32().map_err(io::Error::other)?;
    // The kernel treats the last two user ids specially: "no user" and "unchanged".
    Ok(Uid::from_raw((random | 1 << 31).min(u32::MAX - 2)))
}
