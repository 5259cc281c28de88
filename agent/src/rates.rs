//! Rate limits per key.
//!
//! Pure: no I/O, no clock, no randomness. The caller passes `now`.

use std::{
    collections::HashMap,
    hash::Hash,
    net::{IpAddr, Ipv6Addr},
    time::{Duration, Instant},
};

/// Before a new key is added, a table of this size drops the keys whose full budget has returned.
pub(crate) const KEYS_SWEPT: usize = 256;

/// A rate: `burst` uses at once, and one more after each `every`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rate {
    pub(crate) burst: u32,
    pub(crate) every: Duration,
}

/// The used part of the rate of each key.
#[derive(Debug)]
pub(crate) struct Spent<K> {
    rate: Rate,
    /// When the key's full budget returns.
    whole_at: HashMap<K, Instant>,
}

impl<K: Hash + Eq> Spent<K> {
    pub(crate) fn new(rate: Rate) -> Self {
        Self {
            rate,
            whole_at: HashMap::new(),
        }
    }

    /// Takes one use if one is available; returns whether it did.
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

    /// Takes one use unconditionally; returns the time until that use is permitted.
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

    /// Number of keys in the table.
    #[cfg(test)]
    pub(crate) fn keys(&self) -> usize {
        self.whole_at.len()
    }
}

/// The address or network that counts as one key. For IPv6 it is the /64, because a host with one address can use any
/// number of addresses in it.
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
