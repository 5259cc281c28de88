//! A join request of an unknown host, and the answer to it.

#![no_main]

use beemesh_fuzz::read_and_write;
use beemesh_protocol::mesh::{JoinAnswer, JoinRequest};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    read_and_write!(bytes; JoinRequest, JoinAnswer);
});
