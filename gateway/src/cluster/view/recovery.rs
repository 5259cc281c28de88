//! Whether recovery is possible, and which cluster the answering host would form.
//!
//! Pure, like its parent.

use beemesh_protocol::api::recovery::{CutOff, Recovery};

use super::{Scene, names_of, sentence};
use crate::cluster::consensus::LastEntry;

/// Number of digits of the cluster's id that the user types as a confirmation.
const CONFIRMED_DIGITS: usize = 8;

impl Scene {
    /// The data for a recovery; `last` is the last entry of this host's log.
    pub(crate) fn recovery(&self, last: LastEntry) -> Recovery {
        let cluster = self.state.cluster();
        let whole = cluster.map(|cluster| cluster.to_string());
        let confirm = whole.and_then(|whole| whole.get(..CONFIRMED_DIGITS).map(str::to_owned));
        let others = self.state.hosts().values();
        let others = others.filter(|host| host.id != self.host);
        let mut cut_off: Vec<_> = others
            .map(|host| CutOff {
                name: host.name.clone(),
                id: host.id,
                reachable: self.reachable.contains(&host.id),
            })
            .collect();
        cut_off.sort_by(|a, b| a.name.cmp(&b.name));
        Recovery {
            cluster,
            confirm: confirm.unwrap_or_default(),
            host: self.name(self.host),
            obstacle: self.obstacle(),
            last_term: last.term,
            last_index: last.index,
            committed: self.consensus.committed.max(self.consensus.applied),
            applied: self.applied,
            voters: names_of(&self.state, self.consensus.voters.iter()),
            cut_off,
        }
    }

    /// The reason for which recovery is impossible now.
    fn obstacle(&self) -> Option<String> {
        let name = self.name(self.host);
        if self.state.cluster().is_none() {
            return Some("this host is in no cluster: there is nothing to recover".to_owned());
        }
        if self.removed {
            return Some(format!(
                "{name} was removed from its cluster: `beemesh join` admits it again"
            ));
        }
        if !self.state.hosts().contains_key(&self.host) {
            return Some("this host is still joining its cluster".to_owned());
        }
        let voters = &self.consensus.voters;
        if self.consensus.quorum {
            return Some(
                "the cluster has a quorum: `beemesh host remove` removes lost hosts".to_owned(),
            );
        }
        if let Some(leader) = self.heard_elsewhere() {
            let leader = self.name(leader);
            return Some(format!(
                "the cluster works: {leader} leads it, and other members hear {leader}; restore the connection between {name} and {leader}"
            ));
        }
        let there = voters.intersection(&self.reachable);
        let there = names_of(&self.state, there);
        if there.len() > voters.len() / 2 {
            return Some(format!(
                "{} of {} voters are reachable ({}), which is a majority: they can elect a leader; if one of them cannot take part, stop its beemesh-agent first",
                there.len(),
                voters.len(),
                sentence(&there),
            ));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use beemesh_protocol::state::Change;

    use super::super::tests::{changed, h, scene};
    use super::*;

    #[test]
    fn a_recovery_is_for_a_member_without_a_quorum_and_names_who_is_cut_off() {
        let last = LastEntry { term: 3, index: 9 };
        let lost = || {
            let mut scene = scene();
            scene.consensus.quorum = false;
            scene.reachable = [h(1)].into();
            scene
        };
        let recovery = lost().recovery(last);
        assert_eq!(recovery.obstacle, None);
        assert_eq!(recovery.confirm, "07070707");
        let names: Vec<_> = recovery.cut_off.iter().map(|host| &host.name).collect();
        assert_eq!(names, ["h2", "h3"]);
        assert_eq!((recovery.last_term, recovery.last_index), (3, 9));

        let mut quorum = lost();
        quorum.consensus.quorum = true;
        let mut soon = lost();
        soon.reachable = [h(1), h(3)].into();
        let mut cut = lost();
        cut.reachable = [h(1), h(3)].into();
        cut.elsewhere = Some(h(2));
        let mut removed = lost();
        removed.removed = true;
        let mut gone = lost();
        changed(&mut gone, 9, Change::RemoveHost { host: h(1) });
        let mut none = lost();
        none.state = Default::default();
        for (scene, words) in [
            (quorum, "has a quorum"),
            (soon, "2 of 3 voters are reachable (h1 and h3)"),
            (cut, "restore the connection between h1 and h2"),
            (removed, "was removed"),
            (gone, "still joining"),
            (none, "in no cluster"),
        ] {
            let obstacle = scene.recovery(last).obstacle.unwrap();
            assert!(obstacle.contains(words), "{obstacle}");
        }
    }
}
