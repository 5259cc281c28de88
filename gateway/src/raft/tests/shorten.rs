//! Takes snapshots on request of a test.

use std::time::Duration;

use super::Node;

impl Node {
    /// Takes a snapshot and purges the entries before it. If consensus has ended, it does nothing: the caller notices
    /// that itself.
    pub(crate) async fn shorten(&self) {
        let raft = &self.inner.raft;
        let last = self.state().borrow().applied;
        if raft.trigger().snapshot().await.is_ok() {
            let taken = raft.wait(Some(Duration::from_secs(2)));
            let taken = taken.metrics(|m| m.snapshot.is_some_and(|id| id.index >= last), "taken");
            if taken.await.is_ok() {
                let _ = raft.trigger().purge_log(last).await;
            }
        }
    }
}
