//! What a full state costs a gateway: memory, changes, snapshots, and the view of it.
//!
//! A measurement, so it is run by hand, with `make state`, and prints what `docs/scale.md` has of it.

use std::{
    fs,
    time::{Duration, Instant},
};

use beemesh_protocol::state::{Origin, ResolvedImages, RevisionOutcome, Snapshot};
use beemesh_quadlet::manifest::parse;

use super::*;

/// ConfigMaps of 1 KiB.
const MAPS: usize = 10_000;
/// ConfigMaps in one manifest.
const MAPS_EACH: usize = 10;
/// Deployments, each in a manifest of its own.
const WORKLOADS: usize = 1_000;
/// Contents of each Deployment, one after the other.
const REVISIONS: usize = 10;
/// Changes of which the median is taken.
const CHANGES: usize = 500;

/// The state of one gateway, with the last one that it has published.
struct Grown {
    scene: Scene,
    index: u64,
}

impl Grown {
    fn new() -> Self {
        let mut grown = Self {
            scene: scene(),
            index: 10,
        };
        grown.take(Change::RequireLevel { level: 2 });
        grown
    }

    /// Applies a change as a gateway does: to a clone of the state that others still read. How long that took.
    fn take(&mut self, change: Change) -> Duration {
        self.index += 1;
        let command = Command {
            at_ms: self.index,
            change,
            origin: Some(Origin {
                host: h(1),
                who: "uid 0".into(),
                from: "pid 4711".into(),
            }),
        };
        let published = Arc::clone(&self.scene.state);
        let begin = Instant::now();
        let mut state = State::clone(&published);
        let outcome = state.apply(self.index, &command);
        let taken = begin.elapsed();
        assert!(!matches!(outcome, peer::Outcome::Refused(_)), "{outcome:?}");
        self.scene.state = Arc::new(state);
        self.scene.applied = self.index;
        taken
    }

    fn apply(&mut self, manifest: &str, yaml: &str) -> Duration {
        let objects = parse(yaml.as_bytes(), false).expect(yaml).objects;
        self.take(Change::Apply {
            manifest: manifest.to_owned(),
            objects,
            policy: None,
            keep: false,
            if_index: None,
        })
    }

    /// Applies the Deployment and ends its rollout. How long the apply took.
    fn roll(&mut self, name: &str, config: &str, version: usize) -> Duration {
        let taken = self.apply(name, &deployment(name, config, version));
        self.take(Change::EndRollout {
            workload: name.to_owned(),
            index: self.index,
            outcome: RevisionOutcome::Ready,
            reason: String::new(),
            images: ResolvedImages::default(),
        });
        taken
    }

    fn fill(&mut self) {
        for first in (0..MAPS).step_by(MAPS_EACH) {
            let maps = (first..first + MAPS_EACH).map(|number| map(&format!("map-{number}"), 0));
            let maps: Vec<String> = maps.collect();
            self.apply(&format!("maps-{first}"), &maps.join("---\n"));
        }
        for version in 1..=REVISIONS {
            for number in 0..WORKLOADS {
                self.roll(&format!("web-{number}"), &format!("map-{number}"), version);
            }
        }
    }

    /// Every host reports that it runs every workload.
    fn report(&mut self) {
        let one = |workload: &crate::cluster::state::Workload| {
            report(&workload.name, workload.index, peer::Phase::Running, 1)
        };
        let workloads: Vec<_> = self.scene.state.workloads().map(one).collect();
        let of = |n| {
            let report = HostReport {
                applied: self.index,
                workloads: workloads.clone(),
                ..HostReport::default()
            };
            (h(n), Arc::new(report))
        };
        self.scene.reports = Arc::new([of(1), of(2), of(3)].into());
    }

    /// The medians of changes: of a ConfigMap that no workload uses, of one that a workload uses, and of a workload.
    fn changes(&mut self) -> [Duration; 3] {
        self.apply("used", &map("used", 0));
        self.apply("user", &deployment("user", "used", 0));
        let unused = (0..CHANGES).map(|n| self.apply("unused", &map("unused", n)));
        let unused = median(unused.collect());
        let used = (1..=CHANGES).map(|n| self.apply("used", &map("used", n)));
        let used = median(used.collect());
        let rolled = (1..=CHANGES).map(|n| self.roll("user", "used", n));
        [unused, used, median(rolled.collect())]
    }

    /// The median time to draw what is different in the view after one change of a workload.
    fn views(&mut self) -> Duration {
        self.report();
        let mut view = View::of(self.scene.clone());
        view.workload_rows();
        let draw = |version| {
            self.roll("user", "used", version);
            let scene = self.scene.clone();
            let begin = Instant::now();
            let next = view.next(scene).expect("a change");
            let taken = begin.elapsed();
            assert_eq!(next.workloads().len(), view.workloads().len());
            view = next;
            taken
        };
        median((CHANGES + 1..=2 * CHANGES).map(draw).collect())
    }
}

