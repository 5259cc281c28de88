//! What the holder binds, and when it tries again.
//!
//! Pure: ports in, places out.

use std::{fmt, net::SocketAddr, time::Duration};

use crate::ports::{ANY, Protocol};

/// A program that took a port while it was free often releases it at once.
const SHORT: Duration = Duration::from_millis(10);
const SHORT_TRIES: u32 = 100;
const LONG: Duration = Duration::from_secs(1);

/// The protocol and address that a socket is bound to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    protocol: Protocol,
    address: SocketAddr,
    /// An IPv6 address that receives IPv4, too.
    both: bool,
}

impl Place {
    /// `both` says that an IPv6 address receives IPv4, too.
    pub(super) fn new(protocol: Protocol, address: SocketAddr, both: bool) -> Self {
        Self {
            protocol,
            address,
            both,
        }
    }

    pub(super) fn protocol(&self) -> Protocol {
        self.protocol
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns true if no socket can be bound to `other` while one is bound to `self`.
    pub(super) fn covers(&self, other: &Self) -> bool {
        let same_family = self.address.is_ipv4() == other.address.is_ipv4();
        self.protocol == other.protocol
            && self.address.port() == other.address.port()
            && self.address.ip().is_unspecified()
            && (same_family || self.both)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.protocol.name(), self.address)
    }
}

/// The places to hold, which workloads must not use.
pub(super) fn wanted(port: u16, api_port: Option<u16>) -> Vec<Place> {
    let mesh = [Protocol::Udp, Protocol::Tcp].map(|protocol| (protocol, port));
    let api = api_port.map(|port| (Protocol::Tcp, port));
    let all = mesh.into_iter().chain(api);
    all.flat_map(|(protocol, port)| {
        ANY.map(|ip| Place::new(protocol, SocketAddr::new(ip, port), false))
    })
    .collect()
}

/// Returns the pause after this number of failures.
pub(super) fn pause(failures: u32) -> Duration {
    if failures < SHORT_TRIES { SHORT } else { LONG }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_port_is_wanted_by_both_families_and_one_socket_may_cover_both() {
        let words = |places: &[Place]| places.iter().map(Place::to_string).collect::<Vec<_>>();
        let all = wanted(4701, Some(7443));
        assert_eq!(
            words(&all),
            [
                "UDP 0.0.0.0:4701",
                "UDP [::]:4701",
                "TCP 0.0.0.0:4701",
                "TCP [::]:4701",
                "TCP 0.0.0.0:7443",
                "TCP [::]:7443",
            ]
        );
        assert_eq!(wanted(4701, None).len(), 4);
        let api = Place::new(Protocol::Tcp, "[::]:7443".parse().unwrap(), true);
        let covered = all.iter().filter(|place| api.covers(place));
        assert_eq!(covered.count(), 2);
        assert!(
            all.iter()
                .all(|place| all.iter().filter(|other| other.covers(place)).count() == 1)
        );
        let one = Place::new(Protocol::Udp, "192.0.2.1:4701".parse().unwrap(), false);
        assert!(!one.covers(&all[0]), "others can have another address");
    }

    #[test]
    fn it_is_tried_for_a_second_in_short_steps_and_then_slowly() {
        let short: Duration = (0..).map(pause).take_while(|pause| *pause == SHORT).sum();
        assert_eq!(short, Duration::from_secs(1));
        assert_eq!(pause(u32::MAX), LONG);
    }
}
