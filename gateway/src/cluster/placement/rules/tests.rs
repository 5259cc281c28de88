use std::collections::BTreeSet;

use beemesh_protocol::{
    ClusterId,
    state::{Change, Command, TokenRecord},
};
use beemesh_quadlet::manifest::parse;

use super::*;
use crate::cluster::placement::{choose::There, seats::assign};

fn h(n: u8) -> HostId {
    HostId([n; 32])
}

/// A cluster in which the pods of each apply get their hosts one after the other.
struct World {
    state: State,
    index: u64,
    reports: BTreeMap<HostId, Arc<HostReport>>,
    reachable: BTreeSet<HostId>,
}

impl World {
    /// Hosts with these labels, such as `zone=a disk=ssd`; each has 2 cores and 1 GiB.
    fn of(labels: &[&str]) -> Self {
        let mut world = Self {
            state: State::default(),
            index: 0,
            reports: BTreeMap::new(),
            reachable: BTreeSet::new(),
        };
        for (n, labels) in (1..).zip(labels) {
            let pairs = labels
                .split_whitespace()
                .filter_map(|one| one.split_once('='));
            let host = Host {
                id: h(n),
                name: format!("h{n}"),
                addresses: Vec::new(),
                labels: pairs
                    .map(|(key, value)| (key.to_owned(), value.to_owned()))
                    .collect(),
                drained: false,
                claims_as: None,
                votes_from_ms: 0,
                lost_at_ms: 0,
                declared_lost: false,
                steady_at_ms: 0,
            };
            match n {
                1 => {
                    world.apply(Change::Found {
                        cluster: ClusterId([1; 16]),
                        host,
                    });
                    world.apply(Change::PutToken(TokenRecord {
                        id: [7; 8],
                        secret_hash: [8; 32],
                        expires_ms: u64::MAX,
                        uses: 99,
                    }));
                    world.apply(Change::RaiseLevel { level: 1 });
                }
                _ => world.apply(Change::Admit {
                    token: [7; 8],
                    secret_hash: [8; 32],
                    host,
                    replaces: None,
                }),
            }
            world.reachable.insert(h(n));
            let report = HostReport {
                cpu_millis: 2000,
                memory_bytes: 1 << 30,
                ..HostReport::default()
            };
            world.reports.insert(h(n), Arc::new(report));
        }
        world
    }

    fn apply(&mut self, change: Change) {
        self.index += 1;
        let command = Command::unasked(1, change);
        let _ = self.state.apply(self.index, &command);
    }

