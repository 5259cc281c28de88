//! Builds libp2p's swarm: transports, limits and two behaviours.
//!
//! Shell: binds the ports. The transports are QUIC, and TCP with Noise and Yamux, on all addresses of the host or on
//! the configured one.

use std::{
    collections::{BTreeSet, HashMap},
    io,
    net::{IpAddr, UdpSocket},
    time::Duration,
};

use futures::StreamExt;
use libp2p::{
    Multiaddr, PeerId, Swarm, SwarmBuilder, Transport,
    core::{StreamMuxer, transport::ListenerId, upgrade::Version},
    identity::Keypair,
    multiaddr::Protocol,
    noise, quic,
    swarm::{self, NetworkBehaviour, SwarmEvent},
    tcp,
};

use super::{
    MeshError, Settings,
    gate::Gate,
    pace::Paced,
    ping::MemberPing,
    strangers::{Guarded, Members, Meters},
    taken::Failure,
};
use crate::ports::{ANY, Shared, inodes};

/// A member that sends nothing for this long is unreachable. Its gateway elects a new leader in about the same time.
const SILENCE_MAX: Duration = Duration::from_secs(3);
/// How often a member without data sends a keep-alive: two of them in a row may be lost.
const KEEP_ALIVE: Duration = Duration::from_secs(1);
/// Time for the transport and the security handshake of a connection.
const HANDSHAKE_MAX: Duration = Duration::from_secs(5);
/// Streams that one peer may have open on a connection: the gateway's own, and those of users who follow logs.
const STREAMS_MAX: u16 = 128;
/// Streams of a connection that may negotiate their protocol at the same time.
const NEGOTIATING_MAX: usize = 32;
/// Bytes that a peer may send on one QUIC stream and on one connection before the gateway reads them. This is enough
/// for 1 Gbit/s at 15 ms. Strangers have the same windows, and a few of them do not fill the host's memory.
const STREAM_WINDOW: u32 = 2 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;

/// TCP connections, members' included, that are accepted in a window of 250 ms. This is more than strangers may have,
/// because a refused connection costs 0.05 ms of processor time.
const ACCEPTED_MAX: u32 = 150;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The behaviours of the swarm.
#[derive(NetworkBehaviour, Debug)]
pub(super) struct Behaviour {
    pub(super) gate: Gate,
    pub(super) ping: MemberPing,
}

/// Builds the swarm of this host.
pub(super) fn build(key: &Keypair) -> Result<Swarm<Behaviour>, MeshError> {
    let setup = |error: &dyn std::fmt::Display| MeshError::Setup(error.to_string());
    let members = Members::default();
    let swarm = SwarmBuilder::with_existing_identity(key.clone())
        .with_tokio()
        .with_other_transport(|key| over_tcp(key.clone(), members.clone()))
        .map_err(|error| setup(&error))?
        .with_other_transport(|key| over_quic(key.clone(), members.clone()))
        .map_err(|error| setup(&error))?
        .with_behaviour(|_| Behaviour {
            gate: Gate::new(members.clone()),
            ping: MemberPing::new(KEEP_ALIVE, SILENCE_MAX),
        })
        .map_err(|error| setup(&error))?
        .with_swarm_config(|config: swarm::Config| {
            config
                .with_smart_dial()
                .with_max_negotiating_inbound_streams(NEGOTIATING_MAX)
        })
        .with_connection_timeout(HANDSHAKE_MAX)
        .build();
    Ok(swarm)
}

/// TCP with Noise and Yamux.
fn over_tcp(
    key: Keypair,
    members: Members,
) -> Result<
    impl Transport<
        Output = (
            PeerId,
            impl StreamMuxer<Substream: Send, Error: Send + Sync> + Send + 'static,
        ),
        Error: Send + Sync,
        Dial: Send,
        ListenerUpgrade: Send,
    > + Send
    + Unpin,
    BoxError,
> {
    let (meters, shared) = (Meters::default(), members.clone());
    let lifted = meters.clone();
    let tcp = tcp::tokio::Transport::new(tcp::Config::default().nodelay(true));
    let tcp = Paced::new(tcp, ACCEPTED_MAX)
        .map(move |stream, point| meters.meter(stream, &point))
        .upgrade(Version::V1Lazy)
        .authenticate(noise::Config::new(&key)?)
        .multiplex_ext(move |peer, point| lifted.shared(&shared, STREAMS_MAX.into(), peer, point))
        .map(move |(peer, muxer), point| (peer, Guarded::new(muxer, &members, &peer, &point)));
    Ok(tcp)
}

/// QUIC, which includes TLS 1.3.
fn over_quic(
    key: Keypair,
    members: Members,
) -> impl Transport<
    Output = (
        PeerId,
        impl StreamMuxer<Substream: Send, Error: Send + Sync> + Send + 'static,
    ),
    Error: Send + Sync,
    Dial: Send,
    ListenerUpgrade: Send,
