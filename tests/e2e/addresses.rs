//! Hosts that are not where their interfaces say.

#![allow(clippy::unwrap_used, reason = "whatever is missing fails the test")]

use harness::{Cluster, Host, pod, start_agent};

/// The same network, some hosts further on.
fn moved(host: &Host) -> String {
    let address = host.address();
    let (network, last) = address.rsplit_once('.').unwrap();
    format!("{network}.{}", last.parse::<u8>().unwrap() + 100)
}

fn addresses(host: &Host, of: &Host) -> Vec<String> {
    let (_, found) = host.api("GET", &format!("/v1/hosts/{}", of.name), b"");
    let list = found["addresses"].as_array().cloned().unwrap_or_default();
    list.iter()
        .filter_map(|one| one.as_str().map(str::to_owned))
        .collect()
}

#[test]
fn a_host_is_reached_at_the_address_that_it_was_told_when_it_joined() {
    let cluster = Cluster::booted("advertised", 2);
    cluster.each(start_agent);
    let (h1, h2) = (cluster.host(1), cluster.host(2));
    let (wrong, right) = (h2.address(), moved(h2));
    // Nothing arrives at the address of its interface, and what it sends comes from the other one.
    let network = wrong.rsplit_once('.').unwrap().0;
    let _ = h2
        .sh(&format!(
            "ip address add {right}/24 dev eth0 && ip route replace {network}.0/24 dev eth0 src {right} && \
             nft 'table ip wrong {{ chain in {{ type filter hook input priority 0; ip daddr {wrong} drop; }}; }}'"
        ))
        .ok();
    let token = h1.beemesh(&["token", "create"]).ok();
    for (address, code, words) in [
        ("h2.example", 2, "invalid IP address syntax"),
        (
            "127.0.0.1",
            1,
            "names 127.0.0.1, which other hosts cannot dial",
        ),
    ] {
        let refused = h2.beemesh(&["join", token.trim(), "--advertise", address]);
        assert!(
            refused.code == code && refused.err.contains(words),
            "{refused}"
        );
    }
    let _ = h2
        .beemesh(&["join", token.trim(), "--advertise", &right])
        .ok();
    cluster.ready();
    let told = [
        format!("/ip4/{right}/udp/4701/quic-v1"),
        format!("/ip4/{right}/tcp/4701"),
    ];
    assert_eq!(addresses(h1, h2), told);

    // Now it cannot dial, so that it has to be dialled, and both have forgotten their connections.
    let _ = h2
        .sh(
            "nft 'table ip mute { chain out { type filter hook output priority 0; udp dport 4701 drop; \
             tcp dport 4701 tcp flags & (syn | ack) == syn reject with tcp reset; }; }'",
        )
        .ok();
    cluster.each(|host| {
        let _ = host.sh("systemctl restart beemesh-agent").ok();
    });
    cluster.ready();
    assert_eq!(addresses(h1, h2), told);
    let answer = h1.apply(&pod("web", "x"));
    assert_eq!(answer["settled"], true, "{answer}");
}
