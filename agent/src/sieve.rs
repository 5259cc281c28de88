//! Limits how much of strangers' traffic reaches this process.
//!
//! Pure: no I/O, no clock, no randomness. Input: the connections of a window of time, and the processor time of this
//! process. Output: [`Rules`] for the kernel, which drops the rest. Without a flood everything passes, and the kernel
//! runs no program.
//!
//! libp2p computes its answer to the first packet of a QUIC connection before the gate can refuse the connection, and
//! the source address of that packet may be forged. A packet that the kernel drops costs this process nothing. A host
//! whose packet is dropped tries again, also by TCP.

mod program;
mod sockets;

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    time::{Duration, Instant},
};

pub(crate) use program::{Kind, Rules};
pub(crate) use sockets::{Sieve, processor_time};

use crate::rates::network;

/// How long the counters run before they are judged.
pub(crate) const WINDOW: Duration = Duration::from_millis(250);
/// Processor time of this process in a window above which strangers are suspected, in thousandths of the window.
const BUSY: u128 = 70;
/// The smallest share that passes.
const SHARE_MIN: f64 = 1.0 / 4096.0;
/// The growth of the share in a window.
const GROWTH: f64 = 1.3;
/// From this share on, it grows only while strangers are quiet.
const NEARLY_WHOLE: f64 = 0.75;
/// Packets of strangers in a window that are not a flood.
const QUIET: u64 = 8;
/// Windows between two suspicions without evidence. The number doubles each time that the suspicion was wrong.
const SUSPECT_PAUSE: u32 = 4;
const SUSPECT_PAUSE_MAX: u32 = 240;
/// Refused connections from one network in a window that are a flood.
const REFUSED_MAX: u32 = 16;
/// How long such a network is barred.
const BARRED_TIME: Duration = Duration::from_secs(2);
/// Networks that are counted and barred at a time. Of the traffic of all others a share passes.
const COUNTED_MAX: usize = 1024;
const BARRED_MAX: usize = 64;

/// A share of the traffic, from nothing to all.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Share(f64);

impl Share {
    pub(crate) const WHOLE: Self = Self(1.0);
    pub(crate) const NONE: Self = Self(0.0);

    #[cfg(test)]
    pub(crate) fn new(share: f64) -> Self {
        Self(share)
    }

    /// Returns true if the share is smaller than a suspicion makes it.
    fn is_small(self) -> bool {
        self.0 < 0.3
    }

    /// Random numbers below this pass; `None` if all do.
    fn bound(self) -> Option<u32> {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "the share is between 0 and 1, and a cast saturates"
        )]
        let bound = (self.0 * f64::from(u32::MAX)) as u32;
        (self.0 < 1.0).then_some(bound)
    }
}

impl Default for Share {
    fn default() -> Self {
        Self::WHOLE
    }
}

/// The measurements of a window.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Window {
    /// Packets for sockets of this kind that the kernel dropped, as far as it counts them.
    pub(crate) dropped: u64,
    /// Whether this process used more processor time than strangers may cause.
    pub(crate) busy: bool,
}

/// Returns true if this process was busy in a period.
pub(crate) fn busy(computed: Duration, time: Duration) -> bool {
    computed.as_nanos() * 1000 > time.as_nanos() * BUSY
}

/// Finds the share at which not too many connections arrive.
#[derive(Debug)]
struct Valve {
    /// Connections that may arrive in a window.
    budget: u32,
    /// Whether more packets may arrive than are counted.
    hidden: bool,
    share: Share,
    arrived: u32,
    /// Windows until the next suspicion, and the pause after it if it is wrong.
    pause: u32,
    next_pause: u32,
    suspecting: bool,
}

impl Valve {
    fn new(budget: u32, hidden: bool) -> Self {
        Self {
            budget,
            hidden,
            share: Share::WHOLE,
            arrived: 0,
            pause: 0,
            next_pause: SUSPECT_PAUSE,
            suspecting: false,
        }
    }

    /// Counts a connection.
    fn arrived(&mut self) {
        self.arrived = self.arrived.saturating_add(1);
    }

    /// Returns true if twice the budget has arrived; then nothing more passes until the window ends.
    fn is_shut(&self) -> bool {
        self.arrived >= self.budget * 2
    }

