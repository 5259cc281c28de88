//! Notices a member that is gone behind a TCP connection.
//!
//! Shell inside libp2p's swarm: libp2p's ping, on the TCP connections of members and nowhere else. QUIC has its own idle
//! timeout, and strangers end by their deadline. Out go the connections that do not answer.

use std::{
    collections::HashSet,
    task::{Context, Poll},
    time::Duration,
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

/// A connection did not answer; it should be closed.
#[derive(Debug)]
pub(super) struct Unanswered {
    pub(super) connection: ConnectionId,
}

/// See the module.
pub(super) struct MemberPing {
    members: HashSet<PeerId>,
    inner: ping::Behaviour,
}

impl std::fmt::Debug for MemberPing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemberPing").finish_non_exhaustive()
    }
}

impl MemberPing {
    pub(super) fn new(interval: Duration, timeout: Duration) -> Self {
        let config = ping::Config::new().with_interval(interval);
        Self {
            members: HashSet::new(),
            inner: ping::Behaviour::new(config.with_timeout(timeout)),
        }
    }

    pub(super) fn set_members(&mut self, members: impl IntoIterator<Item = PeerId>) {
        self.members = members.into_iter().collect();
    }

    fn wanted(&self, peer: PeerId, remote: &Multiaddr) -> bool {
        self.members.contains(&peer) && remote.iter().any(|part| matches!(part, Protocol::Tcp(_)))
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
        self.inner
            .handle_established_outbound_connection(connection, peer, remote, endpoint, port)
            .map(Either::Left)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
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
        loop {
            match self.inner.poll(context) {
                Poll::Ready(ToSwarm::GenerateEvent(event)) => {
                    // A peer that speaks no ping is still dialling in as a stranger; its deadline ends that.
                    if matches!(
                        event.result,
                        Err(ping::Failure::Timeout | ping::Failure::Other { .. })
                    ) {
                        return Poll::Ready(ToSwarm::GenerateEvent(Unanswered {
                            connection: event.connection,
                        }));
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
