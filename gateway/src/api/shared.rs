//! The state that all handlers share.

use std::sync::{Arc, Mutex};

use tokio::sync::Semaphore;

use super::{
    admission::{Known, check::Ledger},
    audit_journal::Trail,
    feed::Feed,
};
use crate::{context::Gateway, workloads::prepare::Prepare};

/// Maximum number of manifests that are parsed at the same time: a file of 1 MiB needs some tens of MiB of memory and
/// up to a second of one core.
const PARSING_MAX: usize = 2;

/// The state that all handlers share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(super) gateway: Gateway,
    pub(super) feed: Feed,
    pub(super) parsing: Arc<Semaphore>,
    pub(super) trail: Trail,
    pub(super) policy: Arc<Known>,
    pub(super) ledger: Arc<Mutex<Ledger>>,
    /// Tells what prevents this host from running a workload.
    pub(super) prepare: Arc<Prepare>,
    /// The key of the hashes that stand for Secrets in answers. They compare only with those of the same gateway, and
    /// nobody can try values against them.
    pub(super) hash_key: [u8; 32],
}

impl Shared {
    /// Creates the state for all connections of this gateway. It is created once, so that its limits apply to the whole
    /// API.
    pub(crate) fn new(gateway: Gateway, prepare: Prepare, hash_key: [u8; 32]) -> Self {
        Self {
            feed: Feed::new(gateway.views.clone()),
            gateway,
            parsing: Arc::new(Semaphore::new(PARSING_MAX)),
            trail: Trail::start(),
            policy: Arc::default(),
            ledger: Arc::default(),
            prepare: Arc::new(prepare),
            hash_key,
        }
    }
}
