//! Probes of real servers on the loopback interface.

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{ServerConfig, SupportedProtocolVersion};

use super::super::spec::Probe;
use super::super::{ContainerSpec, Memory, Prober, RunId};
use super::*;

mod grpc;

const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

async fn listen() -> (TcpListener, u16) {
    let listener = TcpListener::bind((LOCAL, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

/// Probes the loopback address for at most a second.
async fn probe(handler: &Handler) -> Outcome {
    probe_within(handler, Duration::from_secs(5)).await
}

async fn probe_within(handler: &Handler, limit: Duration) -> Outcome {
    let podman = Podman::new(Path::new("/nonexistent"));
    on(&podman).probe(handler, limit).await
}

fn on(podman: &Podman) -> Pod<'_> {
    Pod {
        podman,
        container: "07c1",
        address: Some(LOCAL),
    }
}

fn http(port: u16, path: &str, tls: bool, headers: &[(&str, &str)]) -> Handler {
    let headers = headers.iter();
    let headers = headers.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Handler::Http(HttpGet {
        host: None,
        port,
        path: path.into(),
        tls,
        headers: headers.collect(),
    })
}

fn failure(output: &str) -> Outcome {
    failed(output)
}

async fn head(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(head).unwrap()
}

async fn answer(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), answer: &str) -> String {
    let head = head(stream).await;
    // The client may have read enough before the end.
    let _ = stream.write_all(answer.as_bytes()).await;
    let _ = stream.shutdown().await;
    head
}

/// A server that answers by the path of a request, and keeps the heads of requests.
async fn serve(answers: &'static [(&'static str, &'static str)]) -> (u16, Arc<Mutex<Vec<String>>>) {
    let (listener, port) = listen().await;
    let heads = Arc::new(Mutex::new(Vec::new()));
    let kept = heads.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let head = head(&mut stream).await;
            let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
            kept.lock().await.push(head);
            let found = answers.iter().find(|(known, _)| *known == path);
            let text = found.map_or("HTTP/1.1 404 Not Found\r\n\r\nsecret", |(_, text)| text);
            let text = text.replace("PORT", &port.to_string());
            let _ = stream.write_all(text.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    });
    (port, heads)
}

