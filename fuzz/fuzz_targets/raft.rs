//! Raft messages: requests, replies, and the messages around a snapshot.

#![no_main]

use beemesh_fuzz::read_and_write;
use beemesh_protocol::raft::{Reply, Request, SnapshotHead, SnapshotReply};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    read_and_write!(bytes; Request, Reply, SnapshotHead, SnapshotReply);
});
