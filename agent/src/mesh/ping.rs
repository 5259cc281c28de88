//! Detects a member that no longer answers on a TCP connection.
//!
//! Shell inside libp2p's swarm: runs libp2p's ping on the TCP connections of members only. QUIC has its own idle
//! timeout, and strangers have a deadline. Output: the connections without an answer for too long. Ping's own verdict
//! comes too late, because it forgives the first failure and then waits for a new stream.

use std::{
    collections::{HashMap, HashSet},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use either::Either;
use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    multiaddr::Protocol,
    ping,
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
        THandlerOutEvent, ToSwarm, dummy,
    },
};
use tokio::time::Interval;

/// A connection that did not answer and should be closed.
#[derive(Debug)]
pub(super) struct Unanswered {
    pub(super) connection: ConnectionId,
}

/// Runs libp2p's ping on members' TCP connections and reports those that do not answer.
pub(super) struct MemberPing {
    members: HashSet<PeerId>,
    inner: ping::Behaviour,
    silence_max: Duration,
    /// The time of the last answer on each connection.
    answered: HashMap<ConnectionId, Instant>,
    /// Ticks while there are connections.
    check: Option<Interval>,
}

impl std::fmt::Debug for MemberPing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemberPing").finish_non_exhaustive()
    }
}

impl MemberPing {
    pub(super) fn new(interval: Duration, silence_max: Duration) -> Self {
        let config = ping::Config::new().with_interval(interval);
        Self {
            members: HashSet::new(),
            inner: ping::Behaviour::new(config.with_timeout(silence_max)),
            silence_max,
            answered: HashMap::new(),
            check: None,
        }
    }

    pub(super) fn set_members(&mut self, members: impl IntoIterator<Item = PeerId>) {
        self.members = members.into_iter().collect();
    }

    fn wanted(&self, peer: PeerId, remote: &Multiaddr) -> bool {
        self.members.contains(&peer) && remote.iter().any(|part| matches!(part, Protocol::Tcp(_)))
    }

    fn begin(&mut self, connection: ConnectionId) {
        self.answered.insert(connection, Instant::now());
        self.check
            .get_or_insert_with(|| tokio::time::interval(self.silence_max / 6));
    }

    fn end(&mut self, connection: ConnectionId) {
        self.answered.remove(&connection);
        if self.answered.is_empty() {
            self.check = None;
        }
    }

    fn silent(&self) -> Option<ConnectionId> {
        let mut all = self.answered.iter();
        let (connection, _) = all.find(|(_, at)| at.elapsed() >= self.silence_max)?;
        Some(*connection)
    }
}

impl NetworkBehaviour for MemberPing {
    type ConnectionHandler = Either<THandler<ping::Behaviour>, dummy::ConnectionHandler>;
    type ToSwarm = Unanswered;

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        if !self.wanted(peer, remote) {
            return Ok(Either::Right(dummy::ConnectionHandler));
        }
        self.begin(connection);
        self.inner
            .handle_established_inbound_connection(connection, peer, local, remote)
            .map(Either::Left)
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        remote: &Multiaddr,
        endpoint: Endpoint,
        port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        if !self.wanted(peer, remote) {
            return Ok(Either::Right(dummy::ConnectionHandler));
        }
        self.begin(connection);
        self.inner
            .handle_established_outbound_connection(connection, peer, remote, endpoint, port)
            .map(Either::Left)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match &event {
            FromSwarm::ConnectionClosed(closed) => self.end(closed.connection_id),
            // Another behaviour may refuse a connection that this one has accepted.
            FromSwarm::ListenFailure(failure) => self.end(failure.connection_id),
            FromSwarm::DialFailure(failure) => self.end(failure.connection_id),
            // No other event ends a connection.
            _ => {}
        }
        self.inner.on_swarm_event(event);
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        match event {
            Either::Left(result) => self
                .inner
                .on_connection_handler_event(peer, connection, result),
            Either::Right(never) => match never {},
        }
    }

    fn poll(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<ToSwarm<Unanswered, THandlerInEvent<Self>>> {
        while let Some(check) = &mut self.check
            && check.poll_tick(context).is_ready()
        {
            if let Some(connection) = self.silent() {
                self.end(connection);
                return Poll::Ready(ToSwarm::GenerateEvent(Unanswered { connection }));
            }
        }
        loop {
            match self.inner.poll(context) {
                Poll::Ready(ToSwarm::GenerateEvent(event)) => {
                    if event.result.is_ok()
                        && let Some(at) = self.answered.get_mut(&event.connection)
                    {
                        *at = Instant::now();
                    }
                }
                Poll::Ready(other) => {
                    return Poll::Ready(other.map_in(Either::Left).map_out(|event| Unanswered {
                        connection: event.connection,
                    }));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}
