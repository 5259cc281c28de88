//! The agent's side of `beemesh-ports.service`, which keeps the reserved ports bound while no agent runs.
//!
//! Shell: asks the [`holder`] to let the agent bind its sockets beside the holder's, and gives it copies of them. Once
//! a port is held, it stays bound without a gap: by the holder's socket, by both, by the agent's, and by the holder's
//! copy of that when the agent has exited. Without a holder, the agent binds its ports as any program does.

pub(crate) mod holder;
mod own;
mod owner;
mod wire;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::{fd::AsFd, unix::net::UnixStream},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError},
    time::Duration,
};

use socket2::SockRef;

pub(crate) use own::inodes;

/// The holder answers at once. The agent does without one that does not.
const ANSWER_MAX: Duration = Duration::from_millis(500);
/// For an answer for which the holder searches all processes.
const SEARCH_MAX: Duration = Duration::from_secs(5);
/// How soon the agent finds a restarted holder.
const CHECK: Duration = Duration::from_secs(2);
/// Copies in one message: UDP and TCP of the mesh and TCP of the API, for IPv4 and IPv6 each.
const SOCKETS_MAX: usize = 8;

/// The protocol of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Protocol {
    Udp,
    Tcp,
}

impl Protocol {
    /// The name in messages, to the holder and to the user.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Udp => "UDP",
            Self::Tcp => "TCP",
        }
    }
}

/// The unspecified addresses of IPv4 and IPv6.
pub(crate) const ANY: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    IpAddr::V6(Ipv6Addr::UNSPECIFIED),
];

/// A connection to the holder, shared by all listeners of the agent.
#[derive(Debug, Clone)]
pub(crate) struct Ports {
    socket: PathBuf,
    /// The ports that the holder keeps.
    reserved: Arc<Mutex<Vec<u16>>>,
    link: Arc<Mutex<Option<UnixStream>>>,
}

impl Ports {
    /// Uses the holder that listens on this socket, if there is one.
    pub(crate) fn new(socket: PathBuf) -> Self {
        Self {
            socket,
            reserved: Arc::default(),
            link: Arc::default(),
        }
    }

    /// Sets the ports that the agent uses or will use.
    pub(crate) fn reserve(&self, ports: Vec<u16>) {
        *self.reserved.lock().unwrap_or_else(PoisonError::into_inner) = ports;
    }

    /// Lets the agent bind sockets beside the holder's. Returns `None` if there is no holder, and while the holder
    /// answers [`Self::who`], because that takes longer than a bind can wait.
    pub(crate) fn share(&self) -> Option<Shared<'_>> {
        let mut link = match self.link.try_lock() {
            Ok(link) => link,
            Err(TryLockError::Poisoned(link)) => link.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        self.ask(&mut link, "share", &[], ANSWER_MAX).ok()?;
        Some(Shared { ports: self, link })
    }

    /// Gives the holder copies of all sockets of this process that listen on reserved ports. The holder closes its own.
    pub(crate) fn keep(&self) {
        self.give(&mut self.link());
    }

    fn give(&self, link: &mut Option<UnixStream>) {
        let ports = self
            .reserved
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let kept = own::listening(&ports).and_then(|sockets| {
            let copies: Vec<_> = sockets.iter().map(AsFd::as_fd).take(SOCKETS_MAX).collect();
            self.ask(link, "keep", &copies, ANSWER_MAX)
        });
        if let Err(error) = kept {
            tracing::debug!(%error, "no process keeps the ports bound when the agent ends");
        }
    }

    /// Names the process that uses a port. The holder searches all processes of the host.
    pub(crate) fn who(&self, protocol: Protocol, port: u16) -> Option<String> {
        let question = format!("who {} {port}", protocol.name());
        let words = self.ask(&mut self.link(), &question, &[], SEARCH_MAX);
        let words = words.ok()?;
        (!words.is_empty()).then_some(words)
    }

