//! Feeds systemd's watchdog from the guard's thread.
//!
//! Shell: a datagram socket that never blocks. A message that cannot be sent now is lost, and the next one follows soon: the
//! guard must not wait for a systemd that is busy.

use std::ffi::OsString;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

/// How long systemd waits for a message before it kills the supervisor.
const PATIENCE: Duration = Duration::from_secs(5);
/// The pause between two messages.
const PAUSE: Duration = Duration::from_secs(1);

/// The messages. Without a socket of systemd nothing is sent.
#[derive(Debug)]
pub(super) struct Pings {
    to: Option<(UnixDatagram, SocketAddr)>,
    sent: Option<Instant>,
    /// True once systemd knows how long to wait.
    is_set: bool,
}

impl Pings {
    /// Messages to the socket that systemd names in `NOTIFY_SOCKET`.
    pub(super) fn to_systemd() -> Self {
        Self::to(std::env::var_os("NOTIFY_SOCKET"))
    }

    fn to(path: Option<OsString>) -> Self {
        let open = || {
            let path = path?;
            let address = match path.as_bytes().strip_prefix(b"@") {
                Some(name) => SocketAddr::from_abstract_name(name),
                None => SocketAddr::from_pathname(&path),
            };
            let socket = UnixDatagram::unbound().ok()?;
            socket.set_nonblocking(true).ok()?;
            Some((socket, address.ok()?))
        };
        Self {
            to: open(),
            sent: None,
            is_set: false,
        }
    }

    /// Sends a message, unless one was sent a moment ago.
    pub(super) fn send(&mut self) {
        if self.sent.is_some_and(|sent| sent.elapsed() < PAUSE) {
            return;
        }
        let Some((socket, address)) = &self.to else {
            return;
        };
        let text = match self.is_set {
            true => "WATCHDOG=1".to_owned(),
            false => format!("WATCHDOG_USEC={}\nWATCHDOG=1", PATIENCE.as_micros()),
        };
        if socket.send_to_addr(text.as_bytes(), address).is_ok() {
            self.is_set = true;
            self.sent = Some(Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systemd_is_told_how_long_to_wait_and_is_never_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let systemd = UnixDatagram::bind(&path).unwrap();
        let mut pings = Pings::to(Some(path.into_os_string()));
        let next = |pings: &mut Pings| {
            pings.sent = None;
            pings.send();
            pings.send();
            let mut text = [0; 100];
            let length = systemd.recv(&mut text).unwrap();
            String::from_utf8(text[..length].to_vec()).unwrap()
        };
        assert_eq!(next(&mut pings), "WATCHDOG_USEC=5000000\nWATCHDOG=1");
        assert_eq!(next(&mut pings), "WATCHDOG=1");
        assert_eq!(next(&mut pings), "WATCHDOG=1");
        // A full queue, in which more messages are lost.
        for _ in 0..10_000 {
            pings.sent = None;
            pings.send();
        }
        assert!(pings.sent.is_none());
        Pings::to(None).send();
    }
}
