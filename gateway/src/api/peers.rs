//! Sends a request to the routes of another member, over the mesh.
//!
//! Shell.

use axum::{
    body::Body,
    http::{HeaderValue, Request, Response, header},
};
use beemesh_protocol::{HostId, ipc::Class};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;

use crate::context::Gateway;

/// Sends a request to a member and returns its response, whose body is not read yet. The caller limits the time. The
/// error is a message.
pub(super) async fn send(
    gateway: &Gateway,
    host: HostId,
    mut request: Request<Body>,
) -> Result<Response<Incoming>, String> {
    let words = |error: &dyn std::fmt::Display| error.to_string();
    let stream = gateway.link.open(host, Class::Api).await;
    let stream = stream.map_err(|error| words(&error))?;
    let handshake = http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| words(&error))?;
    // The connection ends with the body of the response: the sender is dropped when this function returns.
    tokio::spawn(connection);
    let name = HeaderValue::try_from(host.to_string()).map_err(|error| words(&error))?;
    request.headers_mut().insert(header::HOST, name);
    let answer = sender.send_request(request).await;
    answer.map_err(|error| words(&error))
}
