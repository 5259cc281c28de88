//! The address of a pod, to which its probes and hooks connect.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use beemesh_protocol::percent;
use serde::Deserialize;

use super::wire::Call;
use super::{LOOK_TIME_MAX, Podman, PodmanError};

/// Answer of `GET /libpod/containers/NAME/json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Inspected {
    #[serde(default)]
    network_settings: Option<NetworkSettings>,
    #[serde(default)]
    host_config: HostConfig,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HostConfig {
    #[serde(default)]
    network_mode: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct NetworkSettings {
    #[serde(flatten)]
    own: Addresses,
    #[serde(default)]
    networks: Option<BTreeMap<String, Addresses>>,
}

/// Addresses in one network; empty where there is none.
#[derive(Debug, Default, Deserialize)]
struct Addresses {
    #[serde(default, rename = "IPAddress")]
    v4: String,
    #[serde(default, rename = "GlobalIPv6Address")]
    v6: String,
}

impl Inspected {
    /// An IPv4 address before an IPv6 address, and that of the default network before others.
    fn address(&self) -> Option<IpAddr> {
        if self.host_config.network_mode == "host" {
            return Some(Ipv4Addr::LOCALHOST.into());
        }
        let settings = self.network_settings.as_ref()?;
        let networks = settings.networks.iter().flat_map(BTreeMap::values);
        let all: Vec<&Addresses> = [&settings.own].into_iter().chain(networks).collect();
        let v4 = all.iter().map(|one| one.v4.as_str());
        let v6 = all.iter().map(|one| one.v6.as_str());
        v4.chain(v6).find_map(|text| text.parse().ok())
    }
}

impl Podman {
    /// The address of the pod with this infra container: that of the loopback interface if the pod has the network of
    /// the host. `None` if the pod has no address now. A pod gets another address when its infra container is started
    /// again.
    pub async fn pod_address(&self, infra: &str) -> Result<Option<IpAddr>, PodmanError> {
        let path = format!("/libpod/containers/{}/json", percent::encode(infra));
        let operation = format!("look for the address of container {infra}");
        let call = Call::get(operation, path).within(LOOK_TIME_MAX);
        match self.wire.json::<Inspected>(call).await {
            Ok(inspected) => Ok(inspected.address()),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_found_wherever_podman_says_it() {
        for (text, expected) in [
            (
                r#"{"NetworkSettings":{"IPAddress":"10.88.0.5","Networks":{"podman":{"IPAddress":"10.88.0.5"}}}}"#,
                Some("10.88.0.5"),
            ),
            (
                r#"{"NetworkSettings":{"IPAddress":"","Networks":{"podman-default-kube-network":
                    {"IPAddress":"10.89.0.7","GlobalIPv6Address":"fd00::7"}}},"HostConfig":{"NetworkMode":"bridge"}}"#,
                Some("10.89.0.7"),
            ),
            (
                r#"{"NetworkSettings":{"Networks":{"six":{"IPAddress":"","GlobalIPv6Address":"fd00::7"}}}}"#,
                Some("fd00::7"),
            ),
            (
                r#"{"NetworkSettings":{"IPAddress":"","Networks":null},"HostConfig":{"NetworkMode":"host"}}"#,
                Some("127.0.0.1"),
            ),
            (r#"{"NetworkSettings":{"IPAddress":""}}"#, None),
            (r#"{"HostConfig":{"NetworkMode":"none"}}"#, None),
        ] {
            let inspected: Inspected = serde_json::from_str(text).unwrap();
            let expected = expected.map(|text| text.parse().unwrap());
            assert_eq!(inspected.address(), expected, "{text}");
        }
    }
}
