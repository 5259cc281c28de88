//! Tracks hosts that are unreachable for long.
//!
//! Pure: no I/O, no clock, no randomness; the caller passes the time. Raft does not provide this: it tracks only
//! voters, and only until another host votes in their place.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use beemesh_protocol::HostId;
use tokio::time::Instant;

/// Since when each unreachable host is unreachable, as long as this host leads.
#[derive(Debug, Default)]
pub(crate) struct Away {
    since: BTreeMap<HostId, Instant>,
}

impl Away {
    /// Records which hosts are reachable. Returns the members that have been unreachable for longer than `after`, and
    /// when the next one will have been.
    pub(crate) fn look(
        &mut self,
        now: Instant,
        members: impl Iterator<Item = HostId>,
        there: &BTreeSet<HostId>,
        after: Duration,
    ) -> (BTreeSet<HostId>, Option<Instant>) {
        let away: BTreeSet<HostId> = members.filter(|host| !there.contains(host)).collect();
        self.since.retain(|host, _| away.contains(host));
        for host in away {
            self.since.entry(host).or_insert(now);
        }
        let lost = self
            .since
            .iter()
            .filter(|(_, since)| **since + after <= now);
        let next = self.since.values().map(|since| *since + after);
        (
            lost.map(|(host, _)| *host).collect(),
            next.filter(|at| *at > now).min(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_back_for_a_moment_has_not_been_away_for_long() {
        let h = |n| HostId([n; 32]);
        let (begin, after) = (Instant::now(), Duration::from_secs(10));
        let mut away = Away::default();
        let mut at = |seconds, there: &[u8]| {
            let there = there.iter().map(|n| h(*n)).collect();
            let now = begin + Duration::from_secs(seconds);
            let (lost, next) = away.look(now, [h(1), h(2)].into_iter(), &there, after);
            let lost: Vec<u8> = lost.iter().map(|host| host.0[0]).collect();
            (lost, next.map(|next| (next - begin).as_secs()))
        };
        assert_eq!(at(0, &[1, 2]), (vec![], None));
        assert_eq!(at(1, &[1]), (vec![], Some(11)));
        assert_eq!(at(10, &[1]), (vec![], Some(11)));
        assert_eq!(at(11, &[1]), (vec![2], None));
        assert_eq!(at(12, &[2]), (vec![], Some(22)));
        assert_eq!(at(13, &[]), (vec![], Some(22)));
        assert_eq!(at(23, &[]), (vec![1, 2], None));
    }
}
