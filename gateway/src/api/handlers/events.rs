//! Server-sent events: the changes of the cluster, as this host sees them.
//!
//! Shell over [`crate::api::feed`].

use std::io;

use axum::{
    body::Body,
    extract::State,
    http::header::{CACHE_CONTROL, CONTENT_TYPE},
    response::{IntoResponse, Response},
};

use crate::api::{
    Shared,
    request::{Asked, NoQuery},
};

pub(in crate::api) async fn events(State(shared): State<Shared>, _: Asked<NoQuery>) -> Response {
    let headers = [
        (CONTENT_TYPE, "text/event-stream"),
        (CACHE_CONTROL, "no-store"),
    ];
    let follower = shared.feed.join();
    let stream = futures::stream::try_unfold(follower, |mut follower| async move {
        let piece = follower.next().await?;
        Ok::<_, io::Error>(Some((piece, follower)))
    });
    (headers, Body::from_stream(stream)).into_response()
}
