//! etcd's native protocol: gRPC, with one connection for each client.

use anyhow::{Result, anyhow};
use etcd_client::KvClient;

/// The address on which each host's etcd serves its local clients.
const ADDRESS: &str = "127.0.0.1:2379";

/// A connection to the etcd of the host in whose network namespace this process runs.
pub(crate) struct Client(KvClient);

impl Client {
    pub(crate) async fn connect() -> Result<Self> {
        let client = etcd_client::Client::connect([ADDRESS], None).await?;
        Ok(Self(client.kv_client()))
    }

    pub(crate) async fn put(&mut self, key: &str, value: String) -> Result<()> {
        let put = self.0.put(key, value, None).await;
        put.map(drop).map_err(|error| anyhow!("put {key}: {error}"))
    }
}
