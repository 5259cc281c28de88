//! Decides which reports a host sends to which members.
//!
//! Pure. Hosts send their report to the leader, and the leader sends each of them the reports of all others. For a
//! hundred hosts that needs two hundred streams instead of ten thousand. Gateways of older versions do not support
//! this: each of them exchanges reports with every other member.

use std::collections::{BTreeMap, BTreeSet};

use beemesh_protocol::HostId;

/// The reports that a member is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// The report of this host.
    Mine,
    /// The reports of all hosts except the receiver, from the leader of this term.
    All {
        /// The term of the leader.
        term: u64,
    },
}

/// The reports that `host` sends to each connected member. `leader` is the leader and its term. `takes` returns whether
/// a host's gateway accepts reports from the leader, or `None` if it has not said so yet.
pub(super) fn audience(
    host: HostId,
    leader: Option<(HostId, u64)>,
    connected: &BTreeSet<HostId>,
    takes: impl Fn(&HostId) -> Option<bool>,
) -> BTreeMap<HostId, Told> {
    let old = |host: &HostId| takes(host) == Some(false);
    let told = |to: &HostId| match leader {
        _ if old(to) => Some(Told::Mine),
        Some((leader, term)) if leader == host => Some(Told::All { term }),
        Some((leader, _)) if leader == *to || old(&leader) => Some(Told::Mine),
        _ => None,
    };
    connected
        .iter()
        .filter_map(|to| Some((*to, told(to)?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_tell_the_leader_and_the_leader_tells_everybody_and_the_old_ones_as_before() {
        let h = |number: u8| HostId([number; 32]);
        let me = h(1);
        let all = Told::All { term: 7 };
        // The leader, the hosts with old gateways, and the reports that each host is sent.
        type Case<'a> = (Option<u8>, &'a [u8], &'a [(u8, Told)]);
        let cases: [Case<'_>; 7] = [
            (Some(1), &[], &[(2, all), (3, all), (4, all)]),
            (Some(1), &[3], &[(2, all), (3, Told::Mine), (4, all)]),
            (Some(2), &[], &[(2, Told::Mine)]),
            (Some(2), &[3], &[(2, Told::Mine), (3, Told::Mine)]),
            (
                Some(2),
                &[2],
                &[(2, Told::Mine), (3, Told::Mine), (4, Told::Mine)],
            ),
            (None, &[], &[]),
            (None, &[4], &[(4, Told::Mine)]),
        ];
        for (leader, old, expected) in cases {
            let connected = [2, 3, 4].map(h).into();
            // Host 4 has sent no report yet, unless it is old.
            let takes = |host: &HostId| match old.iter().any(|old| h(*old) == *host) {
                true => Some(false),
                false => (*host != h(4)).then_some(true),
            };
            let leader = leader.map(|leader| (h(leader), 7));
            let expected = expected.iter().map(|(to, told)| (h(*to), *told)).collect();
            assert_eq!(
                audience(me, leader, &connected, takes),
                expected,
                "{leader:?} {old:?}"
            );
        }
    }
}
