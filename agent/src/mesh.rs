//! The mesh: connections to the other members, streams on them, and applications for membership.
//!
//! Shell: owns libp2p's swarm in a task of its own and decides nothing; [`peers`] does. Out go [`MeshEvent`]s; in come
//! the member list and orders through a [`Mesh`] handle. Strangers may apply for membership and do nothing else.

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
/// How long opening a stream may take until the other agent's first byte.
const NEGOTIATE_MAX: Duration = Duration::from_secs(5);
/// What the local network said and nobody has looked at; the rest is said again.
const HEARD_MAX: usize = 64;
/// Addresses of one host that are tried.
const MULTIADDRS_MAX: usize = 16;

/// Where the mesh listens.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// One address instead of all.
    pub(crate) listen: Option<IpAddr>,
    /// UDP and TCP; 0 picks free ones.
    pub(crate) port: u16,
    /// Whether members are also found by what they say on the local network.
    pub(crate) mdns: bool,
    /// Who keeps the port bound while no agent runs.
    pub(crate) ports: Ports,
}

/// Why the mesh cannot be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MeshError {
    #[error("set up the mesh: {0}")]
    Setup(String),
}

/// What happens on the mesh.
#[derive(Debug)]
pub(crate) enum MeshEvent {
    /// A member was reached or lost.
    Peer { host: HostId, connected: bool },
    /// A member opened a stream.
    Offer { host: HostId, offer: Offer },
    /// A stranger applies for membership. Dropping `answer` refuses it.
    Application {
        host: HostId,
        request: JoinRequest,
        answer: oneshot::Sender<JoinAnswer>,
    },
}

/// What the mesh is asked to do.
#[derive(Debug)]
enum Order {
    Open {
        host: HostId,
        reply: OpenReply,
    },
    Apply {
        host: HostId,
        addresses: Vec<Multiaddr>,
        /// By another connection than one that is there.
        anew: bool,
        reply: OpenReply,
    },
    /// An application to this host is over.
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
    /// Binds the ports and starts. The mesh tries a port that another process has again, without end and with pauses. It ends when
    /// the caller drops its last handle, or when it loses a listener, which is then the last event.
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
            // Weak, or the mesh would keep itself alive.
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

    /// Replaces the member list: who is not on it is a stranger at once.
    pub(crate) fn set_members(&self, list: Vec<Member>) {
        self.members.send_replace(list);
    }

    /// The addresses that the listeners report.
    pub(crate) fn listening(&self) -> Listening {
        self.listening.clone()
    }

    /// Which ports cannot be listened on and who has them, in words; empty when none is missing.
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

    /// Applies for membership at a member. An error is words for a person.
    ///
    /// A member ends a stranger's connection once that has its answer. Whoever applies again just then finds the old connection, which
    /// is lost at once, so a failure is not believed before another connection fails, too. Applying twice is as good as once.
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
        // A closed queue is the end of the mesh.
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

/// Reads multiaddrs; what is not one is left out and logged.
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
