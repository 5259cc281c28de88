//! Actions that users may repeat without end are bounded, and queries are cheap.

#![allow(clippy::unwrap_used, reason = "whatever is missing fails the test")]

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use harness::{Cluster, Host, IMAGE, pod, secs, wait_for};
use serde_json::Value;

/// The number of callers that follow events; the socket accepts 256 connections.
const STREAMS: usize = 200;

#[test]
fn what_users_do_without_end_has_a_bound() {
    let cluster = Cluster::formed("bounds", 1);
    let host = cluster.host(1);
    a_backup_is_in_the_trail_of_the_host(host);
    an_image_that_arrives_later_is_noticed_soon(&cluster, host);
    a_certificate_that_expires_ends_its_streams(host);
    many_who_look_on_cost_little_more_than_one(host);
    what_is_kept_fits_into_a_backup(host);
}

fn a_backup_is_in_the_trail_of_the_host(host: &Host) {
    let _ = host.sh("beemesh backup >/root/backup").ok();
    wait_for("the journal's entry", secs(10), || {
        let line = "journalctl -u beemesh-gateway -o json BEEMESH_ACTION='backup taken'";
        let said = host.sh(line);
        let entry: Value = serde_json::from_str(&said.out).unwrap_or_default();
        let who = entry["BEEMESH_WHO"].as_str().map(str::to_owned);
        who.filter(|who| who.contains("uid 0")).ok_or(said)
    });
}

fn an_image_that_arrives_later_is_noticed_soon(cluster: &Cluster, host: &Host) {
    let yaml = pod("later", "hello").replace(IMAGE, "localhost/later:1");
    // By then the pauses between pulls are longer than the wait below.
    let answer = host.try_apply(&yaml, &["--force", "--wait=20"]);
    assert_eq!(answer.code, 1, "{answer}");
    for words in ["localhost/later:1", "tries again at", "within 10 s once"] {
        assert!(answer.err.contains(words), "{words}: {answer}");
    }
    // By the host's own clock: the host may be busy, and this test may look late.
    let seconds = |line: &str| host.sh(line).ok().trim().parse::<u64>().unwrap();
    let tagged = seconds(&format!("podman tag {IMAGE} localhost/later:1 && date +%s"));
    cluster.running("later", 1, &[host]);
    let played = seconds("podman inspect -f '{{.State.StartedAt.Unix}}' later-main");
    let took = played - tagged;
    assert!(took <= 11, "played {took} s after its image arrived");
}

fn a_certificate_that_expires_ends_its_streams(host: &Host) {
    let line = "mkdir -p /etc/beemesh/agent.toml.d && echo 'api-port = 7443' >/etc/beemesh/agent.toml.d/api.toml && \
                systemctl reload beemesh-agent";
    let _ = host.sh(line).ok();
    wait_for("the port to be open", secs(10), || {
        let seen = host.sh("ss -tlnH 'sport = :7443'").out;
        if seen.is_empty() { Err("none") } else { Ok(()) }
    });
    let line = "beemesh user create eve --role viewer --ttl 15s >/root/eve.yaml";
    let _ = host.sh(line).ok();
    let begun = Instant::now();
    // Code 124 means that `timeout` ended the command, not that the stream ended.
    let line = "timeout 60 beemesh --config /root/eve.yaml logs -f later";
    let followed = host.sh(line);
    let took = begun.elapsed();
    assert!(followed.out.contains("hello"), "{followed}");
    assert_ne!(followed.code, 124, "{followed}");
    assert!(secs(8) < took && took < secs(30), "ended after {took:?}");
}

/// CPU time that the gateway has used.
fn gateway_time(host: &Host) -> Duration {
    let pid = host.processes()["beemesh-gateway"][0];
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    let fields = fields.split(' ').skip(11).take(2);
    let ticks: u64 = fields.map(|field| field.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 10)
}

