//! The workloads of this host: deciding what to do about them, doing it, and reporting their state.

mod capacity;
pub(crate) mod leases;
pub(crate) mod observe;
mod on_disk;
pub(crate) mod plan;
pub(crate) mod prepare;
pub(crate) mod run;
