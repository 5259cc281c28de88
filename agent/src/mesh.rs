//! The mesh: connections to the other members, streams on them, and applications for membership.
//!
//! Shell: owns libp2p's swarm in a task of its own; [`peers`] makes the decisions. Output: [`MeshEvent`]s. Input: the
//! member list, and orders through a [`Mesh`] handle. A stranger may only apply for membership.

pub(crate) mod addresses;
mod arrivals;
mod gate;
mod handshake;
pub(crate) mod identity;
mod lan;
mod limits;
mod listeners;
mod pace;
mod peers;
mod ping;
mod strangers;
mod swarm;
mod taken;
mod task;
mod ward;

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use beemesh_protocol::{
    HostId,
    ipc::{Class, Member, NoStream},
    mesh::{JoinAnswer, JoinRequest},
};
use libp2p::{Multiaddr, PeerId, swarm::ConnectionId};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::timeout,
};

pub(crate) use handshake::{Offer, Open};

use gate::{MeshStream, OpenReply};
use identity::Identity;
use listeners::Lost;
use peers::JOIN_TIME;
use task::Task;

use crate::ports::Ports;

/// Events that wait for the agent's loop: a burst of streams from every member.
const EVENTS_MAX: usize = 256;
/// Orders that wait for the swarm.
const ORDERS_MAX: usize = 256;
/// How long opening a stream may take until the first byte of the other agent.
const NEGOTIATE_MAX: Duration = Duration::from_secs(5);
/// Unread announcements from the local network. Hosts repeat those that are dropped.
const HEARD_MAX: usize = 64;
/// Addresses of one host that are dialled.
const MULTIADDRS_MAX: usize = 16;

/// Settings of the mesh's listeners.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// The only address to listen on; `None` for all.
    pub(crate) listen: Option<IpAddr>,
    /// The port of UDP and TCP; 0 lets the kernel choose.
    pub(crate) port: u16,
    /// Whether the mesh also finds members by their announcements on the local network.
    pub(crate) mdns: bool,
    /// The holder, which keeps the ports bound while no agent runs.
    pub(crate) ports: Ports,
}

/// The reason why the mesh cannot start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MeshError {
    #[error("set up the mesh: {0}")]
    Setup(String),
}

/// An event of the mesh.
#[derive(Debug)]
pub(crate) enum MeshEvent {
    /// A member was connected or disconnected.
    Peer { host: HostId, connected: bool },
    /// A member opened a stream.
    Offer { host: HostId, offer: Offer },
    /// A stranger applies for membership. Dropping `answer` refuses the application.
    Application {
        host: HostId,
        request: JoinRequest,
        answer: oneshot::Sender<JoinAnswer>,
    },
}

/// An order to the mesh's task.
#[derive(Debug)]
enum Order {
    Open {
        host: HostId,
        reply: OpenReply,
    },
    Apply {
        host: HostId,
        addresses: Vec<Multiaddr>,
        /// Use a new connection, even if there is one.
        anew: bool,
        reply: OpenReply,
    },
    /// An application at this host is over.
    Applied(HostId),
    /// An exchange on this connection is over.
    Heard(ConnectionId),
}

/// The addresses that the listeners report.
pub(crate) type Listening = watch::Receiver<BTreeSet<Multiaddr>>;

/// A handle on the mesh.
#[derive(Debug, Clone)]
pub(crate) struct Mesh {
    orders: mpsc::Sender<Order>,
    members: watch::Sender<Vec<Member>>,
    listening: Listening,
    trouble: watch::Receiver<String>,
}

impl Mesh {
    /// Binds the ports and starts. The mesh tries a port that another process has again, without end and with pauses.
    /// It ends when the caller drops its last handle, or when it loses a listener, which is then the last event.
    pub(crate) async fn start(
        identity: &Identity,
        settings: &Settings,
    ) -> Result<(Self, mpsc::Receiver<Result<MeshEvent, Lost>>), MeshError> {
        let mut swarm = swarm::build(&identity.key)?;
        let bound = swarm::listen(&mut swarm, settings).await?;
        let (orders, orders_from) = mpsc::channel(ORDERS_MAX);
        let (events, events_from) = mpsc::channel(EVENTS_MAX);
        let (members, members_from) = watch::channel(Vec::new());
        let (listening, listening_from) = watch::channel(bound.listening.clone());
        let (trouble, trouble_from) = watch::channel(String::new());
        let ends = task::Ends {
            orders: orders_from,
            // Weak, because a strong sender would keep the mesh alive.
            again: orders.downgrade(),
            members: members_from,
            events,
            listening,
            trouble,
        };
        tokio::spawn(Task::new(identity.host, settings, swarm, bound, ends).run());
        let mesh = Self {
            orders,
            members,
            listening: listening_from,
            trouble: trouble_from,
        };
        Ok((mesh, events_from))
    }

