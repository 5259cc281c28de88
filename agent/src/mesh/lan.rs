//! Discovery of hosts on the local network, for hosts whose administrators have enabled it.
//!
//! Shell. Uses multicast DNS (RFC 6762) over IPv4. A host that has unconnected members announces its id and its port,
//! with growing pauses, and every host listens all the time. An announcement is only a hint for a dial: the connection
//! proves the identity of the other host, and the replicated list says whether that is a member. The module keeps no
//! data of strangers and answers no packets.

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

/// The multicast address and the port of mDNS.
const GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);
const PORT: u16 = 5353;
/// The TTL that mDNS prescribes. A receiver can tell from it that no router forwarded the packet.
const HOPS: u32 = 255;
/// The first and the longest pause between two announcements of a host that has unconnected members.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// Networks of one host that it announces itself on.
const NETWORKS_MAX: usize = 16;

/// The address at which a host announced itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Heard {
    pub(super) host: HostId,
    pub(super) ip: IpAddr,
    pub(super) port: u16,
}

/// Announces this host and listens, until the receiver of `heard` is dropped. `missing` is the number of unconnected
/// members.
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
                // The error concerns one packet; a UDP socket stays usable.
                Err(error) => tracing::debug!(%error, "a packet of the local network was lost"),
            },
            () = sleep_until(next) => {
                // Networks come and go. The host joins the group also while all members are connected, to be ready.
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

/// Opens the mDNS socket. It shares its port with others, such as the host's own mDNS responder.
fn open() -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.set_multicast_ttl_v4(HOPS)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT)).into())?;
    UdpSocket::from_std(socket.into())
}

/// Joins the group on new networks. The kernel drops the membership of a network that is removed.
fn join(socket: &UdpSocket, networks: &[Ipv4Addr], joined: &mut BTreeSet<Ipv4Addr>) {
    joined.retain(|ip| networks.contains(ip));
    for ip in networks {
        if joined.contains(ip) {
            continue;
        }
        match socket.join_multicast_v4(GROUP, *ip) {
            Ok(()) => drop(joined.insert(*ip)),
            // The network has another address, for which the socket is in the group already.
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

/// Passes an announcement on. It drops the announcement if the queue is full, because the host repeats it.
fn hear(packet: &[u8], from: SocketAddr, me: HostId, heard: &mpsc::Sender<Heard>) {
    let Some((host, port)) = record::read(packet).filter(|(host, _)| *host != me) else {
        return;
    };
    let ip = from.ip();
    let _ = heard.try_send(Heard { host, ip, port });
}
