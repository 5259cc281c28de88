//! Limits the streams that are served for one member at a time, because each may hold its longest messages in memory.
//!
//! Pure but for the lock.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use beemesh_protocol::{HostId, ipc::Class};

/// A gateway has one stream of each class. It briefly has another one when a connection was lost and this host has not
/// noticed.
const STREAMS_MAX: usize = 3;
/// A snapshot is as large as the state. The sender starts the next one only after this one has failed.
const SNAPSHOTS_MAX: usize = 1;

/// The streams that are being served, by member and class.
#[derive(Debug, Default)]
pub(super) struct StreamLimits {
    taken: Mutex<BTreeMap<(HostId, Class), usize>>,
}

/// Permission to serve one stream. Dropping it returns the permission.
#[derive(Debug)]
pub(super) struct Permit<'a> {
    limits: &'a StreamLimits,
    of: (HostId, Class),
}

impl StreamLimits {
    /// Takes a permit for one more stream, if the limit allows it.
    pub(super) fn take(&self, host: HostId, class: Class) -> Option<Permit<'_>> {
        let most = match class {
            Class::Raft | Class::Peer => STREAMS_MAX,
            Class::Snapshot => SNAPSHOTS_MAX,
            // The API limits its callers itself.
            Class::Api => usize::MAX,
        };
        let of = (host, class);
        let mut taken = self.taken();
        let count = taken.entry(of).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Permit { limits: self, of })
    }

    fn taken(&self) -> MutexGuard<'_, BTreeMap<(HostId, Class), usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        let mut taken = self.limits.taken();
        if let Some(count) = taken.get_mut(&self.of) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.of);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_has_some_streams_at_a_time_and_others_as_many() {
        let limits = StreamLimits::default();
        let (one, other) = (HostId([1; 32]), HostId([2; 32]));
        for (class, most) in [(Class::Raft, 3), (Class::Peer, 3), (Class::Snapshot, 1)] {
            let mut held: Vec<_> = (0..most)
                .map(|_| limits.take(one, class).unwrap())
                .collect();
            assert!(limits.take(one, class).is_none(), "{class:?}");
            assert!(limits.take(other, class).is_some(), "{class:?}");
            held.pop();
            assert!(limits.take(one, class).is_some(), "{class:?}");
        }
        assert!(limits.taken().is_empty(), "nobody is remembered");
    }
}
