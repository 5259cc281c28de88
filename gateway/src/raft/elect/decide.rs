//! When a host asks for votes, and when it would give its own.
//!
//! Pure. Input: what a host knows of its leader. Output: what to do next. Beemesh decides when to start an election
//! instead of openraft, for two reasons. A leader whose gateway exits is missed at once and not after a timeout,
//! because its streams end. And no host raises the term before a majority agrees that the leader is gone (pre-vote;
//! Ongaro, "Consensus: Bridging Theory and Practice", 9.6), so that a host that lags or returns does not depose a
//! working leader.

use std::time::Duration;

use tokio::time::Instant;

use crate::{cluster::consensus::Role, raft::types::LogId};

/// openraft refuses to vote for this long after it heard the leader. It must be more than a heartbeat.
pub(crate) const LEASE: Duration = Duration::from_millis(310);
/// If a leader with open streams is silent, its followers start to doubt it after a random time between these two
/// values. Two heartbeats are lost by then: hosts that share a few slow cores and disks sometimes lag by several
/// hundred milliseconds.
pub(crate) const SILENCE_MIN: Duration = Duration::from_millis(1000);
pub(crate) const SILENCE_MAX: Duration = Duration::from_millis(1250);
/// Hosts that miss the leader at the same moment spread their requests over this time, so that one of them usually asks
/// first.
const SPREAD: Duration = Duration::from_millis(50);
/// A candidate that got this host's vote has this long to become the leader.
const TRUST: Duration = Duration::from_millis(300);
/// Minimum pause before the second attempt. A random pause of up to the same length is added, so that two hosts do not
/// keep splitting the votes.
const RETRY: Duration = Duration::from_millis(60);
/// The pause grows by the same amount with each attempt, up to this many times: a host that is cut off asks twice a
/// second.
const RETRY_GROWTH_MAX: u32 = 5;
/// A gateway that is too old to know the question ends the stream. After this long without a leader, that counts as a
/// yes: plain Raft then decides, as it does among gateways of the old version.
pub(crate) const OLD_PEER_PATIENCE: Duration = Duration::from_secs(3);
/// A host neither asks for votes nor gives its own for this long after another host did not know it as a member. A
/// recovery may have cut the host off, and it needs this time to learn that. Afterwards it takes part again in any
/// case.
pub(crate) const DOUBT_MAX: Duration = Duration::from_secs(10);

/// What a host knows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts {
    /// The current time.
    pub(crate) now: Instant,
    /// The role of this host.
    pub(crate) role: Role,
    /// Whether this host is a voter.
    pub(crate) voter: bool,
    /// Whether it is the only voter.
    pub(crate) alone: bool,
    /// On the leader: whether a majority of the voters answers it.
    pub(crate) quorum: bool,
    /// The leader that this host follows.
    pub(crate) leader: Option<Leader>,
    /// When `leader` last changed, or when this host started.
    pub(crate) since: Instant,
    /// When this host last gave its vote.
    pub(crate) voted: Option<Instant>,
    /// When this host began to doubt that it is a member, after it last had a leader.
    pub(crate) doubted: Option<Instant>,
    /// When it last asked for votes, and how many times it has since it last had a leader.
    pub(crate) asked: Option<(Instant, u32)>,
}

/// A leader, as a follower sees it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Leader {
    /// When it last sent a message.
    pub(crate) heard: Instant,
    /// Since when none of its streams has been open; `None` while one is open.
    pub(crate) gone: Option<Instant>,
}

/// What to do about an election.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Do nothing until the facts change.
    Nothing,
    /// Do nothing until this time, unless the facts change.
    Wait(Instant),
    /// Ask for votes now.
    Ask,
}

