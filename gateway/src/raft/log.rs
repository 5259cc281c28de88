//! The durable log: entries, vote and commit point.
//!
//! Shell. The files are append-only and have a format of Beemesh's own, because nothing else stands between an
//! acknowledged change and a power cut. The log consists of segments of fixed size ([`segment`]), which are zero-filled
//! before use and hold checksummed blocks ([`block`]). One thread writes them, with one flush for all queued requests
//! ([`writer`]). An index is kept in memory ([`table`]).
//!
//! openraft's contract: writes are in order, a vote is durable before `save_vote` returns, and entries are readable
//! when `append` returns and durable when its callback is called. The one exception is an entry that this host proposes
//! as the leader: the callback is called at once, so that the followers write the entry while this host does (Ongaro,
//! "Consensus: Bridging Theory and Practice", 10.2.1). openraft then counts this host among those that have stored the
//! entry before its disk has. Therefore the leader neither applies nor announces a commit point that its own log has
//! not reached ([`Durable`]). A leader that restarts never continues in its old term, because its followers may have
//! entries that it lost.

mod block;
mod segment;
mod table;
#[cfg(test)]
mod tests;
mod writer;

use std::{
    fmt::Debug,
    io,
    ops::{Bound, RangeBounds},
    path::Path,
    sync::{Arc, atomic::Ordering},
    thread::{self, JoinHandle},
};

use beemesh_protocol::{HostId, raft};
use openraft::{
    LogState, OptionalSend, RaftLogReader, StorageIOError,
    storage::{LogFlushed, RaftLogStorage},
};
use tokio::sync::{mpsc, oneshot, watch};

pub(crate) use self::segment::LogError;
use self::{
    table::{Place, Slot},
    writer::{Done, Request, Shared, Writer},
};
use super::{
    AGAIN,
    disk::Disk,
    os::blocking,
    types::{Entry, LogId, StorageError, TypeConfig, Vote, entry_in, entry_out, for_its_leader},
};

/// Size of a segment: zero-filling one takes a few milliseconds, and the log shrinks in steps of this size.
pub(crate) const SEGMENT_BYTES: u64 = 8 << 20;
/// Requests that may wait for the writer. openraft waits for each request that it makes, so only a few are queued.
const QUEUE_MAX: usize = 256;
/// Maximum size of the entries in one append message, as encoded. A slow link must transfer it within the time of a
/// heartbeat. A single larger entry is sent in a message by itself.
const APPEND_BYTES_MAX: usize = 1 << 20;

/// The log. Clones share it.
#[derive(Clone)]
pub(crate) struct Log {
    host: HostId,
    shared: Arc<Shared>,
    queue: mpsc::Sender<Request>,
    durable: Durable,
}

/// The index up to which this host's log survives a power cut. Clones see the same value.
#[derive(Debug, Clone)]
pub(crate) struct Durable(watch::Receiver<u64>);

/// The log ended before the entry became durable; [`Node::failed`](super::Node::failed) returns the reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the raft log ended before entry {0} was durable")]
pub(crate) struct NotDurable(u64);

impl Durable {
    /// Waits until the entries up to this index are durable.
    pub(crate) async fn reached(&mut self, index: u64) -> Result<(), NotDurable> {
        let reached = self.0.wait_for(|upto| *upto >= index).await;
        reached.map(drop).map_err(|_| NotDurable(index))
    }

    /// For tests of the state machine without a log.
    #[cfg(test)]
    pub(crate) fn always() -> Self {
        Self(watch::channel(u64::MAX).1)
    }
}

/// The content of the log when it was opened.
#[derive(Debug, Clone, Default)]
pub(crate) struct Found {
    /// Whether the log was empty.
    pub(crate) pristine: bool,
    /// Entries up to this one have been purged.
    pub(crate) purged: Option<LogId>,
}

