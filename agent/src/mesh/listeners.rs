//! Whether a listener is lost.
//!
//! Pure: no I/O, no clock, no randomness. Input: what libp2p says of its listeners. Output: what to log, and that this
//! host is deaf. libp2p does not bind a lost address again, and a QUIC listener takes its connections with it, so the
//! agent ends then and systemd starts it anew, with growing pauses.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, core::transport::ListenerId};

/// A listener that lacks descriptors or memory recovers within this time, or a new start frees them. libp2p tries
/// every 100 ms and never gives up on a TCP socket that is gone.
const FAILING_MAX: Duration = Duration::from_secs(10);
/// Errors further apart than this are not of one trouble.
const CALM: Duration = Duration::from_secs(1);

/// This host cannot be reached any more.
#[derive(Debug, thiserror::Error)]
#[error("the listener on {address} is lost: {reason}")]
pub(crate) struct Lost {
    address: Multiaddr,
    reason: String,
}

/// What an error of a listener comes to.
#[derive(Debug)]
pub(super) enum Verdict {
    /// The first of its trouble: worth a line in the journal.
    New,
    /// More of the same.
    Again,
    /// The end.
    Lost(Lost),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Listeners {
    bound: HashMap<ListenerId, Multiaddr>,
    /// When its trouble began, and its last error.
    failing: HashMap<ListenerId, (Instant, Instant)>,
}

impl Listeners {
    pub(super) fn new(bound: HashMap<ListenerId, Multiaddr>) -> Self {
        Self {
            bound,
            failing: HashMap::new(),
        }
    }

    /// These were bound later.
    pub(super) fn add(&mut self, bound: HashMap<ListenerId, Multiaddr>) {
        self.bound.extend(bound);
    }

    /// Whether the agent has bound this listener.
    pub(super) fn knows(&self, id: ListenerId) -> bool {
        self.bound.contains_key(&id)
    }

    /// A listener failed and goes on.
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

    /// A listener has ended.
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
        // It was well for a moment: a new trouble.
        assert_eq!(told(11_000), "new");
        assert!((1..100).all(|tenth| told(11_000 + tenth * 100) == "again"));
        let lost = "the listener on /ip4/0.0.0.0/tcp/4701 is lost: no descriptors";
        assert_eq!(told(21_000), lost);
    }
}
