//! The handles that the tasks and handlers of this gateway share.
//!
//! No answers are made here, and no tasks but the one that keeps the picture that readers share ([`views`]).

pub(crate) mod views;

use std::{collections::BTreeSet, future::Future, io, path::Path, pin::Pin, sync::Arc};

use beemesh_protocol::{HostId, ipc::Class};
use beemesh_quadlet::podman::Podman;
use tokio::{net::UnixStream, sync::watch};

use self::views::Views;
use crate::{
    agent_link::{Link, LinkError},
    cluster::{reports::Reports, view::Scene},
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
    /// The picture of the cluster that readers share.
    pub(crate) views: Views,
    /// The folder below `/run` that this host's programs share.
    pub(crate) run: Arc<Path>,
}

impl Gateway {
    /// What is known now.
    pub(crate) fn scene(&self) -> Scene {
        self.views.scene()
    }

    /// The hosts that the mesh reaches now, this one included.
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