fn follow(host: &Host) -> UnixStream {
    let socket: PathBuf = format!("/proc/{}/root/run/beemesh/gateway.sock", host.init()).into();
    let mut stream = UnixStream::connect(socket).unwrap();
    let asked = b"GET /v1/events HTTP/1.1\r\nhost: x\r\n\r\n";
    stream.write_all(asked).unwrap();
    // The first piece of the answer: from now on the connection receives changes.
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut line = String::new();
    while !line.starts_with("event:") {
        line.clear();
        assert_ne!(reader.read_line(&mut line).unwrap(), 0, "a stream ended");
    }
    stream
}

fn many_who_look_on_cost_little_more_than_one(host: &Host) {
    // Workloads that the gateway has to compare with each change.
    let idle: String = (0..60)
        .map(|n| {
            let spec = "spec:\n  nodeSelector: {nowhere: \"true\"}\n";
            format!(
                "---\n{}",
                pod(&format!("idle-{n}"), "x").replace("spec:\n", spec)
            )
        })
        .collect();
    let (code, answer) = host.api("POST", "/v1/apply?name=idle&timeout=30", idle.as_bytes());
    assert_eq!(code, 200, "{answer}");
    let cost = |streams: usize| {
        let streams: Vec<_> = (0..streams).map(|_| follow(host)).collect();
        let drains = streams.iter().map(|stream| {
            let mut stream = stream.try_clone().unwrap();
            thread::spawn(move || while stream.read(&mut [0; 4096]).is_ok_and(|count| count > 0) {})
        });
        let drains: Vec<_> = drains.collect();
        let before = gateway_time(host);
        for n in 0..40 {
            let yaml = format!(
                "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: seen}}\ndata: {{n: \"{n}\"}}\n"
            );
            let (code, answer) = host.api("POST", "/v1/apply", yaml.as_bytes());
            assert_eq!(code, 200, "{answer}");
        }
        let cost = gateway_time(host) - before;
        for stream in streams {
            stream.shutdown(std::net::Shutdown::Both).unwrap();
        }
        drains.into_iter().for_each(|drain| drain.join().unwrap());
        cost
    };
    let (one, many) = (cost(1), cost(STREAMS));
    eprintln!("40 changes cost {one:?} with one stream, {many:?} with {STREAMS}");
    assert!(many < one * 20 + secs(1), "{one:?} and {many:?}");
}

fn what_is_kept_fits_into_a_backup(host: &Host) {
    // A file of 1 MiB with four ConfigMaps of that size, by an alias.
    let text = "x".repeat(1_000_000);
    let file = |n: usize| {
        let more: String = (1..4)
            .map(|one| format!("- {{apiVersion: v1, kind: ConfigMap, metadata: {{name: g{n}-{one}}}, data: {{x: *x}}}}\n"))
            .collect();
        format!(
            "apiVersion: v1\nkind: List\nitems:\n\
             - {{apiVersion: v1, kind: ConfigMap, metadata: {{name: g{n}-0}}, data: {{x: &x \"{text}\"}}}}\n{more}"
        )
    };
    let apply = |n: usize| {
        let path = format!("/v1/apply?name=g{n}&timeout=60");
        host.api("POST", &path, file(n).as_bytes())
    };
    let (kept, refused) = (0..60)
        .find_map(|n| {
            let (code, answer) = apply(n);
            (code != 200).then_some((n, answer.to_string()))
        })
        .expect("there is a bound");
    assert!((25..40).contains(&kept), "{kept} files are kept");
    for words in ["128.0 MiB", "delete manifests", "the largest are `g"] {
        assert!(refused.contains(words), "{words}: {refused}");
    }
    let _ = host.sh("beemesh backup >/root/backup").ok();
    // An existing object can be changed, and a deletion frees space.
    let (code, answer) = apply(0);
    assert_eq!(code, 200, "{answer}");
    let (code, answer) = host.api("DELETE", "/v1/manifests/g1?timeout=30", b"");
    assert_eq!(code, 200, "{answer}");
    let (code, answer) = apply(kept);
    assert_eq!(code, 200, "{answer}");
}
