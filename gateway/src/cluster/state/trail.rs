//! The latest changes that somebody asked for.
//!
//! Pure. Cloning is cheap, and forgetting costs one path through a tree, whoever is forgotten: this is in the way of each change.

use std::sync::Arc;

use beemesh_protocol::state::AuditRecord;
use rpds::{QueueSync, RedBlackTreeMapSync};

/// Records in the order of their changes, and which of them are whose.
#[derive(Debug, Clone, Default)]
pub(super) struct Trail {
    records: RedBlackTreeMapSync<u64, Arc<AuditRecord>>,
    /// The number of the next record. Numbers are this host's own: others may have begun to count at another record.
    next: u64,
    /// By who asked, the numbers of the records, the oldest first.
    by: RedBlackTreeMapSync<String, QueueSync<u64>>,
}

impl Trail {
    pub(super) fn len(&self) -> usize {
        self.records.size()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<AuditRecord>> {
        self.records.values()
    }

    pub(super) fn push(&mut self, record: Arc<AuditRecord>) {
        let number = self.next;
        self.next += 1;
        let who = &record.origin.who;
        if self.by.get(who).is_none() {
            self.by.insert_mut(who.clone(), QueueSync::default());
        }
        if let Some(own) = self.by.get_mut(who) {
            own.enqueue_mut(number);
        }
        self.records.insert_mut(number, record);
    }

    /// Forgets the oldest record.
    pub(super) fn forget_oldest(&mut self) {
        if let Some((_, record)) = self.records.first() {
            let who = record.origin.who.clone();
            self.forget_of(&who);
        }
    }

    /// Forgets the oldest record of whoever has most; of two who have as many, the older one.
    pub(super) fn forget_fairly(&mut self) {
        let oldest = |own: &QueueSync<u64>| own.peek().copied().unwrap_or(u64::MAX);
        let most = self.by.iter().max_by_key(|(_, own)| {
            let age = std::cmp::Reverse(oldest(own));
            (own.len(), age)
        });
        if let Some((who, _)) = most {
            let who = who.clone();
            self.forget_of(&who);
        }
    }

    fn forget_of(&mut self, who: &str) {
        let Some(own) = self.by.get_mut(who) else {
            return;
        };
        let oldest = own.peek().copied();
        own.dequeue_mut();
        if own.is_empty() {
            self.by.remove_mut(who);
        }
        if let Some(number) = oldest {
            self.records.remove_mut(&number);
        }
    }
}

impl FromIterator<Arc<AuditRecord>> for Trail {
    fn from_iter<T: IntoIterator<Item = Arc<AuditRecord>>>(records: T) -> Self {
        let mut trail = Self::default();
        for record in records {
            trail.push(record);
        }
        trail
    }
}

/// The numbers are nobody else's.
impl PartialEq for Trail {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().eq(other.iter())
    }
}

impl Eq for Trail {}
