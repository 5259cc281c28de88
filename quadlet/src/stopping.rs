//! Ends containers by the signal that their manifest names, before Podman takes their pod down.
//!
//! Shell. Podman 5.6 does it by itself; before that it ignores `lifecycle.stopSignal` and sends SIGTERM. A container that does not
//! end in its grace period is left to Podman.

use std::time::Duration;

use futures::future::join_all;

use crate::health::Run;
use crate::podman::{Podman, PodmanError};
use crate::render;

/// Sends each container of the pod of `yaml` its own signal and waits for the end of those that Podman would send another one.
pub async fn signal(podman: &Podman, yaml: &[u8]) {
    let (signals, grace) = render::stop_signals(yaml);
    let grace = Duration::from_secs(grace);
    let ends = signals.iter().map(|(container, signal)| async move {
        match end(podman, container, signal, grace).await {
            Ok(()) => {}
            Err(PodmanError::Late { .. }) => {
                tracing::warn!(container, signal, "it did not end by its own signal");
            }
            Err(error) => tracing::warn!(%error, "Podman ends the container its own way"),
        }
    });
    join_all(ends).await;
}

async fn end(
    podman: &Podman,
    container: &str,
    signal: &str,
    grace: Duration,
) -> Result<(), PodmanError> {
    let Some(details) = podman.inspect(container).await? else {
        return Ok(());
    };
    if details.container.run != Run::Running || details.stop_signal == signal {
        return Ok(());
    }
    podman.signal(container, signal).await?;
    podman.wait(container, grace).await
}
