//! A permit of a semaphore that its owner can give up and take again.

use std::{pin::pin, time::Duration};

use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::timeout,
};

/// A permit of a semaphore that its owner can give up and take again.
pub(super) struct Turn<'a> {
    of: &'a Semaphore,
    permit: Option<SemaphorePermit<'a>>,
}

impl<'a> Turn<'a> {
    pub(super) async fn take(of: &'a Semaphore) -> Self {
        let permit = Some(permit(of).await);
        Self { of, permit }
    }

    pub(super) fn is_given_up(&self) -> bool {
        self.permit.is_none()
    }

    pub(super) async fn take_again(&mut self) {
        self.permit = Some(permit(self.of).await);
    }

    /// Does some work while holding the turn. If it takes longer than `at_most`, gives the turn up and calls
    /// `given_up`.
    pub(super) async fn lend<T>(
        &mut self,
        at_most: Duration,
        work: impl Future<Output = T>,
        given_up: impl AsyncFnOnce(),
    ) -> T {
        let mut work = pin!(work);
        if let Ok(done) = timeout(at_most, &mut work).await {
            return done;
        }
        self.permit = None;
        given_up().await;
        work.await
    }
}

pub(super) async fn permit(semaphore: &Semaphore) -> SemaphorePermit<'_> {
    semaphore
        .acquire()
        .await
        .expect("the executor's semaphores are never closed")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const AT_MOST: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn slow_ends_delay_no_other_and_quick_ones_keep_their_turn() {
        const GRACE: Duration = Duration::from_secs(3600);
        let plays = Arc::new(Semaphore::new(2));
        let begun = tokio::time::Instant::now();
        for _ in 0..5 {
            let plays = Arc::clone(&plays);
            tokio::spawn(async move {
                let mut turn = Turn::take(&plays).await;
                turn.lend(AT_MOST, tokio::time::sleep(GRACE), async || ())
                    .await;
                assert!(turn.is_given_up());
                turn.take_again().await;
                assert!(!turn.is_given_up());
            });
        }
        tokio::task::yield_now().await;
        let mut victim = Turn::take(&plays).await;
        assert!(begun.elapsed() < Duration::from_secs(4), "{begun:?}");
        let quick = tokio::time::sleep(AT_MOST / 2);
        let told = async || panic!("a quick end gives nothing up");
        victim.lend(AT_MOST, quick, told).await;
        assert!(!victim.is_given_up());
    }
}
