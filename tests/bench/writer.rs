//! A client of one system on one host that makes small durable writes.
//!
//! Shell. A write is a ConfigMap in Beemesh, which starts nothing, a key in etcd, or a config in Swarm. Each uses the
//! system's own local API.

use std::{fmt::Write as _, path::Path};

use anyhow::Result;
use base64::Engine as _;
use harness::http;
use hyper::Method;

use crate::{data::System, etcd};

/// A connected client.
pub(crate) enum Writer {
    /// Over the gateway's socket.
    Beemesh(http::Client),
    /// Over gRPC on the host's loopback.
    Etcd(etcd::Client),
    /// Over Docker's socket.
    Swarm(http::Client),
}

impl Writer {
    /// Connects to `system` on the host with the root folder `root`. For etcd this process must be in that host's
    /// network namespace.
    pub(crate) async fn connect(system: System, root: &Path) -> Result<Self> {
        let socket = |path| root.join("run").join(path);
        Ok(match system {
            System::Beemesh => {
                Writer::Beemesh(http::Client::connect(&socket("beemesh/gateway.sock")).await?)
            }
            System::Etcd => Writer::Etcd(etcd::Client::connect().await?),
            System::Swarm => Writer::Swarm(http::Client::connect(&socket("docker.sock")).await?),
        })
    }

    /// Writes `value`. `key` is replaced if it exists. `once` is new for every write, because Swarm cannot replace a
    /// config.
    pub(crate) async fn write(&mut self, key: &str, once: &str, value: String) -> Result<()> {
        match self {
            Writer::Beemesh(client) => {
                let uri = format!("/v1/apply?name={key}");
                client
                    .ask(Method::POST, &uri, config_map(key, &value))
                    .await?;
            }
            Writer::Etcd(client) => client.put(key, value).await?,
            Writer::Swarm(client) => {
                let data = base64::engine::general_purpose::STANDARD.encode(value);
                let body = format!(r#"{{"Name":"{once}","Data":"{data}"}}"#);
                let uri = "/v1.45/configs/create";
                client.ask(Method::POST, uri, body).await?;
            }
        }
        Ok(())
    }
}

/// A ConfigMap of one value.
pub(crate) fn config_map(name: &str, value: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\ndata:\n  value: {value}\n")
}

/// Text of `size` bytes that does not compress well and needs no quoting in YAML, JSON or a shell.
pub(crate) fn filler(size: usize) -> String {
    let mut text = String::with_capacity(size + 16);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    while text.len() < size {
        // An xorshift generator.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let _ = write!(text, "{state:016x}");
    }
    text.truncate(size);
    text
}

/// A value as long as `filler` that begins with unique text.
pub(crate) fn value(unique: &str, filler: &str) -> String {
    let mut text = format!("v-{unique}-");
    let rest = filler.len().saturating_sub(text.len());
    text.push_str(&filler[..rest]);
    text
}

#[cfg(test)]
mod tests {
    use super::{filler, value};

    #[test]
    fn values_have_their_size_and_differ() {
        let filler = filler(1024);
        let (one, other) = (value("a-1", &filler), value("a-2", &filler));
        assert_eq!((one.len(), other.len()), (1024, 1024));
        assert_ne!(one, other);
    }
}