#[tokio::test]
async fn the_status_of_an_answer_decides() {
    let (port, heads) = serve(&[
        ("/ok", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
        ("/old", "HTTP/1.0 204 No Content\r\n\r\n"),
        ("/error", "HTTP/1.1 500 Oh\r\n\r\nsecret"),
        ("/same", "HTTP/1.1 304 Not Modified\r\n\r\n"),
        ("/no", "HTTP/1.1 302 Found\r\n\r\n"),
        ("/cut", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok"),
        ("/garbage", "SSH-2.0-x\r\n\r\n"),
        ("/nothing", ""),
    ])
    .await;
    let redirected =
        Outcome::Warning("the probe ended at a redirect that it does not follow".into());
    for (path, expected) in [
        ("/ok", Outcome::Success),
        ("/old", Outcome::Success),
        ("/error", failure("HTTP probe failed with statuscode: 500")),
        (
            "/missing",
            failure("HTTP probe failed with statuscode: 404"),
        ),
        ("/same", redirected.clone()),
        ("/no", redirected),
    ] {
        assert_eq!(
            probe(&http(port, path, false, &[])).await,
            expected,
            "{path}"
        );
    }
    let cut = probe(&http(port, "/cut", false, &[])).await;
    assert!(matches!(cut, Outcome::Unknown(_)), "{cut:?}");
    for path in ["/garbage", "/nothing"] {
        let outcome = probe(&http(port, path, false, &[])).await;
        assert!(
            matches!(outcome, Outcome::Failure(_)),
            "{path}: {outcome:?}"
        );
    }
    let first = heads.lock().await.first().cloned().unwrap();
    let expected = format!(
        "GET /ok HTTP/1.1\r\nUser-Agent: kube-probe/1.33\r\nAccept: */*\r\nConnection: close\r\nHost: 127.0.0.1:{port}\r\n\r\n"
    );
    assert_eq!(first, expected);
}

#[tokio::test]
async fn headers_of_the_manifest_are_sent() {
    let (port, heads) = serve(&[("/", "HTTP/1.1 200 OK\r\n\r\n")]).await;
    let headers = [
        ("host", "example.org"),
        ("x-a", " 1"),
        ("X-A", "2"),
        ("Accept", ""),
        ("user-agent", "me"),
        ("X-Name", "ü"),
    ];
    assert_eq!(
        probe(&http(port, "/", false, &headers)).await,
        Outcome::Success
    );
    let sent = heads.lock().await.first().cloned().unwrap();
    let mut lines: Vec<&str> = sent.trim_end().lines().skip(1).collect();
    lines.sort_unstable();
    let expected = [
        "Connection: close",
        "Host: example.org",
        "User-Agent: me",
        "X-A: 1",
        "X-A: 2",
        "X-Name: ü",
    ];
    assert_eq!(lines, expected);
    let outcome = probe(&http(port, "/", false, &[("a", "b\nc")])).await;
    assert_eq!(outcome, failure("header a is not valid"));
}

#[tokio::test]
async fn redirects_are_followed_to_the_pod_only() {
    let (port, heads) = serve(&[
        ("/a", "HTTP/1.1 302 Found\r\nLocation: b?c\r\n\r\n"),
        (
            "/b?c",
            "HTTP/1.1 301 Moved\r\nLocation: http://127.0.0.1:PORT/d\r\n\r\n",
        ),
        ("/d", "HTTP/1.1 200 OK\r\n\r\n"),
        ("/bad", "HTTP/1.1 307 No\r\nLocation: /missing\r\n\r\n"),
        ("/loop", "HTTP/1.1 308 Again\r\nLocation: /loop\r\n\r\n"),
        (
            "/away",
            "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.2:PORT/d\r\n\r\n",
        ),
    ])
    .await;
    let outcome = probe(&http(port, "/a", false, &[("Host", "example.org")])).await;
    assert_eq!(outcome, Outcome::Success);
    let hosts: Vec<String> = heads.lock().await.drain(..).collect();
    let is_own = |head: &&String| head.contains("Host: example.org");
    // A redirect that names a host replaces the one of the manifest.
    assert_eq!((hosts.len(), hosts.iter().filter(is_own).count()), (3, 2));
    for (path, expected, requests) in [
        ("/bad", failure("HTTP probe failed with statuscode: 404"), 2),
        ("/loop", failure("stopped after 10 redirects"), 10),
        (
            "/away",
            Outcome::Warning("the probe ended at a redirect that it does not follow".into()),
            1,
        ),
    ] {
        assert_eq!(
            probe(&http(port, path, false, &[])).await,
            expected,
            "{path}"
        );
        assert_eq!(heads.lock().await.drain(..).count(), requests, "{path}");
    }
}

#[tokio::test]
async fn an_endless_answer_is_read_as_far_as_a_bound() {
    let (listener, port) = listen().await;
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        head(&mut stream).await;
        let begin = b"HTTP/1.1 200 OK\r\n\r\n";
        stream.write_all(begin).await.unwrap();
        while stream.write_all(&[b'x'; 1024]).await.is_ok() {}
    });
    assert_eq!(probe(&http(port, "/", false, &[])).await, Outcome::Success);
    server.await.unwrap();
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_waited_for_only_so_long() {
    let (_listener, port) = listen().await;
    let limit = Duration::from_millis(200);
    let late = Outcome::Failure(Fault {
        exit: None,
        timed_out: true,
        output: "no answer within 0.2s".into(),
    });
    let grpc = Handler::Grpc {
        port,
        service: String::new(),
    };
    for handler in [
        http(port, "/", false, &[]),
        http(port, "/", true, &[]),
        grpc,
    ] {
        assert_eq!(probe_within(&handler, limit).await, late, "{handler:?}");
    }
    // The kernel has accepted the connection.
    let tcp = Handler::Tcp { host: None, port };
    assert_eq!(probe_within(&tcp, limit).await, Outcome::Success);
}

#[tokio::test]
async fn a_closed_port_is_a_failure() {
    let (listener, port) = listen().await;
    drop(listener);
    let refused = failure(&format!("port {port}: connection refused"));
    let tcp = Handler::Tcp { host: None, port };
    let grpc = Handler::Grpc {
        port,
        service: String::new(),
    };
    for handler in [
        tcp,
        grpc,
        http(port, "/", false, &[]),
        http(port, "/", true, &[]),
    ] {
        assert_eq!(probe(&handler).await, refused, "{handler:?}");
    }
}

#[tokio::test]
async fn no_name_of_a_host_is_looked_up() {
    let (port, heads) = serve(&[("/", "HTTP/1.1 200 OK\r\n\r\n")]).await;
    let get = |host: &str| {
        Handler::Http(HttpGet {
            host: Some(host.into()),
            port,
            path: "/".into(),
            tls: false,
            headers: Vec::new(),
        })
    };
    let tcp = Handler::Tcp {
        host: Some("localhost".into()),
        port,
    };
    for handler in [get("localhost"), tcp] {
        let outcome = probe(&handler).await;
        assert!(matches!(outcome, Outcome::Unknown(_)), "{outcome:?}");
    }
    assert_eq!(probe(&get("127.0.0.1")).await, Outcome::Success);
    assert_eq!(heads.lock().await.len(), 1);
    let podman = Podman::new(Path::new("/nonexistent"));
    let lost = Pod {
        address: None,
        ..on(&podman)
    };
    let outcome = lost
        .probe(&http(port, "/", false, &[]), Duration::from_secs(1))
        .await;
    assert_eq!(outcome, Outcome::Unknown("the pod has no address".into()));
}

/// A server with a certificate that no authority has signed.
async fn serve_tls(text: &'static str, version: &'static SupportedProtocolVersion) -> u16 {
    let certified = rcgen::generate_simple_self_signed(["elsewhere.example".into()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(certified.key_pair.serialize_der().into());
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let (listener, port) = listen().await;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if let Ok(mut stream) = acceptor.accept(stream).await {
                answer(&mut stream, text).await;
            }
        }
    });
    port
}

