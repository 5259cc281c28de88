//! Pulls images that a workload will need, within limits.
//!
//! Shell. A pull goes on when the question that began it is answered, and a later question finds it by its image. The
//! result of a pull is kept for some seconds, so that the client that asks again learns it.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use beemesh_quadlet::podman::{Podman, PodmanError, Storage};
use tokio::{
    sync::{Semaphore, watch},
    time::{Instant, timeout_at},
};

/// Maximum number of images that are pulled at the same time; further ones wait.
const PULLS_MAX: usize = 4;
/// Maximum number of pulls that run or wait.
const ALL_PULLS_MAX: usize = 32;
/// Maximum number of pulls that begin within [`BEGUN_TIME`].
const BEGUN_MAX: usize = 60;
const BEGUN_TIME: Duration = Duration::from_secs(60);
/// How long the result of a pull is kept.
const RESULT_TIME: Duration = Duration::from_secs(10);
/// The share of the storage's file system, in percent, above which nothing is pulled ahead.
const FULL_PERCENT: u64 = 95;

/// The state of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Pulled {
    /// It is on this host.
    Here,
    /// It is being pulled, for so many seconds.
    UnderWay { seconds: u64 },
    /// It cannot be pulled, for this reason.
    Failed(String),
    /// Podman does not say, for this reason.
    Unknown(String),
}

/// The pulls of this host that were begun for an apply.
pub(super) struct Pulls {
    podman: Podman,
    turns: Arc<Semaphore>,
    book: Arc<Mutex<Book>>,
}

#[derive(Debug, Default)]
struct Book {
    all: BTreeMap<String, Pull>,
    /// When the last pulls began.
    begun: VecDeque<Instant>,
}

#[derive(Debug)]
struct Pull {
    since: Instant,
    result: watch::Receiver<Option<(Instant, Result<(), String>)>>,
}

impl Book {
    /// Forgets results that are old, and the pulls that began long ago.
    fn tidy(&mut self, now: Instant) {
        self.all.retain(|_, pull| match &*pull.result.borrow() {
            Some((ended, _)) => now.duration_since(*ended) < RESULT_TIME,
            // A task that is gone without a result has ended with the runtime.
            None => true,
        });
        while let Some(first) = self.begun.front() {
            if now.duration_since(*first) < BEGUN_TIME {
                break;
            }
            self.begun.pop_front();
        }
    }

    /// Returns why no further pull may begin.
    fn refusal(&self) -> Option<String> {
        if self.all.len() >= ALL_PULLS_MAX {
            return Some(format!(
                "is not pulled: {ALL_PULLS_MAX} other images are being pulled"
            ));
        }
        (self.begun.len() >= BEGUN_MAX).then(|| {
            format!(
                "is not pulled: {BEGUN_MAX} images were pulled within the last {} s: try again later",
                BEGUN_TIME.as_secs()
            )
        })
    }
}

impl Pulls {
    pub(super) fn new(podman: Podman) -> Self {
        Self {
            podman,
            turns: Arc::new(Semaphore::new(PULLS_MAX)),
            book: Arc::default(),
        }
    }

    /// Pulls an image for a user, and waits for it until this time.
    pub(super) async fn pull(&self, image: &str, who: &str, until: Instant) -> Pulled {
        let (since, mut result) = match self.begin(image, who) {
            Ok(begun) => begun,
            Err(reason) => return Pulled::Failed(reason),
        };
        let ended = timeout_at(until, result.wait_for(Option::is_some)).await;
        let ended = ended.ok().and_then(Result::ok);
        match ended.as_deref() {
            Some(Some((_, Ok(())))) => Pulled::Here,
            Some(Some((_, Err(reason)))) => Pulled::Failed(reason.clone()),
            Some(None) | None => Pulled::UnderWay {
                seconds: since.elapsed().as_secs(),
            },
        }
    }

    /// Finds the pull of an image, or begins one.
    #[allow(clippy::type_complexity, reason = "the parts of a pull")]
    fn begin(
        &self,
        image: &str,
        who: &str,
    ) -> Result<
        (
            Instant,
            watch::Receiver<Option<(Instant, Result<(), String>)>>,
        ),
        String,
    > {
        let now = Instant::now();
        let mut book = self.book();
        book.tidy(now);
        if let Some(pull) = book.all.get(image) {
            return Ok((pull.since, pull.result.clone()));
        }
        if let Some(refusal) = book.refusal() {
            return Err(refusal);
        }
        tracing::info!(image, who, "an image is pulled ahead for an apply");
        let (told, result) = watch::channel(None);
        let (podman, turns) = (self.podman.clone(), Arc::clone(&self.turns));
        let name = image.to_owned();
        tokio::spawn(async move {
            // The semaphore is never closed.
            let _turn = turns.acquire().await;
            let pulled = pull(&podman, &name).await;
            if let Err(reason) = &pulled {
                tracing::info!(image = name, reason, "an image was not pulled ahead");
            }
            told.send_replace(Some((Instant::now(), pulled)));
        });
        book.begun.push_back(now);
        let pull = Pull {
            since: now,
            result: result.clone(),
        };
        book.all.insert(image.to_owned(), pull);
        Ok((now, result))
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn pull(podman: &Podman, image: &str) -> Result<(), String> {
    let storage = podman.storage().await.map_err(|error| error.to_string())?;
    if let Some(full) = full(storage) {
        return Err(format!("is not pulled: {full}"));
    }
    podman.pull(image).await.map_err(|error| match error {
        PodmanError::Pull { reason, .. } => format!("cannot be pulled: {reason}"),
        error => format!("cannot be pulled: {error}"),
    })
}

/// Returns why nothing is pulled into this storage.
fn full(storage: Storage) -> Option<String> {
    let percent = storage.used.saturating_mul(100).checked_div(storage.size)?;
    (percent >= FULL_PERCENT).then(|| {
        format!(
            "the file system of Podman's storage is {percent} % full: remove images or other files"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(at: Instant) -> Pull {
        Pull {
            since: at,
            result: watch::channel(Some((at, Ok(())))).1,
        }
    }

    #[test]
    fn pulls_are_limited_in_number_and_rate() {
        let now = Instant::now();
        let mut book = Book::default();
        for number in 0..ALL_PULLS_MAX {
            assert_eq!(book.refusal(), None, "{number}");
            book.all.insert(number.to_string(), ended(now));
        }
        assert!(book.refusal().unwrap().contains("other images"));
        book.tidy(now + RESULT_TIME);
        assert_eq!((book.all.len(), book.refusal()), (0, None));
        book.begun.extend(std::iter::repeat_n(now, BEGUN_MAX));
        assert!(book.refusal().unwrap().contains("within the last 60 s"));
        book.tidy(now + BEGUN_TIME);
        assert_eq!(book.refusal(), None);
    }

    #[test]
    fn a_full_disk_is_not_filled_further() {
        let storage = |size, used| Storage { size, used };
        assert_eq!(full(storage(100, 94)), None);
        assert!(full(storage(100, 95)).unwrap().contains("95 % full"));
        assert_eq!(full(storage(0, 0)), None, "Podman does not say");
    }
}
