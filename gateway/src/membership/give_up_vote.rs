//! Removes a host's vote before the host itself is removed.
//!
//! Shell. The log entry that removes a host closes every connection to it. Raft drops the host from the voters by later
//! entries. If the remaining hosts are not a majority of the previous voters, as in a cluster of two, those entries
//! could not be committed. Such a host gives up its vote while it is still reachable.

use std::collections::BTreeSet;

use beemesh_protocol::{
    HostId,
    state::{Change, Command},
};
use tokio::time::{Instant, timeout_at};

use super::known;
use crate::{clock::now_ms, context::Gateway, raft::ProposeError};

/// Why a host keeps its vote, or may keep it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DemoteError {
    /// Not every member knows this change.
    #[error("{0}")]
    Unknown(String),
    /// The change was not committed.
    #[error(transparent)]
    Propose(#[from] ProposeError),
    /// The leader did not remove the vote in time.
    #[error("the host still votes, and the other voters have no quorum without its vote")]
    Votes,
}

/// Makes a host give up its vote if the others could not remove it otherwise. The host is still a member when this
/// returns, and regains its vote if it stays one.
pub(crate) async fn give_up_vote(
    gateway: &Gateway,
    host: HostId,
    deadline: Instant,
) -> Result<(), DemoteError> {
    let mut consensus = gateway.node.consensus();
    let voters = consensus.borrow_and_update().voters.clone();
    if !is_needed(&voters, &gateway.reachable(), host) {
        return Ok(());
    }
    let change = Change::DemoteHost { host };
    known::check(gateway, &change).map_err(DemoteError::Unknown)?;
    let command = Command::unasked(now_ms(), change);
    gateway.node.propose(vec![command], deadline).await?;
    let follows = consensus.wait_for(|consensus| !consensus.voters.contains(&host));
    match timeout_at(deadline, follows).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(DemoteError::Votes),
    }
}

/// Pure: returns true if the hosts that are `there`, without `host`, are too few to remove its vote.
fn is_needed(voters: &BTreeSet<HostId>, there: &BTreeSet<HostId>, host: HostId) -> bool {
    let others = voters.intersection(there).filter(|one| **one != host);
    voters.contains(&host) && 2 * others.count() <= voters.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vote_is_needed_where_the_others_are_no_majority() {
        let set = |numbers: &[u8]| -> BTreeSet<HostId> {
            numbers.iter().map(|number| HostId([*number; 32])).collect()
        };
        for (voters, there, needed) in [
            (&[1, 2][..], &[1, 2][..], true),
            (&[1, 2, 3], &[1, 2, 3], false),
            (&[1, 2, 3], &[1, 2], true),
            (&[1, 2, 3, 4], &[1, 2, 3], true),
            (&[1, 2, 3, 4], &[2, 3, 4], false),
            (&[1, 2, 3, 4, 5], &[1, 2, 3, 4], false),
            // It has no vote.
            (&[2, 3], &[1, 2, 3], false),
        ] {
            let found = is_needed(&set(voters), &set(there), HostId([1; 32]));
            assert_eq!(found, needed, "{voters:?} {there:?}");
        }
    }
}