impl Log {
    /// Reads the log and starts its writer. `failed` receives the reason when the log ends.
    pub(crate) fn open(
        host: HostId,
        disk: Arc<dyn Disk>,
        dir: &Path,
        segment_bytes: u64,
        failed: watch::Sender<Option<String>>,
    ) -> Result<(Self, Found, JoinHandle<()>), LogError> {
        let recovered = segment::recover(&*disk, dir)?;
        if let Some((path, offset)) = &recovered.torn {
            tracing::warn!(path = %path.display(), offset, "cut a write that was interrupted off the raft log");
        }
        let (mut table, rest) = writer::resume(recovered);
        // A leader may have lost entries that its followers have. If it continued in its old term, it would write other
        // entries in their place.
        if let Some(vote) = table
            .vote
            .as_mut()
            .filter(|v| v.leader_id.node_id.0 == host)
        {
            vote.committed = false;
        }
        let found = Found {
            pristine: table.vote.is_none() && table.last().is_none(),
            purged: table.purged,
        };
        let (durable_in, durable) = watch::channel(table.last().map_or(0, |id| id.index));
        let shared = Arc::new(Shared::new(table, failed));
        let writer = Writer::new(
            disk,
            dir.to_owned(),
            segment_bytes,
            Arc::clone(&shared),
            durable_in,
            rest,
        );
        let (queue, requests) = mpsc::channel(QUEUE_MAX);
        let thread = begin(writer, requests).map_err(|source| LogError::Io {
            path: dir.to_owned(),
            source,
        })?;
        let log = Self {
            host,
            shared,
            queue,
            durable: Durable(durable),
        };
        Ok((log, found, thread))
    }

    /// Returns a receiver of the index up to which the log is durable.
    pub(crate) fn durable(&self) -> Durable {
        self.durable.clone()
    }

    /// Waits until all entries are durable. A follower must do so before it acknowledges them, because its last entries
    /// may be from the time when it led.
    pub(crate) async fn settled(&self) -> Result<(), NotDurable> {
        let mut durable = self.durable.0.clone();
        let last = || self.shared.table().last_index().unwrap_or(0);
        let settled = durable.wait_for(|upto| *upto >= last()).await;
        settled.map(drop).map_err(|_| NotDurable(last()))
    }

    /// Returns the id of the last entry, which may not be durable yet.
    pub(crate) fn last(&self) -> Option<LogId> {
        self.shared.table().last()
    }

    fn leads(&self) -> bool {
        let vote = self.shared.table().vote;
        vote.is_some_and(|vote| vote.committed && vote.leader_id.node_id.0 == self.host)
    }

    /// Writes the queued requests and ends the writer.
    pub(crate) async fn close(&self) -> io::Result<()> {
        self.ask(Request::Close).await
    }

    /// Returns the commit point that this host knows.
    pub(crate) fn committed(&self) -> u64 {
        self.shared.table().committed.map_or(0, |id| id.index)
    }

    /// Returns the number of bytes written since the log was opened.
    pub(crate) fn written(&self) -> u64 {
        self.shared.written.load(Ordering::Relaxed)
    }

    /// Returns the number of bytes that the log takes on the disk.
    pub(crate) fn held(&self) -> u64 {
        self.shared.held.load(Ordering::Relaxed)
    }

    async fn ask(&self, request: impl FnOnce(Done) -> Request) -> io::Result<()> {
        let (tell, told) = oneshot::channel();
        self.send(request(Done::Told(tell))).await?;
        told.await.map_err(|_| self.ended())?
    }

    async fn send(&self, request: Request) -> io::Result<()> {
        self.queue.send(request).await.map_err(|_| self.ended())
    }

    fn ended(&self) -> io::Error {
        let reason = self.shared.failed.borrow().clone();
        io::Error::other(reason.unwrap_or_else(|| "the raft log is closed".into()))
    }

    fn read_range(&self, start: u64, end: u64, bytes_max: usize) -> Vec<Slot> {
        let table = self.shared.table();
        let mut bytes = 0;
        table
            .slots(start, end)
            .take_while(|slot| {
                let fits = bytes == 0 || bytes + slot.size <= bytes_max;
                bytes += slot.size;
                fits
            })
            .cloned()
            .collect()
    }

