//! The addresses at which other hosts dial this host.
//!
//! Shell: reads the addresses of the network interfaces from the kernel. The administrator's configuration takes
//! precedence. Without it, the addresses are those that the listeners report, less those that other hosts cannot reach.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
};

use libp2p::{Multiaddr, multiaddr::Protocol};

/// Addresses that this host advertises. More addresses do not make a host easier to reach.
const TOLD_MAX: usize = 16;
/// Prefixes of the interfaces of container and virtual machine managers. Their networks have the same addresses on
/// every host.
const PRIVATE_INTERFACES: [&str; 5] = ["podman", "cni-", "docker", "virbr", "veth"];

/// The multiaddrs to advertise, QUIC first.
pub(crate) fn advertised(
    configured: &[IpAddr],
    port: u16,
    listening: &BTreeSet<Multiaddr>,
) -> Vec<String> {
    if !configured.is_empty() {
        let quic = configured.iter().map(|ip| {
            let address = Multiaddr::from(*ip).with(Protocol::Udp(port));
            address.with(Protocol::QuicV1)
        });
        let tcp = configured.iter();
        let tcp = tcp.map(|ip| Multiaddr::from(*ip).with(Protocol::Tcp(port)));
        return quic.chain(tcp).map(|address| address.to_string()).collect();
    }
    told(listening, &private_addresses())
}

/// Pure: the listeners' addresses that other hosts can reach.
fn told(listening: &BTreeSet<Multiaddr>, private: &BTreeSet<IpAddr>) -> Vec<String> {
    let usable = listening.iter().filter(|address| {
        address.iter().any(|part| match part {
            Protocol::Ip4(ip) => {
                !ip.is_loopback() && !ip.is_link_local() && !private.contains(&ip.into())
            }
            Protocol::Ip6(ip) => {
                !ip.is_loopback() && !ip.is_unicast_link_local() && !private.contains(&ip.into())
            }
            _ => false,
        })
    });
    let is_tcp = |address: &&Multiaddr| address.iter().any(|part| matches!(part, Protocol::Tcp(_)));
    let (tcp, quic): (Vec<_>, Vec<_>) = usable.partition(is_tcp);
    let all = quic.into_iter().chain(tcp);
    all.take(TOLD_MAX).map(ToString::to_string).collect()
}

/// The IPv4 addresses of this host on networks that it shares with other hosts.
pub(crate) fn own_networks() -> BTreeSet<Ipv4Addr> {
    let Ok(interfaces) = nix::ifaddrs::getifaddrs() else {
        return BTreeSet::new();
    };
    let private = private_addresses();
    let ips = interfaces.filter_map(|found| Some(found.address?.as_sockaddr_in()?.ip()));
    ips.filter(|ip| !ip.is_loopback() && !private.contains(&IpAddr::V4(*ip)))
        .collect()
}

/// The addresses of this host on networks that exist only inside it.
fn private_addresses() -> BTreeSet<IpAddr> {
    let interfaces = match nix::ifaddrs::getifaddrs() {
        Ok(interfaces) => interfaces,
        Err(error) => {
            tracing::warn!(%error, "cannot list interfaces, so all addresses are announced");
            return BTreeSet::new();
        }
    };
    let private = interfaces.filter(|found| {
        let name = &found.interface_name;
        PRIVATE_INTERFACES
            .iter()
            .any(|begin| name.starts_with(begin))
    });
    let ips = private.filter_map(|found| {
        let address = found.address?;
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
    });
    ips.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_others_can_dial_is_told_and_quic_comes_first() {
        let listening = [
            "/ip4/127.0.0.1/tcp/4701",
            "/ip4/10.0.0.2/tcp/4701",
            "/ip4/10.0.0.2/udp/4701/quic-v1",
            "/ip4/10.88.0.1/udp/4701/quic-v1",
            "/ip6/fe80::1/udp/4701/quic-v1",
            "/ip6/fd00::2/udp/4701/quic-v1",
            "/ip6/::1/tcp/4701",
        ];
        let listening = listening.iter().map(|text| text.parse().unwrap()).collect();
        let private = BTreeSet::from(["10.88.0.1".parse().unwrap()]);
        assert_eq!(
            told(&listening, &private),
            [
                "/ip4/10.0.0.2/udp/4701/quic-v1",
                "/ip6/fd00::2/udp/4701/quic-v1",
                "/ip4/10.0.0.2/tcp/4701",
            ]
        );
        assert_eq!(
            advertised(&["192.0.2.1".parse().unwrap()], 5000, &listening),
            ["/ip4/192.0.2.1/udp/5000/quic-v1", "/ip4/192.0.2.1/tcp/5000"]
        );
    }
}
