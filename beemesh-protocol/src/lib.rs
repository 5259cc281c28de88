//! All messages that cross a Beemesh process or host boundary, as owned types, and the frame around them.
//!
//! Pure: no I/O, no clock, no randomness. FlatBuffers accessors never leave this crate. Callers see the owned types
//! below, and only `decode` creates them from bytes. It verifies the buffer, checks every required field and every
//! bound, and fails with a [`DecodeError`] that names the field.

pub mod api;
pub mod backoff;
pub mod backup;
pub mod frame;
pub mod hex;
pub mod id;
pub mod ipc;
pub mod mesh;
pub mod naming;
pub mod peer;
pub mod percent;
pub mod pod;
pub mod prepare;
pub mod raft;
pub mod rollout;
pub mod state;
pub mod token;
pub mod version;
pub mod workload;

mod codec;
#[allow(
    warnings,
    clippy::all,
    clippy::restriction,
    unsafe_code,
    reason = "flatc writes it; it is checked by the verifier and by golden bytes"
)]
mod generated;

pub use codec::DecodeError;
pub use id::{ClusterId, HostId, Uid};
