//! Conditions in which Beemesh must not work: it refuses with a message where an administrator looks, and workloads
//! keep running.

#![allow(clippy::unwrap_used, reason = "whatever is missing fails the test")]

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::PathBuf,
    thread,
};

use harness::{Cluster, Host, pod, secs, wait_for};

const LOG: &str = "/var/lib/beemesh/gateway/raft/log";
const PODMAN: &str = "/run/podman/podman.sock";

/// A path on a running host, as seen from outside.
fn outside(host: &Host, path: &str) -> PathBuf {
    format!("/proc/{}/root{path}", host.init()).into()
}

/// All files of the gateway's log.
fn log_files(host: &Host) -> BTreeMap<PathBuf, Vec<u8>> {
    let folder = fs::read_dir(outside(host, LOG)).unwrap();
    let paths = folder.map(|entry| entry.unwrap().path());
    paths
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect()
}

/// The CRC-32 of zip, which the log's header also uses.
fn crc32(bytes: &[u8]) -> u32 {
    let bit = |crc: u32, _| (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg());
    let byte = |crc: u32, byte: &u8| (0..8).fold(crc ^ u32::from(*byte), bit);
    !bytes.iter().fold(!0, byte)
}

/// A segment with a valid header of format 2.
fn of_format_two(segment: &[u8]) -> Vec<u8> {
    assert_eq!(&segment[..8], b"BMRAFT1\n");
    let mut newer = segment.to_vec();
    newer[6] = b'2';
    let sum = crc32(&newer[..24]);
    newer[24..28].copy_from_slice(&sum.to_le_bytes());
    newer
}

/// The output of `systemctl status` and the journal of a unit.
fn shown(host: &Host, unit: &str) -> [String; 2] {
    [
        host.run(&["systemctl", "status", "--no-pager", "-l", unit])
            .out,
        host.run(&["journalctl", "-b", "--no-pager", "-u", unit])
            .out,
    ]
}

#[test]
fn a_log_of_a_newer_format_is_refused_and_left_and_works_again_when_it_is_read_again() {
    let cluster = Cluster::formed("refusals-format", 2);
    let host = cluster.host(2);
    let answer = cluster.host(1).apply(&pod("web", "first"));
    assert_eq!(answer["settled"], true, "{answer}");
    let before = host.containers("web");
    let gateway = |verb: &str| {
        host.run(&["systemctl", verb, "--no-block", "beemesh-gateway.service"])
            .ok()
    };

    let _ = host
        .run(&["systemctl", "stop", "beemesh-gateway.service"])
        .ok();
    let whole = log_files(host);
    let (path, segment) = whole.last_key_value().unwrap();
    fs::write(path, of_format_two(segment)).unwrap();
    let newer = log_files(host);
    let _ = gateway("start");
    let name = path.file_name().unwrap().to_str().unwrap();
    let says =
        format!("raft log {LOG}/{name} has format 2, this version of Beemesh reads up to 1: ");
    let words = [
        &*says,
        "install the version that wrote it (`dnf upgrade beemesh` on this host)",
    ];
    // The command that the agent's status line recommends.
    let look = "journalctl -u beemesh-gateway -g ERROR";
    wait_for("the gateway's refusal", secs(30), || {
        let status = host.unit("beemesh-agent.service", "StatusText");
        let journal = host.sh(&format!("{look} -b --no-pager")).out;
        let all = words.iter().all(|words| journal.contains(words));
        if all && status.contains(look) {
            Ok(())
        } else {
            Err(format!("{status}\n{journal}"))
        }
    });
    assert!(log_files(host) == newer, "the log was touched");
    assert_eq!(host.containers("web"), before);

    let _ = host
        .run(&["systemctl", "stop", "beemesh-gateway.service"])
        .ok();
    assert!(log_files(host) == newer, "the log was touched");
    fs::write(path, segment).unwrap();
    let _ = gateway("start");
    cluster.ready();
    assert_eq!(host.containers("web"), before);
    let answer = cluster.host(1).apply(&pod("after", "after"));
    assert_eq!(answer["settled"], true, "{answer}");
}

/// Serves the part of Podman's API that the agent asks for the version: packages of such an old Podman are not
/// available.
fn serve_version(host: &Host, version: &'static str) {
    let listener = UnixListener::bind(outside(host, PODMAN)).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            // A caller that hangs up is the test's business, not the server's.
            drop(stream.and_then(|stream| answer_ping(stream, version)));
        }
    });
}

