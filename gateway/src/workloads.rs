//! The workloads of this host: what is to be done about them, doing it, and what they look like.

pub(crate) mod observe;
pub(crate) mod plan;
pub(crate) mod run;
