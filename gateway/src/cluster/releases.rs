//! The release that every member must run before a change may be proposed.
//!
//! Pure. A gateway of an older release stops when it reads a change that it does not know. A gateway therefore proposes
//! no such change while a member is known to run an older release. A host that is off is not considered: its gateway
//! stops after the host's return, logs the reason, and continues after an upgrade. The same rule holds for changes that
//! a release knows and applies incorrectly.

use std::{collections::BTreeMap, sync::Arc};

use beemesh_protocol::{HostId, peer::HostReport, state::Change, version::Version};

use super::{change::about, reports::Reports, state::State};

/// The hosts that last reported an older release, with that release. A host without a report is not among them.
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
    /// For example `h2 runs 0.1.0`.
    hosts: Vec<String>,
}

/// Refuses a change if a member runs a release that does not know it.
pub(crate) fn check(change: &Change, state: &State, reports: &Reports) -> Result<(), TooOld> {
    match about(change).needs() {
        Some((since, what)) => everybody(since, what, state, reports),
        None => Ok(()),
    }
}

/// Refuses an operation if a member runs a release before `since`.
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
