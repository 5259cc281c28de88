//! Messages between a gateway and its agent, in both directions.

#![no_main]

use beemesh_fuzz::read_and_write;
use beemesh_protocol::ipc::{FromAgent, Opened, Opening, ToAgent};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    read_and_write!(bytes; Opening, Opened, ToAgent, FromAgent);
});
