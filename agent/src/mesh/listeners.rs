//! Detects that a listener is lost.
//!
//! Pure: no I/O, no clock, no randomness. Input: libp2p's events about its listeners. Output: what to log, and that the
//! host can no longer be reached. libp2p does not bind a lost address again, and the end of a QUIC listener ends its
//! connections. So the agent exits, and systemd restarts it with growing pauses.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, core::transport::ListenerId};

/// A listener that lacks file descriptors or memory recovers within this time, or a restart frees them. libp2p retries
/// every 100 ms and never gives up on a TCP socket that no longer works.
const FAILING_MAX: Duration = Duration::from_secs(10);
/// Errors further apart than this have separate causes.
const CALM: Duration = Duration::from_secs(1);

/// Other hosts cannot reach this host: one of its listeners is lost.
#[derive(Debug, thiserror::Error)]
#[error("the listener on {address} is lost: {reason}")]
pub(crate) struct Lost {
    address: Multiaddr,
    reason: String,
}

/// How to treat an error of a listener.
#[derive(Debug)]
pub(super) enum Verdict {
    /// The first error of a series: log it.
    New,
    /// A further error of the same series: do not log it.
    Again,
    /// The listener is lost.
    Lost(Lost),
}

#[derive(Debug)]
pub(super) struct Listeners {
    bound: HashMap<ListenerId, Multiaddr>,
    /// For each failing listener, the times of the first and of the last error of the series.
    failing: HashMap<ListenerId, (Instant, Instant)>,
}

impl Listeners {
    pub(super) fn new(bound: HashMap<ListenerId, Multiaddr>) -> Self {
        Self {
            bound,
            failing: HashMap::new(),
        }
    }

    /// Adds listeners that were bound later.
    pub(super) fn add(&mut self, bound: HashMap<ListenerId, Multiaddr>) {
        self.bound.extend(bound);
    }

    /// Returns true if the agent has bound this listener.
    pub(super) fn knows(&self, id: ListenerId) -> bool {
        self.bound.contains_key(&id)
    }

    /// Judges an error of a listener that keeps running.
    pub(super) fn failed(&mut self, id: ListenerId, error: String, now: Instant) -> Verdict {
        let (since, last) = self.failing.entry(id).or_insert((now, now));
        if now.duration_since(*last) > CALM {
            *since = now;
        }
        *last = now;
        match now.duration_since(*since) {
            Duration::ZERO => Verdict::New,
            trouble if trouble < FAILING_MAX => Verdict::Again,
            _ => Verdict::Lost(self.lost(id, error)),
        }
    }

    /// Handles the end of a listener.
    pub(super) fn lost(&self, id: ListenerId, reason: String) -> Lost {
        let address = self.bound.get(&id).cloned();
        Lost {
            address: address.unwrap_or_else(Multiaddr::empty),
            reason,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_that_only_fails_is_lost_and_one_that_recovers_is_not() {
        let id = ListenerId::next();
        let address: Multiaddr = "/ip4/0.0.0.0/tcp/4701".parse().unwrap();
        let mut listeners = Listeners::new(HashMap::from([(id, address)]));
        let start = Instant::now();
        let mut told = |millis: u64| {
            let now = start + Duration::from_millis(millis);
            match listeners.failed(id, "no descriptors".to_owned(), now) {
                Verdict::New => "new".to_owned(),
                Verdict::Again => "again".to_owned(),
                Verdict::Lost(lost) => lost.to_string(),
            }
        };
        assert_eq!(told(0), "new");
        assert!((1..100).all(|tenth| told(tenth * 100) == "again"));
        // The listener worked for a moment, so this is a new series.
        assert_eq!(told(11_000), "new");
        assert!((1..100).all(|tenth| told(11_000 + tenth * 100) == "again"));
        let lost = "the listener on /ip4/0.0.0.0/tcp/4701 is lost: no descriptors";
        assert_eq!(told(21_000), lost);
    }
}
