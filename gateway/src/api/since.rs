//! Changes that a gateway of an older release does not know.
//!
//! Pure. Such a gateway stops when it meets one, so none is proposed while a member is known to run an older release. One that
//! is off is not asked: it stops when it is back, says so, and goes on when it is upgraded.

use beemesh_protocol::state::Change;

use super::{ApiError, render::Scene};
use crate::release::older;

/// Refuses a change that a member does not know; `scene` is only looked at for one that not all know.
pub(super) fn check(change: &Change, scene: impl FnOnce() -> Scene) -> Result<(), ApiError> {
    let Some(since) = change.since() else {
        return Ok(());
    };
    let scene = scene();
    let old: Vec<_> = older(&scene.reports, since)
        .filter_map(|(host, version)| {
            let name = &scene.state.hosts().get(&host)?.name;
            Some(format!("{name} runs {version}"))
        })
        .collect();
    if old.is_empty() {
        return Ok(());
    }
    let [major, minor, patch] = since;
    Err(ApiError::conflict(format!(
        "every host must run Beemesh {major}.{minor}.{patch} or later for this: {}",
        old.join(", ")
    ))
    .hint("upgrade these hosts first"))
}
