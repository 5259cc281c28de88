//! Rate limits for what other hosts request: handshakes by address, streams and applications by key.
//!
//! Pure: no I/O, no clock, no randomness. The caller passes `now`. A table forgets an entry that has regained its whole
//! burst. So it holds only recent entries, and the rate of handshakes bounds their number.

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, PeerId, multiaddr::Protocol};

use crate::rates::{Rate, Spent, network};

/// Handshakes from one address. A host makes two with each other host, by QUIC and by TCP, and repeats them after
/// growing pauses.
const HANDSHAKES: Rate = Rate {
    burst: 32,
    every: Duration::from_millis(250),
};
/// Handshakes from all addresses that no member is listed at: they cost at most a tenth of a processor. A hundred hosts
/// that start at once make two hundred.
const STRANGE_HANDSHAKES: Rate = Rate {
    burst: 256,
    every: Duration::from_millis(10),
};
/// Streams of one member. Its gateway opens four. It tries a gateway that is not running with two streams, five times a
/// second. The rest is for users who follow logs.
const STREAMS: Rate = Rate {
    burst: 256,
    every: Duration::from_millis(32),
};
/// Applications of one host. It makes one, and another when an administrator repeats it. A host that was cut off for a
/// long time asks each member.
const APPLICATIONS: Rate = Rate {
    burst: 8,
    every: Duration::from_secs(1),
};
/// Applications of all hosts: this host reads each of them, and some become a log entry.
const ALL_APPLICATIONS: Rate = Rate {
    burst: 64,
    every: Duration::from_millis(50),
};
/// How long a host that keeps exceeding its rate is barred.
pub(super) const BARRED_TIME: Duration = Duration::from_secs(10);
/// Where a handshake comes from. An IPv6 source counts by its /64, because the owner of one address can use all
/// addresses of it. UDP counts apart from TCP, because anyone can forge a UDP source address.
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

    /// The address without the transport.
    pub(super) fn network(&self) -> Option<IpAddr> {
        self.ip
    }
}

/// The IP address, if the multiaddr has one.
pub(super) fn ip(address: &Multiaddr) -> Option<IpAddr> {
    address.iter().find_map(|part| match part {
        Protocol::Ip4(ip) => Some(IpAddr::V4(ip)),
        Protocol::Ip6(ip) => Some(IpAddr::V6(ip)),
        _ => None,
    })
}

/// What the gate does with a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Take,
    /// Drop the stream: it is over the limit.
    Drop,
    /// Close every connection of the host: it keeps exceeding the limit.
    Bar,
}

#[derive(Debug)]
pub(super) struct Limits {
    handshakes: Spent<Source>,
    strange_handshakes: Spent<()>,
    streams: Spent<PeerId>,
    /// Counts the streams that were dropped.
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
    /// Returns true if a handshake may begin. `listed` says whether a member is listed at that address.
    pub(super) fn handshake(&mut self, from: Source, listed: bool, now: Instant) -> bool {
        // In this order, a source that exceeds its own limit does not spend the limit that others share.
        self.handshakes.take(from, now) && (listed || self.strange_handshakes.take((), now))
    }

    /// Counts a stream that a host opened.
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

    /// Returns true if this host reads the application.
    pub(super) fn application(&mut self, peer: PeerId, now: Instant) -> bool {
        self.applications.take(peer, now) && self.all_applications.take((), now)
    }

    /// Returns true if the host is barred now.
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

    /// Returns how many of `tries` are taken, with one in each millisecond.
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
        // The whole burst is available again after a while.
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
        // The steady load of gateways for an hour: five tries a second.
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