/// A ConfigMap of 1 KiB.
fn map(name: &str, version: usize) -> String {
    let text = format!("{version:08}").repeat(128);
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata: {{text: '{text}'}}\n"
    )
}

/// A Deployment that uses this ConfigMap.
fn deployment(name: &str, config: &str, version: usize) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {name}}}\nspec:\n  selector: {{matchLabels: {{app: {name}}}}}\n  \
         template:\n    metadata: {{labels: {{app: {name}}}}}\n    spec:\n      containers:\n      - name: main\n        \
         image: registry.example/web:{version}\n        args: [serve, --port, '8080']\n        \
         ports: [{{containerPort: 8080}}]\n        readinessProbe: {{httpGet: {{path: /healthz, port: 8080}}}}\n        \
         resources: {{limits: {{cpu: 500m, memory: 256Mi}}}}\n        envFrom: [{{configMapRef: {{name: {config}}}}}]\n"
    )
}

fn median(mut all: Vec<Duration>) -> Duration {
    all.sort();
    all[all.len() / 2]
}

fn timed<T>(act: impl FnOnce() -> T) -> (T, Duration) {
    let begin = Instant::now();
    (act(), begin.elapsed())
}

/// The memory of this process in bytes: what it has in RAM, its share of it, and the highest value of the first.
fn memory() -> [u64; 3] {
    let rollup = fs::read_to_string("/proc/self/smaps_rollup").unwrap();
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let field = |text: &str, name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let number = line.unwrap().split_whitespace().next().unwrap();
        number.parse::<u64>().unwrap() << 10
    };
    [
        field(&rollup, "Rss:"),
        field(&rollup, "Pss:"),
        field(&status, "VmHWM:"),
    ]
}

fn mib(bytes: u64) -> String {
    let tenths = bytes * 10 / (1 << 20);
    format!("{}.{} MiB", tenths / 10, tenths % 10)
}

fn row(what: &str, empty: &str, full: &str) {
    println!("| {what} | {empty} | {full} |");
}

#[test]
#[ignore = "a measurement"]
fn full_state() {
    let mut empty = Grown::new();
    let idle = empty.changes();
    let idle_view = empty.views();
    drop(empty);

    let mut full = Grown::new();
    let before = memory();
    full.fill();
    let grown = memory();
    let bytes = full.scene.state.bytes();
    let revisions: usize = full
        .scene
        .state
        .workloads()
        .map(|one| full.scene.state.revisions(&one.name).len())
        .sum();
    assert!(revisions >= WORKLOADS * REVISIONS, "{revisions}");

    let (snapshot, made) = timed(|| full.scene.state.to_snapshot());
    let (encoded, written) = timed(|| snapshot.encode());
    let peak = memory();
    let objects: usize = snapshot.manifests.iter().map(|one| one.objects.len()).sum();
    assert!(objects >= MAPS + WORKLOADS, "{objects}");
    drop(snapshot);
    let (decoded, read) = timed(|| Snapshot::decode(&encoded).unwrap());
    let (again, built) = timed(|| State::from_snapshot(decoded));
    assert_eq!(again, *full.scene.state);
    let (changed, draw) = (full.changes(), full.views());

    row("", "empty", "full");
    row("---", "---:", "---:");
    row("objects", "", &objects.to_string());
    row("revisions", "", &revisions.to_string());
    row("counted for the limit", "", &mib(bytes));
    row("memory (RSS)", "", &mib(grown[0] - before[0]));
    row("memory (PSS)", "", &mib(grown[1] - before[1]));
    row(
        "more at most while a snapshot is made",
        "",
        &mib(peak[2] - grown[0]),
    );
    let length = u64::try_from(encoded.len()).unwrap();
    row("snapshot", "", &mib(length));
    row(
        "to make it: copy, encode",
        "",
        &format!("{made:.1?}, {written:.1?}"),
    );
    row(
        "to read it: decode, build",
        "",
        &format!("{read:.1?}, {built:.1?}"),
    );
    for (at, what) in [
        "change of a ConfigMap, p50",
        "change of a ConfigMap that a workload uses, p50",
        "change of a Deployment, p50",
    ]
    .into_iter()
    .enumerate()
    {
        row(
            what,
            &format!("{:.1?}", idle[at]),
            &format!("{:.1?}", changed[at]),
        );
    }
    row(
        "view after a change, p50",
        &format!("{idle_view:.1?}"),
        &format!("{draw:.1?}"),
    );
}
