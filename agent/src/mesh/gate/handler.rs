//! The gate's handler for one connection: its protocols and its streams.
//!
//! Shell inside libp2p's swarm. Input: orders to open a stream. Output: streams.

use std::{
    collections::VecDeque,
    convert::Infallible,
    future::{Ready, ready},
    task::{Context, Poll},
};

use beemesh_protocol::ipc::NoStream;
use libp2p::{
    Stream, StreamProtocol,
    core::{UpgradeInfo, upgrade::InboundUpgrade, upgrade::ReadyUpgrade},
    swarm::{
        ConnectionHandler, ConnectionHandlerEvent, StreamUpgradeError, SubstreamProtocol,
        handler::{
            ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound,
        },
    },
};
use tokio_util::sync::CancellationToken;

use super::{JOIN, MeshStream, Open, OpenReply, Purpose, Role, STREAM};

/// The gate's handler for one connection.
#[derive(Debug)]
pub(in super::super) struct GateHandler {
    pub(super) role: Role,
    pub(super) ended: CancellationToken,
    pub(super) events: VecDeque<HandlerEvent>,
}

impl GateHandler {
    fn stream(&self, stream: Stream) -> MeshStream {
        MeshStream {
            stream,
            ended: self.ended.clone(),
        }
    }
}

type HandlerEvent =
    ConnectionHandlerEvent<ReadyUpgrade<StreamProtocol>, OpenReply, (Purpose, MeshStream)>;

impl ConnectionHandler for GateHandler {
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
        // Only the mesh's task closes connections.
        true
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<HandlerEvent> {
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
            // If the receiver is gone, dropping the stream closes it.
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol,
                info,
                ..
            }) => drop(info.send(Ok(self.stream(protocol)))),
            ConnectionEvent::DialUpgradeError(DialUpgradeError { error, info, .. }) => {
                let why = match error {
                    StreamUpgradeError::Timeout => {
                        NoStream::Other("it did not answer in time".to_owned())
                    }
                    StreamUpgradeError::NegotiationFailed => NoStream::NotMember,
                    StreamUpgradeError::Io(error) => {
                        NoStream::Other(format!("the connection failed: {error}"))
                    }
                    StreamUpgradeError::Apply(never) => match never {},
                };
                let _ = info.send(Err(why));
            }
            // Changes of addresses and protocols need no action, and a failed negotiation ends without help.
            _ => {}
        }
    }
}

/// The protocols that the remote side may open on a connection.
#[derive(Debug)]
pub(in super::super) struct Welcomed(Role);

impl UpgradeInfo for Welcomed {
    type Info = StreamProtocol;
    type InfoIter = Vec<StreamProtocol>;

    fn protocol_info(&self) -> Vec<StreamProtocol> {
        match self.0 {
            // A member applies again if the answer to its application was lost.
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