    /// The share that passes at this moment.
    fn share(&self) -> Share {
        if self.is_shut() {
            Share::NONE
        } else {
            self.share
        }
    }

    /// Judges the window that has ended.
    fn turn(&mut self, Window { dropped, busy }: Window) {
        let arrived = std::mem::take(&mut self.arrived);
        self.pause = self.pause.saturating_sub(1);
        let whole = self.share == Share::WHOLE;
        let many = dropped > QUIET || arrived > self.budget / 4;
        if std::mem::take(&mut self.suspecting) {
            self.next_pause = if many {
                SUSPECT_PAUSE
            } else {
                (self.next_pause * 2).min(SUSPECT_PAUSE_MAX)
            };
        }
        let factor = if arrived > self.budget {
            // Without a count of drops, `arrived` is what the share passed. With one, the sum is the whole offer, and
            // gives a smaller share.
            let by_share = f64::from(self.budget) / f64::from(arrived);
            let offered =
                f64::from(arrived) + f64::from(u32::try_from(dropped).unwrap_or(u32::MAX));
            by_share.min(f64::from(self.budget) / offered / self.share.0)
        } else if busy && many && !(whole && self.hidden) {
            0.5
        } else if busy && whole && self.hidden && self.pause == 0 {
            // The kernel's drops then show how much arrives.
            self.suspecting = true;
            self.pause = self.next_pause;
            0.5
        } else if self.share.0 >= NEARLY_WHOLE && dropped <= QUIET || self.share.0 * GROWTH < 1.0 {
            GROWTH
        } else {
            // A larger share would be too much again.
            1.0
        };
        self.share.0 = (self.share.0 * factor).clamp(SHARE_MIN, 1.0);
    }
}

/// Counts what arrives at the sockets of one kind, and says what passes.
#[derive(Debug)]
pub(crate) struct Gauge {
    strange: Valve,
    known_starts: Valve,
    refused: HashMap<IpAddr, u32>,
    barred: HashMap<IpAddr, Instant>,
}

impl Gauge {
    /// `strange` and `known` are the connections that may begin in a window, from unknown and from known addresses.
    pub(crate) fn new(kind: Kind, strange: u32, known: u32) -> Self {
        Self {
            // A TCP packet that opens no connection does not reach this counter.
            strange: Valve::new(strange, kind == Kind::Quic),
            known_starts: Valve::new(known, false),
            refused: HashMap::new(),
            barred: HashMap::new(),
        }
    }

    /// Counts a connection. `refused` says whether the caller refused it. Returns true if the rules have changed.
    pub(crate) fn arrived(
        &mut self,
        from: IpAddr,
        known: bool,
        refused: bool,
        now: Instant,
    ) -> bool {
        let valve = if known {
            &mut self.known_starts
        } else {
            &mut self.strange
        };
        let was_shut = valve.is_shut();
        valve.arrived();
        let shuts = valve.is_shut() && !was_shut;
        let bars = refused && !known && self.is_flood(network(from), now);
        shuts || bars
    }

    fn is_flood(&mut self, from: IpAddr, now: Instant) -> bool {
        if self.refused.len() >= COUNTED_MAX && !self.refused.contains_key(&from) {
            return false;
        }
        let refused = self.refused.entry(from).or_default();
        *refused += 1;
        if *refused < REFUSED_MAX || self.barred.len() >= BARRED_MAX {
            return false;
        }
        self.barred.insert(from, now + BARRED_TIME).is_none()
    }

    /// Judges the window that has ended.
    pub(crate) fn turn(&mut self, window: Window, now: Instant) {
        self.strange.turn(window);
        // The kernel's drops were not members' packets.
        self.known_starts.turn(Window {
            dropped: 0,
            ..window
        });
        self.refused.clear();
        self.barred.retain(|_, until| *until > now);
    }

