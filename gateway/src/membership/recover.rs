//! Makes this host a cluster of its own when the others are lost.
//!
//! Shell. [`decide`] remembers the decision durably and has the gateway begin again; [`finish`] carries it out before
//! consensus is opened, and as often as it is interrupted.

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

/// Why nothing was decided.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DecideError {
    /// There is no id for the new cluster.
    #[error("create a random cluster id: {0}")]
    Random(#[from] getrandom::Error),
    /// It cannot be, or cannot be remembered.
    #[error(transparent)]
    Life(#[from] LifeError),
}

/// Decides that this host goes on alone, as the cluster that is returned.
pub(crate) fn decide(gateway: &Gateway) -> Result<ClusterId, DecideError> {
    let mut cluster = [0; 16];
    getrandom::fill(&mut cluster)?;
    let cluster = ClusterId(cluster);
    let _ = gateway.life.happens(Event::RecoveryAsked { cluster })?;
    tracing::warn!(%cluster, "restarting as a cluster of one");
    Ok(cluster)
}

/// Carries out what was decided, if anything was. Raft must not be open.
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
