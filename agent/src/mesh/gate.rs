//! The gate of the mesh decides who may connect and which protocols a connection may use, and it hands over the
//! streams.
//!
//! Shell inside libp2p's swarm. A connection belongs to a member or to a stranger for its whole life: a stranger that
//! is admitted connects again. Output: [`GateEvent`]s. Input: the set of members, and orders to open a stream on one
//! connection. The gate hands streams over as events, so no stream is lost while its receiver is busy.

mod handler;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    net::IpAddr,
    task::{Context, Poll},
    time::Instant,
};

use beemesh_protocol::{
    HostId,
    ipc::NoStream,
    mesh::{JOIN_PROTOCOL, STREAM_PROTOCOL},
};
use libp2p::{
    Multiaddr, PeerId, Stream, StreamProtocol,
    core::{Endpoint, transport::PortUse},
    swarm::{
        ConnectionClosed, ConnectionDenied, ConnectionId, FromSwarm, ListenFailure,
        NetworkBehaviour, NotifyHandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
        behaviour::ConnectionEstablished,
    },
};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use self::handler::GateHandler;
use super::{
    arrivals::Arrivals,
    limits::{Limits, Source, Verdict},
    strangers::Members,
};

/// Pending handshakes from addresses that no member is listed at: twice the number of hosts of a large cluster.
const PENDING_MAX: usize = 128;
/// Pending handshakes from one address, so that one slow machine cannot block all others.
const PENDING_PER_ADDRESS_MAX: usize = 16;
/// Connections of strangers. A member whose list has not arrived yet counts as a stranger for a moment.
const STRANGERS_MAX: usize = 32;
/// Strangers' connections from one address: a machine with many keys leaves room for hosts that want to join.
const STRANGERS_PER_ADDRESS_MAX: usize = 8;
/// Strangers' QUIC connections. Each may have megabytes in flight to it before its application is read. TCP has room
/// for more.
const STRANGERS_QUIC_MAX: usize = 8;
const STRANGERS_QUIC_PER_ADDRESS_MAX: usize = 4;
/// Connections of one stranger: one that is closing, and the next one.
const PER_STRANGER_MAX: usize = 2;
/// Connections of one member: two that cross when both sides dial, and a dead one that is not detected yet.
const PER_MEMBER_MAX: usize = 3;

const STREAM: StreamProtocol = StreamProtocol::new(STREAM_PROTOCOL);
const JOIN: StreamProtocol = StreamProtocol::new(JOIN_PROTOCOL);

/// The purpose of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A gateway stream.
    Gateway,
    /// An application for membership.
    Join,
}

/// The kind of peer that a connection belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Member,
    Stranger,
}

/// An event of the gate.
#[derive(Debug)]
pub(super) enum GateEvent {
    Connected {
        host: HostId,
        connection: ConnectionId,
        role: Role,
        /// Whether this host dialled.
        dialed: bool,
    },
    Closed {
        connection: ConnectionId,
    },
    Stream {
        host: HostId,
        connection: ConnectionId,
        purpose: Purpose,
        stream: MeshStream,
    },
    /// A host opened far more streams than its limit. The gate bars it for a while, and the caller closes this
    /// connection.
    Flood {
        host: HostId,
        connection: ConnectionId,
    },
}

/// A stream, and a token that is cancelled when its connection ends. Yamux does not wake the reader of a stream when
/// this side closes the connection.
#[derive(Debug)]
pub(super) struct MeshStream {
    pub(super) stream: Stream,
    pub(super) ended: CancellationToken,
}

/// A stream that was asked for, or why there is none.
pub(super) type OpenReply = oneshot::Sender<Result<MeshStream, NoStream>>;

#[derive(Debug, Default)]
pub(super) struct Gate {
    members: Members,
    /// Counts inbound connections and makes the filter rules.
    pub(super) arrivals: Arrivals,
    /// The addresses that members are listed at.
    listed: HashSet<IpAddr>,
    limits: Limits,
    pending: HashMap<ConnectionId, Source>,
    connections: HashMap<ConnectionId, Connection>,
    events: VecDeque<ToSwarm<GateEvent, Open>>,
}

#[derive(Debug)]
struct Connection {
    peer: PeerId,
    role: Role,
    /// The remote address; `None` if this host dialled.
    from: Option<Source>,
    ended: CancellationToken,
}

/// An order for a connection to open a stream.
#[derive(Debug)]
pub(super) struct Open {
    purpose: Purpose,
    reply: OpenReply,
}

impl Gate {
    /// Creates a gate that shares its set of members with the transports.
    pub(super) fn new(members: Members) -> Self {
        Self {
            members,
            ..Self::default()
        }
    }

