//! How much of what strangers send reaches this process at all.
//!
//! Pure: no I/O, no clock, no randomness. Input: what arrived in a window of time, and what it cost. Output: [`Rules`] for the
//! kernel, which drops the rest. In calm times everything is let through and the kernel judges nothing.
//!
//! libp2p computes its answer to the first packet of a QUIC connection before it asks anybody, and anybody can claim to be
//! anywhere in that packet. What is not let through costs this process nothing; who is kept out tries again, by TCP too.

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

/// How long what arrives is counted before it is judged.
pub(crate) const WINDOW: Duration = Duration::from_millis(250);
/// What this process may compute in a window before strangers are suspected of it, in thousandths of the window.
const BUSY: u128 = 70;
/// The least that is let through.
const SHARE_MIN: f64 = 1.0 / 4096.0;
/// How fast the share grows back, for each window.
const GROWTH: f64 = 1.3;
/// From here on it grows only when strangers are quiet.
const NEARLY_WHOLE: f64 = 0.75;
/// Packets of strangers that are no flood, for each window.
const QUIET: u64 = 8;
/// Windows between two times at which strangers are suspected for no reason: each time that they were innocent it doubles.
const SUSPECT_PAUSE: u32 = 4;
const SUSPECT_PAUSE_MAX: u32 = 240;
/// Of one network, so many that were refused in a window are a flood.
const REFUSED_MAX: u32 = 16;
/// How long such a network is barred.
const BARRED_TIME: Duration = Duration::from_secs(2);
/// Networks that are counted and barred at a time. Of more, a share is let through.
const COUNTED_MAX: usize = 1024;
const BARRED_MAX: usize = 64;

/// A part of what arrives, from nothing to all.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Share(f64);

impl Share {
    pub(crate) const WHOLE: Self = Self(1.0);
    pub(crate) const NONE: Self = Self(0.0);

    #[cfg(test)]
    pub(crate) fn new(share: f64) -> Self {
        Self(share)
    }

    /// Less than a suspicion leaves.
    fn is_small(self) -> bool {
        self.0 < 0.3
    }

    /// Random numbers below this are of the share; none when all are.
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

/// What a window was like.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Window {
    /// Packets that the kernel dropped of this kind, as far as it says.
    pub(crate) dropped: u64,
    /// Whether this process computed more than strangers may have it compute.
    pub(crate) busy: bool,
}

/// Whether this process was busy in a time.
pub(crate) fn busy(computed: Duration, time: Duration) -> bool {
    computed.as_nanos() * 1000 > time.as_nanos() * BUSY
}

/// Finds the share of what arrives that is not too much.
#[derive(Debug)]
struct Valve {
    /// What may arrive in a window.
    budget: u32,
    /// Whether more may come in than is said to arrive.
    hidden: bool,
    share: Share,
    arrived: u32,
    /// Windows until strangers may be suspected, and how many it will be when they are innocent.
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

    /// One arrived.
    fn arrived(&mut self) {
        self.arrived = self.arrived.saturating_add(1);
    }

    /// Twice the budget arrived: no more until the window is over.
    fn is_shut(&self) -> bool {
        self.arrived >= self.budget * 2
    }

    /// What is let through at this moment.
    fn share(&self) -> Share {
        if self.is_shut() {
            Share::NONE
        } else {
            self.share
        }
    }

    /// The window is over.
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
            // What came is what was let through, or what was dropped is known, too, and is more.
            let by_share = f64::from(self.budget) / f64::from(arrived);
            let offered =
                f64::from(arrived) + f64::from(u32::try_from(dropped).unwrap_or(u32::MAX));
            by_share.min(f64::from(self.budget) / offered / self.share.0)
        } else if busy && many && !(whole && self.hidden) {
            0.5
        } else if busy && whole && self.hidden && self.pause == 0 {
            // What is dropped then says how much there is.
            self.suspecting = true;
            self.pause = self.next_pause;
            0.5
        } else if self.share.0 >= NEARLY_WHOLE && dropped <= QUIET || self.share.0 * GROWTH < 1.0 {
            GROWTH
        } else {
            // It would be too much again.
            1.0
        };
        self.share.0 = (self.share.0 * factor).clamp(SHARE_MIN, 1.0);
    }
}

/// What arrives at the sockets of one kind, and what is let through there.
#[derive(Debug)]
pub(crate) struct Gauge {
    strange: Valve,
    known_starts: Valve,
    refused: HashMap<IpAddr, u32>,
    barred: HashMap<IpAddr, Instant>,
}

impl Gauge {
    /// So many connections may begin in a window from where nobody is known, and from where somebody is.
    pub(crate) fn new(kind: Kind, strange: u32, known: u32) -> Self {
        Self {
            // Of TCP, what is no connection does not come this far.
            strange: Valve::new(strange, kind == Kind::Quic),
            known_starts: Valve::new(known, false),
            refused: HashMap::new(),
            barred: HashMap::new(),
        }
    }

    /// A connection was begun; it was refused or not. Returns whether the rules are others now.
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

    /// The window is over.
    pub(crate) fn turn(&mut self, window: Window, now: Instant) {
        self.strange.turn(window);
        // What the kernel dropped was not of members.
        self.known_starts.turn(Window {
            dropped: 0,
            ..window
        });
        self.refused.clear();
        self.barred.retain(|_, until| *until > now);
    }

    /// What is to be let through.
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

    /// Windows of a flood that offers so much in each: what arrived in each.
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
        // A tenth of a window for 25 of them, and the budget does not say so.
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
        // Of ten minutes.
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
