//! The workloads of this host: deciding what to do about them, doing it, and reporting their state.

pub(crate) mod observe;
pub(crate) mod plan;
pub(crate) mod run;
