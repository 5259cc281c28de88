//! The mesh's task: it owns the swarm, carries out what [`Peers`] decides, and reports to the agent.
//!
//! Shell. Input: orders, the member list and libp2p's events. Output: [`MeshEvent`]s.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Instant,
};

use beemesh_protocol::{
    HostId,
    ipc::{Member, NoStream},
};
use futures::StreamExt;
use libp2p::{
    Multiaddr, PeerId, Swarm,
    swarm::{
        ConnectionId, SwarmEvent,
        dial_opts::{DialOpts, PeerCondition},
    },
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::AbortHandle,
};

use super::{
    HEARD_MAX, MeshEvent, Order, Settings,
    gate::{GateEvent, OpenReply, Purpose},
    handshake, lan, limits,
    listeners::{Listeners, Lost, Verdict},
    parse, peer_id,
    peers::{Effect, Peers},
    ping::Unanswered,
    swarm::{self, Behaviour, BehaviourEvent, Bound},
    taken::Taken,
    ward::Ward,
};

/// The channels of the task.
pub(super) struct Ends {
    pub(super) orders: mpsc::Receiver<Order>,
    /// Sends the task's orders to itself.
    pub(super) again: mpsc::WeakSender<Order>,
    pub(super) members: watch::Receiver<Vec<Member>>,
    pub(super) events: mpsc::Sender<Result<MeshEvent, Lost>>,
    pub(super) listening: watch::Sender<BTreeSet<Multiaddr>>,
    pub(super) trouble: watch::Sender<String>,
}

pub(super) struct Task {
    swarm: Swarm<Behaviour>,
    settings: Settings,
    ends: Ends,
    peers: Peers,
    listeners: Listeners,
    ward: Ward,
    lost: Option<Lost>,
    taken: Taken,
    /// The task that looks for the owners of the missing ports.
    asking: Option<AbortHandle>,
    /// Applications of this host that wait for a connection.
    applying: BTreeMap<HostId, OpenReply>,
    /// The number of members that are not connected.
    missing: watch::Sender<usize>,
    heard: mpsc::Receiver<lan::Heard>,
}

impl Task {
    /// Creates the task for a swarm that listens already.
    pub(super) fn new(
        me: HostId,
        settings: &Settings,
        swarm: Swarm<Behaviour>,
        bound: Bound,
        ends: Ends,
    ) -> Self {
        let ward = Ward::new(&bound.listening, settings.port);
        ends.listening.send_replace(bound.listening);
        let mut taken = Taken::default();
        taken.tried(bound.failures, Instant::now());
        let missing = watch::Sender::new(0);
        let (heard_to, heard) = mpsc::channel(HEARD_MAX);
        if settings.mdns {
            tokio::spawn(lan::run(me, settings.port, missing.subscribe(), heard_to));
        }
        Self {
            swarm,
            settings: settings.clone(),
            ends,
            peers: Peers::new(me),
            listeners: Listeners::new(bound.listeners),
            ward,
            lost: None,
            taken,
            asking: None,
            applying: BTreeMap::new(),
            missing,
            heard,
        }
    }

