//! Checks that the ports of a revision are free on this host: reads the input of [`crate::cluster::ports`].

use beemesh_quadlet::manifest::Port;

use super::{Flight, StepError};
use crate::{
    cluster::ports::{self, Own},
    workloads::on_disk,
};

impl Flight {
    /// Checks that the ports are free for this workload, according to this host's Quadlets and the replicated state.
    pub(super) async fn room(&self, wanted: &[Port]) -> Result<(), StepError> {
        if wanted.is_empty() {
            return Ok(());
        }
        let reserved = self
            .link
            .welcome()
            .borrow()
            .as_ref()
            .map_or_else(Vec::new, |welcome| welcome.reserved_ports.clone());
        let written = on_disk::ports(&self.units)
            .await
            .map_err(|source| StepError::Read {
                path: self.units.clone(),
                source,
            })?;
        let own = Own {
            workload: &self.workload,
            index: self.work.index(),
            host: self.host,
            wanted,
        };
        match ports::held(&own, &reserved, &written, &self.view.state) {
            Some(held) => Err(StepError::Held(held)),
            None => Ok(()),
        }
    }
}
