//! The agent's socket, through which the gateway of this host reaches the other hosts and this host's systemd.
//!
//! Shell: [`ipc`] exchanges messages with the gateway, [`router`] routes between the gateway and the mesh, and
//! [`relay`] carries the bytes of a stream.

pub(crate) mod ipc;
pub(crate) mod relay;
pub(crate) mod router;
