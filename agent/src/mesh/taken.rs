//! Addresses that this host cannot listen on, and when to try them again. Mostly another process has bound them.
//!
//! Pure: no I/O, no clock, no randomness. Input: the results of an attempt. Output: the addresses to try next, and the
//! reasons.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, multiaddr};

use crate::ports::Protocol;

/// Pause before the next attempt. The first is short, because the other process may be about to exit; each further one
/// is twice as long.
const PAUSE_MIN: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// An address, and the reason why the host cannot listen on it.
pub(super) type Failure = (Multiaddr, String);

#[derive(Debug, Default)]
pub(super) struct Taken {
    failures: Vec<Failure>,
    due: Option<Instant>,
    pause: Duration,
}

impl Taken {
    /// Records the result of an attempt: `failures` are all addresses that are still missing.
    pub(super) fn tried(&mut self, failures: Vec<Failure>, now: Instant) {
        self.pause = (self.pause * 2).clamp(PAUSE_MIN, PAUSE_MAX);
        if failures.is_empty() {
            self.pause = Duration::ZERO;
        }
        self.due = (!failures.is_empty()).then(|| now + self.pause);
        self.failures = failures;
    }

    /// The time of the next attempt.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// The addresses to try now.
    pub(super) fn is_due(&self, now: Instant) -> Vec<Multiaddr> {
        let due = self.due.is_some_and(|due| due <= now);
        let failures = self.failures.iter().filter(|_| due);
        failures.map(|(address, _)| address.clone()).collect()
    }

    /// The missing ports, each once, with the reason of its first failure.
    pub(super) fn ports(&self) -> BTreeMap<(Protocol, u16), String> {
        let mut ports = BTreeMap::new();
        for (address, reason) in &self.failures {
            if let Some(port) = port(address) {
                ports.entry(port).or_insert_with(|| reason.clone());
            }
        }
        ports
    }
}

fn port(address: &Multiaddr) -> Option<(Protocol, u16)> {
    address.iter().find_map(|part| match part {
        multiaddr::Protocol::Udp(port) => Some((Protocol::Udp, port)),
        multiaddr::Protocol::Tcp(port) => Some((Protocol::Tcp, port)),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_tried_less_and_less_often_and_forever() {
        let start = Instant::now();
        let address: Multiaddr = "/ip4/0.0.0.0/udp/4701/quic-v1".parse().unwrap();
        let other: Multiaddr = "/ip6/::/udp/4701/quic-v1".parse().unwrap();
        let failures = || {
            vec![
                (address.clone(), "in use".to_owned()),
                (other.clone(), "gone".into()),
            ]
        };
        let mut taken = Taken::default();
        let (mut now, mut pauses) = (start, Vec::new());
        for _ in 0..8 {
            taken.tried(failures(), now);
            assert!(taken.is_due(now).is_empty());
            let due = taken.due().unwrap();
            pauses.push((due - now).as_millis());
            now = due;
            assert_eq!(taken.is_due(now), [address.clone(), other.clone()]);
        }
        assert_eq!(pauses, [250, 500, 1000, 2000, 4000, 8000, 10_000, 10_000]);
        let ports = BTreeMap::from([((Protocol::Udp, 4701), "in use".to_owned())]);
        assert_eq!(taken.ports(), ports);
        taken.tried(Vec::new(), now);
        assert_eq!((taken.due(), taken.ports().len()), (None, 0));
        taken.tried(failures(), now);
        assert_eq!(taken.due(), Some(now + PAUSE_MIN), "a new trouble");
    }
}
