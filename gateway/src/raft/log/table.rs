//! The log's index: the vote, the commit point, and the place of each entry.
//!
//! Pure: recovery and the running log make the same calls in the same order and get the same table. Recent entries are
//! kept in memory for replication, up to a bound; older ones are read from the disk.

use std::{collections::VecDeque, sync::Arc};

use super::segment::Segment;
use crate::raft::types::{Entry, LogId, Vote};

/// Maximum size of the entries in memory, as encoded: a few seconds of a busy leader, for followers that lag a little.
pub(crate) const CACHE_BYTES_MAX: usize = 16 << 20;

/// Where an entry's bytes lie.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) segment: Arc<Segment>,
    pub(crate) offset: u64,
}

/// One entry of the log.
#[derive(Clone)]
pub(crate) struct Slot {
    pub(crate) log_id: LogId,
    /// Size and checksum of its encoded bytes.
    pub(crate) size: usize,
    pub(crate) crc: u32,
    /// Where it is on the disk; `None` until it is written.
    pub(crate) place: Option<Place>,
    /// The entry, while it is kept in memory; always present until it is written.
    pub(crate) entry: Option<Entry>,
}

/// An entry that does not continue the log.
#[derive(Debug, thiserror::Error)]
#[error("entry {found} does not continue the log, which ends at {end:?}")]
pub(crate) struct Gap {
    found: u64,
    end: Option<u64>,
}

/// The log without its bytes.
#[derive(Default)]
pub(crate) struct Table {
    pub(crate) vote: Option<Vote>,
    pub(crate) committed: Option<LogId>,
    pub(crate) purged: Option<LogId>,
    slots: VecDeque<Slot>,
    /// Number of slots at the front that are not in memory.
    evicted: usize,
    /// Size of the entries in memory, in bytes.
    cached: usize,
}

impl Table {
    /// Returns the id of the last entry, purged or not.
    pub(crate) fn last(&self) -> Option<LogId> {
        self.slots.back().map(|slot| slot.log_id).or(self.purged)
    }

    /// Returns the id of the first entry that is not purged.
    pub(crate) fn first(&self) -> Option<LogId> {
        self.slots.front().map(|slot| slot.log_id)
    }

    /// Adds an entry behind the last one.
    pub(crate) fn append(&mut self, slot: Slot) -> Result<(), Gap> {
        let end = self.last_index();
        if end.is_some_and(|end| slot.log_id.index != end + 1) {
            let found = slot.log_id.index;
            return Err(Gap { found, end });
        }
        if slot.entry.is_some() {
            self.cached += slot.size;
        } else {
            self.evicted = self.slots.len() + 1;
        }
        self.slots.push_back(slot);
        Ok(())
    }

    /// Removes the entries from this index on.
    pub(crate) fn truncate(&mut self, index: u64) {
        while self.last_index().is_some_and(|last| last >= index)
            && let Some(slot) = self.slots.pop_back()
        {
            self.forget(&slot);
        }
        self.evicted = self.evicted.min(self.slots.len());
    }

    /// Removes the entries up to this one.
    pub(crate) fn purge(&mut self, upto: LogId) {
        if self.purged.is_some_and(|purged| purged.index > upto.index) {
            return;
        }
        self.purged = Some(upto);
        while self.first().is_some_and(|first| first.index <= upto.index)
            && let Some(slot) = self.slots.pop_front()
        {
            self.forget(&slot);
            self.evicted = self.evicted.saturating_sub(1);
        }
    }

    /// Returns the index of the last entry that is not purged.
    pub(crate) fn last_index(&self) -> Option<u64> {
        self.slots.back().map(|slot| slot.log_id.index)
    }

    fn forget(&mut self, slot: &Slot) {
        if slot.entry.is_some() {
            self.cached -= slot.size;
        }
    }

    /// Records where an entry was written, and evicts entries from memory if they exceed the bound.
    pub(crate) fn place(&mut self, log_id: &LogId, place: Place) {
        if let Some(at) = self.position(log_id.index)
            && self.slots[at].log_id == *log_id
        {
            self.slots[at].place = Some(place);
        }
        while self.cached > CACHE_BYTES_MAX
            && let Some(slot) = self.slots.get_mut(self.evicted)
            && slot.place.is_some()
        {
            if slot.entry.take().is_some() {
                self.cached -= slot.size;
            }
            self.evicted += 1;
        }
    }

    fn position(&self, index: u64) -> Option<usize> {
        let first = self.slots.front()?.log_id.index;
        let at = usize::try_from(index.checked_sub(first)?).ok()?;
        (at < self.slots.len()).then_some(at)
    }

    /// Returns the slots of the indexes from `start` up to, not including, `end`.
    pub(crate) fn slots(&self, start: u64, end: u64) -> impl Iterator<Item = &Slot> {
        let first = self.first().map_or(0, |id| id.index);
        let skip = usize::try_from(start.saturating_sub(first)).unwrap_or(usize::MAX);
        self.slots
            .iter()
            .skip(skip)
            .take_while(move |slot| slot.log_id.index < end)
    }
}
