//! Rates: how much each of many may ask for in a time.
//!
//! Pure: no I/O, no clock, no randomness. The caller passes `now`.

use std::{
    collections::HashMap,
    hash::Hash,
    net::{IpAddr, Ipv6Addr},
    time::{Duration, Instant},
};

/// A table that has more keys is swept before it takes another.
pub(crate) const KEYS_SWEPT: usize = 256;

/// So many at once, and one more after each time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rate {
    pub(crate) burst: u32,
    pub(crate) every: Duration,
}

/// Who has spent how much of a rate.
#[derive(Debug)]
pub(crate) struct Spent<K> {
    rate: Rate,
    /// When each will have regained all.
    whole_at: HashMap<K, Instant>,
}

impl<K: Hash + Eq> Spent<K> {
    pub(crate) fn new(rate: Rate) -> Self {
        Self {
            rate,
            whole_at: HashMap::new(),
        }
    }

    /// Whether there is one left, which is then spent.
    pub(crate) fn take(&mut self, key: K, now: Instant) -> bool {
        self.sweep(&key, now);
        let whole_at = self.whole_at.entry(key).or_insert(now);
        let next = (*whole_at).max(now) + self.rate.every;
        if next > now + self.rate.every * self.rate.burst {
            return false;
        }
        *whole_at = next;
        true
    }

    /// Takes one in any case, and says how long it is until it is there.
    pub(crate) fn reserve(&mut self, key: K, now: Instant) -> Duration {
        self.sweep(&key, now);
        let whole_at = self.whole_at.entry(key).or_insert(now);
        *whole_at = (*whole_at).max(now) + self.rate.every;
        whole_at.saturating_duration_since(now + self.rate.every * self.rate.burst)
    }

    fn sweep(&mut self, key: &K, now: Instant) {
        if self.whole_at.len() >= KEYS_SWEPT && !self.whole_at.contains_key(key) {
            self.whole_at.retain(|_, at| *at > now);
        }
    }

    /// How many keys the table has.
    #[cfg(test)]
    pub(crate) fn keys(&self) -> usize {
        self.whole_at.len()
    }
}

/// What is counted as one address: with one address of IPv6 a host has as many as it likes below the same /64.
pub(crate) fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << 64)).into(),
        ip => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_reserved_comes_at_its_rate_and_no_key_waits_for_another() {
        let every = Duration::from_millis(100);
        let mut spent = Spent::new(Rate { burst: 3, every });
        let now = Instant::now();
        let waits: Vec<_> = (0..6).map(|_| spent.reserve("one", now)).collect();
        let expected = [0, 0, 0, 1, 2, 3].map(|times| every * times);
        assert_eq!(waits, expected);
        assert_eq!(spent.reserve("other", now), Duration::ZERO);
        assert_eq!(spent.reserve("one", now + every * 6), Duration::ZERO);
    }
}
