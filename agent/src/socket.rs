//! The agent's socket, by which the gateway of this host reaches the other hosts and this host's systemd.
//!
//! Shell: [`ipc`] speaks with the gateway, [`router`] passes on what the gateway and the mesh say to each other, and [`relay`]
//! carries the bytes of a stream.

pub(crate) mod ipc;
pub(crate) mod relay;
pub(crate) mod router;
