//! Binds a UDP socket beside another one, so that the port is never free and nobody else gets in.
//!
//! Shell. libp2p makes and binds the agent's UDP socket by itself, so that it cannot be bound beside one that is there. But a socket that
//! is disconnected gives up a port that the kernel has chosen, and can be bound once more, with other options. Two sockets share a port
//! when both ask for it and belong to one user: here for as long as that takes to a user whose number nobody knows.

use std::{io, net::SocketAddr};

use nix::unistd::{Uid, fchown};
use socket2::{SockAddr, SockAddrStorage, Socket};

/// Binds `socket` to the address that `held` is bound to, if something is held.
pub(super) fn rebind(
    socket: &Socket,
    held: Option<&Socket>,
    address: SocketAddr,
) -> io::Result<()> {
    #[allow(
        unsafe_code,
        reason = "an address without family is how the kernel is told to disconnect"
    )]
    // SAFETY: all zeros is an address of the family AF_UNSPEC, of which nothing but the family is read.
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

/// A user that no host has, by chance.
fn somebody() -> io::Result<Uid> {
    let random = getrandom::u32().map_err(io::Error::other)?;
    // The last two numbers mean nobody to the kernel.
    Ok(Uid::from_raw((random | 1 << 31).min(u32::MAX - 2)))
}