fn answer_ping(mut stream: UnixStream, version: &str) -> std::io::Result<()> {
    let head = BufReader::new(stream.try_clone()?)
        .lines()
        .map_while(Result::ok);
    let head: Vec<_> = head.take_while(|line| !line.is_empty()).collect();
    let status = match head.first() {
        Some(line) if line.starts_with("GET /libpod/_ping ") => "200 OK",
        _ => "404 Not Found",
    };
    write!(
        stream,
        "HTTP/1.0 {status}\r\nLibpod-Api-Version: {version}\r\nContent-Length: 2\r\n\r\nOK"
    )
}

#[test]
fn a_podman_that_is_too_old_is_refused_until_it_is_updated() {
    let cluster = Cluster::booted("refusals-podman", 1);
    let host = cluster.host(1);
    let _ = host
        .sh("systemctl mask --runtime --now podman.socket podman.service")
        .ok();
    let _ = host
        .sh(&format!("mkdir -p /run/podman && rm -f {PODMAN}"))
        .ok();
    serve_version(host, "5.2.0");

    let agent = "beemesh-agent.service";
    let refused = host.run(&["systemctl", "start", agent]);
    assert_ne!(refused.code, 0, "{refused}");
    let state =
        ["ActiveState", "ExecMainStatus", "NRestarts"].map(|property| host.unit(agent, property));
    assert_eq!(
        state,
        ["failed", "78", "0"],
        "a restart would only repeat it"
    );
    let words = "Podman 5.2.0 is too old, Beemesh needs 5.3 or later: update the package `podman` of this host";
    let texts = shown(host, agent);
    assert!(texts.iter().all(|text| text.contains(words)), "{texts:?}");
    assert!(host.unit(agent, "StatusText").contains(words), "{texts:?}");

    // In this order: the gateway's call may start the agent at any moment, and the agent then starts Podman's own socket.
    let _ = host
        .sh(&format!(
            "systemctl unmask --runtime podman.socket podman.service && rm {PODMAN}"
        ))
        .ok();
    cluster.form();
    let podman = host
        .run(&["podman", "version", "--format", "{{.Client.Version}}"])
        .ok();
    let mended = numbers(&podman) >= vec![5, 6, 1];
    let [_, journal] = shown(host, agent);
    let warnings = journal.matches("CVE-2025-9566").count();
    assert_eq!(warnings, usize::from(!mended), "Podman {podman}: {journal}");
}

fn numbers(version: &str) -> Vec<u32> {
    let parts = version.trim().split('.');
    parts.map_while(|part| part.parse().ok()).collect()
}

#[test]
fn a_reload_with_an_invalid_configuration_fails_and_names_the_key() {
    let cluster = Cluster::formed("reload", 1);
    let host = cluster.host(1);
    let file = "/etc/beemesh/agent.toml.d/mine.toml";
    let set = |line: &str| {
        let line = format!("mkdir -p /etc/beemesh/agent.toml.d && echo '{line}' >{file}");
        let _ = host.sh(&line).ok();
        host.run(&["systemctl", "reload", "beemesh-agent"])
    };
    let pid = host.unit("beemesh-agent.service", "MainPID");
    for (line, key) in [
        ("port = 0", "`port` must be 1 to 65535"),
        ("nmae = \"h9\"", "unknown field `nmae`"),
    ] {
        let answer = set(line);
        assert_ne!(answer.code, 0, "{line}: {answer}");
        let [status, journal] = shown(host, "beemesh-agent.service");
        for text in [&status, &journal] {
            assert!(
                text.contains(key) && text.contains("mine.toml"),
                "{line}: {text}"
            );
        }
        assert_eq!(host.unit("beemesh-agent.service", "ActiveState"), "active");
    }
    let answer = set("name = \"h9\"");
    assert_eq!(answer.code, 0, "{answer}");
    wait_for("the new name", secs(20), || {
        let seen = host.beemesh(&["status"]).out;
        if seen.contains("h9") {
            Ok(())
        } else {
            Err(seen)
        }
    });
    assert_eq!(
        host.unit("beemesh-agent.service", "MainPID"),
        pid,
        "one process through all reloads"
    );
}