    /// Replaces the member list. A host that is not on it becomes a stranger at once.
    pub(crate) fn set_members(&self, list: Vec<Member>) {
        self.members.send_replace(list);
    }

    /// The addresses that the listeners report.
    pub(crate) fn listening(&self) -> Listening {
        self.listening.clone()
    }

    /// A message that names the ports that the mesh cannot listen on and their owners; empty if no port is missing.
    pub(crate) fn trouble(&self) -> watch::Receiver<String> {
        self.trouble.clone()
    }

    /// Opens a stream to a member and waits until its gateway has taken it.
    pub(crate) async fn open(&self, host: HostId, class: Class) -> Result<Open, NoStream> {
        let stream = self
            .ask(|reply| Order::Open { host, reply }, NEGOTIATE_MAX)
            .await?;
        let opened = handshake::open(stream, class).await;
        opened.map_err(|error| NoStream::Other(error.to_string()))
    }

    /// Applies for membership at a member. The error is a message for the user.
    ///
    /// A member closes a stranger's connection once the stranger has its answer. An applicant that applies again at
    /// that moment finds the old connection, which closes at once. So a failure counts only if an attempt on a new
    /// connection fails, too. A repeated application has no further effect.
    pub(crate) async fn apply(
        &self,
        host: HostId,
        addresses: &[String],
        request: &JoinRequest,
    ) -> Result<JoinAnswer, String> {
        let addresses = parse(addresses);
        let applied = async {
            match self.apply_once(host, &addresses, false, request).await {
                Ok(answer) => Ok(answer),
                Err(_) => self.apply_once(host, &addresses, true, request).await,
            }
        };
        let late = |_| format!("no answer within {} s", JOIN_TIME.as_secs());
        timeout(JOIN_TIME, applied).await.map_err(late)?
    }

    async fn apply_once(
        &self,
        host: HostId,
        addresses: &[Multiaddr],
        anew: bool,
        request: &JoinRequest,
    ) -> Result<JoinAnswer, String> {
        let addresses = addresses.to_vec();
        let order = |reply| Order::Apply {
            host,
            addresses,
            anew,
            reply,
        };
        let stream = self.ask(order, JOIN_TIME).await;
        let stream = stream.map_err(|why| why.to_string())?;
        let answer = handshake::apply(stream.stream, request).await;
        // A closed queue means that the mesh has ended.
        let _ = self.orders.send(Order::Applied(host)).await;
        answer.map_err(|error| error.to_string())
    }

    async fn ask(
        &self,
        order: impl FnOnce(OpenReply) -> Order,
        time: Duration,
    ) -> Result<MeshStream, NoStream> {
        let other = |words: &str| NoStream::Other(words.to_owned());
        let (reply, answer) = oneshot::channel();
        let sent = self.orders.send(order(reply)).await;
        sent.map_err(|_| other("the mesh has stopped"))?;
        match timeout(time, answer).await {
            Err(_) => Err(other("the other host did not answer in time")),
            Ok(Err(_)) => Err(other("the connection was lost")),
            Ok(Ok(stream)) => stream,
        }
    }
}

/// Parses multiaddrs; logs and skips those that are invalid.
fn parse(addresses: &[String]) -> Vec<Multiaddr> {
    let parsed = addresses.iter().filter_map(|text| {
        let address = text.parse();
        if address.is_err() {
            tracing::warn!(address = %text, "not a multiaddr, ignored");
        }
        address.ok()
    });
    parsed.take(MULTIADDRS_MAX).collect()
}

fn peer_id(host: HostId) -> Option<PeerId> {
    PeerId::from_bytes(&host.to_peer_id_bytes()).ok()
}