    /// Applies a Deployment whose pods have the label app=NAME, and gives its pods hosts. Returns the hosts, and what the
    /// next pod waits for.
    fn put(&mut self, name: &str, replicas: u32, spec: &str) -> (Vec<u8>, String) {
        let yaml = format!(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {name}}}\nspec:\n  replicas: {replicas}\n  selector: \
             {{matchLabels: {{app: {name}}}}}\n  template:\n    metadata: {{labels: {{app: {name}}}}}\n    spec:\n      \
             containers: [{{name: c, image: \"quay.io/a:1\"}}]\n{spec}"
        );
        let parsed = parse(yaml.as_bytes(), false).expect(&yaml);
        self.apply(Change::Apply {
            manifest: name.to_owned(),
            objects: parsed.objects,
            policy: None,
            keep: false,
            if_index: None,
        });
        let mut taken = Taken::default();
        for ordinal in 0..replicas {
            let workload = self.state.workload(name).unwrap().clone();
            let there = There::new(&self.state, &self.reachable, &self.reports);
            match there.choose(&workload, &taken) {
                Ok(host) => {
                    taken.add(host);
                    self.apply(assign(&workload, ordinal, None, Some(host)));
                }
                Err(wait) => {
                    let words = there.words(&workload, &wait);
                    return (taken.pods().map(|host| host.0[0]).collect(), words);
                }
            }
        }
        (taken.pods().map(|host| host.0[0]).collect(), String::new())
    }
}

fn affinity(kind: &str, terms: &str) -> String {
    format!(
        "      affinity:\n        {kind}:\n          requiredDuringSchedulingIgnoredDuringExecution: {terms}\n"
    )
}

fn apart(from: &str, topology: &str) -> String {
    let term =
        format!("[{{labelSelector: {{matchLabels: {{app: {from}}}}}, topologyKey: {topology}}}]");
    affinity("podAntiAffinity", &term)
}

#[test]
fn node_affinity_chooses_hosts_by_their_labels() {
    let mut world = World::of(&[
        "disk=ssd size=4",
        "disk=hdd size=16",
        "size=32",
        "disk=ssd size=64",
    ]);
    for (requirement, hosts) in [
        ("{key: disk, operator: In, values: [ssd]}", vec![1, 4]),
        ("{key: disk, operator: NotIn, values: [ssd]}", vec![2, 3]),
        ("{key: disk, operator: Exists}", vec![1, 2, 4]),
        ("{key: disk, operator: DoesNotExist}", vec![3]),
        ("{key: size, operator: Gt, values: [\"16\"]}", vec![3, 4]),
        ("{key: size, operator: Lt, values: [\"16\"]}", vec![1]),
        (
            "{key: kubernetes.io/hostname, operator: In, values: [h2, h3]}",
            vec![2, 3],
        ),
    ] {
        let terms = format!("{{nodeSelectorTerms: [{{matchExpressions: [{requirement}]}}]}}");
        let (found, waits) = world.put("web", 4, &affinity("nodeAffinity", &terms));
        assert_eq!(found, hosts, "{requirement}: {waits}");
        assert!(waits.contains("node affinity does not match on"), "{waits}");
        world.apply(Change::DeleteWorkload {
            workload: "web".into(),
        });
    }
    let named =
        "{nodeSelectorTerms: [{matchFields: [{key: metadata.name, operator: In, values: [h2]}]}]}";
    assert_eq!(world.put("web", 2, &affinity("nodeAffinity", named)).0, [2]);
}

#[test]
fn terms_are_alternatives_and_the_best_host_comes_first() {
    let mut world = World::of(&["zone=a", "zone=b", "zone=c"]);
    let either = "{nodeSelectorTerms: [{matchExpressions: [{key: zone, operator: In, values: [a]}]}, {matchExpressions: [{key: zone, operator: In, values: [c]}]}]}";
    let (found, _) = world.put("either", 3, &affinity("nodeAffinity", either));
    assert_eq!(found, [1, 3]);
    let preferred = "      affinity:\n        nodeAffinity:\n          preferredDuringSchedulingIgnoredDuringExecution:\n          - {weight: 5, preference: {matchExpressions: [{key: zone, operator: In, values: [a, b]}]}}\n          - {weight: 1, preference: {matchExpressions: [{key: zone, operator: In, values: [b]}]}}\n";
    assert_eq!(world.put("one", 1, preferred).0, [2]);
    assert_eq!(world.put("two", 2, preferred).0, [1, 2]);
}

#[test]
fn pods_that_must_be_apart_are_so_in_both_directions() {
    let mut world = World::of(&["zone=a", "zone=a", "zone=b", ""]);
    assert_eq!(world.put("db", 1, &affinity("nodeAffinity", "{nodeSelectorTerms: [{matchExpressions: [{key: zone, operator: In, values: [b]}]}]}")).0, [3]);
    let (found, waits) = world.put("web", 4, &apart("db", "zone"));
    assert_eq!(found, [1, 2, 4], "the host without a zone is in none");
    assert_eq!(waits, "waits for a host: must be apart from db on h3");
    // One pod in each zone.
    let (found, waits) = world.put("lone", 4, &apart("lone", "zone"));
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(
        found.contains(&3) && found.contains(&4) && waits.contains("must be apart from lone"),
        "{waits}"
    );
    // The later pod has no rule, and the earlier one has.
    let mut world = World::of(&["", ""]);
    let on = world
        .put("shy", 1, &apart("loud", "kubernetes.io/hostname"))
        .0;
    let (found, waits) = world.put("loud", 2, "");
    assert_eq!(found.len(), 1);
    assert_ne!(found, on);
    assert!(waits.contains("must be apart from shy"), "{waits}");
}

#[test]
fn pods_that_must_be_near_follow_and_the_first_one_goes_anywhere() {
    let mut world = World::of(&["zone=a", "zone=b", "zone=b"]);
    let near = |app: &str| {
        let term =
            format!("[{{labelSelector: {{matchLabels: {{app: {app}}}}}, topologyKey: zone}}]");
        affinity("podAffinity", &term)
    };
    let (found, waits) = world.put("web", 1, &near("db"));
    assert_eq!(found, [0_u8; 0]);
    assert!(
        waits.contains("no pod of its affinity has this zone on h1, h2 and h3"),
        "{waits}"
    );
    let (db, _) = world.put("db", 1, "");
    let (found, _) = world.put("api", 3, &near("db"));
    let zone = |host: u8| host.min(2);
    assert!(
        found.iter().all(|host| zone(*host) == zone(db[0])),
        "{found:?} {db:?}"
    );
    // The pods of one workload keep together.
    let (found, _) = world.put("herd", 3, &near("herd"));
    assert!(
        found.iter().all(|host| zone(*host) == zone(found[0])),
        "{found:?}"
    );
}

#[test]
fn a_spread_is_even() {
    let mut world = World::of(&["zone=a", "zone=a", "zone=a", "zone=b", ""]);
    let spread = |when: &str| {
        format!(
            "      topologySpreadConstraints:\n      - {{maxSkew: 1, topologyKey: zone, whenUnsatisfiable: {when}, labelSelector: {{matchLabels: {{app: web}}}}}}\n"
        )
    };
    let (found, waits) = world.put("web", 5, &spread("DoNotSchedule"));
    assert_eq!(found.len(), 3, "two in a, one in b: {found:?}");
    assert!(found.contains(&4), "{found:?}");
    assert!(
        waits.contains("maxSkew over zone would be exceeded on")
            && waits.contains("no label zone on h5"),
        "{waits}"
    );
    world.apply(Change::DeleteWorkload {
        workload: "web".into(),
    });
    assert_eq!(world.put("web", 5, &spread("ScheduleAnyway")).0.len(), 5);
    // A zone whose host is lost does not count.
    let mut world = World::of(&["zone=a", "zone=a", "zone=b"]);
    for level in 2..=3 {
        world.apply(Change::RequireLevel { level });
    }
    world.reachable.remove(&h(3));
    world.apply(Change::LoseHost {
        host: h(3),
        declared: false,
    });
    assert_eq!(world.put("web", 2, &spread("DoNotSchedule")).0, [1, 2]);
}

#[test]
fn a_pod_goes_where_its_requests_fit() {
    let asks = |cpu: &str, memory: &str| {
        format!(
            "      initContainers: [{{name: i, image: \"quay.io/a:1\", resources: {{requests: {{cpu: \"{cpu}\", memory: \"{memory}\"}}}}}}]\n"
        )
    };
    let mut world = World::of(&["", ""]);
    assert_eq!(world.put("big", 1, &asks("1500m", "100Mi")).0.len(), 1);
    let (found, waits) = world.put("next", 2, &asks("1", "100Mi"));
    assert_eq!(found.len(), 1);
    assert!(
        waits.contains("cores requested: 1, left: 0.5 on"),
        "{waits}"
    );
    let (found, waits) = world.put("large", 1, &asks("0", "2Gi"));
    assert_eq!(found, [0_u8; 0]);
    assert!(waits.contains("memory requested: 2048 MiB"), "{waits}");
    // A host that has not said what it has takes everything.
    world.reports.clear();
    assert_eq!(world.put("huge", 1, &asks("64", "1Ti")).0.len(), 1);
}

/// A pod that leaves a host may stay in its zone, though it must be apart from the pods of its own workload.
#[test]
fn a_pod_is_not_apart_from_itself() {
    let mut world = World::of(&["zone=a", "zone=a"]);
    let (found, _) = world.put("lone", 1, &apart("lone", "zone"));
    let host = h(found[0]);
    let workload = world.state.workload("lone").unwrap().clone();
    let there = There::new(&world.state, &world.reachable, &world.reports);
    let mut taken = Taken::default();
    taken.add(host);
    assert!(there.choose(&workload, &taken).is_err(), "a second one");
    let next = there.choose_after(&workload, &taken, Some(host));
    assert_eq!(next, Ok(h(3 - found[0])));
    // Nor from another one that is lost with its host.
    drop(there);
    for level in 2..=3 {
        world.apply(Change::RequireLevel { level });
    }
    world.reachable.remove(&host);
    world.apply(Change::LoseHost {
        host,
        declared: false,
    });
    assert_eq!(
        world.put("next", 1, &apart("lone", "zone")).0,
        [3 - found[0]]
    );
}

#[test]
fn pods_spread_over_the_hosts_by_themselves() {
    let mut world = World::of(&["", "", "", ""]);
    let mut hosts = BTreeSet::new();
    for n in 0..4 {
        hosts.extend(world.put(&format!("w{n}"), 1, "").0);
    }
    assert_eq!(hosts.len(), 4, "each host has one");
}

/// As many hosts and workloads as a cluster may have. The time is that of a development build.
#[test]
fn a_plan_for_a_large_cluster_takes_no_time_to_speak_of() {
    let labels: Vec<String> = (0..100).map(|n| format!("zone=z{}", n % 5)).collect();
    let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
    let mut world = World::of(&labels);
    for n in 0..200 {
        let found = world.put(&format!("w{n}"), 3, "");
        assert_eq!(found.0.len(), 3);
    }
    let mut on = BTreeMap::new();
    for n in 0..200 {
        for seat in world.state.seats(&format!("w{n}")) {
            *on.entry(seat.host.unwrap()).or_insert(0) += 1;
        }
    }
    assert!(on.values().all(|count| *count == 6), "{on:?}");
}
