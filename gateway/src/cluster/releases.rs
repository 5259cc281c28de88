//! What every member must run before a change may be proposed.
//!
//! Pure. A gateway of an older release stops when it meets a change that it does not know, so none is proposed while a
//! member is known to run one. One that is off is not asked: it stops when it is back, says so, and goes on when it is
//! upgraded. The same holds for what such a gateway knows and does wrong.

use std::{collections::BTreeMap, sync::Arc};

use beemesh_protocol::{HostId, peer::HostReport, state::Change, version::Version};

use super::{change::about, reports::Reports, state::State};

/// The hosts that said last that they run an older release, and which. One that has not said anything is not among them.
fn older(
    reports: &BTreeMap<HostId, Arc<HostReport>>,
    since: Version,
) -> impl Iterator<Item = (HostId, &str)> {
    let told = reports
        .iter()
        .map(|(host, report)| (*host, report.version.as_str()));
    told.filter(move |(_, version)| Version::parse(version).is_some_and(|version| version < since))
}

/// Members run releases that are too old.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("every host must run Beemesh {since} or later for {what}: {}", .hosts.join(", "))]
pub(crate) struct TooOld {
    since: Version,
    what: &'static str,
    /// Such as `h2 runs 0.1.0`.
    hosts: Vec<String>,
}

/// Refuses a change that a member does not know.
pub(crate) fn check(change: &Change, state: &State, reports: &Reports) -> Result<(), TooOld> {
    match about(change).needs() {
        Some((since, what)) => everybody(since, what, state, reports),
        None => Ok(()),
    }
}

/// Refuses what needs a release that a member does not run yet.
pub(crate) fn everybody(
    since: Version,
    what: &'static str,
    state: &State,
    reports: &Reports,
) -> Result<(), TooOld> {
    let hosts: Vec<_> = older(reports, since)
        .filter_map(|(host, version)| {
            let name = &state.hosts().get(&host)?.name;
            Some(format!("{name} runs {version}"))
        })
        .collect();
    if hosts.is_empty() {
        return Ok(());
    }
    Err(TooOld { since, what, hosts })
}
