//! Builds libp2p's swarm: transports, limits, and the two behaviours.
//!
//! Shell: binds the ports. QUIC and TCP with Noise and Yamux, on every address of the host unless told otherwise.

use std::{
    collections::{BTreeSet, HashMap},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
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
    MeshError,
    gate::Gate,
    ping::MemberPing,
    strangers::{Guarded, Members, Meters},
};

/// A member that says nothing for this long is gone. Its gateway elects a new leader in about the same time.
const SILENCE_MAX: Duration = Duration::from_secs(3);
/// How often a member that has nothing to say shows that it is there: two of these may be lost.
const KEEP_ALIVE: Duration = Duration::from_secs(1);
/// Transport and security handshake of a connection.
const HANDSHAKE_MAX: Duration = Duration::from_secs(5);
/// Streams that one peer may have open on a connection: the gateway's own, and followers of logs.
const STREAMS_MAX: u16 = 128;
/// Streams that negotiate their protocol at the same time on a connection.
const NEGOTIATING_MAX: usize = 32;
/// What a peer may send on one QUIC stream, and on all, before the gateway has read it. Enough for 1 Gbit/s at 15 ms, and so little
/// that a few strangers, who have the same, do not fill this host's memory.
const STREAM_WINDOW: u32 = 2 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What the swarm does.
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

/// TCP, with Noise and Yamux.
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
    let tcp = tcp::tokio::Transport::new(tcp::Config::default().nodelay(true))
        .map(move |stream, point| meters.meter(stream, &point))
        .upgrade(Version::V1Lazy)
        .authenticate(noise::Config::new(&key)?)
        .multiplex_ext(move |peer, point| lifted.shared(&shared, STREAMS_MAX.into(), peer, point))
        .map(move |(peer, muxer), point| (peer, Guarded::new(muxer, &members, &peer, &point)));
    Ok(tcp)
}

/// QUIC, with TLS 1.3.
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

/// What the swarm listens on.
#[derive(Debug, Default)]
pub(super) struct Bound {
    /// What was asked for.
    pub(super) listeners: HashMap<ListenerId, Multiaddr>,
    /// What is known to be up.
    pub(super) listening: BTreeSet<Multiaddr>,
}

/// Listens on `port` for QUIC and TCP. IPv6 may be missing on the host, IPv4 not.
pub(super) async fn listen(
    swarm: &mut Swarm<Behaviour>,
    ip: Option<IpAddr>,
    port: u16,
) -> Result<Bound, MeshError> {
    let any = [
        IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    ];
    let mut required: Vec<(ListenerId, Multiaddr)> = Vec::new();
    let mut bound = Bound::default();
    for ip in ip.map_or(any.to_vec(), |ip| vec![ip]) {
        let optional = ip == any[1];
        for address in [quic(ip, port), tcp(ip, port)] {
            let failed = |source| MeshError::Listen {
                address: address.clone(),
                source: Box::new(source),
            };
            match swarm.listen_on(address.clone()) {
                Ok(id) => {
                    bound.listeners.insert(id, address.clone());
                    if !optional {
                        required.push((id, address));
                    }
                }
                Err(error) if optional => tracing::info!(%address, %error, "not listening"),
                Err(error) => return Err(failed(error)),
            }
        }
    }
    while !required.is_empty() {
        let event = tokio::time::timeout(HANDSHAKE_MAX, swarm.select_next_some()).await;
        match event {
            Err(_) => return Err(MeshError::Setup("no listener came up".to_owned())),
            Ok(SwarmEvent::NewListenAddr {
                listener_id,
                address,
            }) => {
                required.retain(|(id, _)| *id != listener_id);
                bound.listening.insert(address);
            }
            Ok(SwarmEvent::ListenerClosed {
                listener_id,
                reason: Err(source),
                ..
            }) => {
                if let Some(at) = required.iter().position(|(id, _)| *id == listener_id) {
                    return Err(MeshError::Bind {
                        address: required.swap_remove(at).1,
                        source,
                    });
                }
            }
            // Nothing is dialled yet, and who dials in this early tries again.
            Ok(_) => {}
        }
    }
    Ok(bound)
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
