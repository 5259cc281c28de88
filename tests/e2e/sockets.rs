//! A socket is missing, refuses or is misused: its client reports that, waits, and continues when the socket works
//! again.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

use beemesh_protocol::{
    frame::{CONTROL_MAX, VERSION},
    ipc::{FromAgent, Opening},
};
use harness::{Cluster, Host, pod, secs, wait_for};

const AGENT: &str = "/run/beemesh/agent.sock";
/// The time limit of the agent for the first message of a connection, and a second for the way.
const OPENING: Duration = Duration::from_secs(6);

#[test]
fn sockets_that_fail_are_waited_for_and_misuse_harms_no_host() {
    let cluster = Cluster::formed("sockets", 2);
    let answer = cluster.host(1).apply(&pod("web", "first"));
    assert_eq!(answer["settled"], true, "{answer}");
    for host in &cluster.hosts {
        cluster.running("web", 1, &[host]);
    }
    without_podman(&cluster);
    without_the_agent(&cluster);
    without_the_gateway(&cluster);
    slow_bytes_are_cut_off_and_others_served(&cluster);
    too_long_a_frame_is_cut_off_at_once(&cluster);
    a_second_control_connection_takes_nothing_for_good(&cluster);
    lost_listeners_are_bound_again(&cluster);
}

fn said_by(host: &Host, unit: &str, words: &[&str]) {
    wait_for(
        &format!("{unit} of {} to say {words:?}", host.name),
        secs(30),
        || {
            let status = host.unit(unit, "StatusText");
            if words.iter().all(|word| status.contains(word)) {
                Ok(())
            } else {
                Err(status)
            }
        },
    );
}

fn trouble(host: &Host, words: &[&str]) {
    wait_for(
        &format!("`beemesh status` of {} to tell {words:?}", host.name),
        secs(30),
        || {
            let shown = host.beemesh(&["status"]);
            let line = shown
                .out
                .lines()
                .find_map(|line| line.strip_prefix("problem"));
            let line = line.unwrap_or_default().trim().to_owned();
            let fits = if words.is_empty() {
                line.is_empty()
            } else {
                words.iter().all(|word| line.contains(word))
            };
            if fits && shown.code == 0 {
                Ok(())
            } else {
                Err(shown.to_string())
            }
        },
    );
}

fn is_well(cluster: &Cluster, host: &Host, workload: &str) {
    said_by(
        host,
        "beemesh-pod-web.service",
        &["1/1 healthy · rev 1 · 0 restarts"],
    );
    said_by(host, "beemesh-agent.service", &["· 2/2 hosts ·"]);
    trouble(host, &[]);
    let answer = host.apply(&pod(workload, workload));
    assert_eq!(answer["settled"], true, "{answer}");
    let all: Vec<&Host> = cluster.hosts.iter().collect();
    cluster.running(workload, 1, &all);
}

fn without_podman(cluster: &Cluster) {
    let host = cluster.host(2);
    let before = host.containers("web");
    let _ = host.sh("systemctl stop podman.socket podman.service").ok();
    // Refused, then missing.
    for removed in [false, true] {
        if removed {
            let _ = host.sh("rm -f /run/podman/podman.sock").ok();
        }
        said_by(
            host,
            "beemesh-pod-web.service",
            &["waiting with rev 1", "/run/podman/podman.sock"],
        );
        trouble(host, &["/run/podman/podman.sock"]);
        assert_eq!(
            host.unit("beemesh-pod-web.service", "ActiveState"),
            "active"
        );
    }
    let _ = host.sh("systemctl start podman.socket").ok();
    is_well(cluster, host, "after-podman");
    assert_eq!(host.containers("web"), before);
}

fn without_the_agent(cluster: &Cluster) {
    let host = cluster.host(2);
    let before = host.containers("web");
    let _ = host
        .sh("systemctl stop beemesh-agent.socket beemesh-agent.service")
        .ok();
    trouble(host, &[AGENT]);
    assert_eq!(
        host.unit("beemesh-gateway.service", "ActiveState"),
        "active"
    );
    let _ = host
        .sh("systemctl start beemesh-agent.socket beemesh-agent.service")
        .ok();
    is_well(cluster, host, "after-agent");
    assert_eq!(host.containers("web"), before);
    // Units that the agent has not been told about yet do not count as missing.
    let works = "journalctl -u beemesh-gateway -o cat --no-pager | grep -c 'work begins .*\"web\"'";
    assert_eq!(host.sh(works).out.trim(), "1");
}

