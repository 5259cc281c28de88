//! Counts the open connections of the API port by source network, and limits the rate of handshakes of each network.
//!
//! Shell: a table behind a lock, with places and rates. The caller passes `now`.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::rates::{Rate, Spent, network};

/// Connections at once, as many as the gateway accepts.
const CONNECTIONS_MAX: usize = 256;
/// Connections from one address.
const ONE_ADDRESS_MAX: usize = 32;
/// Handshakes from one address; further ones are delayed.
const HANDSHAKES: Rate = Rate {
    burst: 32,
    every: Duration::from_millis(125),
};
/// Handshakes from all addresses. Each takes the gateway, which has one thread, about a millisecond.
const ALL_HANDSHAKES: Rate = Rate {
    burst: 128,
    every: Duration::from_millis(20),
};
/// A connection older than this belongs to an authenticated user: even after the longest delay, the gateway would have
/// ended a failed handshake by then.
const SERVED_AFTER: Duration = Duration::from_secs(25);

/// The open connections. Dropping a [`Connection`] frees its place.
#[derive(Debug, Clone, Default)]
pub(super) struct Connections {
    places: Arc<Mutex<Places>>,
}

#[derive(Debug)]
struct Places {
    /// By address; an IPv6 address counts by its /64.
    counts: HashMap<IpAddr, usize>,
    /// The exact source address and the start of each connection.
    all: HashMap<u64, (IpAddr, Instant)>,
    next: u64,
    handshakes: Spent<IpAddr>,
    all_handshakes: Spent<()>,
}

impl Default for Places {
    fn default() -> Self {
        Self {
            counts: HashMap::new(),
            all: HashMap::new(),
            next: 0,
            handshakes: Spent::new(HANDSHAKES),
            all_handshakes: Spent::new(ALL_HANDSHAKES),
        }
    }
}

/// One connection. Dropping it frees its place.
#[derive(Debug)]
pub(super) struct Connection {
    connections: Connections,
    number: u64,
    from: IpAddr,
    /// The time of its turn: first by the rate of its own address, then by the rate of all.
    turn: Mutex<Turn>,
}

#[derive(Debug, Clone, Copy)]
enum Turn {
    OfItsAddress(Instant),
    OfAll(Instant),
}

impl Connections {
    fn lock(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns a place for a connection, or `None` if all places are taken.
    pub(super) fn enter(&self, ip: IpAddr, now: Instant) -> Option<Connection> {
        let (ip, from) = (ip.to_canonical(), network(ip));
        let mut places = self.lock();
        let own = places.counts.get(&from).copied().unwrap_or(0);
        if places.all.len() >= CONNECTIONS_MAX || own >= ONE_ADDRESS_MAX {
            return None;
        }
        places.counts.insert(from, own + 1);
        let number = places.next;
        places.next += 1;
        places.all.insert(number, (ip, now));
        let turn = now + places.handshakes.reserve(from, now);
        Some(Connection {
            connections: self.clone(),
            number,
            from,
            turn: Mutex::new(Turn::OfItsAddress(turn)),
        })
    }

    /// The addresses of the connections that serve users now.
    pub(super) fn served(&self, now: Instant) -> BTreeSet<IpAddr> {
        let places = self.lock();
        let old = places
            .all
            .values()
            .filter(|(_, since)| now.saturating_duration_since(*since) >= SERVED_AFTER);
        old.map(|(ip, _)| *ip).collect()
    }
}

impl Connection {
    /// Returns the time until its turn; `None` if it may proceed. A connection that waits for the rate of its own
    /// address does not use the rate of all.
    pub(super) fn wait(&self, now: Instant) -> Option<Duration> {
        let mut turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        if let Turn::OfItsAddress(at) = *turn
            && at <= now
        {
            let wait = self.connections.lock().all_handshakes.reserve((), now);
            *turn = Turn::OfAll(now + wait);
        }
        let (Turn::OfItsAddress(at) | Turn::OfAll(at)) = *turn;
        Some(at.saturating_duration_since(now)).filter(|wait| !wait.is_zero())
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let mut places = self.connections.lock();
        places.all.remove(&self.number);
        match places.counts.get_mut(&self.from) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(places.counts.remove(&self.from)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Opens connections from an IPv6 network with this number, each from another address of it.
    fn enter(connections: &Connections, network: u16, tries: u16, now: Instant) -> Vec<Connection> {
        let from = |n| IpAddr::from([0xfd00, 0, 0, network, 0, 0, 0, n]);
        (0..tries)
            .filter_map(|n| connections.enter(from(n), now))
            .collect()
    }

    /// Returns the delays of the connections that are known now, in milliseconds.
    fn turns(connections: &[Connection], now: Instant) -> Vec<u64> {
        let turn = |connection: &Connection| {
            let wait = connection.wait(now).unwrap_or_default();
            u64::try_from(wait.as_millis()).unwrap()
        };
        connections.iter().map(turn).collect()
    }

    #[test]
    fn one_network_has_its_share_and_all_have_theirs() {
        let (connections, now) = (Connections::default(), Instant::now());
        let first = enter(&connections, 1, 256, now);
        assert_eq!(first.len(), ONE_ADDRESS_MAX, "one /64 is one address");
        let others: Vec<_> = (2..100)
            .flat_map(|n| enter(&connections, n, 10, now))
            .collect();
        assert_eq!(first.len() + others.len(), CONNECTIONS_MAX);
        drop(first);
        assert_eq!(enter(&connections, 1, 1, now).len(), 1);
        let mapped = |ip: &str| connections.enter(ip.parse().unwrap(), now).unwrap();
        drop(others);
        let (one, same) = (mapped("::ffff:192.0.2.1"), mapped("192.0.2.1"));
        assert_eq!(one.from, same.from);
        drop((one, same));
        let places = connections.lock();
        assert!(places.counts.is_empty() && places.all.is_empty());
    }

    #[test]
    fn one_network_that_connects_again_and_again_waits_and_others_do_not() {
        let (connections, now) = (Connections::default(), Instant::now());
        assert_eq!(turns(&enter(&connections, 1, 32, now), now), [0; 32]);
        let again = turns(&enter(&connections, 1, 32, now), now);
        let expected: Vec<u64> = (1..=32).map(|n| n * 125).collect();
        assert_eq!(again, expected);
        assert_eq!(turns(&enter(&connections, 2, 1, now), now), [0]);
    }

    #[test]
    fn all_together_have_a_rate_too() {
        let (connections, now) = (Connections::default(), Instant::now());
        let all: Vec<_> = (0..32)
            .flat_map(|n| enter(&connections, n, 8, now))
            .collect();
        let turns = turns(&all, now);
        assert_eq!(turns[..128], [0; 128]);
        assert_eq!(*turns.last().unwrap(), 128 * 20);
    }

    #[test]
    fn who_is_served_for_long_is_known() {
        let (connections, now) = (Connections::default(), Instant::now());
        let connection = connections
            .enter("192.0.2.1".parse().unwrap(), now)
            .unwrap();
        assert!(connections.served(now + SERVED_AFTER / 2).is_empty());
        let later = now + SERVED_AFTER;
        assert_eq!(
            connections.served(later),
            BTreeSet::from(["192.0.2.1".parse().unwrap()])
        );
        drop(connection);
        assert!(connections.served(later).is_empty());
    }
}