    /// Runs until the caller drops the last handle or a listener is lost.
    pub(super) async fn run(mut self) {
        self.tell_taken();
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
                order = self.ends.orders.recv() => match order {
                    Some(order) => self.on_order(order),
                    None => return,
                },
                Ok(()) = self.ends.members.changed() => self.on_members(),
                Some(heard) = self.heard.recv() => self.on_heard(heard),
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
                // A closed queue means that the agent is stopping.
                let _ = self.ends.events.send(Err(lost)).await;
                return;
            }
        }
    }

    /// Tries the addresses that are due.
    fn listen_again(&mut self) {
        let addresses = self.taken.is_due(Instant::now());
        if addresses.is_empty() {
            return;
        }
        let bound = swarm::listen_at(&mut self.swarm, &self.settings, addresses);
        if !bound.listeners.is_empty() {
            self.ward.renew(self.settings.port);
        }
        self.listeners.add(bound.listeners);
        self.taken.tried(bound.failures, Instant::now());
        self.tell_taken();
    }

    /// Looks for the owners of the missing ports in a task, because that takes a while. The next call aborts an
    /// unfinished search.
    fn tell_taken(&mut self) {
        let (missing, ports) = (self.taken.ports(), self.settings.ports.clone());
        let trouble = self.ends.trouble.clone();
        let asking = tokio::spawn(async move {
            let words = tokio::task::spawn_blocking(move || ports.explain(&missing)).await;
            trouble.send_if_modified(|before| {
                let words = words.unwrap_or_else(|error| error.to_string());
                let changed = *before != words;
                *before = words;
                changed
            });
        });
        if let Some(before) = self.asking.replace(asking.abort_handle()) {
            before.abort();
        }
    }

    fn on_heard(&mut self, lan::Heard { host, ip, port }: lan::Heard) -> Vec<Effect> {
        let addresses = vec![swarm::quic(ip, port), swarm::tcp(ip, port)];
        if self.peers.heard(host, addresses, Instant::now()) {
            tracing::info!(%host, %ip, port, "heard of a member on the local network");
        }
        Vec::new()
    }

    fn on_members(&mut self) -> Vec<Effect> {
        let list = self.ends.members.borrow_and_update().clone();
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
                None => refuse(reply, format!("{host} is not connected")),
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
                    // This host may be a stranger there, and may have used its only stream on the old connection.
                    let mut effects = if anew {
                        self.peers.renew(host)
                    } else {
                        Vec::new()
                    };
                    effects.push(Effect::Dial(host, addresses));
                    return effects;
                }
            },
            Order::Applied(host) => return self.peers.applied(host),
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
                    refuse(reply, format!("{host} cannot be reached: {error}"));
                }
            }
            SwarmEvent::IncomingConnectionError {
                send_back_addr,
                error,
                ..
            } => tracing::debug!(from = %send_back_addr, %error, "handshake failed"),
            SwarmEvent::NewListenAddr { address, .. } => {
                self.ends
                    .listening
                    .send_if_modified(|all| all.insert(address));
            }
            SwarmEvent::ExpiredListenAddr { address, .. } => {
                self.ends
                    .listening
                    .send_if_modified(|all| all.remove(&address));
            }
            SwarmEvent::ListenerError { listener_id, error } => {
                match self.listeners.failed(listener_id, error.to_string(), now) {
                    Verdict::New => tracing::warn!(%error, "a listener failed, will retry"),
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
                    // The task gave this listener up at once, because its port was taken.
                    return Vec::new();
                }
                let lost = self.listeners.lost(listener_id, reason);
                if addresses.is_empty() {
                    // The listener never came up: this host has no IPv6.
                    tracing::info!("not listening: {lost}");
                } else {
                    self.lost = Some(lost);
                }
            }
            // The gate reports connections, and `peers` knows the dials.
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
                    if dialed {
                        self.peers.dedicated(host, connection, role, now);
                        return Vec::new();
                    }
                }
                self.peers.connected(host, connection, role, dialed, now)
            }
            GateEvent::Closed { connection } => self.peers.closed(connection, now),
            GateEvent::Flood { host, connection } => {
                let seconds = limits::BARRED_TIME.as_secs();
                tracing::warn!(%host, "too many streams: it is refused for {seconds} s");
                vec![Effect::Close(connection)]
            }
            GateEvent::Stream {
                host,
                purpose: Purpose::Gateway,
                stream,
                ..
            } => {
                let events = self.ends.events.clone();
                tokio::spawn(async move {
                    match handshake::offered(stream).await {
                        // A closed queue means that the agent is stopping.
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

    fn hear(&self, host: HostId, connection: ConnectionId, stream: libp2p::Stream) {
        let (events, orders) = (self.ends.events.clone(), self.ends.again.clone());
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
                // A closed queue means that the mesh has ended.
                let _ = orders.send(Order::Heard(connection)).await;
            }
        });
    }

    /// Carries out an effect and returns the effects that follow from it.
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
                        refuse(reply, format!("{host} cannot be reached: {error}"));
                    }
                }
            }
            // Ends the streams at once: over a cut cable, TCP may take minutes to report the end.
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
        // A closed queue means that the agent is stopping.
        let event = MeshEvent::Peer { host, connected };
        let _ = self.ends.events.send(Ok(event)).await;
    }
}

/// Sends the reason why there is no stream. The receiver may have given up.
fn refuse(reply: OpenReply, words: String) {
    let _ = reply.send(Err(NoStream::Other(words)));
}
