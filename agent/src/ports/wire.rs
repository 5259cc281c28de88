//! The protocol of agent and holder: one line, with copies of sockets attached, and one line as the answer.
//!
//! Shell: it bounds a line and does not interpret it. An upgrade does not restart the holder, so an agent speaks to a
//! holder of an earlier release. The existing lines keep their meaning.

use std::{
    io::{self, IoSlice, IoSliceMut},
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
        unix::net::UnixStream,
    },
};

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recv, recvmsg, sendmsg};

use super::SOCKETS_MAX;

/// Bytes of a line. An answer names a process and its container.
const LINE_MAX: usize = 512;

/// Sends a line with sockets attached.
pub(super) fn send(stream: &UnixStream, line: &str, sockets: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut bytes: Vec<u8> = line.bytes().take(LINE_MAX - 1).collect();
    bytes.push(b'\n');
    let numbers: Vec<RawFd> = sockets.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&numbers)];
    let rights = if numbers.is_empty() { &[] } else { &rights[..] };
    let sent = sendmsg::<()>(
        stream.as_raw_fd(),
        &[IoSlice::new(&bytes)],
        rights,
        MsgFlags::MSG_NOSIGNAL,
        None,
    )?;
    if sent == bytes.len() {
        Ok(())
    } else {
        Err(io::ErrorKind::WriteZero.into())
    }
}

/// Receives a line with its sockets; `None` if the other side has closed the connection. A side sends nothing before it
/// has its answer, and it sends a line in one call, so a line arrives in one piece.
pub(super) fn receive(stream: &UnixStream) -> io::Result<Option<(String, Vec<OwnedFd>)>> {
    let mut bytes = [0; LINE_MAX];
    let mut space = nix::cmsg_space!([RawFd; SOCKETS_MAX]);
    let mut slices = [IoSliceMut::new(&mut bytes)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(stream.as_raw_fd(), &mut slices, Some(&mut space), flags)?;
    let mut sockets = Vec::new();
    for part in message.cmsgs()? {
        let ControlMessageOwned::ScmRights(numbers) = part else {
            continue;
        };
        for number in numbers {
            #[allow(
                unsafe_code,
                reason = "the kernel made this descriptor for this process, and nothing else here knows its number"
            )]
            // SAFETY: the message that was just received carried it, and it is taken once.
            sockets.push(unsafe { OwnedFd::from_raw_fd(number) });
        }
    }
    let length = message.bytes;
    if length == 0 {
        return Ok(None);
    }
    let line = bytes[..length].strip_suffix(b"\n");
    let line = line.and_then(|line| std::str::from_utf8(line).ok());
    let line = line.ok_or_else(|| io::Error::other("not a line"))?;
    Ok(Some((line.to_owned(), sockets)))
}

/// Returns true if the other side has closed the connection. The other side sends nothing unasked.
pub(super) fn has_ended(stream: &UnixStream) -> bool {
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
    recv(stream.as_raw_fd(), &mut [0], flags) != Err(nix::errno::Errno::EAGAIN)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;

    #[test]
    fn a_line_comes_with_its_sockets_and_an_end_is_seen() {
        let (one, other) = UnixStream::pair().unwrap();
        let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        send(&one, "keep", &[udp.as_fd(), udp.as_fd()]).unwrap();
        let (line, sockets) = receive(&other).unwrap().unwrap();
        assert_eq!((line.as_str(), sockets.len()), ("keep", 2));
        let copy = std::net::UdpSocket::from(sockets.into_iter().next().unwrap());
        assert_eq!(copy.local_addr().unwrap(), udp.local_addr().unwrap());
        assert!(!has_ended(&other));
        drop(one);
        assert!(has_ended(&other));
        assert!(receive(&other).unwrap().is_none());
    }
}
