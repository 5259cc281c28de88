//! Turns this host into a cluster of one when the others are lost.
//!
//! Shell. [`decide`] stores the decision durably and makes the gateway restart. [`finish`] carries it out before
//! consensus is opened, and repeats it if it was interrupted.

use std::sync::Arc;

use anyhow::Context as _;
use beemesh_protocol::{ClusterId, HostId};

use crate::{
    context::Gateway,
    local::{
        files::Home,
        lifecycle::{
            Event, Life,
            store::{LifeError, Lifecycle},
        },
    },
    raft,
};

/// Why the decision failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DecideError {
    /// The new cluster has no id.
    #[error("create a random cluster id: {0}")]
    Random(#[from] getrandom::Error),
    /// The decision is not allowed in this state, or could not be stored.
    #[error(transparent)]
    Life(#[from] LifeError),
}

/// Decides that this host continues alone, and returns the id of its new cluster.
pub(crate) fn decide(gateway: &Gateway) -> Result<ClusterId, DecideError> {
    let mut cluster = [0; 16];
    getrandom::fill(&mut cluster)?;
    let cluster = ClusterId(cluster);
    let _ = gateway.life.happens(Event::RecoveryAsked { cluster })?;
    tracing::warn!(%cluster, "restarting as a cluster of one");
    Ok(cluster)
}

/// Carries out a stored decision, if there is one. Raft must not be open.
pub(crate) async fn finish(home: &Home, life: &Lifecycle, host: HostId) -> anyhow::Result<()> {
    let Life::Recovering { cluster } = life.now() else {
        return Ok(());
    };
    raft::recover(&home.raft(), Arc::new(raft::System), host, cluster)
        .await
        .context("make the log that of a cluster of one")?;
    let _ = life.happens(Event::Recovered)?;
    Ok(())
}