fn without_the_gateway(cluster: &Cluster) {
    let host = cluster.host(2);
    let before = host.containers("web");
    let _ = host.sh("systemctl stop beemesh-gateway.service").ok();
    said_by(
        host,
        "beemesh-agent.service",
        &["waiting for the gateway: beemesh-gateway.service is inactive"],
    );
    let asked = host.beemesh(&["--timeout", "1s", "status"]);
    assert_eq!(asked.code, 3, "{asked}");
    assert!(asked.err.contains("/run/beemesh/gateway.sock"), "{asked}");
    let _ = host.sh("systemctl start beemesh-gateway.service").ok();
    is_well(cluster, host, "after-gateway");
    assert_eq!(host.containers("web"), before);
}

fn frame(payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len() + 1).expect("a short payload");
    [&length.to_le_bytes()[..], &[VERSION], payload].concat()
}

fn connect(init: u32) -> UnixStream {
    let stream =
        UnixStream::connect(format!("/proc/{init}/root{AGENT}")).expect("the agent listens");
    stream.set_read_timeout(Some(secs(30))).expect("a bound");
    stream
}

/// The time until the other side closes the connection.
fn closed_after(stream: &mut UnixStream) -> Duration {
    let begun = Instant::now();
    let mut bytes = [0; 4096];
    loop {
        match stream.read(&mut bytes) {
            Ok(0) => return begun.elapsed(),
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {
                return begun.elapsed();
            }
            Err(error) => panic!("not closed within {:?}: {error}", begun.elapsed()),
        }
    }
}

fn slow_bytes_are_cut_off_and_others_served(cluster: &Cluster) {
    let host = cluster.host(1);
    let agent = host.unit("beemesh-agent.service", "MainPID");
    let opening = frame(
        &Opening::Control {
            version: "slow".to_owned(),
        }
        .encode(),
    );
    // More connections than may be open.
    let init = host.init();
    let half = || {
        let mut stream = connect(init);
        let half = &opening[..opening.len() / 2];
        stream.write_all(half).expect("half a frame fits");
        stream
    };
    let mut slow: Vec<_> = (0..100).map(|_| half()).collect();
    let begun = Instant::now();
    let answer = host.apply(&pod("meanwhile", "meanwhile"));
    assert_eq!(answer["settled"], true, "{answer}");
    // The agent cuts off the first connections after their time, and the rest after theirs.
    for stream in &mut slow {
        let _ = closed_after(stream);
    }
    let took = begun.elapsed();
    assert!(took < 2 * OPENING, "the last was closed after {took:?}");
    assert_eq!(host.unit("beemesh-agent.service", "MainPID"), agent);
    cluster.ready();
}

fn too_long_a_frame_is_cut_off_at_once(cluster: &Cluster) {
    let host = cluster.host(1);
    let length = u32::try_from(CONTROL_MAX + 2).expect("a limit below 4 GiB");
    let mut stream = connect(host.init());
    // In one write: the agent closes the connection when it has the length, so a later byte would fail.
    let head = [&length.to_le_bytes()[..], &[VERSION]].concat();
    stream.write_all(&head).expect("five bytes fit");
    let took = closed_after(&mut stream);
    assert!(took < secs(2), "closed after {took:?}");
    cluster.ready();
}

fn a_second_control_connection_takes_nothing_for_good(cluster: &Cluster) {
    let host = cluster.host(1);
    let mut second = connect(host.init());
    let opening = Opening::Control {
        version: "second".to_owned(),
    }
    .encode();
    second.write_all(&frame(&opening)).expect("a frame fits");
    let mut length = [0; 4];
    second.read_exact(&mut length).expect("the agent answers");
    let mut message = vec![0; usize::try_from(u32::from_le_bytes(length)).expect("a length")];
    second.read_exact(&mut message).expect("the whole message");
    let welcome = FromAgent::decode(&message[1..]).expect("a message");
    assert!(matches!(welcome, FromAgent::Welcome(_)), "{welcome:?}");
    // The connection stalls in the middle of a frame. The gateway, which it had replaced, connects again and replaces
    // it.
    let rest = frame(&opening);
    let _ = second.write_all(&rest[..rest.len() / 2]);
    let took = closed_after(&mut second);
    assert!(took < secs(5), "put aside after {took:?}");
    is_well(cluster, host, "after-second");
}

fn lost_listeners_are_bound_again(cluster: &Cluster) {
    let host = cluster.host(1);
    let before = host.containers("web");
    let agent = host.unit("beemesh-agent.service", "MainPID");
    let killed = host.sh("ss -HKlt 'sport = :4701'").ok();
    assert!(!killed.is_empty(), "the kernel closed no socket");
    wait_for("the agent to start anew", secs(60), || {
        match host.unit("beemesh-agent.service", "MainPID") {
            pid if pid == agent || pid == "0" => Err(pid),
            _ => Ok(()),
        }
    });
    let said = host.sh("journalctl -u beemesh-agent --no-pager").ok();
    assert!(
        said.contains("the mesh ended: the listener on /ip") && said.contains("is lost: "),
        "{said}"
    );
    is_well(cluster, host, "after-listener");
    assert_eq!(host.containers("web"), before);
}
