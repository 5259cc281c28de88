//! Tests of the API with a real socket and a real cluster of one host, without an agent and Podman.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use axum::body::Bytes;
use beemesh_protocol::{
    ClusterId, HostId,
    peer::{HostReport, Phase, WorkloadReport},
    state::{Change, Command, Host},
    token::Token,
};
use beemesh_quadlet::podman::Podman;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    sync::watch,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    feed::{Feed, Follower},
    *,
};
use crate::{
    agent_link::Link,
    cluster::reports::Reports,
    context::{
        Gateway,
        views::{Sources, Views},
    },
    local::{files::Home, lifecycle::store::Lifecycle},
    raft::{Nobody, Node, Settings},
    workloads::prepare::{self, Prepare},
};

const ME: HostId = HostId([1; 32]);
const POD: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec:\n  containers:\n  - name: main\n    image: localhost/x:1\n";

/// A gateway that serves its API until it is dropped.
struct Serving {
    dir: tempfile::TempDir,
    reports: watch::Sender<Reports>,
    feed: Feed,
}

impl Serving {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings {
            dir: dir.path().join("raft"),
            disk: Arc::new(crate::raft::System),
            host: ME,
            dial: Arc::new(Nobody),
            lost_after: Duration::from_secs(600),
            observe: Arc::new(|_| {}),
            grant: crate::raft::grant_nothing(),
        };
        let node = Node::open(settings).await.unwrap();
        let host = Host {
            id: ME,
            name: "h1".into(),
            addresses: vec!["/ip4/127.0.0.1/udp/4701/quic-v1".into()],
            labels: BTreeMap::new(),
            drained: false,
            claims_as: None,
            votes_from_ms: 0,
            lost_at_ms: 0,
            declared_lost: false,
            steady_at_ms: 0,
        };
        let found = Change::Found {
            cluster: ClusterId([7; 16]),
            host,
        };
        let found = Command::unasked(1, found);
        let soon = Instant::now() + Duration::from_secs(30);
        let _ = node.found(found, soon).await.unwrap();
        let (link, _) = Link::start(&dir.path().join("agent.sock"), "0");
        let (reports, reported) = watch::channel(Arc::default());
        let home = Home::open(&dir.path().join("home")).unwrap();
        let life = Lifecycle::open(&home).unwrap();
        let elsewhere = watch::channel(None).1;
        let views = Views::new(Sources {
            host: ME,
            node: node.clone(),
            link: link.clone(),
            reports: reported.clone(),
            life: life.clone(),
            elsewhere,
        });
        let gateway = Gateway {
            host: ME,
            node,
            link,
            reports: reported,
            podman: Podman::new(&dir.path().join("podman.sock")),
            life,
            home,
            views,
            run: dir.path().into(),
        };
        let prepare = Prepare::new(prepare::Settings {
            podman: gateway.podman.clone(),
            link: gateway.link.clone(),
            units: dir.path().into(),
        });
        let shared = Shared::new(gateway, prepare, [7; 32]);
        let feed = shared.feed.clone();
        let listener = UnixListener::bind(dir.path().join("api.sock")).unwrap();
        tokio::spawn(serve(listener, shared, CancellationToken::new()));
        Self { dir, reports, feed }
    }

    fn socket(&self) -> std::path::PathBuf {
        self.dir.path().join("api.sock")
    }

    /// Sends raw bytes; returns the whole response until the connection is closed.
    async fn raw(&self, request: &[u8]) -> String {
        raw(&self.socket(), request).await
    }

    async fn ask(&self, line: &str, body: &str) -> (u16, Value) {
        let head = format!(
            "{line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let answer = self.raw((head + body).as_bytes()).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let body = serde_json::from_str(body).unwrap_or_else(|_| Value::String(body.to_owned()));
        (status, body)
    }

    fn report(&self, applied: u64, index: u64, healthy: u32) {
        let web = WorkloadReport {
            workload: "web".into(),
            revision: 1,
            index,
            phase: Phase::Running,
            healthy,
            total: 1,
            ..WorkloadReport::default()
        };
        let report = HostReport {
            applied,
            workloads: if index > 0 { vec![web] } else { vec![] },
            ..HostReport::default()
        };
        self.reports
            .send_replace(Arc::new([(ME, Arc::new(report))].into()));
    }
}

