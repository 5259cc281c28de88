//! Hosts of the local network say where they are, where their administrators have switched that on.
//!
//! Shell. Multicast DNS (RFC 6762) over IPv4: a host that misses members says its id and its port, with growing pauses, and
//! listens always. What is heard is a hint for a dial and nothing else: a connection proves who is at its other end, and
//! who is a member says the replicated list. Nothing of a stranger is kept, and no packet is answered.

mod record;

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4},
    time::Duration,
};

use beemesh_protocol::HostId;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::{
    net::UdpSocket,
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};

use super::addresses::own_networks;

/// Where multicast DNS is spoken.
const GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);
const PORT: u16 = 5353;
/// What a packet of this kind is sent with, so that a receiver sees that no router passed it on.
const HOPS: u32 = 255;
/// The first and the longest pause between two packets of a host that misses members.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// Networks of one host on which it speaks.
const NETWORKS_MAX: usize = 16;

/// A member may be here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Heard {
    pub(super) host: HostId,
    pub(super) ip: IpAddr,
    pub(super) port: u16,
}

/// Speaks and listens until nobody takes what is heard. `missing` is how many members are not connected.
pub(super) async fn run(
    me: HostId,
    port: u16,
    mut missing: watch::Receiver<usize>,
    heard: mpsc::Sender<Heard>,
) {
    let socket = match open() {
        Ok(socket) => socket,
        Err(error) => {
            tracing::warn!(%error, "cannot listen for hosts on the local network: UDP port {PORT}");
            return;
        }
    };
    let packet = record::write(me, port);
    let mut joined = BTreeSet::new();
    let mut buffer = [0; record::BYTES_MAX + 1];
    let mut known = 0;
    let mut pause = PAUSE_MIN;
    let mut next = Instant::now();
    loop {
        tokio::select! {
            changed = missing.changed() => {
                if changed.is_err() {
                    return;
                }
                let now = *missing.borrow_and_update();
                if now > known {
                    (pause, next) = (PAUSE_MIN, Instant::now());
                }
                known = now;
            }
            received = socket.recv_from(&mut buffer) => match received {
                Ok((length, from)) => hear(&buffer[..length], from, me, &heard),
                // Of one packet: a socket of UDP goes on.
                Err(error) => tracing::debug!(%error, "a packet of the local network was lost"),
            },
            () = sleep_until(next) => {
                // Networks come and go; those without a member missing are joined too, to be ready.
                let networks: Vec<_> = own_networks().into_iter().take(NETWORKS_MAX).collect();
                join(&socket, &networks, &mut joined);
                if known > 0 {
                    speak(&socket, &networks, &packet).await;
                }
                next = Instant::now() + pause;
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
    }
}

/// Others may listen on this port, too: the host's own responder.
fn open() -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.set_multicast_ttl_v4(HOPS)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT)).into())?;
    UdpSocket::from_std(socket.into())
}

/// Joins the group on networks that are new; a network that is gone has left it by itself.
fn join(socket: &UdpSocket, networks: &[Ipv4Addr], joined: &mut BTreeSet<Ipv4Addr>) {
    joined.retain(|ip| networks.contains(ip));
    for ip in networks {
        if joined.contains(ip) {
            continue;
        }
        match socket.join_multicast_v4(GROUP, *ip) {
            Ok(()) => drop(joined.insert(*ip)),
            // Another address of a network that it is in.
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => drop(joined.insert(*ip)),
            Err(error) => tracing::debug!(%ip, %error, "this network has no multicast"),
        }
    }
}

async fn speak(socket: &UdpSocket, networks: &[Ipv4Addr], packet: &[u8]) {
    for ip in networks {
        let group = SocketAddrV4::new(GROUP, PORT);
        let sent = match SockRef::from(socket).set_multicast_if_v4(ip) {
            Ok(()) => socket.send_to(packet, group).await.map(|_| ()),
            Err(error) => Err(error),
        };
        if let Err(error) = sent {
            tracing::debug!(%ip, %error, "announcement on this network failed");
        }
    }
}

/// Passes on what a host says of itself. Whoever takes it is not waited for: it is said again.
fn hear(packet: &[u8], from: SocketAddr, me: HostId, heard: &mpsc::Sender<Heard>) {
    let Some((host, port)) = record::read(packet).filter(|(host, _)| *host != me) else {
        return;
    };
    let ip = from.ip();
    let _ = heard.try_send(Heard { host, ip, port });
}
