//! The state with which one host continues when a recovery makes it a cluster of its own.
//!
//! Pure. Manifests and workloads stay with their log indexes, so that the running workloads need no new units. The
//! other members and all join tokens are removed, and seats of other members have no host.

use std::{collections::BTreeMap, sync::Arc};

use beemesh_protocol::{ClusterId, state::Host};

use super::State;

/// Number of recoveries to remember. A host that an earlier recovery removed is answered as a member of another
/// cluster.
const FORMER_MAX: usize = 16;

impl State {
    /// This state as the state of a new cluster with one member, the survivor.
    pub(crate) fn recovered(&self, cluster: ClusterId, survivor: Host) -> Self {
        let former = self.former.iter().copied().chain(self.cluster);
        let former: Vec<_> = former.collect();
        let forget = former.len().saturating_sub(FORMER_MAX);
        let gone = self.hosts.keys().copied();
        let gone: Vec<_> = gone.filter(|host| *host != survivor.id).collect();
        let mut state = Self {
            cluster: Some(cluster),
            hosts: Arc::new(BTreeMap::from([(survivor.id, survivor)])),
            tokens: Arc::default(),
            former: former[forget..].into(),
            ..self.clone()
        };
        for host in gone {
            state.vacate(host);
        }
        state
    }

    /// Whether this cluster is the result of a recovery from `cluster`.
    pub(crate) fn was(&self, cluster: ClusterId) -> bool {
        self.former.contains(&cluster)
    }
}

#[cfg(test)]
mod tests {
    use beemesh_protocol::{
        HostId,
        state::{Change, Command, TokenRecord},
    };

    use super::*;

    #[test]
    fn a_recovered_cluster_has_one_host_no_tokens_and_a_memory_of_what_it_was() {
        let host = |number: u8| Host {
            id: HostId([number; 32]),
            name: format!("h{number}"),
            addresses: Vec::new(),
            labels: BTreeMap::from([("disk".to_owned(), "ssd".to_owned())]),
            drained: true,
            claims_as: None,
            votes_from_ms: 0,
            lost_at_ms: 0,
            declared_lost: false,
            steady_at_ms: 0,
        };
        let token = TokenRecord {
            id: [7; 8],
            secret_hash: [8; 32],
            expires_ms: u64::MAX,
            uses: 3,
        };
        let mut state = State::default();
        for change in [
            Change::Found {
                cluster: ClusterId([0; 16]),
                host: host(1),
            },
            Change::PutToken(token),
            Change::Admit {
                token: [7; 8],
                secret_hash: [8; 32],
                host: host(2),
                replaces: None,
            },
        ] {
            state.apply(1, &Command::unasked(1, change));
        }
        for number in 1..=20 {
            state = state.recovered(ClusterId([number; 16]), host(2));
        }
        assert_eq!(state.cluster(), Some(ClusterId([20; 16])));
        assert_eq!(state.hosts().values().collect::<Vec<_>>(), [&host(2)]);
        assert_eq!(state.tokens(1).count(), 0);
        assert_eq!(State::from_snapshot(state.to_snapshot()), state);
        for (number, known) in [(3, false), (4, true), (19, true), (20, false)] {
            assert_eq!(state.was(ClusterId([number; 16])), known, "{number}");
        }
    }
}