async fn raw(socket: &Path, request: &[u8]) -> String {
    let mut stream = UnixStream::connect(socket).await.unwrap();
    let mut answer = Vec::new();
    // The gateway may refuse a request before it has read all of it.
    let _ = stream.write_all(request).await;
    let read = stream.read_to_end(&mut answer);
    let _ = timeout(Duration::from_secs(20), read)
        .await
        .expect("an answer in time");
    String::from_utf8(answer).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_is_applied_followed_and_deleted() {
    let serving = Serving::start().await;
    let (status, dry) = serving.ask("POST /v1/apply?dryRun=true", POD).await;
    assert_eq!(
        (status, &dry["dryRun"], &dry["objects"][0]["action"]),
        (200, &json!(true), &json!("created")),
        "{dry}"
    );
    let (_, none) = serving.ask("GET /v1/manifests", "").await;
    assert_eq!(none, json!({"manifests": []}));

    let mut events = UnixStream::connect(serving.socket()).await.unwrap();
    events
        .write_all(b"GET /v1/events HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();

    let (status, applied) = serving.ask("POST /v1/apply?name=mine", POD).await;
    let index = applied["index"].as_u64().unwrap();
    let objects = json!([{"kind": "Pod", "name": "web", "action": "created", "revision": 1}]);
    let (mut applied, warned) = (applied.clone(), applied["warnings"][0]["message"].clone());
    applied["warnings"] = json!([]);
    let expected = json!({"manifest": "mine", "index": index, "dryRun": false, "objects": objects, "warnings": []});
    assert_eq!((status, applied), (200, expected));
    // No Podman runs here, and an apply does not depend on it.
    let unknown = "on h1: it is not known whether the images are there";
    assert!(warned.as_str().unwrap().starts_with(unknown), "{warned}");

    // The host reports while the caller waits: the pod is not ready, ready, not ready after a second, and ready again.
    let begun = std::time::Instant::now();
    let wait = serving.ask("POST /v1/apply?name=mine&wait=20", POD);
    let later = async {
        for (after, healthy) in [(50, 0), (50, 1), (1000, 0), (50, 1)] {
            tokio::time::sleep(Duration::from_millis(after)).await;
            serving.report(index, index, healthy);
        }
    };
    let ((status, waited), ()) = tokio::join!(wait, later);
    let lasted = begun.elapsed();
    assert!(lasted >= Duration::from_millis(3150), "{lasted:?}");
    assert_eq!(
        (status, &waited["settled"], &waited["objects"][0]["action"]),
        (200, &json!(true), &json!("unchanged")),
        "{waited}"
    );
    assert_eq!(
        waited["workloads"][0]["hosts"][0]["phase"], "running",
        "{waited}"
    );

    let again = "POST /v1/apply?name=mine&wait=20&stable=0";
    let again = timeout(Duration::from_secs(1), serving.ask(again, POD));
    let (_, again) = again.await.expect("nothing to wait for");
    assert_eq!(again["settled"], true, "{again}");

    let (status, web) = serving.ask("GET /v1/workloads/web", "").await;
    assert_eq!(
        (status, &web["object"]["kind"], &web["settled"]),
        (200, &json!("Pod"), &json!(true)),
        "{web}"
    );
    let (status, unsettled) = serving.ask("DELETE /v1/workloads/web?wait=0", "").await;
    let deleted_at = unsettled["index"].as_u64().unwrap();
    let expected =
        json!({"index": deleted_at, "removed": ["web"], "settled": false, "waitingFor": ["h1"]});
    assert_eq!((status, unsettled), (200, expected));
    let (status, again) = serving.ask("DELETE /v1/manifests/mine", "").await;
    assert_eq!(
        (status, &again["error"]["code"]),
        (404, &json!("notFound")),
        "{again}"
    );

    let mut told = String::new();
    let mut bytes = [0; 4096];
    while !told.contains("event: gone") {
        let read = timeout(Duration::from_secs(10), events.read(&mut bytes)).await;
        let count = read.expect("events in time").unwrap();
        told.push_str(std::str::from_utf8(&bytes[..count]).unwrap());
    }
    for event in [
        "event: host\ndata: {\"name\":\"h1\"",
        "event: workload\ndata: {\"name\":\"web\"",
        "event: state\ndata: {\"index\":",
    ] {
        assert!(told.contains(event), "{event}: {told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_set_is_shown_as_its_manifest_has_it() {
    let serving = Serving::start().await;
    let set = "apiVersion: apps/v1\nkind: ReplicaSet\nmetadata: {name: web}\nspec:\n  template:\n    \
               spec: {containers: [{name: main, image: 'localhost/x:1'}]}\n";
    let (status, applied) = serving.ask("POST /v1/apply", set).await;
    assert_eq!(
        (status, &applied["objects"][0]["kind"]),
        (200, &json!("ReplicaSet")),
        "{applied}"
    );
    let (_, web) = serving.ask("GET /v1/workloads/web", "").await;
    assert_eq!(web["kind"], "ReplicaSet", "{web}");
    assert_eq!(
        (&web["object"]["kind"], &web["object"]["metadata"]),
        (
            &json!("ReplicaSet"),
            &json!({"name": "web", "namespace": "default"})
        )
    );
    let (_, all) = serving.ask("GET /v1/manifests", "").await;
    assert_eq!(
        all["manifests"][0]["objects"][0]["kind"], "ReplicaSet",
        "{all}"
    );
    let other = set.replace("name: web", "name: db");
    let (status, refused) = serving
        .ask("POST /v1/apply?name=web&prune=true", &other)
        .await;
    let message = refused["error"]["message"].as_str().unwrap_or_default();
    assert_eq!(status, 409, "{refused}");
    let words = "manifest `web` contains ReplicaSet web and no object of this file";
    assert!(message.contains(words), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_listed_until_it_is_revoked_and_an_old_gateway_forbids_that() {
    let serving = Serving::start().await;
    let body = "{\"ttlSeconds\":60,\"uses\":3}";
    let (status, made) = serving.ask("POST /v1/tokens", body).await;
    assert_eq!(status, 201, "{made}");
    let id = made["id"].as_str().unwrap();
    let (_, listed) = serving.ask("GET /v1/tokens", "").await;
    let expires = &made["expiresAtMs"];
    let expected = json!({"tokens": [{"id": id, "uses": 3, "expiresAtMs": expires}]});
    assert_eq!(listed, expected);

    let revoke = format!("DELETE /v1/tokens/{id}");
    let old = HostReport {
        version: "0.1.0".into(),
        ..HostReport::default()
    };
    serving
        .reports
        .send_replace(Arc::new([(ME, Arc::new(old))].into()));
    let (status, refused) = serving.ask(&revoke, "").await;
    assert_eq!(status, 409, "{refused}");
    let message = refused["error"]["message"].as_str().unwrap();
    assert!(
        message.ends_with("0.2.0 or later for this: h1 runs 0.1.0"),
        "{message}"
    );
    serving.reports.send_replace(Arc::default());
    for expected in [200, 404] {
        let (status, answer) = serving.ask(&revoke, "").await;
        assert_eq!(status, expected, "{answer}");
    }
    let (_, listed) = serving.ask("GET /v1/tokens", "").await;
    assert_eq!(listed, json!({"tokens": []}));
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_made_and_bad_requests_are_refused_in_words() {
    let serving = Serving::start().await;
    let (status, answer) = serving.ask("POST /v1/tokens", "{\"ttlSeconds\":60}").await;
    assert_eq!(status, 201, "{answer}");
    let line = answer["token"].as_str().unwrap();
    let token = Token::from_line(line).unwrap();
    assert_eq!(
        (token.cluster, token.contacts[0].host),
        (ClusterId([7; 16]), ME)
    );
    let join = json!({"token": line}).to_string();
    let cut = json!({"token": &line[..line.len() - 3]}).to_string();
    let large = format!("{POD}# {}\n", "x".repeat(1 << 20));
    let broken = "kind: Pod\nmetadata: {name: a}\n---\nkind: Pod\n";
    for (line, body, status, code, words) in [
        ("GET /nothing", "", 404, "notFound", "there is no /nothing"),
        (
            "PUT /v1/apply",
            "",
            405,
            "invalid",
            "/v1/apply does not take PUT",
        ),
        (
            "GET /v1/workloads?steal=1",
            "",
            400,
            "invalid",
            "unknown field `steal`",
        ),
        (
            "GET /v1/status?x=1",
            "",
            400,
            "invalid",
            "unknown field `x`",
        ),
        (
            "GET /v1/workloads/web",
            "",
            404,
            "notFound",
            "workload `web` not found",
        ),
        (
            "GET /v1/workloads/web/logs",
            "",
            404,
            "notFound",
            "workload `web` not found",
        ),
        (
            "GET /v1/workloads/web/logs?host=h9",
            "",
            404,
            "notFound",
            "host `h9` not found",
        ),
        (
            "GET /v1/workloads/web/logs?host=h1",
            "",
            503,
            "unavailable",
            "podman.sock",
        ),
        (
            "DELETE /v1/workloads/web",
            "",
            404,
            "notFound",
            "workload `web` not found",
        ),
        (
            "POST /v1/apply?name=..%2F..%2Fetc",
            POD,
            400,
            "invalid",
            "a manifest name has",
        ),
        (
            "POST /v1/apply?stable=9999999",
            POD,
            400,
            "invalid",
            "at most 3600 seconds",
        ),
        (
            "POST /v1/apply?wait=9999999",
            POD,
            400,
            "invalid",
            "at most 3600 seconds",
        ),
        ("POST /v1/apply", &large, 413, "tooLarge", "1 MiB"),
        ("POST /v1/apply", broken, 422, "invalid", "\"document\":2"),
        (
            "POST /v1/tokens",
            "{\"ttl\":1}",
            400,
            "invalid",
            "unknown field `ttl`",
        ),
        (
            "POST /v1/tokens",
            "{\"ttlSeconds\":0}",
            400,
            "invalid",
            "7 days",
        ),
        (
            "POST /v1/tokens",
            "{\"ttlSeconds\":1,\"uses\":257}",
            400,
            "invalid",
            "must be 1 to 256",
        ),
        (
            "DELETE /v1/tokens/x",
            "",
            400,
            "invalid",
            "sixteen hexadecimal digits",
        ),
        ("POST /v1/join", &cut, 400, "invalid", "damaged"),
    ] {
        let (found, answer) = serving.ask(line, body).await;
        assert_eq!(
            (found, &answer["error"]["code"]),
            (status, &json!(code)),
            "{line}: {answer}"
        );
        assert!(answer.to_string().contains(words), "{line}: {answer}");
    }
    // A join on a host that is a member already reports success without a request to other hosts.
    let (found, answer) = serving.ask("POST /v1/join", &join).await;
    assert_eq!((found, &answer["members"]), (202, &json!(["h1"])));
    assert!(
        serving
            .raw(b"\xff\xff\xff\xff\x01\r\n\r\n")
            .await
            .starts_with("HTTP/1.1 400")
    );
    assert_eq!(serving.ask("GET /healthz", "").await, (200, json!("ok\n")));
    let (status, told) = serving.ask("GET /v1/status", "").await;
    assert_eq!(
        (status, &told["leader"]["name"], &told["quorum"]),
        (200, &json!("h1"), &json!(true)),
        "{told}"
    );
}

mod diff;
mod policy;
mod streams;

/// Reads a stream of events until it has told of `what`; how many bytes it sent.
async fn told(stream: &mut UnixStream, what: &str) -> usize {
    let (mut said, mut bytes) = (String::new(), [0; 4096]);
    while !said.contains(what) {
        let read = timeout(Duration::from_secs(20), stream.read(&mut bytes)).await;
        let count = read.expect("events in time").unwrap();
        assert!(count > 0, "the stream ended: {said}");
        said.push_str(std::str::from_utf8(&bytes[..count]).unwrap());
    }
    said.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changes_is_rendered_once_for_all_streams_and_never_for_none() {
    const STREAMS: usize = 128;
    let serving = Serving::start().await;
    let written = || {
        serving
            .feed
            .written
            .load(std::sync::atomic::Ordering::Relaxed)
    };
    let (status, applied) = serving.ask("POST /v1/apply", POD).await;
    assert_eq!((status, written()), (200, 0), "{applied}");
    let mut streams = Vec::new();
    for _ in 0..STREAMS {
        let mut stream = UnixStream::connect(serving.socket()).await.unwrap();
        let ask = b"GET /v1/events HTTP/1.1\r\nhost: x\r\n\r\n";
        stream.write_all(ask).await.unwrap();
        told(&mut stream, "event: state").await;
        streams.push(stream);
    }
    let before = written();
    let (status, deleted) = serving.ask("DELETE /v1/workloads/web", "").await;
    assert_eq!(status, 200, "{deleted}");
    for stream in &mut streams {
        told(stream, "event: gone").await;
    }
    // A commit changes the replicated state and the state of Raft; far fewer than streams.
    assert!(written() - before <= 8, "{} pages", written() - before);
    drop(streams);
    let mut last = UnixStream::connect(serving.socket()).await.unwrap();
    last.write_all(b"GET /v1/events HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    told(&mut last, "event: state").await;
}

/// The piece of a stream that tells of so many restarts.
async fn heard(follower: &mut Follower, restarts: u32) -> Bytes {
    let what = format!("\"restarts\":{restarts},");
    loop {
        let piece = timeout(Duration::from_secs(20), follower.next()).await;
        let piece = piece.expect("news in time").unwrap();
        if String::from_utf8_lossy(&piece).contains(&what) {
            return piece;
        }
    }
}

#[tokio::test]
async fn a_stream_that_lags_is_told_of_the_last_step_alone() {
    const LAST: u32 = 20;
    let serving = Serving::start().await;
    let (status, applied) = serving.ask("POST /v1/apply", POD).await;
    assert_eq!(status, 200, "{applied}");
    let restarted = |restarts| {
        let web = WorkloadReport {
            workload: "web".into(),
            restarts,
            ..WorkloadReport::default()
        };
        let report = HostReport {
            workloads: vec![web],
            ..HostReport::default()
        };
        let reports = [(ME, Arc::new(report))].into();
        serving.reports.send_replace(Arc::new(reports));
    };
    let (mut prompt, mut slow) = (serving.feed.join(), serving.feed.join());
    let whole = [prompt.next().await, slow.next().await].map(Result::unwrap);
    assert_eq!(whole[0].as_ptr(), whole[1].as_ptr(), "made once for both");
    for restarts in 1..=LAST {
        restarted(restarts);
        heard(&mut prompt, restarts).await;
    }
    let missed = slow.next().await.unwrap();
    let missed = String::from_utf8_lossy(&missed);
    assert_eq!(missed.matches("event: workload").count(), 1, "{missed}");
    assert!(missed.contains("\"restarts\":20,"), "{missed}");
    // From here on they are told the same.
    restarted(LAST + 1);
    let (one, other) = (
        heard(&mut prompt, LAST + 1).await,
        heard(&mut slow, LAST + 1).await,
    );
    assert_eq!(one.as_ptr(), other.as_ptr(), "made once for both");
}
