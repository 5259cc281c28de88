//! How many streams of one member are answered at a time: each may hold its longest messages in memory.
//!
//! Pure but for the lock.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use beemesh_protocol::{HostId, ipc::Class};

/// A gateway has one stream of each class, and for a moment another when a connection was lost and this host has not heard.
const STREAMS_MAX: usize = 3;
/// A snapshot is as large as the state. The next one is sent when this one has failed.
const SNAPSHOTS_MAX: usize = 1;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Slots {
    taken: Mutex<BTreeMap<(HostId, Class), usize>>,
}

/// One of them; dropping it gives it back.
#[derive(Debug)]
pub(super) struct Slot<'a> {
    slots: &'a Slots,
    of: (HostId, Class),
}

impl Slots {
    /// A slot for one more stream, if there is one.
    pub(super) fn take(&self, host: HostId, class: Class) -> Option<Slot<'_>> {
        let most = match class {
            Class::Raft | Class::Peer => STREAMS_MAX,
            Class::Snapshot => SNAPSHOTS_MAX,
            // Their callers are counted elsewhere.
            Class::Api => usize::MAX,
        };
        let of = (host, class);
        let mut taken = self.taken();
        let count = taken.entry(of).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Slot { slots: self, of })
    }

    fn taken(&self) -> MutexGuard<'_, BTreeMap<(HostId, Class), usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        let mut taken = self.slots.taken();
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
        let slots = Slots::default();
        let (one, other) = (HostId([1; 32]), HostId([2; 32]));
        for (class, most) in [(Class::Raft, 3), (Class::Peer, 3), (Class::Snapshot, 1)] {
            let mut held: Vec<_> = (0..most).map(|_| slots.take(one, class).unwrap()).collect();
            assert!(slots.take(one, class).is_none(), "{class:?}");
            assert!(slots.take(other, class).is_some(), "{class:?}");
            held.pop();
            assert!(slots.take(one, class).is_some(), "{class:?}");
        }
        assert!(slots.taken().is_empty(), "nobody is remembered");
    }
}
