//! The thread that writes the log.
//!
//! The writer puts all queued requests into one block, with one write and one flush, and only then answers them. After
//! the first error it writes and acknowledges nothing more: it is unknown what the kernel kept of a failed flush, and a
//! second flush that succeeds proves nothing about the first.

use std::{
    collections::VecDeque,
    io,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use openraft::storage::LogFlushed;
use tokio::sync::{mpsc, oneshot, watch};

use super::{
    block::{BLOCK_HEAD, Builder, HEADER, Record},
    segment::{self, Live, Recovered},
    table::{Place, Table},
};
use crate::raft::{
    disk::Disk,
    os,
    types::{LogId, TypeConfig, Vote},
};

/// A block is closed at this size, so that one flush takes only a few milliseconds. A single larger entry forms a block
/// by itself.
const BLOCK_BYTES_MAX: usize = 4 << 20;
/// Room for the vote, commit point and purge point at the start of a segment, rounded up.
const FACTS_BYTES: u64 = 256;

/// A request to the writer, answered when it is durable.
pub(crate) enum Request {
    /// `None` for an entry that this host proposes as the leader: only [`Durable`](super::Durable) reports that it is
    /// durable.
    Append(Vec<(LogId, Bytes)>, Option<Done>),
    Vote(Vote, Done),
    Truncate(LogId, Done),
    Purge(LogId),
    /// Ends the thread.
    Close(Done),
}

/// The waiter of a request.
pub(crate) enum Done {
    Flushed(LogFlushed<TypeConfig>),
    Told(oneshot::Sender<io::Result<()>>),
}

impl Done {
    fn tell(self, result: &Result<(), String>) {
        let result = result.clone().map_err(io::Error::other);
        match self {
            Self::Flushed(callback) => callback.log_io_completed(result),
            // The waiter may be gone; the record is in the log all the same.
            Self::Told(waiting) => drop(waiting.send(result)),
        }
    }
}

impl Request {
    fn size(&self) -> usize {
        match self {
            Self::Append(entries, _) => entries.iter().map(|(_, bytes)| bytes.len() + 64).sum(),
            Self::Vote(..) | Self::Truncate(..) | Self::Purge(_) | Self::Close(_) => 64,
        }
    }

    fn done(self) -> Option<Done> {
        match self {
            Self::Append(_, done) => done,
            Self::Vote(_, done) | Self::Truncate(_, done) | Self::Close(done) => Some(done),
            Self::Purge(_) => None,
        }
    }
}

/// The state that the readers and the writer share.
pub(crate) struct Shared {
    table: Mutex<Table>,
    /// Why the log ended; `None` while it runs.
    pub(crate) failed: watch::Sender<Option<String>>,
    /// Number of bytes written since the log was opened.
    pub(crate) written: AtomicU64,
    /// Number of bytes that the segments take.
    pub(crate) held: AtomicU64,
}

impl Shared {
    pub(crate) fn new(table: Table, failed: watch::Sender<Option<String>>) -> Self {
        Self {
            table: Mutex::new(table),
            failed,
            written: AtomicU64::new(0),
            held: AtomicU64::new(0),
        }
    }

    /// Locks the table. A panic in another thread leaves it consistent, because every change of it is one call.
    pub(crate) fn table(&self) -> std::sync::MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) struct Writer {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    segment_bytes: u64,
    shared: Arc<Shared>,
    /// The last durable index; `None` after the first error, because nothing becomes durable after it.
    durable: Option<watch::Sender<u64>>,
    segments: VecDeque<Live>,
    end: u64,
    sequence: u64,
    /// As of the last durable block. They are repeated at the start of each segment, so that older segments can be
    /// removed.
    vote: Option<Vote>,
    committed: Option<LogId>,
    purged: Option<LogId>,
}

impl Writer {
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        dir: PathBuf,
        segment_bytes: u64,
        shared: Arc<Shared>,
        durable: watch::Sender<u64>,
        recovered: (VecDeque<Live>, u64, u64),
    ) -> Self {
        let (segments, end, sequence) = recovered;
        let table = shared.table();
        let (vote, committed, purged) = (table.vote, table.committed, table.purged);
        drop(table);
        Self {
            disk,
            dir,
            segment_bytes,
            shared,
            durable: Some(durable),
            segments,
            end,
            sequence,
            vote,
            committed,
            purged,
        }
    }

    #[cfg(test)]
    pub(crate) fn is_simulated(&self) -> bool {
        self.disk.simulated().is_some()
    }

    /// Serves the queue until it is closed. It needs a thread of its own, because it waits for the disk.
    pub(crate) async fn run(mut self, mut queue: mpsc::Receiver<Request>) {
        let mut ended = false;
        while !ended && let Some(first) = queue.recv().await {
            let mut size = first.size();
            let mut batch = vec![first];
            while size < BLOCK_BYTES_MAX
                && let Ok(next) = queue.try_recv()
            {
                size += next.size();
                batch.push(next);
            }
            ended = batch
                .iter()
                .any(|request| matches!(request, Request::Close(_)));
            #[cfg(test)]
            if let Some(time) = self.disk.simulated() {
                tokio::time::sleep(time).await;
            }
            let result = self.settle(&batch);
            for done in batch.into_iter().filter_map(Request::done) {
                done.tell(&result);
            }
        }
    }

    fn settle(&mut self, batch: &[Request]) -> Result<(), String> {
        // Consensus may have ended for another reason. The log is still intact and must still be closed.
        if self.durable.is_none() {
            let reason = self.shared.failed.borrow().clone();
            return Err(reason.unwrap_or_else(|| "the raft log has failed".into()));
        }
        self.write(batch).map_err(|error| {
            let reason = format!("write raft log {}: {error}", self.dir.display());
            self.shared.failed.send_replace(Some(reason.clone()));
            self.durable = None;
            reason
        })
    }

    fn write(&mut self, batch: &[Request]) -> io::Result<()> {
        let committed = self.shared.table().committed;
        let fresh = (committed != self.committed).then_some(committed).flatten();
        let size = BLOCK_HEAD as u64 + batch.iter().map(|r| r.size() as u64).sum::<u64>();
        self.roll(size + FACTS_BYTES)?;
        let Some(live) = self.segments.back_mut() else {
            return Err(io::Error::other("no segment after a roll"));
        };
        let segment = Arc::clone(&live.segment);

        let mut block = Builder::new();
        if self.end == HEADER as u64 {
            let facts = [
                self.vote.map(Record::Vote),
                self.purged.map(Record::Purged),
                self.committed.map(Record::Committed),
            ];
            for fact in facts.into_iter().flatten() {
                block.push(&fact);
            }
        }
        let mut places = Vec::new();
        for request in batch {
            match request {
                Request::Append(entries, _) => {
                    for (log_id, bytes) in entries {
                        let at = block.push(&Record::Entry(*log_id, bytes)) as u64;
                        places.push((*log_id, self.end + at));
                    }
                }
                Request::Vote(vote, _) => drop(block.push(&Record::Vote(*vote))),
                Request::Truncate(id, _) => drop(block.push(&Record::Truncated(*id))),
                Request::Purge(id) => drop(block.push(&Record::Purged(*id))),
                Request::Close(_) => {}
            }
        }
        if let Some(committed) = fresh {
            block.push(&Record::Committed(committed));
        }
        if block.is_empty() {
            return Ok(());
        }
        segment
            .file
            .write_at(block.seal(segment.tag, self.sequence), self.end)?;
        segment.file.sync()?;

        self.end += block.size() as u64;
        self.sequence += 1;
        self.committed = fresh.or(self.committed);
        live.last_index = live
            .last_index
            .max(places.iter().map(|(id, _)| id.index).max());
        self.shared
            .written
            .fetch_add(block.size() as u64, Ordering::Relaxed);
        let mut table = self.shared.table();
        for (log_id, offset) in places {
            let segment = Arc::clone(&segment);
            table.place(&log_id, Place { segment, offset });
        }
        drop(table);
        self.tell_durable(batch);
        for request in batch {
            match request {
                Request::Vote(vote, _) => self.vote = Some(*vote),
                Request::Purge(id) => {
                    self.purged = self.purged.max(Some(*id));
                    self.shed(id.index)?;
                }
                Request::Append(..) | Request::Truncate(..) | Request::Close(_) => {}
            }
        }
        let held = self.segments.iter().map(|live| live.segment.capacity).sum();
        self.shared.held.store(held, Ordering::Relaxed);
        Ok(())
    }

    /// Publishes the last durable index after this batch.
    fn tell_durable(&self, batch: &[Request]) {
        let Some(durable) = &self.durable else { return };
        let before = *durable.borrow();
        let now = batch.iter().fold(before, |upto, request| match request {
            Request::Append(entries, _) => entries.last().map_or(upto, |(id, _)| id.index),
            Request::Truncate(id, _) => upto.min(id.index.saturating_sub(1)),
            Request::Vote(..) | Request::Purge(_) | Request::Close(_) => upto,
        });
        if now != before {
            durable.send_replace(now);
        }
    }

    /// Makes sure that the last segment has room for this many bytes.
    fn roll(&mut self, size: u64) -> io::Result<()> {
        let last = self.segments.back();
        if last.is_some_and(|live| self.end + size <= live.segment.capacity) {
            return Ok(());
        }
        let number = last.map_or(1, |live| live.segment.number + 1);
        let tag = os::random()?;
        let segment = segment::create(
            &*self.disk,
            &self.dir,
            number,
            tag,
            self.segment_bytes.max(HEADER as u64 + size),
        )?;
        self.segments.push_back(Live {
            segment: Arc::new(segment),
            last_index: None,
        });
        self.end = HEADER as u64;
        Ok(())
    }

    /// Removes the oldest segments while all their entries are purged. It removes them one by one and durably, because
    /// recovery takes a gap between segments for damage.
    fn shed(&mut self, purged: u64) -> io::Result<()> {
        while self.segments.len() > 1
            && self
                .segments
                .front()
                .is_some_and(|live| live.last_index.is_none_or(|last| last <= purged))
            && let Some(live) = self.segments.pop_front()
        {
            self.disk.remove(&live.segment.path)?;
            self.disk.sync_dir(&self.dir)?;
        }
        Ok(())
    }
}

/// Splits a recovered log into the parts from which the writer continues.
pub(crate) fn resume(recovered: Recovered) -> (Table, (VecDeque<Live>, u64, u64)) {
    (
        recovered.table,
        (recovered.segments, recovered.end, recovered.sequence),
    )
}
