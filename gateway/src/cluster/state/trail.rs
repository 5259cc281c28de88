//! The records of the audit log.
//!
//! Pure. Cloning is cheap, and to remove any record costs one path through a tree, because every change pays for both.

use std::sync::Arc;

use beemesh_protocol::state::AuditRecord;
use rpds::{QueueSync, RedBlackTreeMapSync};

/// Records in the order of their changes, and the records of each user.
#[derive(Debug, Clone, Default)]
pub(super) struct Trail {
    records: RedBlackTreeMapSync<u64, Arc<AuditRecord>>,
    /// The number of the next record. Numbers are local to this host: other hosts may have started to count at another
    /// record.
    next: u64,
    /// The numbers of each user's records, the oldest first.
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

    /// Removes the oldest record.
    pub(super) fn forget_oldest(&mut self) {
        if let Some((_, record)) = self.records.first() {
            let who = record.origin.who.clone();
            self.forget_of(&who);
        }
    }

    /// Removes the oldest record of the user with the most records; among users with equally many, the oldest of all.
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

/// Compares the records only, because numbers are local to a host.
impl PartialEq for Trail {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().eq(other.iter())
    }
}

impl Eq for Trail {}