    async fn read(
        &self,
        start: u64,
        end: u64,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, StorageError> {
        let slots = self.read_range(start, end, bytes_max);
        if slots.iter().all(|slot| slot.entry.is_some()) {
            return Ok(slots.into_iter().filter_map(|slot| slot.entry).collect());
        }
        let read = move || slots.into_iter().map(load).collect::<io::Result<_>>();
        blocking(read)
            .await
            .flatten()
            .map_err(|error| StorageIOError::read_logs(&error).into())
    }
}

/// Starts the writer's thread. In simulated time the writer is a task, and the thread ends at once.
fn begin(writer: Writer, requests: mpsc::Receiver<Request>) -> io::Result<JoinHandle<()>> {
    #[cfg(test)]
    if writer.is_simulated() {
        tokio::spawn(writer.run(requests));
        return thread::Builder::new().spawn(|| ());
    }
    let run = move || futures::executor::block_on(writer.run(requests));
    thread::Builder::new().name("raft-log".into()).spawn(run)
}

/// Returns the entry of a slot, from memory or from the disk.
fn load(slot: Slot) -> io::Result<Entry> {
    if let Some(entry) = slot.entry {
        return Ok(entry);
    }
    let index = slot.log_id.index;
    let Some(Place { segment, offset }) = slot.place else {
        let reason = format!("entry {index} is neither in memory nor written");
        return Err(io::Error::other(reason));
    };
    let place = format!(
        "entry {index} in {} at offset {offset}",
        segment.path.display()
    );
    let mut bytes = vec![0; slot.size];
    segment
        .file
        .read_at(&mut bytes, offset)
        .map_err(|error| io::Error::new(error.kind(), format!("{place}: {error}")))?;
    if crc32fast::hash(&bytes) != slot.crc {
        return Err(io::Error::other(format!("{place} is not what was written")));
    }
    // The checksum matches, so the bytes are intact and of another version.
    let entry = raft::Entry::decode(&bytes).map_err(|error| {
        let words = format!("{place} cannot be read by this version of Beemesh: {error}: {AGAIN}");
        io::Error::other(words)
    })?;
    let entry = entry_in(entry);
    if entry.log_id != slot.log_id {
        return Err(io::Error::other(format!("{place} is another entry")));
    }
    Ok(entry)
}

impl RaftLogReader<TypeConfig> for Log {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, StorageError> {
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(before) => before + 1,
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(last) => last + 1,
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        self.read(start, end, usize::MAX).await
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, StorageError> {
        self.read(start, end, APPEND_BYTES_MAX).await
    }
}

impl RaftLogStorage<TypeConfig> for Log {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, StorageError> {
        let table = self.shared.table();
        Ok(LogState {
            last_purged_log_id: table.purged,
            last_log_id: table.last(),
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        self.ask(|done| Request::Vote(*vote, done))
            .await
            .map_err(|error| StorageIOError::write_vote(&error))?;
        self.shared.table().vote = Some(*vote);
        Ok(())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        Ok(self.shared.table().vote)
    }

    /// Written with the next block: it only saves work at the next start.
    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), StorageError> {
        self.shared.table().committed = committed;
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, StorageError> {
        Ok(self.shared.table().committed)
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: LogFlushed<TypeConfig>,
    ) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut encoded = Vec::new();
        for entry in entries {
            let entry = for_its_leader(entry);
            let bytes = entry_out(&entry).encode();
            let slot = Slot {
                log_id: entry.log_id,
                size: bytes.len(),
                crc: crc32fast::hash(&bytes),
                place: None,
                entry: Some(entry),
            };
            encoded.push((slot.log_id, bytes));
            let log_id = slot.log_id;
            self.shared
                .table()
                .append(slot)
                .map_err(|gap| StorageIOError::write_log_entry(log_id, &gap))?;
        }
        let (now, later) = if self.leads() {
            (Some(callback), None)
        } else {
            (None, Some(Done::Flushed(callback)))
        };
        self.send(Request::Append(encoded, later))
            .await
            .map_err(|error| StorageIOError::write_logs(&error))?;
        if let Some(callback) = now {
            callback.log_io_completed(Ok(()));
        }
        Ok(())
    }

    async fn truncate(&mut self, log_id: LogId) -> Result<(), StorageError> {
        self.shared.table().truncate(log_id.index);
        self.ask(|done| Request::Truncate(log_id, done))
            .await
            .map_err(|error| StorageIOError::write_logs(&error).into())
    }

    /// Not awaited: the snapshot covers entries that reappear after a power cut.
    async fn purge(&mut self, log_id: LogId) -> Result<(), StorageError> {
        self.shared.table().purge(log_id);
        self.send(Request::Purge(log_id))
            .await
            .map_err(|error| StorageIOError::write_logs(&error).into())
    }
}
