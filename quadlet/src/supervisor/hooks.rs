//! Runs the lifecycle hooks of containers, as kubelet does. Shell: the caller decides when.
//!
//! A `postStart` hook runs after the start of its container. If it fails, the container has to be ended like one whose
//! liveness probe has failed. A `preStop` hook runs before a container is ended that still runs, whatever the reason,
//! and its time counts against the grace period. Dropping the future of a hook leaves its command running: do that only
//! if the container has ended.

use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

use super::probes::run::Pod;
use super::probes::spec::Handler;
use crate::podman::Podman;

/// The least time that a container has to end after its `preStop` hook.
const GRACE_MIN: Duration = Duration::from_secs(2);

/// A running container, and the address of its pod.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// A client.
    pub podman: &'a Podman,
    /// The id of the container.
    pub container: &'a str,
    /// The address of its pod, as [`Podman::pod_address`] returns it.
    pub address: Option<IpAddr>,
}

impl Place<'_> {
    /// Runs a `postStart` hook for at most `limit`. Kubernetes has no limit. The error is a message without output of the
    /// container.
    pub async fn post_start(&self, hook: &Handler, limit: Duration) -> Result<(), String> {
        self.pod().hook(hook, limit).await
    }

    /// Runs a `preStop` hook for at most `grace`. Returns the rest of the grace period, and a message if the hook has
    /// failed, which changes nothing else. Without a grace period the hook does not run.
    pub async fn pre_stop(
        &self,
        hook: Option<&Handler>,
        grace: Duration,
    ) -> (Duration, Result<(), String>) {
        let Some(hook) = hook.filter(|_| !grace.is_zero()) else {
            return (grace.max(GRACE_MIN), Ok(()));
        };
        let began = Instant::now();
        let outcome = self.pod().hook(hook, grace).await;
        (rest(grace, began.elapsed()), outcome)
    }

    fn pod(&self) -> Pod<'_> {
        Pod {
            podman: self.podman,
            container: self.container,
            address: self.address,
        }
    }
}

/// What a hook leaves of the grace period. Parts of a second do not count.
fn rest(grace: Duration, took: Duration) -> Duration {
    let took = Duration::from_secs(took.as_secs());
    grace.saturating_sub(took).max(GRACE_MIN)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_hook_takes_from_the_grace_period() {
        for (grace, took, expected) in [
            (30, 0.9, 30),
            (30, 10.5, 20),
            (30, 30.0, 2),
            (30, 31.0, 2),
            (1, 0.0, 2),
        ] {
            let took = Duration::from_secs_f64(took);
            let left = rest(Duration::from_secs(grace), took);
            assert_eq!(left.as_secs(), expected, "{grace} {took:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_sleep_is_cut_off_at_the_grace_period() {
        let podman = Podman::new(Path::new("/nonexistent"));
        let place = Place {
            podman: &podman,
            container: "07c1",
            address: None,
        };
        let second = Duration::from_secs;
        for (sleep, grace, expected) in [
            (5, 30, (second(25), Ok(()))),
            (30, 10, (second(2), Err("timed out after 10s".to_owned()))),
            (5, 0, (second(2), Ok(()))),
        ] {
            let hook = Handler::Sleep(second(sleep));
            let done = place.pre_stop(Some(&hook), second(grace)).await;
            assert_eq!(done, expected, "{sleep} of {grace}");
        }
        assert_eq!(place.pre_stop(None, second(7)).await, (second(7), Ok(())));
        let broken = Handler::Broken("the hook has no handler".into());
        let done = place.post_start(&broken, second(1)).await;
        assert_eq!(done, Err("the hook has no handler".to_owned()));
    }
}
