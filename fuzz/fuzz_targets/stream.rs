//! The first message on a stream of the mesh, and the answer to it.

#![no_main]

use beemesh_fuzz::read_and_write;
use beemesh_protocol::{ipc::Opened, mesh::StreamOpening};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    read_and_write!(bytes; StreamOpening, Opened);
});