    /// Replaces the set of members and their addresses. Existing connections keep their role.
    pub(super) fn set_members<'a>(
        &mut self,
        members: impl IntoIterator<Item = PeerId>,
        addresses: impl IntoIterator<Item = &'a Multiaddr> + Clone,
    ) {
        self.members.set(members);
        self.arrivals.set_listed(addresses.clone());
        let networks = addresses.into_iter().map(Source::of);
        self.listed = networks.filter_map(|from| from.network()).collect();
    }

    fn is_listed(&self, from: Source) -> bool {
        from.network()
            .is_some_and(|network| self.listed.contains(&network))
    }

    /// Opens a stream on one connection.
    pub(super) fn open(&mut self, connection: ConnectionId, purpose: Purpose, reply: OpenReply) {
        let Some(&Connection { peer: peer_id, .. }) = self.connections.get(&connection) else {
            // The sender of the request may have stopped waiting for the answer.
            let why = NoStream::Other("the connection was lost".to_owned());
            let _ = reply.send(Err(why));
            return;
        };
        self.events.push_back(ToSwarm::NotifyHandler {
            peer_id,
            handler: NotifyHandler::One(connection),
            event: Open { purpose, reply },
        });
    }

    /// Ends the streams of a connection that this side closes. The other side may notice the end much later.
    pub(super) fn end(&self, connection: ConnectionId) {
        if let Some(found) = self.connections.get(&connection) {
            found.ended.cancel();
        }
    }

    fn flooded(&mut self, host: HostId, peer: PeerId) {
        let all = self.connections.iter();
        let all = all.filter(|(_, found)| found.peer == peer && !found.ended.is_cancelled());
        let closed: Vec<_> = all
            .map(|(connection, _)| GateEvent::Flood {
                host,
                connection: *connection,
            })
            .collect();
        self.events
            .extend(closed.into_iter().map(ToSwarm::GenerateEvent));
    }

    fn forget(&mut self, connection: ConnectionId) {
        self.end(connection);
        self.connections.remove(&connection);
        self.arrivals.forget(connection);
    }

    fn admit(&self, peer: PeerId, from: Option<Source>) -> Result<Role, ConnectionDenied> {
        if HostId::from_peer_id_bytes(&peer.to_bytes()).is_none() {
            return Err(denied("its key is not an ed25519 key"));
        }
        if self.limits.is_barred(&peer, Instant::now()) {
            return Err(denied("it opened too many streams a moment ago"));
        }
        let same_peer = self
            .connections
            .values()
            .filter(|other| other.peer == peer && !other.ended.is_cancelled());
        if self.members.contains(&peer) {
            if same_peer.count() >= PER_MEMBER_MAX {
                return Err(denied("too many connections of one member"));
            }
            return Ok(Role::Member);
        }
        if let Some(from) = from
            && (same_peer.count() >= PER_STRANGER_MAX || !self.has_room_for_stranger(from))
        {
            return Err(denied("too many connections of strangers"));
        }
        Ok(Role::Stranger)
    }

    fn has_room_for_stranger(&self, from: Source) -> bool {
        let strangers = || {
            let all = self.connections.values();
            let all = all.filter(|other| other.role == Role::Stranger);
            all.filter_map(|other| other.from)
        };
        // Counts both transports: a finished handshake proves the address.
        let near = |other: &Source| other.network() == from.network();
        let quic = |other: &Source| !other.is_tcp();
        strangers().count() < STRANGERS_MAX
            && strangers().filter(near).count() < STRANGERS_PER_ADDRESS_MAX
            && (from.is_tcp()
                || strangers().filter(quic).count() < STRANGERS_QUIC_MAX
                    && strangers().filter(quic).filter(near).count()
                        < STRANGERS_QUIC_PER_ADDRESS_MAX)
    }

    fn may_begin(&mut self, from: Source, now: Instant) -> Result<(), ConnectionDenied> {
        let listed = self.is_listed(from);
        let same = self.pending.values().filter(|other| **other == from);
        let strange = self
            .pending
            .values()
            .filter(|other| !self.is_listed(**other));
        if same.count() >= PENDING_PER_ADDRESS_MAX || !listed && strange.count() >= PENDING_MAX {
            return Err(denied("too many handshakes in progress"));
        }
        if !self.limits.handshake(from, listed, now) {
            return Err(denied("too many handshakes"));
        }
        Ok(())
    }

    fn establish(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        from: Option<Source>,
    ) -> Result<GateHandler, ConnectionDenied> {
        self.pending.remove(&connection);
        let role = self.admit(peer, from)?;
        let ended = CancellationToken::new();
        let found = Connection {
            peer,
            role,
            from,
            ended: ended.clone(),
        };
        self.connections.insert(connection, found);
        Ok(GateHandler {
            role,
            ended,
            events: VecDeque::new(),
        })
    }
}

fn denied(reason: &'static str) -> ConnectionDenied {
    ConnectionDenied::new(std::io::Error::other(reason))
}

impl NetworkBehaviour for Gate {
    type ConnectionHandler = GateHandler;
    type ToSwarm = GateEvent;