#[tokio::test]
async fn certificates_are_not_verified() {
    for version in [&TLS12, &TLS13] {
        let port = serve_tls("HTTP/1.1 200 OK\r\n\r\nok", version).await;
        let outcome = probe(&http(port, "/", true, &[])).await;
        assert_eq!(outcome, Outcome::Success, "{version:?}");
    }
    let port = serve_tls("HTTP/1.1 503 No\r\n\r\n", &TLS13).await;
    let outcome = probe(&http(port, "/", true, &[])).await;
    assert_eq!(outcome, failure("HTTP probe failed with statuscode: 503"));
}

#[tokio::test]
async fn a_hook_accepts_every_answer_and_falls_back_to_plain_http() {
    let podman = Podman::new(Path::new("/nonexistent"));
    let limit = Duration::from_secs(5);
    let (port, heads) = serve(&[]).await;
    let plain = http(port, "/bye", false, &[]);
    assert_eq!(on(&podman).hook(&plain, limit).await, Ok(()));
    let sent = heads.lock().await.first().cloned().unwrap();
    assert!(sent.contains("User-Agent: kube-lifecycle/1.33"), "{sent}");
    let (listener, port) = listen().await;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut first = [0; 1];
            stream.read_exact(&mut first).await.unwrap();
            let text = "HTTP/1.1 400 Bad Request\r\n\r\n";
            stream.write_all(text.as_bytes()).await.unwrap();
            // Leaves no byte unread, which would reset the connection.
            let _ = tokio::time::timeout(Duration::from_millis(200), async {
                while stream.read(&mut [0; 512]).await.is_ok_and(|n| n > 0) {}
            })
            .await;
        }
    });
    let tls = http(port, "/", true, &[]);
    assert_eq!(on(&podman).hook(&tls, limit).await, Ok(()));
    assert_eq!(probe(&tls).await, failure("the server answers without TLS"));
    let (listener, port) = listen().await;
    drop(listener);
    let refused = on(&podman).hook(&http(port, "/", false, &[]), limit).await;
    assert_eq!(refused, Err(format!("port {port}: connection refused")));
}

#[tokio::test]
async fn results_come_back_while_others_run() {
    let (_silent, slow) = listen().await;
    let (_listener, fast) = listen().await;
    let probe = |handler| Probe {
        handler,
        initial_delay: Duration::ZERO,
        period: Duration::from_secs(1),
        timeout: Duration::from_secs(9),
        success_threshold: 1,
        failure_threshold: 1,
        grace: Duration::from_secs(1),
    };
    let spec = |name: &str, handler| ContainerSpec {
        name: name.into(),
        startup: None,
        liveness: None,
        readiness: Some(probe(handler)),
        post_start: None,
        pre_stop: None,
        stop_signal: None,
        grace: Duration::from_secs(1),
    };
    let specs = vec![
        spec("web-slow", http(slow, "/", false, &[])),
        spec(
            "web-fast",
            Handler::Tcp {
                host: None,
                port: fast,
            },
        ),
    ];
    let now = std::time::Instant::now();
    let mut prober = Prober::new("web", specs, Memory::default());
    let run = RunId {
        id: "07c1".into(),
        started_at: 1,
    };
    for name in ["web-slow", "web-fast"] {
        prober.started(name, &run, now, now);
    }
    let (runner, mut results) = Runner::new(
        Podman::new(Path::new("/nonexistent")),
        Path::new("/nonexistent"),
    );
    for due in prober.due(now) {
        runner.start(due, Some(LOCAL));
    }
    let Finished { ticket, outcome } = results.recv().await.unwrap();
    prober.finished(&ticket, &outcome, std::time::Instant::now());
    assert!(prober.state("web-fast").ready);
    assert!(!prober.state("web-slow").ready);
}

#[tokio::test]
async fn a_command_without_podman_has_no_result() {
    let outcome = probe(&Handler::Exec(vec!["true".into()])).await;
    assert!(matches!(outcome, Outcome::Unknown(_)), "{outcome:?}");
}