/// Returns what to do next. `draw` is random, from 0 up to 1, and stays the same until the host has asked or the leader
/// has changed.
pub(crate) fn next(facts: &Facts, draw: f64) -> Next {
    if !facts.voter || facts.role == Role::Leader || facts.role == Role::Stopped {
        return Next::Nothing;
    }
    let missed = if facts.alone {
        facts.now
    } else {
        match facts.leader {
            None => facts.since + SPREAD.mul_f64(draw),
            Some(Leader { heard, gone: None }) => {
                heard + SILENCE_MIN + (SILENCE_MAX - SILENCE_MIN).mul_f64(draw)
            }
            Some(Leader {
                heard,
                gone: Some(since),
            }) => since.max(heard + LEASE) + SPREAD.mul_f64(draw),
        }
    };
    let trusted = facts.voted.map(|at| at + TRUST + SPREAD.mul_f64(draw));
    let again = facts.asked.map(|(at, times)| {
        let pause = RETRY * times.clamp(1, RETRY_GROWTH_MAX);
        at + pause.mul_f64(1.0 + draw)
    });
    let sure = facts.doubted.map(|at| at + DOUBT_MAX);
    let due = [trusted, again, sure]
        .into_iter()
        .flatten()
        .fold(missed, Instant::max);
    if due <= facts.now {
        Next::Ask
    } else {
        Next::Wait(due)
    }
}

/// Returns true if this host knows of a leader, so that no other host needs its vote.
pub(crate) fn led(facts: &Facts) -> bool {
    if facts.role == Role::Leader {
        return facts.quorum;
    }
    facts.leader.is_some_and(|leader| {
        let patience = if leader.gone.is_some() {
            LEASE
        } else {
            SILENCE_MIN
        };
        facts.now < leader.heard + patience
    })
}

