//! How much others may ask of this host in a time: handshakes by their address, streams and applications by their key.
//!
//! Pure: no I/O, no clock, no randomness. The caller passes `now`. What has regained all that it may ask for is forgotten, so a
//! table holds no more than what asked lately, and that is bounded by the rate of handshakes.

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, PeerId, multiaddr::Protocol};

use crate::rates::{Rate, Spent, network};

/// Handshakes from one address. A host makes two with each other host, by QUIC and by TCP, and again after pauses that grow.
const HANDSHAKES: Rate = Rate {
    burst: 32,
    every: Duration::from_millis(250),
};
/// Handshakes from all addresses that no member is listed with: a tenth of a processor at the most. A cluster of a hundred hosts
/// that start at once makes two hundred.
const STRANGE_HANDSHAKES: Rate = Rate {
    burst: 256,
    every: Duration::from_millis(10),
};
/// Streams of one member. Its gateway opens four, and tries a gateway that does not run with two, five times a second; the rest is
/// for who follows logs.
const STREAMS: Rate = Rate {
    burst: 256,
    every: Duration::from_millis(32),
};
/// Applications of one host. It makes one, and again when a person does; and asks each member when it was cut off for long.
const APPLICATIONS: Rate = Rate {
    burst: 8,
    every: Duration::from_secs(1),
};
/// Applications of all hosts: each is read, and some are an entry of the log.
const ALL_APPLICATIONS: Rate = Rate {
    burst: 64,
    every: Duration::from_millis(50),
};
/// How long who goes on beyond its rate is let in nowhere.
pub(super) const BARRED_TIME: Duration = Duration::from_secs(10);
/// Where a handshake comes from. Whoever has one address of IPv6 has as many as it likes below the same /64. Of UDP anybody can
/// claim to be anywhere, so it is not counted together with TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Source {
    ip: Option<IpAddr>,
    tcp: bool,
}

impl Source {
    pub(super) fn of(address: &Multiaddr) -> Self {
        Self {
            ip: ip(address).map(network),
            tcp: address.iter().any(|part| matches!(part, Protocol::Tcp(_))),
        }
    }

    /// Whether the transport is TCP, whose handshake proves the source address.
    pub(super) fn is_tcp(&self) -> bool {
        self.tcp
    }

    /// Without the transport.
    pub(super) fn network(&self) -> Option<IpAddr> {
        self.ip
    }
}

/// The address of the network layer, if it has one.
pub(super) fn ip(address: &Multiaddr) -> Option<IpAddr> {
    address.iter().find_map(|part| match part {
        Protocol::Ip4(ip) => Some(IpAddr::V4(ip)),
        Protocol::Ip6(ip) => Some(IpAddr::V6(ip)),
        _ => None,
    })
}

/// What becomes of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Take,
    /// It is one too many.
    Drop,
    /// Its opener goes on and on: everything of it is to be closed.
    Bar,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Limits {
    handshakes: Spent<Source>,
    strange_handshakes: Spent<()>,
    streams: Spent<PeerId>,
    /// Streams that were too many.
    dropped: Spent<PeerId>,
    applications: Spent<PeerId>,
    all_applications: Spent<()>,
    barred: HashMap<PeerId, Instant>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshakes: Spent::new(HANDSHAKES),
            strange_handshakes: Spent::new(STRANGE_HANDSHAKES),
            streams: Spent::new(STREAMS),
            dropped: Spent::new(STREAMS),
            applications: Spent::new(APPLICATIONS),
            all_applications: Spent::new(ALL_APPLICATIONS),
            barred: HashMap::new(),
        }
    }
}

impl Limits {
    /// Whether a handshake may begin; `listed` says whether a member is known at that address.
    pub(super) fn handshake(&mut self, from: Source, listed: bool, now: Instant) -> bool {
        // In this order: who is refused for its own address does not spend what others need.
        self.handshakes.take(from, now) && (listed || self.strange_handshakes.take((), now))
    }

    /// A host opened a stream.
    pub(super) fn stream(&mut self, peer: PeerId, now: Instant) -> Verdict {
        if self.streams.take(peer, now) {
            Verdict::Take
        } else if self.dropped.take(peer, now) {
            Verdict::Drop
        } else {
            self.barred.retain(|_, until| *until > now);
            self.barred.insert(peer, now + BARRED_TIME);
            Verdict::Bar
        }
    }

    /// Whether a host's application is heard.
    pub(super) fn application(&mut self, peer: PeerId, now: Instant) -> bool {
        self.applications.take(peer, now) && self.all_applications.take((), now)
    }

