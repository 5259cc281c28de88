//! The mesh: connections to the other members, streams on them, and applications for membership.
//!
//! Shell: owns libp2p's swarm in a task of its own and decides nothing; [`peers`] does. Out go [`MeshEvent`]s; in come
//! the member list and orders through a [`Mesh`] handle. Strangers may apply for membership and do nothing else.

mod arrivals;
mod gate;
mod handshake;
mod lan;
mod limits;
mod listeners;
mod peers;
mod ping;
mod strangers;
mod swarm;
mod taken;
mod ward;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::IpAddr,
    time::{Duration, Instant},
};

use beemesh_protocol::{
    HostId,
    ipc::{Class, Member},
    mesh::{JoinAnswer, JoinRequest},
};
use futures::StreamExt;
use libp2p::{
    Multiaddr, PeerId, Swarm,
    identity::Keypair,
    swarm::{
        SwarmEvent,
        dial_opts::{DialOpts, PeerCondition},
    },
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::timeout,
};

pub(crate) use handshake::{Offer, Open};

use gate::{GateEvent, MeshStream, OpenReply, Purpose};
use listeners::{Listeners, Lost, Verdict};
use peers::{Effect, JOIN_TIME, Peers};
use ping::Unanswered;
use swarm::{Behaviour, BehaviourEvent};
use taken::Taken;
use ward::Ward;

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
    /// An exchange on this connection is over.
    Heard(libp2p::swarm::ConnectionId),
}

/// A handle on the mesh.
#[derive(Debug, Clone)]
pub(crate) struct Mesh {
    orders: mpsc::Sender<Order>,
    members: watch::Sender<Vec<Member>>,
    listening: watch::Receiver<BTreeSet<Multiaddr>>,
    trouble: watch::Receiver<String>,
}