    /// Returns the addresses on which processes of this host receive on a port. Without a holder, or with one of an
    /// earlier release, none is known.
    pub(crate) fn addresses(&self, protocol: Protocol, port: u16) -> Vec<String> {
        let question = format!("addresses {} {port}", protocol.name());
        let words = self.ask(&mut self.link(), &question, &[], ANSWER_MAX);
        let words = words.unwrap_or_default();
        words.split_whitespace().map(str::to_owned).collect()
    }

    /// Names the missing ports and the reasons, for the user; empty if no port is missing.
    pub(crate) fn explain(&self, missing: &BTreeMap<(Protocol, u16), String>) -> String {
        let words = missing.iter().map(|((protocol, port), reason)| {
            let name = protocol.name();
            match self.who(*protocol, *port) {
                Some(who) => {
                    format!("{name} port {port} is taken by {who}: stop it, the agent will retry")
                }
                None => {
                    format!("cannot listen on {name} port {port}, the agent will retry: {reason}")
                }
            }
        });
        words.collect::<Vec<_>>().join(" · ")
    }

    /// Gives the copies to a restarted holder, for as long as the agent runs.
    pub(crate) async fn watch(self) {
        loop {
            tokio::time::sleep(CHECK).await;
            if !self.is_linked() && self.socket.exists() {
                self.keep();
            }
        }
    }

    fn is_linked(&self) -> bool {
        let mut link = self.link();
        let ended = link.as_ref().is_some_and(wire::has_ended);
        if ended {
            *link = None;
        }
        link.is_some()
    }

    fn link(&self) -> MutexGuard<'_, Option<UnixStream>> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask(
        &self,
        link: &mut Option<UnixStream>,
        question: &str,
        copies: &[std::os::fd::BorrowedFd<'_>],
        time: Duration,
    ) -> io::Result<String> {
        if link.as_ref().is_some_and(wire::has_ended) {
            *link = None;
        }
        let stream = match link.take() {
            Some(stream) => stream,
            None => UnixStream::connect(&self.socket)?,
        };
        stream.set_read_timeout(Some(time))?;
        stream.set_write_timeout(Some(ANSWER_MAX))?;
        wire::send(&stream, question, copies)?;
        let (answer, _) = wire::receive(&stream)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        // An error drops the connection: its late answer could be taken for that of the next question.
        *link = Some(stream);
        match answer.split_once(' ').unwrap_or((&answer, "")) {
            ("ok", words) => Ok(words.to_owned()),
            (_, words) => Err(io::Error::other(words.to_owned())),
        }
    }
}

/// While this exists, TCP sockets can be bound beside the holder's. When it is dropped, the holder gets copies of the
/// listening sockets.
#[derive(Debug)]
pub(crate) struct Shared<'a> {
    ports: &'a Ports,
    link: MutexGuard<'a, Option<UnixStream>>,
}

impl Shared<'_> {
    /// Binds a UDP socket to `port`, which the holder may hold at that moment. The socket is the only one of `ip` that
    /// this process has created since `before`, and the kernel has chosen its port.
    pub(crate) fn bind(&mut self, before: &BTreeSet<u64>, ip: IpAddr, port: u16) -> io::Result<()> {
        let socket = own::made(before, ip)?;
        let question = format!("bind {}", SocketAddr::new(ip, port));
        let copies = [socket.as_fd()];
        let bound = self
            .ports
            .ask(&mut self.link, &question, &copies, ANSWER_MAX);
        bound.map(drop)
    }
}

impl Drop for Shared<'_> {
    fn drop(&mut self) {
        self.ports.give(&mut self.link);
    }
}

/// The protocol and address that a socket is bound to; `None` for other kinds of socket.
fn place(socket: &SockRef<'_>) -> Option<(Protocol, SocketAddr)> {
    let protocol = match socket.r#type().ok()? {
        socket2::Type::DGRAM => Protocol::Udp,
        socket2::Type::STREAM => Protocol::Tcp,
        _ => return None,
    };
    Some((protocol, socket.local_addr().ok()?.as_socket()?))
}
