//! The gate of the mesh: who may connect, which protocols a connection may speak, and the streams on it.
//!
//! Shell inside libp2p's swarm. A connection is a member's or a stranger's from its first to its last moment: a stranger
//! that is admitted connects anew. Out go [`GateEvent`]s; in come the set of members and orders to open a stream on
//! one connection. Streams are handed over as events, so that none is lost while their receiver is busy.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    convert::Infallible,
    future::{Ready, ready},
    net::IpAddr,
    task::{Context, Poll},
};

use beemesh_protocol::{
    HostId,
    mesh::{JOIN_PROTOCOL, NOT_A_MEMBER, STREAM_PROTOCOL},
};
use libp2p::{
    Multiaddr, PeerId, Stream, StreamProtocol,
    core::{
        Endpoint, UpgradeInfo, transport::PortUse, upgrade::InboundUpgrade, upgrade::ReadyUpgrade,
    },
    multiaddr::Protocol,
    swarm::{
        ConnectionClosed, ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent,
        ConnectionId, FromSwarm, ListenFailure, NetworkBehaviour, NotifyHandler,
        StreamUpgradeError, SubstreamProtocol, THandlerInEvent, THandlerOutEvent, ToSwarm,
        behaviour::ConnectionEstablished,
        handler::{
            ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound,
        },
    },
};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// Handshakes in progress that others began: a burst of every host of a large cluster, twice.
const PENDING_MAX: usize = 128;
/// Of those, from one address: one machine cannot keep everybody else out by being slow.
const PENDING_PER_ADDRESS_MAX: usize = 16;
/// Connections of strangers. Members whose list has not arrived yet are strangers for a moment.
const STRANGERS_MAX: usize = 32;
/// Connections of one member: the two that cross when both dial, and one that is dead but not yet noticed.
const PER_MEMBER_MAX: usize = 3;

const STREAM: StreamProtocol = StreamProtocol::new(STREAM_PROTOCOL);
const JOIN: StreamProtocol = StreamProtocol::new(JOIN_PROTOCOL);

/// What a stream is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A gateway stream.
    Gateway,
    /// An application for membership.
    Join,
}

/// Who a connection belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Member,
    Stranger,
}

/// What happens at the gate.
#[derive(Debug)]
pub(super) enum GateEvent {
    Connected {
        host: HostId,
        connection: ConnectionId,
        role: Role,
        /// Whether this host began the connection.
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
}

/// A stream, and when its connection ends: Yamux wakes nobody who reads from a connection that this side closes.
#[derive(Debug)]
pub(super) struct MeshStream {
    pub(super) stream: Stream,
    pub(super) ended: CancellationToken,
}

/// A stream that was asked for, or why there is none, in words for a person.
pub(super) type OpenReply = oneshot::Sender<Result<MeshStream, String>>;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Gate {
    members: HashSet<PeerId>,
    pending: HashMap<ConnectionId, Option<IpAddr>>,
    connections: HashMap<ConnectionId, Connection>,
    events: VecDeque<ToSwarm<GateEvent, Open>>,
}

#[derive(Debug)]
struct Connection {
    peer: PeerId,
    role: Role,
    ended: CancellationToken,
}

/// Tells a connection to open a stream.
#[derive(Debug)]
pub(super) struct Open {
    purpose: Purpose,
    reply: OpenReply,
}

impl Gate {
    /// Replaces the set of members; connections that exist keep their role.
    pub(super) fn set_members(&mut self, members: impl IntoIterator<Item = PeerId>) {
        self.members = members.into_iter().collect();
    }

    /// Opens a stream on one connection.
    pub(super) fn open(&mut self, connection: ConnectionId, purpose: Purpose, reply: OpenReply) {
        let Some(&Connection { peer: peer_id, .. }) = self.connections.get(&connection) else {
            // The asker may be gone; then nobody needs the words.
            let _ = reply.send(Err("the connection was lost".to_owned()));
            return;
        };
        self.events.push_back(ToSwarm::NotifyHandler {
            peer_id,
            handler: NotifyHandler::One(connection),
            event: Open { purpose, reply },
        });
    }

    /// This side closes a connection: its streams end now. The other side may be long in hearing of it.
    pub(super) fn end(&self, connection: ConnectionId) {
        if let Some(found) = self.connections.get(&connection) {
            found.ended.cancel();
        }
    }

    fn forget(&mut self, connection: ConnectionId) {
        self.end(connection);
        self.connections.remove(&connection);
    }

    fn admit(&self, peer: PeerId, dialed: bool) -> Result<Role, ConnectionDenied> {
        if HostId::from_peer_id_bytes(&peer.to_bytes()).is_none() {
            return Err(denied("its key is not an ed25519 key"));
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
        let strangers = self.connections.values();
        let strangers = strangers.filter(|other| other.role == Role::Stranger);
        if !dialed && (strangers.count() >= STRANGERS_MAX || same_peer.count() > 0) {
            return Err(denied("too many connections of strangers"));
        }
        Ok(Role::Stranger)
    }

    fn establish(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        dialed: bool,
    ) -> Result<Door, ConnectionDenied> {
        self.pending.remove(&connection);
        let role = self.admit(peer, dialed)?;
        let ended = CancellationToken::new();
        let found = Connection {
            peer,
            role,
            ended: ended.clone(),
        };
        self.connections.insert(connection, found);
        Ok(Door {
            role,
            ended,
            events: VecDeque::new(),
        })
    }
}

fn denied(reason: &'static str) -> ConnectionDenied {
    ConnectionDenied::new(std::io::Error::other(reason))
}

fn ip(address: &Multiaddr) -> Option<IpAddr> {
    address.iter().find_map(|part| match part {
        Protocol::Ip4(ip) => Some(IpAddr::V4(ip)),
        Protocol::Ip6(ip) => Some(IpAddr::V6(ip)),
        _ => None,
    })
}

impl NetworkBehaviour for Gate {
    type ConnectionHandler = Door;
    type ToSwarm = GateEvent;

