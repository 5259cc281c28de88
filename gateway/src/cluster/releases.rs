//! Releases of Beemesh, compared.
//!
//! Pure. A gateway stops when it meets a change that its release does not know, so none is proposed while a member is known to
//! run an older one.

use std::{collections::BTreeMap, sync::Arc};

use beemesh_protocol::{HostId, peer::HostReport};

/// A release's number.
pub(crate) type Release = [u32; 3];

/// `1.2.3`, whatever follows it.
pub(crate) fn release(version: &str) -> Option<Release> {
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

/// The hosts that said last that they run an older release, and which. One that has not said anything is not among them.
pub(crate) fn older(
    reports: &BTreeMap<HostId, Arc<HostReport>>,
    since: Release,
) -> impl Iterator<Item = (HostId, &str)> {
    let told = reports
        .iter()
        .map(|(host, report)| (*host, report.version.as_str()));
    told.filter(move |(_, version)| release(version).is_some_and(|release| release < since))
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