    /// Whether a host is let in nowhere at this time.
    pub(super) fn is_barred(&self, peer: &PeerId, now: Instant) -> bool {
        self.barred.get(peer).is_some_and(|until| *until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(address: &str) -> Source {
        Source::of(&address.parse().unwrap())
    }

    /// How many of `tries` are taken, one in each millisecond.
    fn taken(tries: u64, start: Instant, mut take: impl FnMut(Instant) -> bool) -> u64 {
        let at = |ms| start + Duration::from_millis(ms);
        (0..tries).map(|ms| u64::from(take(at(ms)))).sum()
    }

    #[test]
    fn a_rate_is_its_burst_and_then_one_at_a_time_for_each_by_itself() {
        let mut limits = Limits::default();
        let start = Instant::now();
        let one = source("/ip4/10.0.0.1/tcp/4000");
        assert_eq!(
            taken(10_000, start, |now| limits.handshake(one, true, now)),
            32 + 39
        );
        let later = start + Duration::from_secs(10);
        for other in ["/ip4/10.0.0.2/tcp/4000", "/ip4/10.0.0.1/udp/4000/quic-v1"] {
            let other = source(other);
            assert_eq!(
                taken(100, later, |now| limits.handshake(other, true, now)),
                32
            );
        }
        // All is regained after a while.
        let again = later + Duration::from_secs(10);
        assert_eq!(
            taken(100, again, |now| limits.handshake(one, true, now)),
            32
        );
    }

    #[test]
    fn strangers_everywhere_do_not_keep_a_member_out() {
        let mut limits = Limits::default();
        let start = Instant::now();
        let mut n: u32 = 0;
        let strange = taken(1_000, start, |now| {
            n += 1;
            let from = source(&format!("/ip6/2001:db8:0:{n:x}::1/udp/4000/quic-v1"));
            limits.handshake(from, false, now)
        });
        assert_eq!(strange, 256 + 99);
        let member = source("/ip4/10.0.0.1/udp/4000/quic-v1");
        let then = start + Duration::from_secs(1);
        assert!(limits.handshake(member, true, then));
        assert!(limits.handshakes.keys() < 1_000);
        let much_later = start + Duration::from_secs(60);
        assert!(limits.handshake(source("/ip4/10.0.0.9/tcp/1"), false, much_later));
        assert!(
            limits.handshakes.keys() <= crate::rates::KEYS_SWEPT,
            "forgotten"
        );
    }

    #[test]
    fn addresses_below_one_network_of_ipv6_are_one_and_mapped_ones_are_ipv4() {
        let same = [
            ("/ip6/2001:db8::1/tcp/1", "/ip6/2001:db8::ffff:2/tcp/2"),
            ("/ip6/::ffff:10.0.0.1/tcp/1", "/ip4/10.0.0.1/tcp/2"),
        ];
        for (one, other) in same {
            assert_eq!(source(one), source(other));
        }
        assert_ne!(
            source("/ip6/2001:db8::1/tcp/1"),
            source("/ip6/2001:db8:0:1::1/tcp/1")
        );
    }

    #[test]
    fn a_member_that_opens_too_many_streams_loses_some_and_one_that_goes_on_is_barred() {
        let mut limits = Limits::default();
        let start = Instant::now();
        let (busy, calm) = (PeerId::random(), PeerId::random());
        let verdicts: Vec<_> = (0..513).map(|_| limits.stream(busy, start)).collect();
        assert_eq!(verdicts[..256], [Verdict::Take; 256]);
        assert_eq!(verdicts[256..512], [Verdict::Drop; 256]);
        assert_eq!(verdicts[512], Verdict::Bar);
        assert!(limits.is_barred(&busy, start) && !limits.is_barred(&calm, start));
        assert_eq!(limits.stream(calm, start), Verdict::Take);
        let over = start + BARRED_TIME;
        assert!(!limits.is_barred(&busy, over));
        assert_eq!(limits.stream(busy, over), Verdict::Take);
        // What gateways do all the time, for an hour: five tries a second.
        let hour = (0..18_000_u32).map(|n| over + Duration::from_millis(200) * n);
        assert!({ hour }.all(|at| limits.stream(calm, at) == Verdict::Take));
    }

    #[test]
    fn applications_are_counted_by_host_and_in_all() {
        let mut limits = Limits::default();
        let start = Instant::now();
        let peer = PeerId::random();
        assert_eq!(
            taken(3_000, start, |now| limits.application(peer, now)),
            8 + 2
        );
        let later = start + Duration::from_secs(10);
        let many = taken(1_000, later, |now| {
            limits.application(PeerId::random(), now)
        });
        assert_eq!(many, 64 + 19);
    }
}
