//! The user's way in: HTTP/1.1 with JSON on a unix socket, and the part of it that other hosts may use.
//!
//! Wiring. [`serve`] answers local callers, [`serve_remote`] users elsewhere, [`serve_stream`] a peer's request over the mesh. What an answer says is
//! decided by the pure [`crate::cluster::view`]; [`handlers`] fetch what it is made of and carry out
//! what was asked. A request ends within the time it names, its body and its bytes in flight are bounded, and every
//! failure is JSON with words for a person.

mod admission;
mod audit_journal;
mod error;
mod feed;
mod handlers;
mod remote;
mod request;
mod roles;
mod routes;
mod server;
mod shared;
mod submit;

use error::ApiError;
pub(crate) use remote::{listen as listen_remote, serve as serve_remote};
pub(crate) use server::{serve, serve_stream};
pub(crate) use shared::Shared;

#[cfg(test)]
mod tests;
