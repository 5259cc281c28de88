//! Changes that a gateway of an older release does not know.
//!
//! Pure. Such a gateway stops when it meets one, so none is proposed while a member is known to run an older release. One that
//! is off is not asked: it stops when it is back, says so, and goes on when it is upgraded.

use beemesh_protocol::state::Change;

use super::{ApiError, render::Scene};

/// Refuses a change that a member does not know; `scene` is only looked at for one that not all know.
pub(super) fn check(change: &Change, scene: impl FnOnce() -> Scene) -> Result<(), ApiError> {
    let Some(since) = change.since() else {
        return Ok(());
    };
    let scene = scene();
    let old: Vec<_> = scene
        .reports
        .iter()
        .filter(|(_, report)| release(&report.version).is_some_and(|release| release < since))
        .filter_map(|(host, report)| {
            let name = &scene.state.hosts().get(host)?.name;
            Some(format!("{name} runs {}", report.version))
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

/// `1.2.3`, whatever follows it.
fn release(version: &str) -> Option<[u32; 3]> {
    let mut parts = version.splitn(3, '.');
    let mut next = || {
        let part = parts.next()?;
        let end = part
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(part.len());
        part[..end].parse().ok()
    };
    Some([next()?, next()?, next()?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_compared_by_number() {
        for (version, expected) in [
            ("0.2.0", Some([0, 2, 0])),
            ("1.20.3-rc1", Some([1, 20, 3])),
            ("1.2.3+git.4", Some([1, 2, 3])),
            ("", None),
            ("1.2", None),
            ("a.b.c", None),
        ] {
            assert_eq!(release(version), expected, "{version}");
        }
    }
}