    /// Returns the rules for the kernel.
    pub(crate) fn rules(&self, known: impl IntoIterator<Item = IpAddr>) -> Rules {
        Rules {
            known: known.into_iter().collect(),
            known_starts: self.known_starts.share(),
            barred: self.barred.keys().copied().collect::<BTreeSet<_>>(),
            strange: self.strange.share(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALM: Window = Window {
        dropped: 0,
        busy: false,
    };

    /// Simulates windows of a flood with this many packets in each, and returns what arrived in each window.
    fn flooded(gauge: &mut Gauge, offered: u32, windows: usize, cost: Duration) -> Vec<u32> {
        let now = Instant::now();
        let one = |_| {
            let (mut arrived, mut lost) = (0, 0.0);
            for n in 0..offered {
                let share = gauge.rules([]).strange.0;
                lost += 1.0 - share;
                // Evenly, as on average.
                if lost < 1.0 {
                    gauge.arrived(IpAddr::from(n.to_be_bytes()), false, false, now);
                    arrived += 1;
                } else {
                    lost -= 1.0;
                }
            }
            let dropped = u64::from(offered - arrived);
            let window = Window {
                dropped,
                busy: busy(cost * arrived, WINDOW),
            };
            gauge.turn(window, now);
            arrived
        };
        (0..windows).map(one).collect()
    }

    #[test]
    fn of_a_flood_arrives_no_more_than_the_budget_and_all_is_let_through_when_it_is_over() {
        let mut gauge = Gauge::new(Kind::Quic, 25, 200);
        let arrived = flooded(&mut gauge, 2_500, 40, Duration::from_micros(300));
        assert_eq!(arrived[0], 50, "shut at once");
        let later: u32 = arrived[4..].iter().sum();
        assert!(later <= 36 * 30, "{arrived:?}");
        assert!(later >= 36 * 8, "some are let through: {arrived:?}");
        for _ in 0..40 {
            gauge.turn(CALM, Instant::now());
        }
        assert!(gauge.rules([]).pass_all());
    }

    #[test]
    fn what_costs_more_than_expected_is_let_through_less() {
        let mut gauge = Gauge::new(Kind::Quic, 1_000, 200);
        // 25 packets cost a tenth of a window, and the budget does not take that into account.
        let arrived = flooded(&mut gauge, 900, 60, Duration::from_millis(1));
        let late = &arrived[20..];
        let mean = late.iter().sum::<u32>() / u32::try_from(late.len()).unwrap();
        assert!((2..=25).contains(&mean), "{arrived:?}");
    }

    #[test]
    fn strangers_are_suspected_seldom_when_members_are_what_costs() {
        let mut gauge = Gauge::new(Kind::Quic, 25, 200);
        let busy = Window {
            dropped: 0,
            busy: true,
        };
        let less = (0..2400).filter(|_| {
            gauge.turn(busy, Instant::now());
            gauge.rules([]).strange != Share::WHOLE
        });
        // Of a simulation of ten minutes.
        assert!(less.count() < 120);
    }

    #[test]
    fn members_who_start_together_are_let_in_and_a_flood_in_their_name_is_not() {
        let mut gauge = Gauge::new(Kind::Quic, 25, 200);
        let member = IpAddr::from([10, 0, 0, 1]);
        let now = Instant::now();
        let begun = (0..10_000).filter(|_| {
            let open = gauge.rules([]).known_starts != Share::NONE;
            if open {
                gauge.arrived(member, true, true, now);
            }
            open
        });
        assert_eq!(begun.count(), 400);
        assert!(gauge.rules([]).barred.is_empty(), "a member is not barred");
        assert_eq!(gauge.rules([]).strange, Share::WHOLE);
    }

    #[test]
    fn one_network_that_goes_on_when_refused_is_barred_for_a_while() {
        let mut gauge = Gauge::new(Kind::Tcp, 250, 200);
        let now = Instant::now();
        let flooder = |n: u16| IpAddr::from([0xfd00, 0, 0, 1, 0, 0, 0, n]);
        let changed: Vec<_> = (0..20)
            .map(|n| gauge.arrived(flooder(n), false, true, now))
            .collect();
        let expected: Vec<_> = (1..=20).map(|n| n == REFUSED_MAX).collect();
        assert_eq!(changed, expected);
        let other = IpAddr::from([0xfd00, 0, 0, 2, 0, 0, 0, 1]);
        assert!(!gauge.arrived(other, false, true, now));
        assert_eq!(gauge.rules([]).barred, BTreeSet::from([flooder(0)]));
        gauge.turn(CALM, now + BARRED_TIME / 2);
        assert!(!gauge.rules([]).barred.is_empty());
        gauge.turn(CALM, now + BARRED_TIME);
        assert!(gauge.rules([]).pass_all());
    }
}
