//! Entries of the log and of snapshots, which this host wrote or the leader sent.

#![no_main]

use beemesh_fuzz::read_and_write;
use beemesh_protocol::{
    raft::{Entry, LogId, SnapshotFile, SnapshotMeta, StoredMembership, Vote},
    state::{Command, Snapshot},
};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    read_and_write!(bytes; Entry, Vote, LogId, StoredMembership, SnapshotMeta, SnapshotFile, Command, Snapshot);
});
