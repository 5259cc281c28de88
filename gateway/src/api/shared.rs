//! What the handlers share, and the picture of the cluster that their answers are made of.

use std::sync::{Arc, Mutex};

use beemesh_protocol::ipc::Member;
use tokio::sync::Semaphore;

use super::{
    admission::{Known, check::Ledger},
    audit_journal::Trail,
    handlers::events::Feed,
};
use crate::{cluster::view::Scene, context::Gateway};

/// Manifests that are parsed at once: a file of 1 MiB costs some tens of MiB and up to a second of one core.
const PARSING_MAX: usize = 2;

/// What the handlers share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(super) gateway: Gateway,
    pub(super) feed: Feed,
    pub(super) parsing: Arc<Semaphore>,
    pub(super) trail: Trail,
    pub(super) policy: Arc<Known>,
    pub(super) ledger: Arc<Mutex<Ledger>>,
}

impl Gateway {
    /// Everything answers are made of, as it is now.
    pub(super) fn scene(&self) -> Scene {
        let view = self.node.state().borrow().clone();
        let life = self.life.now();
        Scene {
            host: self.host,
            applied: view.applied,
            state: view.state.clone(),
            metrics: self.node.metrics().borrow().clone(),
            reports: self.reports.borrow().clone(),
            reachable: self.reachable(),
            elsewhere: *self.elsewhere.borrow(),
            removed: life.is_removed(),
            joining: life.joining().map(|joining| {
                let members = joining.members.iter().cloned().map(Member::from);
                let others = members.filter(|member| member.host != self.host);
                others.map(|member| (member.host, member.name)).collect()
            }),
        }
    }
}

impl Shared {
    /// What all connections of this gateway use: it is made once, so that its bounds are those of the whole API.
    pub(crate) fn new(gateway: Gateway) -> Self {
        Self {
            gateway,
            feed: Feed::default(),
            parsing: Arc::new(Semaphore::new(PARSING_MAX)),
            trail: Trail::start(),
            policy: Arc::default(),
            ledger: Arc::default(),
        }
    }
}
