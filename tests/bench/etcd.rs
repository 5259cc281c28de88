//! etcd's own way in: gRPC, one connection for each client.

use anyhow::{Result, anyhow};
use etcd_client::KvClient;

/// Where every host's etcd answers its own clients.
const ADDRESS: &str = "127.0.0.1:2379";

/// A connection to the etcd of the host whose network this process is in.
pub(crate) struct Client(KvClient);

impl Client {
    /// Connects to it.
    pub(crate) async fn connect() -> Result<Self> {
        let client = etcd_client::Client::connect([ADDRESS], None).await?;
        Ok(Self(client.kv_client()))
    }

    /// Puts a value.
    pub(crate) async fn put(&mut self, key: &str, value: String) -> Result<()> {
        let put = self.0.put(key, value, None).await;
        put.map(drop).map_err(|error| anyhow!("put {key}: {error}"))
    }
}
