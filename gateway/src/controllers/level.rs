//! Decides when to raise the level of the state machine.
//!
//! Pure: no I/O, no clock, no randomness; the caller passes the time. All members must have run a release that supports
//! the level for a while, so that an administrator can still downgrade after an upgrade.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use beemesh_protocol::{HostId, peer::HostReport, state::Change, version::Version};
use tokio::time::Instant;

use crate::cluster::state::{ASSIGNED, LOSES, ROLLED};

/// The latest level that this release knows.
pub(crate) const LATEST: u32 = LOSES;

/// The change that raises the level.
pub(crate) fn raise(level: u32) -> Change {
    match level {
        ..=ASSIGNED => Change::RaiseLevel { level },
        _ => Change::RequireLevel { level },
    }
}

/// The first release that supports the level.
fn since(level: u32) -> Version {
    match level {
        ..=ASSIGNED => Version::new(0, 2, 1),
        ROLLED => Version::new(0, 4, 0),
        _ => Version::new(0, 5, 0),
    }
}

/// Since when all members run a release that supports the next level.
#[derive(Debug, Default)]
pub(crate) struct Upgrade {
    since: Option<(u32, Instant, BTreeSet<HostId>)>,
}

impl Upgrade {
    /// Returns when this level can be reached if nothing changes. `None` while a member runs an older release, or has not
    /// reported its release. An additional member restarts the wait.
    pub(crate) fn due(
        &mut self,
        level: u32,
        now: Instant,
        members: &BTreeSet<HostId>,
        reports: &BTreeMap<HostId, Arc<HostReport>>,
        after: Duration,
    ) -> Option<Instant> {
        let knows = |host: &HostId| {
            let version = reports.get(host).map(|report| report.version.as_str());
            version
                .and_then(Version::parse)
                .is_some_and(|version| version >= since(level))
        };
        if !members.iter().all(knows) {
            self.since = None;
            return None;
        }
        let same = self
            .since
            .take()
            .filter(|(of, _, seen)| *of == level && members.is_subset(seen));
        let since = same.map_or(now, |(_, since, _)| since);
        self.since = Some((level, since, members.clone()));
        Some(since + after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_members_have_run_what_knows_the_rules_for_a_while() {
        let h = |n| HostId([n; 32]);
        let said = |versions: &[(u8, &str)]| -> BTreeMap<HostId, Arc<HostReport>> {
            let report = |version: &str| HostReport {
                version: version.to_owned(),
                ..HostReport::default()
            };
            let all = versions
                .iter()
                .map(|(n, version)| (h(*n), Arc::new(report(version))));
            all.collect()
        };
        let after = Duration::from_secs(600);
        let begin = Instant::now();
        let mut upgrade = Upgrade::default();
        let two: BTreeSet<_> = [h(1), h(2)].into();
        let mixed = said(&[(1, "0.2.1"), (2, "0.2.0")]);
        let new = said(&[(1, "0.2.1"), (2, "0.2.1"), (3, "0.10.0")]);
        let alone = said(&[(1, "0.2.1")]);
        let mut at = |seconds, members: &BTreeSet<HostId>, reports| {
            let now = begin + Duration::from_secs(seconds);
            let due = upgrade.due(1, now, members, reports, after);
            due.map(|due| (due - begin).as_secs())
        };
        assert_eq!(at(0, &two, &mixed), None);
        assert_eq!(at(1, &two, &alone), None, "h2 has not said");
        assert_eq!(at(2, &two, &new), Some(602));
        assert_eq!(at(300, &two, &new), Some(602));
        assert_eq!(at(400, &two, &mixed), None, "one went back");
        assert_eq!(at(500, &two, &new), Some(1100));
        let three: BTreeSet<_> = [h(1), h(2), h(3)].into();
        assert_eq!(at(600, &three, &new), Some(1200), "one more");
        assert_eq!(at(700, &two, &new), Some(1200), "one less");
        assert_eq!(at(800, &three, &mixed), None);
        // The next level needs the next release, and its own wait.
        let now = begin + Duration::from_secs(900);
        let newer = said(&[(1, "0.4.0"), (2, "0.4.0")]);
        assert_eq!(upgrade.due(2, now, &two, &new, after), None);
        assert_eq!(upgrade.due(1, now, &two, &newer, after), Some(now + after));
        let later = now + after;
        assert_eq!(
            upgrade.due(2, later, &two, &newer, after),
            Some(later + after)
        );
    }
}
