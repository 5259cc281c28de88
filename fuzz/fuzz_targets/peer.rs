//! What gateways ask each other beside Raft.

#![no_main]

use beemesh_fuzz::read_and_write;
use beemesh_protocol::peer::{Reply, Request};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    read_and_write!(bytes; Request, Reply);
});
