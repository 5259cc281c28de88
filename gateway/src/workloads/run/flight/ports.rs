//! Checks that the ports of a revision are free on this host: reads the input of [`crate::cluster::ports`].

use std::{collections::BTreeMap, io, path::Path};

use beemesh_quadlet::{
    manifest::Port,
    render::{self, Quadlet, read_quadlet},
};

use super::{Flight, StepError, read};
use crate::cluster::ports::{self, Own};

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
        let written = written(&self.units)
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

/// Returns the ports of every workload that has a Quadlet on this host.
async fn written(folder: &Path) -> io::Result<BTreeMap<String, Vec<Port>>> {
    let mut found = BTreeMap::new();
    let mut entries = tokio::fs::read_dir(folder).await?;
    while let Some(entry) = entries.next_entry().await? {
        let path = entry.path();
        if path.extension().is_none_or(|extension| extension != "kube") {
            continue;
        }
        let kube = or_nothing(read(&path).await)?;
        let quadlet = str::from_utf8(&kube).ok().and_then(read_quadlet);
        if let Some(Quadlet { workload, yaml, .. }) = quadlet {
            let ports = render::ports(&or_nothing(read(&folder.join(yaml)).await)?);
            if !ports.is_empty() {
                found.insert(workload, ports);
            }
        }
    }
    Ok(found)
}

/// Treats a file that has been removed in the meantime as empty.
fn or_nothing(read: io::Result<Vec<u8>>) -> io::Result<Vec<u8>> {
    match read {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        read => read,
    }
}
