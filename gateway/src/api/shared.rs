//! What the handlers share.

use std::sync::{Arc, Mutex};

use tokio::sync::Semaphore;

use super::{
    admission::{Known, check::Ledger},
    audit_journal::Trail,
    feed::Feed,
};
use crate::context::Gateway;

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

impl Shared {
    /// What all connections of this gateway use: it is made once, so that its bounds are those of the whole API.
    pub(crate) fn new(gateway: Gateway) -> Self {
        Self {
            feed: Feed::new(gateway.views.clone()),
            gateway,
            parsing: Arc::new(Semaphore::new(PARSING_MAX)),
            trail: Trail::start(),
            policy: Arc::default(),
            ledger: Arc::default(),
        }
    }
}
