//! What arrives at the mesh's ports, and what is let through there.
//!
//! Pure: no I/O, no clock, no randomness. Input: connections that others begin, where members are, and whom this host dials. Output:
//! rules for the sockets of each transport.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    time::Instant,
};

use libp2p::{Multiaddr, swarm::ConnectionId};

use super::limits::{Source, ip};
use crate::sieve::{Gauge, Kind, Rules, Window};

/// Connections that begin in a window of 250 ms. A handshake of QUIC is 0.3 ms of a processor before it can be refused, a
/// connection of TCP that is refused 0.05 ms.
const QUIC_MAX: u32 = 25;
const TCP_MAX: u32 = 125;
/// From where members are known: every host of a large cluster, twice.
const KNOWN_MAX: u32 = 200;

/// See the module.
#[derive(Debug)]
pub(super) struct Arrivals {
    quic: Gauge,
    tcp: Gauge,
    /// Where members are listed.
    listed: HashSet<IpAddr>,
    /// Where connections of members lead, and where this host dials.
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
    /// Where members are listed from now on.
    pub(super) fn set_listed<'a>(&mut self, addresses: impl IntoIterator<Item = &'a Multiaddr>) {
        self.listed = exact(addresses).into_iter().collect();
        self.changed = true;
    }

    /// This host dials there, or a member is there, for as long as the connection is.
    pub(super) fn at<'a>(
        &mut self,
        connection: ConnectionId,
        addresses: impl IntoIterator<Item = &'a Multiaddr>,
    ) {
        let addresses = exact(addresses);
        self.changed |= addresses.iter().any(|ip| !self.is_known(*ip));
        self.connected.insert(connection, addresses);
    }

    /// The connection is no more.
    pub(super) fn forget(&mut self, connection: ConnectionId) {
        self.connected.remove(&connection);
    }

    fn is_known(&self, ip: IpAddr) -> bool {
        self.listed.contains(&ip) || self.connected.values().flatten().any(|known| *known == ip)
    }

    /// Somebody began a connection; it was refused or not.
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

    /// The window is over; what was it like for each transport?
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
