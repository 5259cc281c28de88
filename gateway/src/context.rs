//! The handles that the tasks and handlers of this gateway share.
//!
//! This module starts no tasks and answers no requests.

use std::{collections::BTreeSet, future::Future, io, path::Path, pin::Pin, sync::Arc};

use beemesh_protocol::{HostId, ipc::Class};
use beemesh_quadlet::podman::Podman;
use tokio::{net::UnixStream, sync::watch};

use crate::{
    agent_link::{Link, LinkError},
    cluster::reports::Reports,
    local::{files::Home, lifecycle::store::Lifecycle},
    raft::{Dial, Node},
};

/// The shared handles of this gateway.
#[derive(Clone)]
pub(crate) struct Gateway {
    /// This host.
    pub(crate) host: HostId,
    /// The Raft node.
    pub(crate) node: Node,
    /// The link to the agent, and through it to other hosts.
    pub(crate) link: Link,
    /// The last report of every host, this one included.
    pub(crate) reports: watch::Receiver<Reports>,
    /// This host's Podman.
    pub(crate) podman: Podman,
    /// This host's own state files.
    pub(crate) home: Home,
    /// This host's membership in a cluster.
    pub(crate) life: Lifecycle,
    /// The leader that another member hears while this host hears none.
    pub(crate) elsewhere: watch::Receiver<Option<HostId>>,
    /// The directory under `/run` that the programs of this host share.
    pub(crate) run: Arc<Path>,
}

impl Gateway {
    /// The hosts that the mesh reaches now, including this host.
    pub(crate) fn reachable(&self) -> BTreeSet<HostId> {
        self.link.reachable(self.host)
    }
}

/// Raft connects to other hosts through the agent.
impl Dial for Link {
    fn open(
        &self,
        host: HostId,
        class: Class,
    ) -> Pin<Box<dyn Future<Output = io::Result<UnixStream>> + Send + '_>> {
        Box::pin(async move {
            let opened = Link::open(self, host, class).await;
            opened.map_err(|error| match error {
                LinkError::NotMember => io::Error::new(io::ErrorKind::PermissionDenied, error),
                error => io::Error::other(error),
            })
        })
    }
}
