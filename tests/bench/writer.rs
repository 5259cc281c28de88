//! One client of one system on one host: how a small durable write is asked for.
//!
//! Shell. A write is a ConfigMap of Beemesh, which starts nothing, a key of etcd, or a config of Swarm, each through the
//! system's own local way in.

use std::{fmt::Write as _, path::Path};

use anyhow::Result;
use base64::Engine as _;
use harness::http;
use hyper::Method;

use crate::{data::System, etcd};

/// A connected client.
pub(crate) enum Writer {
    /// By the gateway's socket.
    Beemesh(http::Client),
    /// By gRPC on the host's loopback.
    Etcd(etcd::Client),
    /// By Docker's socket.
    Swarm(http::Client),
}

impl Writer {
    /// Connects to `system` on the host whose root folder is `root`; for etcd this process is in that host's network.
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

    /// Writes `value`. `key` is replaced if it is there; `once` is new with every write, for Swarm replaces nothing.
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

/// Text of `size` bytes that does not pack well and that YAML, JSON and a shell take as it is.
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

/// A value as long as `filler` that begins with what no other write has.
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
