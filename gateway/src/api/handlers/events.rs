//! Server-sent events: what changes in the cluster, as this host sees it.
//!
//! Shell over [`Picture`]. A stream begins with everything there is, then sends what became different. One task renders each change
//! for all streams, for as long as there is one. A stream holds no queue: what it says is what lies between the last picture that it
//! told of and the newest, so that a slow caller misses steps in between but never the last one.

mod picture;

use std::{
    io,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use axum::{
    body::{Body, Bytes},
    extract::State,
    http::header::{CACHE_CONTROL, CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use tokio::{sync::watch, task::AbortHandle};

use self::picture::Picture;
use crate::api::{
    Shared,
    request::{Asked, NoQuery},
};

/// Without news the caller hears this often that the stream is alive.
const QUIET_MAX: Duration = Duration::from_secs(15);
/// Changes within this time travel together: a host that starts ten workloads reports some hundred times a second.
const GATHER: Duration = Duration::from_millis(10);

pub(in crate::api) async fn events(State(shared): State<Shared>, _: Asked<NoQuery>) -> Response {
    let headers = [
        (CONTENT_TYPE, "text/event-stream"),
        (CACHE_CONTROL, "no-store"),
    ];
    let drawing = shared.feed.join(&shared);
    let follower = Follower {
        pictures: drawing.pictures.clone(),
        _drawing: drawing,
        told: Arc::default(),
    };
    let stream = futures::stream::try_unfold(follower, |mut follower| async move {
        let piece = follower.next().await?;
        Ok::<_, io::Error>(Some((piece, follower)))
    });
    (headers, Body::from_stream(stream)).into_response()
}

/// What all streams of this host share.
#[derive(Debug, Clone, Default)]
pub(in crate::api) struct Feed {
    drawing: Arc<Mutex<Weak<Drawing>>>,
    #[cfg(test)]
    pub(in crate::api) drawn: Arc<std::sync::atomic::AtomicU64>,
}

/// Goes on until the last stream drops it.
#[derive(Debug)]
struct Drawing {
    pictures: watch::Receiver<Arc<Picture>>,
    task: AbortHandle,
}

impl Drop for Drawing {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Feed {
    fn join(&self, shared: &Shared) -> Arc<Drawing> {
        let mut drawing = self.drawing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(drawing) = drawing.upgrade() {
            return drawing;
        }
        let first = Picture::default().next(&shared.gateway.scene());
        let (sender, pictures) = watch::channel(Arc::new(first));
        let task = tokio::spawn(draw(shared.clone(), sender)).abort_handle();
        let new = Arc::new(Drawing { pictures, task });
        *drawing = Arc::downgrade(&new);
        new
    }
}

/// Draws everything at each change.
async fn draw(shared: Shared, pictures: watch::Sender<Arc<Picture>>) {
    let gateway = &shared.gateway;
    let mut views = gateway.node.state();
    let mut metrics = gateway.node.metrics();
    let mut reports = gateway.reports.clone();
    let mut connected = gateway.link.connected();
    loop {
        // Everything up to here counts as seen and is looked at now.
        views.mark_unchanged();
        metrics.mark_unchanged();
        reports.mark_unchanged();
        connected.mark_unchanged();
        let before = Arc::clone(&pictures.borrow());
        let now = before.next(&gateway.scene());
        #[cfg(test)]
        shared
            .feed
            .drawn
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        pictures.send_if_modified(|newest| {
            let has_news = now.has_news(&before);
            *newest = Arc::new(now);
            has_news
        });
        tokio::select! {
            Ok(()) = views.changed() => {}
            Ok(()) = metrics.changed() => {}
            Ok(()) = reports.changed() => {}
            Ok(()) = connected.changed() => {}
            else => return,
        }
        tokio::time::sleep(GATHER).await;
    }
}

struct Follower {
    pictures: watch::Receiver<Arc<Picture>>,
    _drawing: Arc<Drawing>,
    /// What the caller was told last.
    told: Arc<Picture>,
}

impl Follower {
    async fn next(&mut self) -> io::Result<Bytes> {
        loop {
            let newest = Arc::clone(&self.pictures.borrow_and_update());
            let news = newest.since(&self.told);
            self.told = newest;
            if !news.is_empty() {
                return Ok(news);
            }
            match tokio::time::timeout(QUIET_MAX, self.pictures.changed()).await {
                Ok(changed) => changed.map_err(io::Error::other)?,
                Err(_) => return Ok(Bytes::from_static(b": still here\n\n")),
            }
        }
    }
}
