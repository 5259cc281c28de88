//! Event streams: the whole state first, then each change.
//!
//! Shell over [`Page`]. One task writes a page with the changes for all streams, and runs while there is a stream. A
//! stream has no queue: it sends the difference between the last page that it sent and the newest page. A slow client
//! therefore misses intermediate states, but never the last one. The cost of a stream does not depend on the rows that
//! did not change. Most streams send the same bytes; a stream that has missed pages looks up the rows that changed for
//! it.

mod page;

use std::{
    io,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use axum::body::Bytes;
use tokio::{sync::watch, task::AbortHandle};

use self::page::Page;
use crate::context::views::{Following, Views};

/// Interval of the messages that tell the client that the stream is alive, while nothing changes.
const QUIET_MAX: Duration = Duration::from_secs(15);
/// Changes within this time are sent together: a host that starts ten workloads reports about a hundred times a second.
const GATHER: Duration = Duration::from_millis(10);

/// The state that all streams of this host share.
#[derive(Clone)]
pub(super) struct Feed {
    views: Views,
    writing: Arc<Mutex<Weak<Writing>>>,
    #[cfg(test)]
    pub(super) written: Arc<std::sync::atomic::AtomicU64>,
}

/// The task that writes pages. It runs until the last stream drops it.
struct Writing {
    pages: watch::Receiver<Arc<Page>>,
    task: AbortHandle,
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Feed {
    /// Creates a feed of these views. No task runs yet.
    pub(super) fn new(views: Views) -> Self {
        Self {
            views,
            writing: Arc::default(),
            #[cfg(test)]
            written: Arc::default(),
        }
    }

    /// Adds a stream.
    pub(super) fn join(&self) -> Follower {
        let mut writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let writing = writing.upgrade().unwrap_or_else(|| {
            let new = Arc::new(self.begin());
            *writing = Arc::downgrade(&new);
            new
        });
        Follower {
            pages: writing.pages.clone(),
            _writing: writing,
            told: None,
        }
    }

    fn begin(&self) -> Writing {
        let mut views = self.views.follow();
        let (sender, pages) = watch::channel(Arc::new(Page::first(views.now())));
        let task = tokio::spawn(self.clone().write(views, sender));
        Writing {
            pages,
            task: task.abort_handle(),
        }
    }

    /// Writes a page after each change.
    async fn write(self, mut views: Following, pages: watch::Sender<Arc<Page>>) {
        loop {
            views.changed().await;
            tokio::time::sleep(GATHER).await;
            let before = Arc::clone(&pages.borrow());
            let now = before.next(views.now());
            #[cfg(test)]
            self.written
                .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            pages.send_if_modified(|newest| {
                let has_news = now.has_news(&before);
                *newest = Arc::new(now);
                has_news
            });
        }
    }
}

/// One stream.
pub(super) struct Follower {
    pages: watch::Receiver<Arc<Page>>,
    _writing: Arc<Writing>,
    /// The page that the stream sent last.
    told: Option<Arc<Page>>,
}

impl Follower {
    /// The next bytes of the stream.
    pub(super) async fn next(&mut self) -> io::Result<Bytes> {
        loop {
            let newest = Arc::clone(&self.pages.borrow_and_update());
            let news = newest.since(self.told.as_deref());
            self.told = Some(newest);
            if !news.is_empty() {
                return Ok(news);
            }
            match tokio::time::timeout(QUIET_MAX, self.pages.changed()).await {
                Ok(changed) => changed.map_err(io::Error::other)?,
                Err(_) => return Ok(Bytes::from_static(b": still here\n\n")),
            }
        }
    }
}
