//! The handles that the tasks and handlers of this gateway share.
//!
//! No answers and no tasks are made here.

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

/// What every task and handler of this gateway may need.
#[derive(Clone)]
pub(crate) struct Gateway {
    /// This host.
    pub(crate) host: HostId,
    /// Consensus.
    pub(crate) node: Node,
    /// The way to the agent and to other hosts.
    pub(crate) link: Link,
    /// What every host said last, this one included.
    pub(crate) reports: watch::Receiver<Reports>,
    /// This host's Podman.
    pub(crate) podman: Podman,
    /// This host's own files.
    pub(crate) home: Home,
    /// What this host is to its cluster.
    pub(crate) life: Lifecycle,
    /// The leader that another member hears while this host hears none.
    pub(crate) elsewhere: watch::Receiver<Option<HostId>>,
    /// The folder below `/run` that this host's programs share.
    pub(crate) run: Arc<Path>,
}

impl Gateway {
    /// The hosts that the mesh reaches now, this one included.
    pub(crate) fn reachable(&self) -> BTreeSet<HostId> {
        self.link.reachable(self.host)
    }
}

/// Consensus reaches other hosts by the agent.
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