> + Send
+ Unpin {
    let mut config = quic::Config::new(&key);
    config.handshake_timeout = HANDSHAKE_MAX;
    config.max_idle_timeout = u32::try_from(SILENCE_MAX.as_millis()).unwrap_or(u32::MAX);
    config.keep_alive_interval = KEEP_ALIVE;
    config.max_concurrent_stream_limit = STREAMS_MAX.into();
    config.max_stream_data = STREAM_WINDOW;
    config.max_connection_data = CONNECTION_WINDOW;
    quic::tokio::Transport::new(config)
        .map(move |(peer, muxer), point| (peer, Guarded::new(muxer, &members, &peer, &point)))
}

/// The listeners of the swarm.
#[derive(Debug, Default)]
pub(super) struct Bound {
    /// The requested address of each listener.
    pub(super) listeners: HashMap<ListenerId, Multiaddr>,
    /// The addresses that are known to be bound.
    pub(super) listening: BTreeSet<Multiaddr>,
    /// The addresses that could not be bound.
    pub(super) failures: Vec<Failure>,
}

/// Listens for QUIC and TCP. An address that cannot be bound is reported and tried again later, because the other
/// transport reaches the members, too.
pub(super) async fn listen(
    swarm: &mut Swarm<Behaviour>,
    settings: &Settings,
) -> Result<Bound, MeshError> {
    let ips = settings.listen.map_or(ANY.to_vec(), |ip| vec![ip]);
    let addresses = ips
        .into_iter()
        .flat_map(|ip| [quic(ip, settings.port), tcp(ip, settings.port)]);
    let mut bound = listen_at(swarm, settings, addresses.collect());
    // The host may lack IPv6, so only IPv4 is awaited.
    let is_ipv4 = |address: &Multiaddr| matches!(address.iter().next(), Some(Protocol::Ip4(_)));
    let mut awaited = bound.listeners.clone();
    awaited.retain(|_, address| settings.listen.is_some() || is_ipv4(address));
    while !awaited.is_empty() {
        let event = tokio::time::timeout(HANDSHAKE_MAX, swarm.select_next_some()).await;
        match event {
            Err(_) => return Err(MeshError::Setup("no listener came up".to_owned())),
            Ok(SwarmEvent::NewListenAddr {
                listener_id,
                address,
            }) => {
                awaited.remove(&listener_id);
                bound.listening.insert(address);
            }
            Ok(SwarmEvent::ListenerClosed {
                listener_id,
                reason: Err(error),
                ..
            }) => {
                if let Some(address) = awaited.remove(&listener_id) {
                    bound.listeners.remove(&listener_id);
                    bound.failures.push((address, error.to_string()));
                }
            }
            // This host does not dial yet, and a host that connects this early retries.
            Ok(_) => {}
        }
    }
    Ok(bound)
}

/// Begins to listen on these addresses, beside the sockets of `beemesh-ports.service`, which then closes its own.
pub(super) fn listen_at(
    swarm: &mut Swarm<Behaviour>,
    settings: &Settings,
    addresses: Vec<Multiaddr>,
) -> Bound {
    let mut shared = settings
        .listen
        .is_none()
        .then(|| settings.ports.share())
        .flatten();
    let mut bound = Bound::default();
    for address in addresses {
        match listen_on(swarm, &address, shared.as_mut()) {
            Ok(id) => drop(bound.listeners.insert(id, address)),
            Err(error) if is_missing(&address) => {
                tracing::info!(%address, %error, "not listening");
            }
            Err(error) => bound.failures.push((address, error.to_string())),
        }
    }
    bound
}

fn listen_on(
    swarm: &mut Swarm<Behaviour>,
    address: &Multiaddr,
    shared: Option<&mut Shared<'_>>,
) -> io::Result<ListenerId> {
    let parts: Vec<Protocol<'_>> = address.iter().collect();
    let ip = match parts.first() {
        Some(Protocol::Ip4(ip)) => Some(IpAddr::V4(*ip)),
        Some(Protocol::Ip6(ip)) => Some(IpAddr::V6(*ip)),
        _ => None,
    };
    // libp2p sets the options that share a TCP listener.
    let (Some(ip), Some(Protocol::Udp(port)), Some(shared)) = (ip, parts.get(1), shared) else {
        return swarm.listen_on(address.clone()).map_err(io::Error::other);
    };
    let before = inodes()?;
    let id = swarm.listen_on(quic(ip, 0)).map_err(io::Error::other)?;
    shared.bind(&before, ip, *port).inspect_err(|_| {
        swarm.remove_listener(id);
    })?;
    Ok(id)
}

/// Returns true if the host has no IPv6, so that it can never listen on this address.
fn is_missing(address: &Multiaddr) -> bool {
    let is_ipv6 = matches!(address.iter().next(), Some(Protocol::Ip6(_)));
    is_ipv6 && UdpSocket::bind((ANY[1], 0)).is_err()
}

/// The multiaddr of a QUIC listener.
pub(super) fn quic(ip: IpAddr, port: u16) -> Multiaddr {
    Multiaddr::from(ip)
        .with(Protocol::Udp(port))
        .with(Protocol::QuicV1)
}

/// The multiaddr of a TCP listener.
pub(super) fn tcp(ip: IpAddr, port: u16) -> Multiaddr {
    Multiaddr::from(ip).with(Protocol::Tcp(port))
}