/// Returns true if this host, whose log ends with `ours`, would vote for one whose log ends with `theirs`.
pub(crate) fn would_vote(facts: &Facts, ours: Option<LogId>, theirs: Option<LogId>) -> bool {
    let doubts = facts.doubted.is_some_and(|at| facts.now < at + DOUBT_MAX);
    facts.voter && !led(facts) && !doubts && theirs >= ours
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRAWS: [f64; 4] = [0.0, 0.3, 0.6, 0.999];

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// A follower that heard its leader at `now`.
    fn follower(now: Instant) -> Facts {
        Facts {
            now,
            role: Role::Follower,
            voter: true,
            alone: false,
            quorum: true,
            leader: Some(Leader {
                heard: now,
                gone: None,
            }),
            since: now,
            voted: None,
            doubted: None,
            asked: None,
        }
    }

    fn id(term: u64, index: u64) -> Option<LogId> {
        let host = crate::raft::types::NodeId::default();
        Some(LogId::new(openraft::LeaderId::new(term, host), index))
    }

    /// When a host asks for votes, counted from `now`, if its facts do not change.
    fn asks(facts: Facts, draw: f64) -> Option<Duration> {
        match next(&facts, draw) {
            Next::Nothing => None,
            Next::Ask => Some(Duration::ZERO),
            Next::Wait(due) => {
                let then = Facts { now: due, ..facts };
                assert_eq!(next(&then, draw), Next::Ask, "what it waits for is enough");
                Some(due - facts.now)
            }
        }
    }

    #[test]
    fn a_silent_leader_is_doubted_after_three_heartbeats_and_one_that_is_gone_after_the_lease() {
        let now = Instant::now();
        for draw in DRAWS {
            let silent = asks(follower(now), draw).unwrap();
            assert!(silent >= SILENCE_MIN && silent < SILENCE_MAX, "{silent:?}");
            let gone = Facts {
                leader: Some(Leader {
                    heard: now,
                    gone: Some(now),
                }),
                ..follower(now)
            };
            let gone = asks(gone, draw).unwrap();
            // Hosts that last heard the leader at the same moment ask at different moments.
            assert_eq!(gone, LEASE + SPREAD.mul_f64(draw));
            let long_silent = Facts {
                now: now + SILENCE_MIN,
                leader: Some(Leader {
                    heard: now,
                    gone: Some(now + SILENCE_MIN),
                }),
                ..follower(now)
            };
            assert!(asks(long_silent, draw).unwrap() < SPREAD);
        }
    }

    #[test]
    fn who_leads_or_has_no_vote_asks_for_none_and_who_is_alone_asks_at_once() {
        let now = Instant::now();
        let none = Facts {
            leader: None,
            ..follower(now)
        };
        let idle = [
            Facts {
                role: Role::Leader,
                ..none
            },
            Facts {
                role: Role::Stopped,
                ..none
            },
            Facts {
                voter: false,
                role: Role::Learner,
                ..none
            },
        ];
        for facts in idle {
            assert_eq!(next(&facts, 0.5), Next::Nothing, "{facts:?}");
        }
        assert_eq!(
            next(
                &Facts {
                    alone: true,
                    ..follower(now)
                },
                0.9
            ),
            Next::Ask
        );
    }

    #[test]
    fn attempts_are_apart_and_a_vote_is_trusted_for_a_while() {
        let now = Instant::now();
        let missing = Facts {
            leader: None,
            since: now - ms(9000),
            ..follower(now)
        };
        assert_eq!(next(&missing, 0.5), Next::Ask);
        for draw in DRAWS {
            for (times, factor) in [(1, 1), (2, 2), (5, 5), (1000, 5)] {
                let asked = Some((now, times));
                let again = asks(Facts { asked, ..missing }, draw).unwrap();
                let least = RETRY * factor;
                assert!(again >= least && again < least * 2, "{again:?}");
            }
            let voted = asks(
                Facts {
                    voted: Some(now),
                    ..missing
                },
                draw,
            )
            .unwrap();
            assert!(voted >= TRUST && voted < TRUST + SPREAD, "{voted:?}");
        }
    }

    #[test]
    fn only_a_host_without_a_leader_would_vote_and_only_for_a_log_as_long_as_its_own() {
        let now = Instant::now();
        let heard = |ago: Duration, gone: bool| Facts {
            leader: Some(Leader {
                heard: now - ago,
                gone: gone.then_some(now),
            }),
            ..follower(now)
        };
        let leading = |quorum| Facts {
            role: Role::Leader,
            leader: None,
            quorum,
            ..follower(now)
        };
        let learner = Facts {
            voter: false,
            leader: None,
            ..follower(now)
        };
        let cases = [
            (heard(Duration::ZERO, false), false),
            (heard(SILENCE_MIN - ms(1), false), false),
            (heard(SILENCE_MIN, false), true),
            (heard(LEASE - ms(1), true), false),
            (heard(LEASE, true), true),
            (
                Facts {
                    leader: None,
                    ..follower(now)
                },
                true,
            ),
            (leading(true), false),
            (leading(false), true),
            (learner, false),
        ];
        for (facts, expected) in cases {
            assert_eq!(
                would_vote(&facts, id(2, 5), id(2, 5)),
                expected,
                "{facts:?}"
            );
        }
        let free = Facts {
            leader: None,
            ..follower(now)
        };
        for (ago, expected) in [(DOUBT_MAX - ms(1), false), (DOUBT_MAX, true)] {
            let doubting = Facts {
                doubted: Some(now - ago),
                since: now - ms(20_000),
                ..free
            };
            assert_eq!(would_vote(&doubting, None, None), expected, "{ago:?}");
            let asks = next(&doubting, 0.5) == Next::Ask;
            assert_eq!(asks, expected, "{ago:?}");
        }
        let logs = [
            (id(2, 5), id(2, 6), true),
            (id(2, 5), id(3, 1), true),
            (id(2, 5), id(2, 4), false),
            (id(2, 5), id(1, 9), false),
            (id(2, 5), None, false),
            (None, None, true),
        ];
        for (ours, theirs, expected) in logs {
            assert_eq!(
                would_vote(&free, ours, theirs),
                expected,
                "{ours:?} {theirs:?}"
            );
        }
    }
}
