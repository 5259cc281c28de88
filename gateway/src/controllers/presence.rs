//! Decides which hosts the cluster gives up, and which ones count again.
//!
//! Pure: no I/O, no clock, no randomness; the caller passes the time. Input: which hosts the members reach. Output:
//! changes of hosts, and for how long each unreachable host has been so. The memory is that of one leader: a new leader
//! waits the full times anew. Raft does not provide this: it tracks only voters, and only until another host votes in
//! their place.
//!
//! - A host that no member reaches for [`Times::lost_after`] is lost.
//! - A host that is lost has returned when the leader reaches it again.
//! - A host that was unreachable [`ABSENCES_MAX`] times within [`STEADY`] gets no further pods for that time.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use beemesh_protocol::{
    HostId,
    peer::HostReport,
    state::{Change, Host},
};
use tokio::time::Instant;

use crate::cluster::state::{LOSES, State};

/// The shortest absence that counts: connections break and are made again when a host starts.
const ABSENCE_MIN: Duration = Duration::from_secs(3);
/// The number of absences after which a host counts as one that comes and goes.
const ABSENCES_MAX: usize = 3;
/// The time within which absences count, and for which such a host then gets no further pods.
const STEADY: Duration = Duration::from_secs(600);

/// The times after which hosts are given up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    /// From level 3 on: a host that no member reaches for this long is lost.
    pub(crate) lost_after: Duration,
    /// Below level 3: a host that the leader does not reach for this long has lost its attempts of Jobs.
    pub(crate) job_lost_after: Duration,
}

/// What the leader sees.
#[derive(Clone, Copy)]
pub(crate) struct Seen<'a> {
    pub(crate) state: &'a State,
    /// The latest report of every host.
    pub(crate) reports: &'a BTreeMap<HostId, Arc<HostReport>>,
    /// The hosts that the leader reaches, itself included.
    pub(crate) reachable: &'a BTreeSet<HostId>,
    pub(crate) now: Instant,
    /// The wall clock in milliseconds since 1970.
    pub(crate) now_ms: u64,
}

/// The result of a look.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Looked {
    pub(crate) changes: Vec<Change>,
    /// For how long each unreachable host has been so.
    pub(crate) away: BTreeMap<HostId, Duration>,
    /// When to look again if nothing changes before.
    pub(crate) due: Option<Instant>,
}

/// The memory of a leader.
#[derive(Debug, Default)]
pub(crate) struct Presence {
    /// Since when each unreachable host is so.
    since: BTreeMap<HostId, Instant>,
    /// When each host returned from an absence, the latest last; at most [`ABSENCES_MAX`] times.
    absences: BTreeMap<HostId, VecDeque<Instant>>,
    /// The hosts that were reachable before. The leader does not know how the others were before its term.
    seen: BTreeSet<HostId>,
}

impl Presence {
    /// Looks at all members.
    pub(crate) fn look(&mut self, seen: &Seen<'_>, times: &Times) -> Looked {
        let members = seen.state.hosts();
        let there: BTreeSet<HostId> = members
            .keys()
            .copied()
            .filter(|host| is_reached(seen, *host))
            .collect();
        self.note(seen, &there);
        let mut looked = Looked::default();
        for host in members.values() {
            let due = match self.since.get(&host.id) {
                Some(since) => {
                    let away = seen.now.saturating_duration_since(*since);
                    looked.away.insert(host.id, away);
                    lose(seen, host, away, times, &mut looked.changes)
                }
                None => self.take_back(seen, host, &mut looked.changes),
            };
            let due = due.and_then(|after| seen.now.checked_add(after));
            looked.due = looked.due.into_iter().chain(due).min();
        }
        looked
    }

    fn note(&mut self, seen: &Seen<'_>, there: &BTreeSet<HostId>) {
        let members = seen.state.hosts();
        for host in there.iter().copied() {
            let since = self.since.remove(&host);
            let is_absence = since.is_some_and(|since| since + ABSENCE_MIN <= seen.now);
            if is_absence && self.seen.contains(&host) {
                let all = self.absences.entry(host).or_default();
                all.push_back(seen.now);
                if all.len() > ABSENCES_MAX {
                    all.pop_front();
                }
            }
            self.seen.insert(host);
        }
        self.since.retain(|host, _| members.contains_key(host));
        self.seen.retain(|host| members.contains_key(host));
        self.absences.retain(|host, all| {
            while all.front().is_some_and(|at| *at + STEADY <= seen.now) {
                all.pop_front();
            }
            members.contains_key(host) && !all.is_empty()
        });
        for host in members.keys().filter(|host| !there.contains(host)) {
            self.since.entry(*host).or_insert(seen.now);
        }
    }

    /// Ends the loss of a host that is reachable. Returns after which time to look again.
    fn take_back(
        &self,
        seen: &Seen<'_>,
        host: &Host,
        changes: &mut Vec<Change>,
    ) -> Option<Duration> {
        // A host that is lost has returned when it follows the leader. Others may not have noticed yet that it is gone.
        if seen.state.level() < LOSES || host.lost_at_ms != 0 && !seen.reachable.contains(&host.id)
        {
            return None;
        }
        let absences = self.absences.get(&host.id);
        let comes_and_goes = absences.is_some_and(|all| all.len() >= ABSENCES_MAX);
        let left = host.steady_at_ms.saturating_sub(seen.now_ms);
        let steady_at_ms = match (comes_and_goes, left) {
            (true, 0) => seen.now_ms + milliseconds(STEADY),
            (false, 0) => 0,
            _ => host.steady_at_ms,
        };
        if host.lost_at_ms != 0 || steady_at_ms != host.steady_at_ms {
            changes.push(Change::ReturnHost {
                host: host.id,
                steady_at_ms,
            });
        }
        (steady_at_ms > 0).then(|| Duration::from_millis(steady_at_ms - seen.now_ms))
    }
}

/// Gives up a host that has been unreachable for long enough. Returns after which time to look again.
fn lose(
    seen: &Seen<'_>,
    host: &Host,
    away: Duration,
    times: &Times,
    changes: &mut Vec<Change>,
) -> Option<Duration> {
    let after = match seen.state.level() < LOSES {
        true => times.job_lost_after,
        false => times.lost_after,
    };
    if away < after {
        return Some(after - away);
    }
    if seen.state.level() >= LOSES && host.lost_at_ms == 0 {
        changes.push(Change::LoseHost {
            host: host.id,
            declared: false,
        });
    }
    None
}

/// Returns true if the leader reaches the host, or, from level 3 on, a member that the leader reaches does.
fn is_reached(seen: &Seen<'_>, host: HostId) -> bool {
    if seen.reachable.contains(&host) {
        return true;
    }
    let mut others = seen.reports.iter();
    seen.state.level() >= LOSES
        && others.any(|(other, report)| {
            let is_there = *other != host && seen.reachable.contains(other);
            let unreached = report.unreached.as_ref();
            is_there && unreached.is_some_and(|hosts| !hosts.contains(&host))
        })
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
