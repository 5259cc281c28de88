//! Requests between gateways that are not Raft's.

#![no_main]

use beemesh_fuzz::read_and_write;
use beemesh_protocol::peer::{Reply, Request};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    read_and_write!(bytes; Request, Reply);
});