    fn handle_pending_inbound_connection(
        &mut self,
        connection: ConnectionId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        let (from, now) = (Source::of(remote), Instant::now());
        let may = self.may_begin(from, now);
        self.arrivals.arrived(remote, may.is_err(), now);
        may?;
        self.pending.insert(connection, from);
        Ok(())
    }

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<GateHandler, ConnectionDenied> {
        let handler = self.establish(connection, peer, Some(Source::of(remote)))?;
        if handler.role == Role::Member {
            self.arrivals.at(connection, [remote]);
        }
        Ok(handler)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        connection: ConnectionId,
        _: Option<PeerId>,
        addresses: &[Multiaddr],
        _: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        // Replies come from the addresses that this host dials.
        self.arrivals.at(connection, addresses);
        Ok(Vec::new())
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<GateHandler, ConnectionDenied> {
        self.establish(connection, peer, None)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(ConnectionEstablished {
                peer_id,
                connection_id: connection,
                endpoint,
                ..
            }) => {
                let host = HostId::from_peer_id_bytes(&peer_id.to_bytes());
                if let (Some(host), Some(&Connection { role, .. })) =
                    (host, self.connections.get(&connection))
                {
                    self.events
                        .push_back(ToSwarm::GenerateEvent(GateEvent::Connected {
                            host,
                            connection,
                            role,
                            dialed: endpoint.is_dialer(),
                        }));
                }
            }
            FromSwarm::ConnectionClosed(ConnectionClosed {
                connection_id: connection,
                ..
            }) => {
                self.forget(connection);
                self.events
                    .push_back(ToSwarm::GenerateEvent(GateEvent::Closed { connection }));
            }
            FromSwarm::ListenFailure(ListenFailure { connection_id, .. }) => {
                self.pending.remove(&connection_id);
                self.forget(connection_id);
            }
            FromSwarm::DialFailure(failure) => {
                self.forget(failure.connection_id);
            }
            // The task handles events about addresses and listeners.
            _ => {}
        }
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        (purpose, stream): THandlerOutEvent<Self>,
    ) {
        let Some(host) = HostId::from_peer_id_bytes(&peer.to_bytes()) else {
            return;
        };
        let now = Instant::now();
        // Dropping a stream closes it.
        match self.limits.stream(peer, now) {
            Verdict::Take => {}
            Verdict::Drop => return,
            Verdict::Bar => return self.flooded(host, peer),
        }
        if purpose == Purpose::Join && !self.limits.application(peer, now) {
            return;
        }
        self.events
            .push_back(ToSwarm::GenerateEvent(GateEvent::Stream {
                host,
                connection,
                purpose,
                stream,
            }));
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<GateEvent, THandlerInEvent<Self>>> {
        // The swarm polls again after everything that can add an event, so no waker is kept.
        match self.events.pop_front() {
            Some(event) => Poll::Ready(event),
            None => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    fn key() -> PeerId {
        libp2p::identity::Keypair::generate_ed25519()
            .public()
            .to_peer_id()
    }

    /// Returns how many of `tries` handshakes from an address may begin. The first has the connection number `first`.
    fn begun(gate: &mut Gate, from: &Multiaddr, first: usize, tries: usize) -> usize {
        let all = (first..first + tries).map(ConnectionId::new_unchecked);
        all.filter(|id| {
            let asked = gate.handle_pending_inbound_connection(*id, &Multiaddr::empty(), from);
            asked.is_ok()
        })
        .count()
    }

    #[test]
    fn handshakes_that_do_not_end_leave_room_for_others_and_for_members_most() {
        let mut gate = Gate::default();
        let listed = at("/ip4/10.0.0.7/udp/4701/quic-v1");
        gate.set_members([key()], [&listed]);
        let near = at("/ip4/10.0.0.1/tcp/4000");
        assert_eq!(begun(&mut gate, &near, 0, 100), PENDING_PER_ADDRESS_MAX);
        for other in 2..40 {
            let other = at(&format!("/ip4/10.0.1.{other}/tcp/4000"));
            let first = 1000 * (gate.pending.len() + 1);
            begun(&mut gate, &other, first, 16);
        }
        assert_eq!(gate.pending.len(), PENDING_MAX);
        let member = at("/ip4/10.0.0.7/udp/5555/quic-v1");
        assert_eq!(
            begun(&mut gate, &member, 500_000, 20),
            PENDING_PER_ADDRESS_MAX
        );
    }

    #[test]
    fn strangers_at_one_address_leave_room_for_others() {
        let mut gate = Gate::default();
        let connect = |gate: &mut Gate, from: &str, number| {
            let id = ConnectionId::new_unchecked(number);
            let (local, from) = (Multiaddr::empty(), at(from));
            let made = gate.handle_established_inbound_connection(id, key(), &local, &from);
            usize::from(made.is_ok())
        };
        let near = |n: usize| {
            if n.is_multiple_of(2) {
                "/ip4/10.0.0.1/tcp/1"
            } else {
                "/ip4/10.0.0.1/udp/2/quic-v1"
            }
        };
        let same: usize = (0..20).map(|n| connect(&mut gate, near(n), n)).sum();
        assert_eq!(same, STRANGERS_PER_ADDRESS_MAX);
        let far = (0..40).map(|n| connect(&mut gate, &format!("/ip4/10.0.1.{n}/tcp/1"), 100 + n));
        assert_eq!(
            far.sum::<usize>(),
            STRANGERS_MAX - STRANGERS_PER_ADDRESS_MAX
        );
    }
}
