//! Checks that every member knows a change that this host is about to propose.

use beemesh_protocol::state::Change;

use crate::{cluster::releases, context::Gateway};

/// The error is a message for the user.
pub(crate) fn check(gateway: &Gateway, change: &Change) -> Result<(), String> {
    let state = gateway.node.state().borrow().state.clone();
    let reports = gateway.reports.borrow().clone();
    releases::check(change, &state, &reports).map_err(|error| error.to_string())
}
