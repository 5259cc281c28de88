//! The replicated state machine: applies committed entries, and takes and installs snapshots.
//!
//! Shell over the pure [`State`]. It publishes a new [`View`] after every batch that openraft hands over. The state is
//! in memory only: a restart loads the newest snapshot and replays the log behind it.

pub(crate) mod snapshots;
#[cfg(test)]
mod tests;

use std::{io, sync::Arc};

use beemesh_protocol::{peer::Outcome, state};
use bytes::Bytes;
use openraft::{
    EntryPayload, OptionalSend, RaftSnapshotBuilder, StorageIOError, storage::RaftStateMachine,
};
use tokio::sync::watch;

use self::snapshots::Snapshots;
use super::{
    View,
    log::Durable,
    os::blocking,
    pending_proposals::PendingProposals,
    types::{
        Entry, LogId, Snapshot, SnapshotMeta, StorageError, StoredMembership, TypeConfig, meta_in,
        meta_out,
    },
};
use crate::cluster::state::State;

/// The state machine of one node.
pub(crate) struct Machine {
    state: Arc<State>,
    applied: Option<LogId>,
    membership: StoredMembership,
    view: watch::Sender<Arc<View>>,
    snapshots: Arc<Snapshots>,
    durable: Durable,
    pending_proposals: Arc<PendingProposals>,
}

impl Machine {
    /// Starts from the newest snapshot. No entry is applied before it is durable on this host.
    pub(crate) fn open(
        snapshots: Arc<Snapshots>,
        newest: Option<(SnapshotMeta, State)>,
        view: watch::Sender<Arc<View>>,
        durable: Durable,
        pending_proposals: Arc<PendingProposals>,
    ) -> Self {
        let (meta, state) = newest.unwrap_or_default();
        let machine = Self {
            state: Arc::new(state),
            applied: meta.last_log_id,
            membership: meta.last_membership,
            view,
            snapshots,
            durable,
            pending_proposals,
        };
        machine.publish();
        machine
    }

    fn publish(&self) {
        self.view.send_replace(Arc::new(View {
            applied: self.applied.map_or(0, |id| id.index),
            state: Arc::clone(&self.state),
        }));
    }
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), StorageError> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Vec<Outcome>>, StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        if let Some(last) = entries.last() {
            let reached = self.durable.reached(last.log_id.index).await;
            reached.map_err(|error| StorageIOError::apply(last.log_id, &error))?;
        }
        let mut outcomes = Vec::with_capacity(entries.len());
        let mut batches = Vec::new();
        let mut state = State::clone(&self.state);
        for entry in entries {
            let index = entry.log_id.index;
            outcomes.push(match entry.payload {
                EntryPayload::Blank => Vec::new(),
                EntryPayload::Normal(batch) => {
                    let commands = batch.commands.iter();
                    let answers = commands.map(|command| state.apply(index, command));
                    let answers = answers.collect();
                    batches.push((index, batch, outcomes.len()));
                    answers
                }
                EntryPayload::Membership(membership) => {
                    self.membership = StoredMembership::new(Some(entry.log_id), membership);
                    Vec::new()
                }
            });
            self.applied = Some(entry.log_id);
        }
        self.state = Arc::new(state);
        self.publish();
        for (index, batch, at) in batches {
            self.pending_proposals
                .applied(index, &batch.commands, &outcomes[at]);
        }
        Ok(outcomes)
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder {
            state: Arc::clone(&self.state),
            meta: SnapshotMeta {
                last_log_id: self.applied,
                last_membership: self.membership.clone(),
                snapshot_id: snapshot_id(self.applied),
            },
            snapshots: Arc::clone(&self.snapshots),
        }
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Bytes>, StorageError> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: Box<Bytes>,
    ) -> Result<(), StorageError> {
        let signature = Some(meta.signature());
        let decoded = state::Snapshot::decode(&snapshot)
            .map_err(|error| StorageIOError::read_snapshot(signature.clone(), &error))?;
        let snapshots = Arc::clone(&self.snapshots);
        let out = meta_out(meta);
        blocking(move || snapshots.save(&out, &snapshot))
            .await
            .and_then(|saved| saved.map_err(io::Error::other))
            .map_err(|error| StorageIOError::write_snapshot(signature, &error))?;
        self.state = Arc::new(State::from_snapshot(decoded));
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        self.publish();
        self.pending_proposals.skipped();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, StorageError> {
        let snapshots = Arc::clone(&self.snapshots);
        let newest = blocking(move || snapshots.newest())
            .await
            .and_then(|newest| newest.map_err(io::Error::other))
            .map_err(|error| StorageIOError::read_snapshot(None, &error))?;
        Ok(newest.map(|file| Snapshot {
            meta: meta_in(file.meta),
            snapshot: Box::new(Bytes::from(file.state)),
        }))
    }
}

/// Writes a snapshot of the state at the time when the builder was created, while the machine continues.
pub(crate) struct Builder {
    state: Arc<State>,
    meta: SnapshotMeta,
    snapshots: Arc<Snapshots>,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    async fn build_snapshot(&mut self) -> Result<Snapshot, StorageError> {
        let (state, snapshots) = (Arc::clone(&self.state), Arc::clone(&self.snapshots));
        let meta = meta_out(&self.meta);
        let bytes = blocking(move || {
            let bytes = state.to_snapshot().encode();
            snapshots.save(&meta, &bytes).map(|()| bytes)
        })
        .await
        .and_then(|saved| saved.map_err(io::Error::other))
        .map_err(|error| StorageIOError::write_snapshot(Some(self.meta.signature()), &error))?;
        Ok(Snapshot {
            meta: self.meta.clone(),
            snapshot: Box::new(bytes),
        })
    }
}

/// Names a snapshot by its last entry: two snapshots with the same name hold the same state.
pub(crate) fn snapshot_id(applied: Option<LogId>) -> String {
    applied.map_or_else(
        || "0-0".into(),
        |id| format!("{}-{}", id.leader_id.term, id.index),
    )
}
