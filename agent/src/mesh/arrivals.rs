//! Counts the connections that arrive at the mesh's ports and limits how many pass.
//!
//! Pure: no I/O, no clock, no randomness. Input: inbound connections, the addresses of members, and the addresses that
//! this host dials. Output: filter rules for the sockets of each transport.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    time::Instant,
};

use libp2p::{Multiaddr, swarm::ConnectionId};

use super::limits::{Source, ip};
use crate::sieve::{Gauge, Kind, Rules, Window};

/// Inbound connections in a window of 250 ms. A QUIC handshake costs 0.3 ms of processor time before this process can
/// refuse it, and a refused TCP connection costs 0.05 ms.
const QUIC_MAX: u32 = 25;
const TCP_MAX: u32 = 125;
/// From addresses of members: twice the number of hosts of a large cluster.
const KNOWN_MAX: u32 = 200;

#[derive(Debug)]
pub(super) struct Arrivals {
    quic: Gauge,
    tcp: Gauge,
    /// The addresses on the member list.
    listed: HashSet<IpAddr>,
    /// The remote addresses of members' connections and of this host's dials.
    connected: HashMap<ConnectionId, Vec<IpAddr>>,
    changed: bool,
}

impl Default for Arrivals {
    fn default() -> Self {
        Self {
            quic: Gauge::new(Kind::Quic, QUIC_MAX, KNOWN_MAX),
            tcp: Gauge::new(Kind::Tcp, TCP_MAX, KNOWN_MAX),
            listed: HashSet::new(),
            connected: HashMap::new(),
            changed: false,
        }
    }
}

impl Arrivals {
    /// Replaces the addresses at which members are listed.
    pub(super) fn set_listed<'a>(&mut self, addresses: impl IntoIterator<Item = &'a Multiaddr>) {
        self.listed = exact(addresses).into_iter().collect();
        self.changed = true;
    }

    /// Treats these addresses as known for as long as the connection exists: this host dials them, or a member uses
    /// them.
    pub(super) fn at<'a>(
        &mut self,
        connection: ConnectionId,
        addresses: impl IntoIterator<Item = &'a Multiaddr>,
    ) {
        let addresses = exact(addresses);
        self.changed |= addresses.iter().any(|ip| !self.is_known(*ip));
        self.connected.insert(connection, addresses);
    }

    /// Forgets the addresses of a closed connection.
    pub(super) fn forget(&mut self, connection: ConnectionId) {
        self.connected.remove(&connection);
    }

    fn is_known(&self, ip: IpAddr) -> bool {
        self.listed.contains(&ip) || self.connected.values().flatten().any(|known| *known == ip)
    }

    /// Counts an inbound connection. `refused` says whether the gate refused it.
    pub(super) fn arrived(&mut self, from: &Multiaddr, refused: bool, now: Instant) {
        let Some(ip) = ip(from).map(|ip| ip.to_canonical()) else {
            return;
        };
        let known = self.is_known(ip);
        let gauge = if Source::of(from).is_tcp() {
            &mut self.tcp
        } else {
            &mut self.quic
        };
        self.changed |= gauge.arrived(ip, known, refused, now);
    }

    /// Judges the window that has ended, for each transport.
    pub(super) fn turn(&mut self, quic: Window, tcp: Window, now: Instant) {
        self.quic.turn(quic, now);
        self.tcp.turn(tcp, now);
        self.changed = true;
    }

    /// The rules for QUIC and for TCP, if they have changed since the last call.
    pub(super) fn changed(&mut self) -> Option<[Rules; 2]> {
        std::mem::take(&mut self.changed).then(|| {
            let known = || {
                self.listed
                    .iter()
                    .chain(self.connected.values().flatten())
                    .copied()
            };
            [&self.quic, &self.tcp].map(|gauge| gauge.rules(known()))
        })
    }
}

fn exact<'a>(addresses: impl IntoIterator<Item = &'a Multiaddr>) -> Vec<IpAddr> {
    let found = addresses.into_iter().filter_map(ip);
    found.map(|ip| ip.to_canonical()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sieve::Share;

    fn at(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_flood_by_one_transport_leaves_the_other_open_and_members_known() {
        let mut arrivals = Arrivals::default();
        arrivals.set_listed([&at("/ip4/10.0.0.7/udp/4701/quic-v1")]);
        arrivals.at(
            ConnectionId::new_unchecked(1),
            [&at("/ip6/fd00::8/tcp/4701")],
        );
        let calm = arrivals.changed().unwrap();
        assert!(calm.iter().all(Rules::pass_all));
        assert!(arrivals.changed().is_none());
        let now = Instant::now();
        for n in 0..2 * QUIC_MAX {
            let from = at(&format!("/ip4/10.0.1.{n}/udp/1/quic-v1"));
            arrivals.arrived(&from, false, now);
        }
        let [quic, tcp] = arrivals.changed().unwrap();
        assert_eq!(quic.strange, Share::NONE);
        assert!(tcp.pass_all());
        let known = ["10.0.0.7", "fd00::8"].map(|ip| ip.parse().unwrap());
        assert_eq!(quic.known, known.into());
        arrivals.forget(ConnectionId::new_unchecked(1));
        arrivals.turn(Window::default(), Window::default(), now);
        let [quic, _] = arrivals.changed().unwrap();
        assert_eq!(quic.known, [known[0]].into());
        assert!(!quic.pass_all());
    }
}