    fn handle_pending_inbound_connection(
        &mut self,
        connection: ConnectionId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        let from = ip(remote);
        let same = self.pending.values().filter(|other| **other == from);
        if self.pending.len() >= PENDING_MAX || same.count() >= PENDING_PER_ADDRESS_MAX {
            return Err(denied("too many handshakes in progress"));
        }
        self.pending.insert(connection, from);
        Ok(())
    }

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<Door, ConnectionDenied> {
        self.establish(connection, peer, false)
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<Door, ConnectionDenied> {
        self.establish(connection, peer, true)
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
            // Addresses and listeners are the loop's business.
            _ => {}
        }
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        (purpose, stream): THandlerOutEvent<Self>,
    ) {
        if let Some(host) = HostId::from_peer_id_bytes(&peer.to_bytes()) {
            self.events
                .push_back(ToSwarm::GenerateEvent(GateEvent::Stream {
                    host,
                    connection,
                    purpose,
                    stream,
                }));
        }
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<GateEvent, THandlerInEvent<Self>>> {
        // The swarm polls again after everything that can add an event, so no waker is kept.
        match self.events.pop_front() {
            Some(event) => Poll::Ready(event),
            None => Poll::Pending,
        }
    }
}

/// The gate's side of one connection.
#[derive(Debug)]
pub(super) struct Door {
    role: Role,
    ended: CancellationToken,
    events: VecDeque<DoorEvent>,
}

impl Door {
    fn stream(&self, stream: Stream) -> MeshStream {
        MeshStream {
            stream,
            ended: self.ended.clone(),
        }
    }
}

type DoorEvent =
    ConnectionHandlerEvent<ReadyUpgrade<StreamProtocol>, OpenReply, (Purpose, MeshStream)>;

impl ConnectionHandler for Door {
    type FromBehaviour = Open;
    type ToBehaviour = (Purpose, MeshStream);
    type InboundProtocol = Welcomed;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = OpenReply;

    fn listen_protocol(&self) -> SubstreamProtocol<Welcomed> {
        SubstreamProtocol::new(Welcomed(self.role), ())
    }

    fn connection_keep_alive(&self) -> bool {
        // The loop alone decides when a connection ends.
        true
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<DoorEvent> {
        match self.events.pop_front() {
            Some(event) => Poll::Ready(event),
            None => Poll::Pending,
        }
    }

    fn on_behaviour_event(&mut self, Open { purpose, reply }: Open) {
        let name = match purpose {
            Purpose::Gateway => STREAM,
            Purpose::Join => JOIN,
        };
        let protocol = SubstreamProtocol::new(ReadyUpgrade::new(name), reply);
        self.events
            .push_back(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, Welcomed, ReadyUpgrade<StreamProtocol>, (), OpenReply>,
    ) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol: (purpose, stream),
                ..
            }) => {
                let stream = self.stream(stream);
                self.events
                    .push_back(ConnectionHandlerEvent::NotifyBehaviour((purpose, stream)));
            }
            // When the asker has given up, dropping the stream closes it.
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol,
                info,
                ..
            }) => drop(info.send(Ok(self.stream(protocol)))),
            ConnectionEvent::DialUpgradeError(DialUpgradeError { error, info, .. }) => {
                let reason = match error {
                    StreamUpgradeError::Timeout => "it did not answer in time".to_owned(),
                    StreamUpgradeError::NegotiationFailed => NOT_A_MEMBER.to_owned(),
                    StreamUpgradeError::Io(error) => format!("the connection failed: {error}"),
                    StreamUpgradeError::Apply(never) => match never {},
                };
                let _ = info.send(Err(reason));
            }
            // Addresses and lists of protocols change nothing here; failed negotiations end by themselves.
            _ => {}
        }
    }
}

/// The protocols that the other side may open on a connection.
#[derive(Debug)]
pub(super) struct Welcomed(Role);

impl UpgradeInfo for Welcomed {
    type Info = StreamProtocol;
    type InfoIter = Vec<StreamProtocol>;

    fn protocol_info(&self) -> Vec<StreamProtocol> {
        match self.0 {
            // A member whose answer was lost applies again.
            Role::Member => vec![STREAM, JOIN],
            Role::Stranger => vec![JOIN],
        }
    }
}

impl InboundUpgrade<Stream> for Welcomed {
    type Output = (Purpose, Stream);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_inbound(self, stream: Stream, name: StreamProtocol) -> Self::Future {
        let purpose = if name == STREAM {
            Purpose::Gateway
        } else {
            Purpose::Join
        };
        ready(Ok((purpose, stream)))
    }
}