impl Mesh {
    /// Binds the ports and starts; a port that another process has is tried again for as long as it takes. The mesh ends when its last handle is dropped, or when a listener is lost, which is
    /// then the last event.
    pub(crate) async fn start(
        key: &Keypair,
        me: HostId,
        settings: &Settings,
    ) -> Result<(Self, mpsc::Receiver<Result<MeshEvent, Lost>>), MeshError> {
        let mut swarm = swarm::build(key)?;
        let bound = swarm::listen(&mut swarm, settings).await?;
        let ward = Ward::new(&bound.listening, settings.port);
        let (orders, orders_from) = mpsc::channel(ORDERS_MAX);
        let (events, events_from) = mpsc::channel(EVENTS_MAX);
        let (members, members_from) = watch::channel(Vec::new());
        let (listening, listening_from) = watch::channel(bound.listening);
        let (trouble, trouble_from) = watch::channel(String::new());
        let mut taken = Taken::default();
        taken.tried(bound.failures, Instant::now());
        let task = Task {
            swarm,
            settings: settings.clone(),
            taken,
            trouble,
            peers: Peers::new(me),
            members: members_from,
            listening,
            listeners: Listeners::new(bound.listeners),
            ward,
            lost: None,
            events,
            // Weak, or the mesh would keep itself alive.
            orders: orders.downgrade(),
            applying: BTreeMap::new(),
            missing: watch::Sender::new(0),
        };
        task.tell_taken();
        let (heard, heard_from) = mpsc::channel(HEARD_MAX);
        if settings.mdns {
            let missing = task.missing.subscribe();
            tokio::spawn(lan::run(me, settings.port, missing, heard));
        }
        tokio::spawn(task.run(orders_from, heard_from));
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
    pub(crate) fn listening(&self) -> watch::Receiver<BTreeSet<Multiaddr>> {
        self.listening.clone()
    }

    /// Which ports cannot be listened on and who has them, in words; empty when none is missing.
    pub(crate) fn trouble(&self) -> watch::Receiver<String> {
        self.trouble.clone()
    }

    /// Opens a stream to a member and waits until its gateway has taken it. An error is words for a person.
    pub(crate) async fn open(&self, host: HostId, class: Class) -> Result<Open, String> {
        let stream = self
            .ask(|reply| Order::Open { host, reply }, NEGOTIATE_MAX)
            .await?;
        let opened = handshake::open(stream, class).await;
        opened.map_err(|error| error.to_string())
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
        let stream = self.ask(order, JOIN_TIME).await?;
        let answer = handshake::apply(stream.stream, request).await;
        answer.map_err(|error| error.to_string())
    }

    async fn ask(
        &self,
        order: impl FnOnce(OpenReply) -> Order,
        time: Duration,
    ) -> Result<MeshStream, String> {
        let (reply, answer) = oneshot::channel();
        let sent = self.orders.send(order(reply)).await;
        sent.map_err(|_| "the mesh has stopped".to_owned())?;
        match timeout(time, answer).await {
            Err(_) => Err("the other host did not answer in time".to_owned()),
            Ok(Err(_)) => Err("the connection was lost".to_owned()),
            Ok(Ok(stream)) => stream,
        }
    }
}

/// Reads multiaddrs; what is not one is left out and logged.
fn parse(addresses: &[String]) -> Vec<Multiaddr> {
    let parsed = addresses.iter().filter_map(|text| {
        let address = text.parse();
        if address.is_err() {
            tracing::warn!(address = %text, "not a multiaddr, left out");
        }
        address.ok()
    });
    parsed.take(MULTIADDRS_MAX).collect()
}

fn peer_id(host: HostId) -> Option<PeerId> {
    PeerId::from_bytes(&host.to_peer_id_bytes()).ok()
}

struct Task {
    swarm: Swarm<Behaviour>,
    settings: Settings,
    taken: Taken,
    trouble: watch::Sender<String>,
    peers: Peers,
    members: watch::Receiver<Vec<Member>>,
    listening: watch::Sender<BTreeSet<Multiaddr>>,
    listeners: Listeners,
    ward: Ward,
    lost: Option<Lost>,
    events: mpsc::Sender<Result<MeshEvent, Lost>>,
    orders: mpsc::WeakSender<Order>,
    /// Applications of this host that wait for a connection.
    applying: BTreeMap<HostId, OpenReply>,
    /// How many members are not connected.
    missing: watch::Sender<usize>,
}

impl Task {
    async fn run(
        mut self,
        mut orders: mpsc::Receiver<Order>,
        mut heard: mpsc::Receiver<lan::Heard>,
    ) {
        loop {
            let missing = self.peers.missing();
            self.missing
                .send_if_modified(|before| std::mem::replace(before, missing) != missing);
            let wake = self
                .peers
                .next_due()
                .into_iter()
                .chain(self.taken.due())
                .min();
            let due = async {
                match wake {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            let effects = tokio::select! {
                event = self.swarm.select_next_some() => self.on_swarm(event),
                order = orders.recv() => match order {
                    Some(order) => self.on_order(order),
                    None => return,
                },
                Ok(()) = self.members.changed() => self.on_members(),
                Some(heard) = heard.recv() => self.on_heard(heard),
                () = due => {
                    self.listen_again();
                    self.peers.due(Instant::now())
                }
                () = self.ward.window_over() => {
                    self.ward.turn(&mut self.swarm.behaviour_mut().gate.arrivals);
                    Vec::new()
                }
            };
            self.ward
                .watch(&mut self.swarm.behaviour_mut().gate.arrivals);
            let mut effects = VecDeque::from(effects);
            while let Some(effect) = effects.pop_front() {
                effects.extend(self.carry_out(effect).await);
            }
            if let Some(lost) = self.lost.take() {
                // A closed queue is the end of the agent.
                let _ = self.events.send(Err(lost)).await;
                return;
            }
        }
    }

    /// Tries the addresses again that are due.
    fn listen_again(&mut self) {
        let addresses = self.taken.is_due(Instant::now());
        if addresses.is_empty() {
            return;
        }
        let bound = swarm::listen_at(&mut self.swarm, &self.settings, addresses);
        if !bound.listeners.is_empty() {
            self.ward = Ward::new(&BTreeSet::new(), self.settings.port);
        }
        self.listeners.add(bound.listeners);
        self.taken.tried(bound.failures, Instant::now());
        self.tell_taken();
    }

    /// Finds out who has the ports that are missing, aside, for that takes a while.
    fn tell_taken(&self) {
        let (missing, ports) = (self.taken.ports(), self.settings.ports.clone());
        let trouble = self.trouble.clone();
        tokio::spawn(async move {
            let words = tokio::task::spawn_blocking(move || ports.explain(&missing)).await;
            trouble.send_if_modified(|before| {
                let words = words.unwrap_or_else(|error| error.to_string());
                let changed = *before != words;
                *before = words;
                changed
            });
        });
    }

    fn on_heard(&mut self, lan::Heard { host, ip, port }: lan::Heard) -> Vec<Effect> {
        let addresses = vec![swarm::quic(ip, port), swarm::tcp(ip, port)];
        if self.peers.heard(host, addresses, Instant::now()) {
            tracing::info!(%host, %ip, port, "heard of a member on the local network");
        }
        Vec::new()
    }

    fn on_members(&mut self) -> Vec<Effect> {
        let list = self.members.borrow_and_update().clone();
        let list: BTreeMap<HostId, Vec<Multiaddr>> = list
            .iter()
            .map(|member| (member.host, parse(&member.addresses)))
            .collect();
        let ids: Vec<PeerId> = list.keys().filter_map(|host| peer_id(*host)).collect();
        let behaviour = self.swarm.behaviour_mut();
        let addresses = list.values().flatten();
        behaviour.gate.set_members(ids.iter().copied(), addresses);
        behaviour.ping.set_members(ids);
        self.peers.set_members(list, Instant::now())
    }

    fn on_order(&mut self, order: Order) -> Vec<Effect> {
        match order {
            Order::Open { host, reply } => match self.peers.link(host) {
                Some(link) => self
                    .swarm
                    .behaviour_mut()
                    .gate
                    .open(link, Purpose::Gateway, reply),
                None => drop(reply.send(Err(format!("{host} is not connected")))),
            },
            Order::Apply {
                host,
                addresses,
                anew,
                reply,
            } => match self.peers.any(host).filter(|_| !anew) {
                Some(link) => self
                    .swarm
                    .behaviour_mut()
                    .gate
                    .open(link, Purpose::Join, reply),
                None => {
                    self.applying.insert(host, reply);
                    // The old one may have spent the one stream that a stranger has.
                    let mut effects = if anew {
                        self.peers.renew(host)
                    } else {
                        Vec::new()
                    };
                    effects.push(Effect::Dial(host, addresses));
                    return effects;
                }
            },
            Order::Heard(connection) => return self.peers.joining(connection, false),
        }
        Vec::new()
    }

    fn on_swarm(&mut self, event: SwarmEvent<BehaviourEvent>) -> Vec<Effect> {
        let now = Instant::now();
        match event {
            SwarmEvent::Behaviour(BehaviourEvent::Gate(event)) => return self.on_gate(event),
            SwarmEvent::Behaviour(BehaviourEvent::Ping(Unanswered { connection })) => {
                return vec![Effect::Close(connection)];
            }
            SwarmEvent::OutgoingConnectionError {
                peer_id: Some(peer),
                error,
                ..
            } => {
                let Some(host) = HostId::from_peer_id_bytes(&peer.to_bytes()) else {
                    return Vec::new();
                };
                tracing::debug!(%host, %error, "dial failed");
                self.peers.dial_failed(host, now);
                if let Some(reply) = self.applying.remove(&host) {
                    let _ = reply.send(Err(format!("{host} cannot be reached: {error}")));
                }
            }
            SwarmEvent::IncomingConnectionError {
                send_back_addr,
                error,
                ..
            } => tracing::debug!(from = %send_back_addr, %error, "handshake failed"),
            SwarmEvent::NewListenAddr { address, .. } => {
                self.listening.send_if_modified(|all| all.insert(address));
            }
            SwarmEvent::ExpiredListenAddr { address, .. } => {
                self.listening.send_if_modified(|all| all.remove(&address));
            }
            SwarmEvent::ListenerError { listener_id, error } => {
                match self.listeners.failed(listener_id, error.to_string(), now) {
                    Verdict::New => tracing::warn!(%error, "a listener fails, it tries on"),
                    Verdict::Again => {}
                    Verdict::Lost(lost) => self.lost = Some(lost),
                }
            }
            SwarmEvent::ListenerClosed {
                listener_id,
                addresses,
                reason,
            } => {
                let reason = reason.map_or_else(|error| error.to_string(), |()| "it ended".into());
                if !self.listeners.knows(listener_id) {
                    // It was given up at once, for its port was taken.
                    return Vec::new();
                }
                let lost = self.listeners.lost(listener_id, reason);
                if addresses.is_empty() {
                    // It never was up: this host has no IPv6.
                    tracing::info!("not listening: {lost}");
                } else {
                    self.lost = Some(lost);
                }
            }
            // Connections are the gate's events, dials are known to `peers`.
            _ => {}
        }
        Vec::new()
    }

    fn on_gate(&mut self, event: GateEvent) -> Vec<Effect> {
        let now = Instant::now();
        match event {
            GateEvent::Connected {
                host,
                connection,
                role,
                dialed,
            } => {
                tracing::debug!(%host, ?role, dialed, "connected");
                if let Some(reply) = self.applying.remove(&host) {
                    let gate = &mut self.swarm.behaviour_mut().gate;
                    gate.open(connection, Purpose::Join, reply);
                }
                self.peers.connected(host, connection, role, dialed, now)
            }
            GateEvent::Closed { connection } => self.peers.closed(connection, now),
            GateEvent::Flood { host, connection } => {
                let seconds = limits::BARRED_TIME.as_secs();
                tracing::warn!(%host, "far too many streams: it is let in nowhere for {seconds} s");
                vec![Effect::Close(connection)]
            }
            GateEvent::Stream {
                host,
                purpose: Purpose::Gateway,
                stream,
                ..
            } => {
                let events = self.events.clone();
                tokio::spawn(async move {
                    match handshake::offered(stream).await {
                        // A closed queue is the end of the agent.
                        Ok(offer) => drop(events.send(Ok(MeshEvent::Offer { host, offer })).await),
                        Err(error) => tracing::warn!(%host, %error, "stream refused"),
                    }
                });
                Vec::new()
            }
            GateEvent::Stream {
                host,
                connection,
                purpose: Purpose::Join,
                stream,
            } => {
                if self.peers.is_joining(connection) {
                    tracing::warn!(%host, "one application at a time, another was dropped");
                    return Vec::new();
                }
                let effects = self.peers.joining(connection, true);
                self.hear(host, connection, stream.stream);
                effects
            }
        }
    }

    fn hear(&self, host: HostId, connection: libp2p::swarm::ConnectionId, stream: libp2p::Stream) {
        let (events, orders) = (self.events.clone(), self.orders.clone());
        tokio::spawn(async move {
            let decide = async |request| {
                let (answer, answer_from) = oneshot::channel();
                let event = MeshEvent::Application {
                    host,
                    request,
                    answer,
                };
                events.send(Ok(event)).await.ok()?;
                Some(answer_from)
            };
            if let Err(error) = handshake::hear(stream, decide).await {
                tracing::warn!(%host, %error, "application for membership failed");
            }
            if let Some(orders) = orders.upgrade() {
                // A closed queue is the end of the mesh.
                let _ = orders.send(Order::Heard(connection)).await;
            }
        });
    }

    /// What is to be carried out for it in turn.
    async fn carry_out(&mut self, effect: Effect) -> Vec<Effect> {
        match effect {
            Effect::Dial(host, addresses) => {
                let Some(peer) = peer_id(host) else {
                    return Vec::new();
                };
                let dial = DialOpts::peer_id(peer)
                    .condition(PeerCondition::Always)
                    .addresses(addresses)
                    .build();
                if let Err(error) = self.swarm.dial(dial) {
                    tracing::debug!(%host, %error, "not dialled");
                    self.peers.dial_failed(host, Instant::now());
                    if let Some(reply) = self.applying.remove(&host) {
                        let _ = reply.send(Err(format!("{host} cannot be dialled: {error}")));
                    }
                }
            }
            // Gone from now on: over a cable that is cut, TCP may take minutes to say so.
            Effect::Close(connection) => {
                self.swarm.behaviour_mut().gate.end(connection);
                self.swarm.close_connection(connection);
                return self.peers.closed(connection, Instant::now());
            }
            Effect::Up(host) => self.tell(host, true).await,
            Effect::Down(host) => self.tell(host, false).await,
        }
        Vec::new()
    }

    async fn tell(&mut self, host: HostId, connected: bool) {
        tracing::info!(%host, connected, "member");
        // A closed queue is the end of the agent.
        let event = MeshEvent::Peer { host, connected };
        let _ = self.events.send(Ok(event)).await;
    }
}
