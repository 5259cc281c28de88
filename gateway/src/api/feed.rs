//! What event streams say: everything there is, then what became different.
//!
//! Shell over [`Page`]. One task writes a page of news for all streams, for as long as there is one. A stream holds no
//! queue: what it says is what lies between the last page that it told of and the newest, so that a slow caller misses
//! steps in between but never the last one. What a stream costs does not depend on what did not change: most are given
//! the same bytes, and one that has missed pages looks for the rows that are news for it alone.

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

/// Without news the caller hears this often that the stream is alive.
const QUIET_MAX: Duration = Duration::from_secs(15);
/// Changes within this time travel together: a host that starts ten workloads reports some hundred times a second.
const GATHER: Duration = Duration::from_millis(10);

/// What all streams of this host share.
#[derive(Clone)]
pub(super) struct Feed {
    views: Views,
    writing: Arc<Mutex<Weak<Writing>>>,
    #[cfg(test)]
    pub(super) written: Arc<std::sync::atomic::AtomicU64>,
}

/// Goes on until the last stream drops it.
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
    /// Of these views. Nothing runs yet.
    pub(super) fn new(views: Views) -> Self {
        Self {
            views,
            writing: Arc::default(),
            #[cfg(test)]
            written: Arc::default(),
        }
    }

    /// One more stream.
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

    /// Writes a page at each change.
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
    /// What the caller was told last.
    told: Option<Arc<Page>>,
}

impl Follower {
    /// The next piece of the stream.
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
