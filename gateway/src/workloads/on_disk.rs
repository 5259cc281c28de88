//! Reads the Quadlets of this host's workloads.
//!
//! Shell. The agent alone writes these files.

use std::{collections::BTreeMap, io, path::Path};

use beemesh_quadlet::{
    manifest::Port,
    render::{self, Quadlet, read_quadlet},
};
use tokio::io::AsyncReadExt as _;

/// Maximum size of a YAML file that is read: a manifest of 1 MiB with its ConfigMaps and Secrets.
const YAML_MAX: u64 = 64 << 20;

/// Reads a file, up to the maximum size of a YAML file.
pub(super) async fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    tokio::fs::File::open(path)
        .await?
        .take(YAML_MAX)
        .read_to_end(&mut bytes)
        .await?;
    Ok(bytes)
}

/// Returns the ports of every workload that has a Quadlet on this host.
pub(super) async fn ports(folder: &Path) -> io::Result<BTreeMap<String, Vec<Port>>> {
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
