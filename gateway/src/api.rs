//! The API: HTTP/1.1 with JSON on a unix socket, the remote API, and the routes for other members.
//!
//! Wiring. [`serve`] serves local callers, [`serve_remote`] remote users, and [`serve_stream`] a member's request over
//! the mesh. The pure [`crate::cluster::view`] decides the content of a response. [`handlers`] gather its data and
//! carry out requests. A request ends within its time limit, and the sizes of its body and of its unsent response are
//! limited. Every failure is JSON with a message.

mod admission;
mod audit_journal;
mod compare;
mod error;
mod feed;
mod handlers;
mod peers;
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
