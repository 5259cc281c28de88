//! What an event stream costs: the API as it is served, on a thread of its own as in the gateway, and callers on real
//! sockets.
//!
//! A measurement, so it is run by hand, with `make streams`, and prints what `docs/benchmarks.md` has of it.

use std::{fs, sync::mpsc, thread};

use super::*;

/// Changes of which the mean is taken.
const CHANGES: u32 = 200;
/// Workloads in one manifest.
const BATCH: usize = 50;

/// A gateway on a thread of its own.
struct Server {
    socket: std::path::PathBuf,
    reports: watch::Sender<Reports>,
    runtime: tokio::runtime::Handle,
    index: u64,
    workloads: usize,
    _end: tokio::sync::oneshot::Sender<()>,
}

impl Server {
    async fn start(workloads: usize) -> Self {
        let (started, wait) = mpsc::channel();
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        thread::spawn(move || {
            let mut builder = tokio::runtime::Builder::new_current_thread();
            let runtime = builder.enable_all().build().unwrap();
            runtime.block_on(async {
                let serving = Serving::start().await;
                let told = (
                    serving.socket(),
                    serving.reports.clone(),
                    tokio::runtime::Handle::current(),
                );
                started.send(told).unwrap();
                let _ = ended.await;
            });
        });
        let (socket, reports, runtime) = wait.recv().unwrap();
        let mut server = Self {
            socket,
            reports,
            runtime,
            index: 0,
            workloads,
            _end: end,
        };
        for first in (0..workloads).step_by(BATCH) {
            server.index = server.apply(first).await;
        }
        server.change(0);
        server
    }

    /// Applies a batch of workloads; the log index.
    async fn apply(&self, first: usize) -> u64 {
        let last = self.workloads.min(first + BATCH);
        let pods = (first..last).map(|n| POD.replace("name: web", &format!("name: web-{n}")));
        let body = pods.collect::<Vec<_>>().join("---\n");
        let head = format!(
            "POST /v1/apply?name=m{first} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let answer = raw(&self.socket, (head + &body).as_bytes()).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{answer}");
        let body: Value = serde_json::from_str(body).unwrap();
        body["index"].as_u64().unwrap()
    }

    /// The host reports that all runs, and of one workload so many restarts.
    fn change(&self, restarts: u32) {
        let one = |n: usize| WorkloadReport {
            workload: format!("web-{n}"),
            revision: 1,
            index: self.index,
            phase: Phase::Running,
            healthy: 1,
            total: 1,
            restarts: if n == self.workloads / 2 { restarts } else { 0 },
            ..WorkloadReport::default()
        };
        let report = HostReport {
            applied: self.index,
            workloads: (0..self.workloads).map(one).collect(),
            ..HostReport::default()
        };
        let reports = [(ME, Arc::new(report))].into();
        self.reports.send_replace(Arc::new(reports));
    }

    /// How long the gateway's thread has had a processor, in microseconds.
    async fn cpu(&self) -> f64 {
        let read = async { fs::read_to_string("/proc/thread-self/schedstat").unwrap() };
        let read = self.runtime.spawn(read).await.unwrap();
        let ns: f64 = read.split(' ').next().unwrap().parse().unwrap();
        ns / 1000.0
    }
}

struct Cost {
    /// Of all streams that began, in microseconds.
    begin: f64,
    /// Of one change, in microseconds.
    change: f64,
    /// That one stream was sent for one change.
    bytes: f64,
}

async fn measure(streams: usize, workloads: usize) -> Cost {
    let server = Server::start(workloads).await;
    let before = server.cpu().await;
    let mut all = Vec::new();
    for _ in 0..streams {
        let mut stream = UnixStream::connect(&server.socket).await.unwrap();
        let ask = b"GET /v1/events HTTP/1.1\r\nhost: x\r\n\r\n";
        stream.write_all(ask).await.unwrap();
        all.push(stream);
    }
    for stream in &mut all {
        told(stream, "event: state").await;
    }
    let begun = server.cpu().await;
    let mut bytes = 0;
    for restarts in 1..=CHANGES {
        server.change(restarts);
        for stream in &mut all {
            bytes += told(stream, &format!("\"restarts\":{restarts},")).await;
        }
    }
    let changes = f64::from(CHANGES);
    let sent = u32::try_from(bytes).unwrap();
    Cost {
        begin: begun - before,
        change: (server.cpu().await - begun) / changes,
        bytes: f64::from(sent) / changes / f64::from(u32::try_from(streams).unwrap()),
    }
}

#[tokio::test]
#[ignore = "a measurement"]
async fn streams() {
    const MANY: usize = 256;
    println!(
        "| workloads | CPU of a change, 1 stream | of a change, {MANY} streams | more for each stream | bytes for each stream | {MANY} streams begin |"
    );
    println!("|---|---|---|---|---|---|");
    for workloads in [10, 100, 1000] {
        let (one, many) = (measure(1, workloads).await, measure(MANY, workloads).await);
        assert!(many.bytes > 0.0);
        let each = (many.change - one.change) / 255.0;
        println!(
            "| {workloads} | {:.0} µs | {:.0} µs | {each:.1} µs | {:.0} | {:.1} ms |",
            one.change,
            many.change,
            many.bytes,
            many.begin / 1000.0
        );
    }
}
