//! `beemesh-agent hold-ports`, run by `beemesh-ports.service`: keeps the reserved ports bound while no agent runs.
//!
//! Shell: owns its sockets, and copies of the sockets of the running agent. It reads no data: the kernel drops what
//! arrives while no agent runs. [`plan`] says what to bind.

mod plan;
mod rebind;

use std::{
    fs, io,
    net::SocketAddr,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::{UnixListener, UnixStream},
    },
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::Context;
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::kill,
        socket::{getsockopt, sockopt::PeerCredentials},
    },
    unistd::Pid,
};
use sd_notify::NotifyState;
use socket2::{Domain, SockFilter, SockRef, Socket, Type};

use super::{Protocol, owner, place, wire};
use crate::config::{self, Sources};
use plan::{Place, pause};

/// How often the holder checks whether an agent that closed its connection has exited.
const ENDING: Duration = Duration::from_millis(20);
/// How long the rest of a line from the agent may take.
const LINE_MAX: Duration = Duration::from_millis(500);
/// A classic BPF program of one instruction, "return 0": the kernel drops every packet.
const DROP: [SockFilter; 1] = [SockFilter::new(0x06, 0, 0, 0)];

/// Holds the ports until systemd stops the process.
pub(crate) fn run(sources: Sources, socket: &Path) -> ExitCode {
    match hold(sources, socket) {
        Ok(never) => match never {},
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn hold(sources: Sources, socket: &Path) -> anyhow::Result<std::convert::Infallible> {
    match fs::remove_file(socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", socket.display()))?;
        }
        _ => {}
    }
    let listener =
        UnixListener::bind(socket).with_context(|| format!("bind {}", socket.display()))?;
    let mut holder = Holder {
        sources,
        held: Vec::new(),
        agent: None,
        ending: None,
        due: None,
        failures: 0,
    };
    holder.bind();
    if let Err(error) = sd_notify::notify(&[NotifyState::Ready]) {
        tracing::warn!(%error, "cannot notify systemd");
    }
    loop {
        holder.wait(&listener)?;
    }
}

struct Holder {
    sources: Sources,
    held: Vec<(Place, Socket)>,
    /// The agent's connection and its process.
    agent: Option<(UnixStream, Pid)>,
    /// The process of an agent that closed its connection and may not have exited yet.
    ending: Option<Pid>,
    /// The time of the next attempt to bind missing ports, and the number of failed attempts.
    due: Option<Instant>,
    failures: u32,
}

impl Holder {
    /// Waits for the next event and handles it.
    fn wait(&mut self, listener: &UnixListener) -> anyhow::Result<()> {
        let wake = match self.ending {
            Some(_) => Some(ENDING),
            None => self
                .due
                .map(|due| due.saturating_duration_since(Instant::now())),
        };
        // One millisecond more, so that the wait does not end early.
        let wake = wake.map_or(PollTimeout::NONE, |wake| {
            PollTimeout::try_from(wake + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
        });
        let [called, said] = {
            let entry = |fd| PollFd::new(fd, PollFlags::POLLIN);
            let mut entries = vec![entry(listener.as_fd())];
            entries.extend(self.agent.iter().map(|(stream, _)| entry(stream.as_fd())));
            match poll(&mut entries, wake) {
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(error) => return Err(error).context("wait for the agent"),
            }
            [0, 1].map(|at| entries.get(at).and_then(PollFd::any).unwrap_or(false))
        };
        if said {
            self.hear();
        }
        if called {
            self.answer(listener);
        }
        self.look_after();
        if self.due.is_some_and(|due| due <= Instant::now()) {
            self.bind();
        }
        Ok(())
    }

    /// Accepts a connection, which a new agent makes. Only root can connect.
    fn answer(&mut self, listener: &UnixListener) {
        let accepted = listener.accept().and_then(|(stream, _)| {
            stream.set_read_timeout(Some(LINE_MAX))?;
            stream.set_write_timeout(Some(LINE_MAX))?;
            let peer = getsockopt(&stream, PeerCredentials)?;
            Ok((stream, Pid::from_raw(peer.pid())))
        });
        match accepted {
            Ok(agent) => {
                // The agent binds missing ports itself.
                (self.due, self.failures) = (None, 0);
                self.agent = Some(agent);
            }
            Err(error) => tracing::warn!(%error, "a connection was not accepted"),
        }
    }

    fn hear(&mut self) {
        let Some((stream, process)) = self.agent.take() else {
            return;
        };
        let heard = wire::receive(&stream).and_then(|line| {
            let Some((line, sockets)) = line else {
                return Ok(false);
            };
            let answer = match self.carry_out(&line, sockets) {
                Ok(words) => format!("ok {words}"),
                Err(error) => format!("error {error}"),
            };
            wire::send(&stream, &answer, &[]).map(|()| true)
        });
        match heard {
            Ok(true) => self.agent = Some((stream, process)),
            Ok(false) => self.ending = Some(process),
            Err(error) => {
                tracing::warn!(%error, "the agent's connection failed");
                self.ending = Some(process);
            }
        }
    }

    fn carry_out(&mut self, line: &str, sockets: Vec<OwnedFd>) -> io::Result<String> {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["share"] => {
                for (place, socket) in &self.held {
                    if place.protocol() == Protocol::Tcp {
                        socket.set_reuse_port(true)?;
                    }
                }
                Ok(String::new())
            }
            ["bind", address] => {
                let (Some(socket), Ok(address)) = (sockets.into_iter().next(), address.parse())
                else {
                    return Err(io::Error::other("no socket, or no address"));
                };
                self.rebind(socket.into(), address).map(|()| String::new())
            }
            ["keep"] => self.keep(sockets).map(|()| String::new()),
            ["who", protocol, port] => {
                let (protocol, port) = port_of(protocol, port)?;
                Ok(owner::of(protocol, port).unwrap_or_default())
            }
            ["addresses", protocol, port] => {
                let (protocol, port) = port_of(protocol, port)?;
                let addresses = owner::addresses(protocol, port).into_iter();
                let addresses: Vec<_> = addresses.map(|one| one.to_string()).collect();
                Ok(addresses.join(" "))
            }
            _ => Err(io::Error::other("not known")),
        }
    }

    /// Binds a UDP socket of the agent at an address that may be held, and holds that socket instead.
    fn rebind(&mut self, socket: Socket, address: SocketAddr) -> io::Result<()> {
        let place = Place::new(Protocol::Udp, address, false);
        let at = self.held.iter().position(|(held, _)| held.covers(&place));
        let held = at.map(|at| &self.held[at].1);
        rebind::rebind(&socket, held, address)?;
        if let Some(at) = at {
            self.held.swap_remove(at);
        }
        self.held.push((place, socket));
        Ok(())
    }

    /// Replaces the held sockets by the agent's. A reserved port that the agent does not listen on stays held.
    fn keep(&mut self, sockets: Vec<OwnedFd>) -> io::Result<()> {
        let mut kept = Vec::new();
        for socket in sockets.into_iter().map(Socket::from) {
            if let Some((protocol, address)) = place(&SockRef::from(&socket)) {
                let both = address.is_ipv6() && !socket.only_v6()?;
                kept.push((Place::new(protocol, address, both), socket));
            }
        }
        let wanted = self.wanted();
        for (place, socket) in std::mem::take(&mut self.held) {
            let is_kept = kept.iter().any(|(other, _)| other.covers(&place));
            if !is_kept && wanted.iter().any(|wanted| place.covers(wanted)) {
                silence(place.protocol(), &socket)?;
                kept.push((place, socket));
            }
        }
        self.held = kept;
        // A new agent runs, so no earlier one is awaited.
        self.ending = None;
        Ok(())
    }

    /// Silences the sockets of an agent once it has exited. Until then the agent uses them.
    fn look_after(&mut self) {
        let Some(process) = self.ending else {
            return;
        };
        if kill(process, None).is_ok() {
            return;
        }
        self.ending = None;
        for (place, socket) in &self.held {
            if let Err(error) = silence(place.protocol(), socket) {
                tracing::warn!(%place, %error, "a socket without a reader may fill");
            }
        }
        if self.agent.is_none() {
            self.bind();
        }
    }

    /// Binds the wanted ports that are not held.
    fn bind(&mut self) {
        self.due = None;
        let mut failed = Vec::new();
        for place in self.wanted() {
            if self.held.iter().any(|(held, _)| held.covers(&place)) {
                continue;
            }
            match bound(&place) {
                Ok(socket) => self.held.push((place, socket)),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => failed.push(place),
                // This host has no IPv6.
                Err(error) => tracing::debug!(%place, %error, "not held"),
            }
        }
        if failed.is_empty() {
            self.failures = 0;
            return;
        }
        if self.failures == 0 {
            let places: Vec<_> = failed.iter().map(ToString::to_string).collect();
            tracing::warn!("taken by another process: {}", places.join(", "));
        }
        self.due = Some(Instant::now() + pause(self.failures));
        self.failures = self.failures.saturating_add(1);
    }

    fn wanted(&self) -> Vec<Place> {
        // The agent reports errors in its configuration.
        let config = config::load(&self.sources, "localhost");
        config.map_or_else(
            |error| {
                tracing::warn!("cannot read the configuration: {error:#}");
                self.held.iter().map(|(place, _)| place.clone()).collect()
            },
            |config| plan::wanted(config.port, config.api_port),
        )
    }
}

/// Parses `TCP 80`.
fn port_of(protocol: &str, port: &str) -> io::Result<(Protocol, u16)> {
    let protocols = [Protocol::Udp, Protocol::Tcp];
    let protocol = protocols.into_iter().find(|one| one.name() == protocol);
    let named = protocol.zip(port.parse().ok());
    named.ok_or_else(|| io::Error::other("no such port"))
}

/// Makes a socket of an agent that has exited receive nothing more. The socket stays bound.
fn silence(protocol: Protocol, socket: &Socket) -> io::Result<()> {
    socket.set_reuse_port(false)?;
    if protocol == Protocol::Udp {
        return socket.attach_filter(&DROP);
    }
    // One more connection may wait: some kernels require CAP_NET_ADMIN for a filter on a listening socket.
    socket.listen(0)?;
    socket.set_nonblocking(true)?;
    // The old backlog bounds the loop.
    while socket.accept().is_ok() {}
    Ok(())
}

/// Binds a socket that keeps a port and receives nothing.
fn bound(place: &Place) -> io::Result<Socket> {
    let address: SocketAddr = place.address();
    let kind = match place.protocol() {
        Protocol::Udp => Type::DGRAM,
        Protocol::Tcp => Type::STREAM,
    };
    let socket = Socket::new(Domain::for_address(address), kind, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    let filtered = socket.attach_filter(&DROP);
    if place.protocol() == Protocol::Udp {
        filtered?;
    } else {
        // Where the kernel requires CAP_NET_ADMIN for a filter on TCP, one connection may wait in the backlog. Without
        // SO_REUSEADDR, connections of an agent that has exited would block the port for a minute.
        socket.set_reuse_address(true)?;
    }
    socket.bind(&address.into())?;
    if place.protocol() == Protocol::Tcp {
        // Without this, a program that sets SO_REUSEADDR could bind the port, too.
        socket.listen(0)?;
    }
    Ok(socket)
}
