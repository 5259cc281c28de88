//! Hosts whose address is not the one of their interface, and hosts that have all changed their addresses.

#![allow(clippy::unwrap_used, reason = "whatever is missing fails the test")]

use std::{thread, time::Duration};

use harness::{Cluster, Host, pod, secs, start_agent, wait_for};

/// The host's address plus 100.
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
    // Packets to the address of the host's interface do not arrive, and its own packets carry the other address.
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
            "has 127.0.0.1, which other hosts cannot reach",
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

    // Now the host cannot dial, so that the others have to dial it, and both sides have lost their connections.
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

#[test]
fn hosts_that_have_all_moved_find_one_another_on_their_network_when_that_is_switched_on() {
    let cluster = Cluster::formed("moved", 3);
    let answer = cluster.host(1).apply(&pod("web", "x"));
    assert_eq!(answer["settled"], true, "{answer}");
    cluster.each(|host| {
        let _ = host
            .sh("systemctl stop beemesh-agent.socket beemesh-agent")
            .ok();
    });
    cluster.each(|host| {
        let (old, new) = (host.address(), moved(host));
        let line = format!("ip address del {old}/24 dev eth0 && ip address add {new}/24 dev eth0");
        let _ = host.sh(&line).ok();
    });
    cluster.each(|host| {
        let _ = host.sh("systemctl start beemesh-agent").ok();
    });
    // Each host dials the old addresses of the others, for the time of several attempts.
    thread::sleep(Duration::from_secs(10));
    for host in &cluster.hosts {
        let status = wait_for("a status", secs(60), || {
            let status = host.status();
            if status["hosts"]["total"] == 3 {
                Ok(status)
            } else {
                Err(status)
            }
        });
        assert_eq!(status["hosts"]["reachable"], 1, "{status}");
    }
    cluster.each(|host| {
        let line = "mkdir -p /etc/beemesh/agent.toml.d && echo 'mdns = true' >/etc/beemesh/agent.toml.d/mdns.toml && \
                    systemctl restart beemesh-agent";
        let _ = host.sh(line).ok();
    });
    cluster.ready();
    for host in &cluster.hosts {
        let journal = host
            .run(&["journalctl", "-b", "--no-pager", "-u", "beemesh-agent"])
            .out;
        assert!(
            !journal.contains("cannot listen for hosts on the local network"),
            "{journal}"
        );
    }
    // The list has the new addresses, so that the next start needs no help.
    for of in &cluster.hosts {
        let new = format!("/ip4/{}/udp/4701/quic-v1", moved(of));
        wait_for("the new address in the list", secs(30), || {
            let found = addresses(cluster.host(1), of);
            if found.contains(&new) {
                Ok(())
            } else {
                Err(found.join(", "))
            }
        });
    }
    let answer = cluster.host(2).apply(&pod("web", "y"));
    assert_eq!(answer["settled"], true, "{answer}");
}
