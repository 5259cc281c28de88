//! The scheduling rules of a workload, which are read from its object when they are needed for the first time.
//!
//! Pure.

use std::sync::{Arc, OnceLock};

use beemesh_quadlet::manifest::Scheduling;

use super::Workload;

/// The rules, once they were read. They follow from the object, so that two workloads never differ in them alone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Lazily(OnceLock<Arc<Scheduling>>);

impl PartialEq for Lazily {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Lazily {}

impl Workload {
    /// The rules by which hosts are chosen for its pods.
    pub(crate) fn scheduling(&self) -> &Scheduling {
        let read = || Arc::new(Scheduling::of(&self.object));
        self.rules.0.get_or_init(read)
    }
}
