//! A stand-in for etcd's client in builds without it, which cannot measure etcd.

use anyhow::{Result, bail};

/// A connection that cannot exist.
pub(crate) enum Client {}

impl Client {
    /// Fails and says how to build the client.
    pub(crate) async fn connect() -> Result<Self> {
        bail!("built without etcd's client: run it by `make bench`")
    }

    /// Cannot be called.
    pub(crate) async fn put(&mut self, _: &str, _: String) -> Result<()> {
        match *self {}
    }
}
