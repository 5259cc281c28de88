//! What the cluster agreed on, and what follows from it.
//!
//! Pure. Every gateway comes to the same result from the same state.

pub(crate) mod change;
pub(crate) mod consensus;
pub(crate) mod host_name;
pub(crate) mod labels;
pub(crate) mod placement;
pub(crate) mod ports;
pub(crate) mod releases;
pub(crate) mod reports;
pub(crate) mod state;
pub(crate) mod strategy;
pub(crate) mod view;
