//! Every kind of workload runs on exactly the hosts that its manifest selects.

#![allow(clippy::unwrap_used, reason = "whatever is missing fails the test")]

#[path = "placement/data.rs"]
mod data;
#[path = "placement/jobs.rs"]
mod jobs;
#[path = "placement/rules.rs"]
mod rules;

use harness::{Cluster, Host, IMAGE, pod, pod_on, secs, wait_for};

#[test]
fn every_kind_runs_where_its_manifest_says() {
    let cluster = Cluster::formed("placement", 3);
    daemon_sets_run_everywhere(&cluster);
    jobs::come_to_an_end(&cluster);
    replicas_choose_as_many_hosts(&cluster);
    selectors_choose_hosts_and_may_change(&cluster);
    namespaces_show_in_names(&cluster);
    labels_choose_hosts(&cluster);
    rules::choose_hosts(&cluster);
    hosts_have_the_labels_of_their_machines(&cluster);
    what_cannot_be_done_is_not_done(&cluster);
    a_drained_host_gives_away_what_it_runs(&cluster);
    data::stays_with_its_host(&cluster);
    a_host_that_loses_its_name_keeps_it_in_the_cluster(&cluster);
    jobs::that_are_over_stay_over(&cluster);
}

/// A claim of this name, to put before other documents.
fn claim(name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {{name: {name}}}\nspec:\n  accessModes: [ReadWriteOnce]\n  \
         resources: {{requests: {{storage: 1Gi}}}}\n---\n"
    )
}

/// The end of a templated workload whose container mounts the claim at this path.
fn mounts(claim: &str, path: &str) -> String {
    format!(
        "        volumeMounts: [{{name: data, mountPath: {path}}}]\n      volumes:\n      - name: data\n        \
         persistentVolumeClaim: {{claimName: {claim}}}\n"
    )
}

fn templated(kind: &str, name: &str, more: &str, command: &str) -> String {
    let group = if kind == "Job" { "batch/v1" } else { "apps/v1" };
    let selector = if kind == "Job" {
        ""
    } else {
        "  selector:\n    matchLabels: {app: x}\n"
    };
    let restart = if kind == "Job" { "Never" } else { "Always" };
    format!(
        "apiVersion: {group}\nkind: {kind}\nmetadata:\n  name: {name}\nspec:\n{more}{selector}  template:\n    metadata:\n      \
         labels: {{app: x}}\n    spec:\n      restartPolicy: {restart}\n      containers:\n      - name: main\n        image: {IMAGE}\n        \
         command: [sh, -c, '{command}']\n"
    )
}

const STAYS: &str = "trap \"exit 0\" TERM; while :; do sleep 1 & wait $!; done";

fn named<'a>(cluster: &'a Cluster, name: &str) -> &'a Host {
    cluster.hosts.iter().find(|host| host.name == name).unwrap()
}

/// The hosts on which Podman runs the workload's container.
fn places(cluster: &Cluster, workload: &str) -> Vec<String> {
    let runs = |host: &&Host| !host.containers(workload).is_empty();
    cluster
        .hosts
        .iter()
        .filter(runs)
        .map(|host| host.name.clone())
        .collect()
}

/// Waits until the workload runs on these hosts, and the others have no leftovers of it.
#[track_caller]
fn runs_only_on(cluster: &Cluster, workload: &str, revision: u64, wanted: &[&str]) {
    for host in &cluster.hosts {
        if wanted.contains(&&*host.name) {
            cluster.running(workload, revision, &[host]);
        } else {
            wait_for(
                &format!("no trace of {workload} on {}", host.name),
                secs(60),
                || {
                    let left = host.leftovers(workload);
                    if left.trim().is_empty() {
                        Ok(())
                    } else {
                        Err(left)
                    }
                },
            );
        }
    }
    let (_, found) = cluster
        .host(1)
        .api("GET", &format!("/v1/workloads/{workload}"), b"");
    let mut told: Vec<_> = found["hosts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["host"].as_str().unwrap())
        .collect();
    told.sort_unstable();
    assert_eq!(told, wanted, "{found}");
}

fn daemon_sets_run_everywhere(cluster: &Cluster) {
    let answer = cluster
        .host(2)
        .apply(&templated("DaemonSet", "each", "", STAYS));
    assert_eq!(answer["settled"], true, "{answer}");
    runs_only_on(cluster, "each", 1, &["h1", "h2", "h3"]);
}

fn replicas_choose_as_many_hosts(cluster: &Cluster) {
    let scaled = |replicas: u32| {
        templated(
            "Deployment",
            "some",
            &format!("  replicas: {replicas}\n"),
            STAYS,
        )
    };
    let answer = cluster.host(1).apply(&scaled(1));
    assert_eq!(answer["settled"], true, "{answer}");
    let first = places(cluster, "some");
    assert_eq!(first.len(), 1, "one replica runs on one host: {first:?}");
    let before: Vec<_> = cluster
        .hosts
        .iter()
        .map(|host| host.containers("some"))
        .collect();
    assert_eq!(
        before
            .iter()
            .map(|containers| containers.len())
            .sum::<usize>(),
        1
    );

    let answer = cluster.host(2).apply(&scaled(2));
    assert_eq!(answer["settled"], true, "{answer}");
    let second = places(cluster, "some");
    assert_eq!(second.len(), 2, "{second:?}");
    assert!(second.contains(&first[0]), "{first:?} then {second:?}");

    let answer = cluster.host(3).apply(&scaled(1));
    assert_eq!(answer["settled"], true, "{answer}");
    runs_only_on(cluster, "some", 3, &[&first[0]]);
}

fn selectors_choose_hosts_and_may_change(cluster: &Cluster) {
    for (revision, host) in [(1, "h2"), (2, "h3")] {
        let answer = cluster.host(1).apply(&pod_on(host, "picky", "here"));
        assert_eq!(answer["settled"], true, "{answer}");
        runs_only_on(cluster, "picky", revision, &[host]);
    }
    let answer = cluster.host(1).apply(&pod("picky", "here"));
    assert_eq!(answer["settled"], true, "{answer}");
    runs_only_on(cluster, "picky", 3, &["h1", "h2", "h3"]);
    let nowhere = pod_on("h9", "picky", "nowhere");
    let answer = cluster.host(1).try_apply(&nowhere, &["--wait=60"]);
    let words = "no host matches nodeSelector kubernetes.io/hostname=h9";
    assert!(
        answer.code == 1
            && answer.err.contains(words)
            && !answer.err.contains("not rolled out after"),
        "at once: {answer}"
    );
    runs_only_on(cluster, "picky", 4, &[]);
    let table = cluster.host(3).beemesh(&["get", "workloads"]).ok();
    assert!(table.contains(words), "{table}");
}

fn namespaces_show_in_names(cluster: &Cluster) {
    let shop = pod("each", "in the shop").replace("name: each", "name: each\n  namespace: shop");
    // The name of the manifest is that of its first object. The object outside of the namespace has already taken that
    // name.
    let args = [
        "beemesh",
        "apply",
        "-f",
        "-",
        "--name",
        "shop",
        "--wait=60",
        "-o",
        "json",
    ];
    let answer = cluster.host(2).run_with(&args, shop.as_bytes()).json();
    assert_eq!(answer["settled"], true, "{answer}");
    runs_only_on(cluster, "shop_each", 1, &["h1", "h2", "h3"]);
    runs_only_on(cluster, "each", 1, &["h1", "h2", "h3"]);
    for host in &cluster.hosts {
        assert_eq!(
            host.unit("beemesh-pod-shop_each.service", "ActiveState"),
            "active"
        );
        let pods = host
            .sh("podman pod ps --format '{{.Name}}' | grep each | sort")
            .out;
        assert_eq!(pods, "each\nshop_each\n");
    }
    let _ = cluster
        .host(1)
        .beemesh(&["delete", "shop_each", "--wait=60"])
        .ok();
    runs_only_on(cluster, "each", 1, &["h1", "h2", "h3"]);
}

fn labels_choose_hosts(cluster: &Cluster) {
    let labelled = pod_on("h9", "fast", "here").replace("kubernetes.io/hostname: h9", "disk: ssd");
    let _ = cluster.host(1).try_apply(&labelled, &[]).ok();
    runs_only_on(cluster, "fast", 1, &[]);
    let label = |label: &str| cluster.host(3).beemesh(&["host", "label", "h2", label]);
    let said = label("disk=ssd").ok();
    assert!(said.contains("host h2   labelled   committed"), "{said}");
    runs_only_on(cluster, "fast", 1, &["h2"]);
    let shown = cluster.host(1).beemesh(&["host", "show", "h2"]).ok();
    assert!(shown.contains("disk=ssd"), "{shown}");
    let refused = label("disk=s s d");
    assert!(
        refused.code == 1 && refused.err.contains("letters, digits"),
        "{refused}"
    );
    let _ = label("disk-").ok();
    runs_only_on(cluster, "fast", 1, &[]);
    let unknown = cluster.host(1).beemesh(&["host", "show", "h9"]);
    assert!(
        unknown.code == 1 && unknown.err.contains("host `h9` not found"),
        "{unknown}"
    );
}

fn a_drained_host_gives_away_what_it_runs(cluster: &Cluster) {
    let one = templated("Deployment", "one", "  replicas: 1\n", STAYS);
    let answer = cluster.host(1).apply(&one);
    assert_eq!(answer["settled"], true, "{answer}");
    let home = &places(cluster, "one")[0];
    let drained = cluster
        .hosts
        .iter()
        .find(|host| host.name == *home)
        .unwrap();
    let asked = cluster
        .hosts
        .iter()
        .find(|host| host.name != *home)
        .unwrap();
    let said = asked.beemesh(&["host", "drain", home]).ok();
    assert!(said.contains("drained   committed"), "{said}");
    // When the command returns, the drain is complete: the host has no pod, and the replicas run on other hosts.
    let left = drained.sh("podman ps -q --filter label=beemesh.io/workload; ls /etc/containers/systemd/ | grep beemesh-pod");
    assert_eq!(left.out, "");
    let now = places(cluster, "one");
    assert!(now.len() == 1 && now[0] != *home, "{now:?}");
    let listed = asked.beemesh(&["host", "list"]).ok();
    assert!(listed.contains(", drained"), "{listed}");
    // A restart of the agent starts no pod. An undrain starts the workloads of every host. It moves no replica, least
    // of all to a host that is off.
    let before = named(cluster, &now[0]).containers("one");
    let _ = drained
        .sh("systemctl stop beemesh-gateway beemesh-agent.socket beemesh-agent")
        .ok();
    let (_, undrained) = asked.api("DELETE", &format!("/v1/hosts/{home}/drained"), b"");
    let index = undrained["index"].as_u64().unwrap();
    wait_for("the undrain on the other hosts", secs(30), || {
        let (_, status) = named(cluster, &now[0]).api("GET", "/v1/status", b"");
        let applied = status["applied"].as_u64().unwrap_or_default();
        if applied >= index {
            Ok(())
        } else {
            Err(status)
        }
    });
    let _ = drained
        .sh("systemctl start beemesh-agent.socket beemesh-agent beemesh-gateway")
        .ok();
    runs_only_on(cluster, "each", 1, &["h1", "h2", "h3"]);
    runs_only_on(cluster, "one", 1, &[&now[0]]);
    assert_eq!(named(cluster, &now[0]).containers("one"), before);
    let _ = asked.beemesh(&["delete", "one", "--wait=60"]).ok();
}

fn hosts_have_the_labels_of_their_machines(cluster: &Cluster) {
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let by_kind = format!("kubernetes.io/os: linux, beta.kubernetes.io/arch: {arch}");
    let chart = pod_on("h9", "chart", "here").replace("kubernetes.io/hostname: h9", &by_kind);
    let answer = cluster.host(2).apply(&chart);
    assert_eq!(
        (&answer["settled"], &answer["workloads"][0]["ready"]),
        (&true.into(), &3.into()),
        "{answer}"
    );
    runs_only_on(cluster, "chart", 1, &["h1", "h2", "h3"]);
    let refused = cluster
        .host(1)
        .beemesh(&["host", "label", "h2", "kubernetes.io/os-"]);
    assert!(
        refused.code == 1 && refused.err.contains("use another label"),
        "{refused}"
    );
}

fn what_cannot_be_done_is_not_done(cluster: &Cluster) {
    let host = cluster.host(1);
    let port = "        ports: [{containerPort: 80, hostPort: 8089}]\n";
    let five = templated("Deployment", "five", "  replicas: 5\n", STAYS) + port;
    let answer = host.try_apply(&five, &["--wait=60"]);
    let words = "five: 3/5 ready: 5 replicas are requested, and 3 hosts can run one each, because its host port \
                 allows one on each host";
    assert!(answer.code == 1 && answer.err.contains(words), "{answer}");
    let (_, told) = host.api("GET", "/v1/workloads/five", b"");
    assert_eq!(
        (&told["asked"], &told["ready"]),
        (&5.into(), &3.into()),
        "{told}"
    );
    let _ = host.beemesh(&["delete", "five"]).ok();

    // One container ends again and again, while the other one runs all the time.
    let side = format!(
        "      - name: side\n        image: {IMAGE}\n        command: [sh, -c, 'sleep 1; exit 7']\n"
    );
    let loops = templated("Deployment", "loops", "  replicas: 1\n", STAYS) + &side;
    let answer = host.try_apply(&loops, &["--wait=8"]);
    let named = answer.err.contains("side") && answer.err.contains("side: exit 7");
    assert!(answer.code == 1 && named, "{answer}");
    let _ = host.beemesh(&["delete", "loops"]).ok();
}

fn a_host_that_loses_its_name_keeps_it_in_the_cluster(cluster: &Cluster) {
    let [h1, h2, h3] = [cluster.host(1), cluster.host(2), cluster.host(3)];
    let answer = h1.apply(&pod_on("h2", "pinned", "here"));
    assert_eq!(answer["settled"], true, "{answer}");
    let before = h2.containers("pinned");
    let renamed = |name: &str| format!("hostname {name} && systemctl restart beemesh-agent");
    for host in [h2, h3] {
        let _ = host.sh(&renamed("localhost")).ok();
    }
    let says = |host: &Host, words: &str, what: &str| {
        wait_for(what, secs(30), || {
            let status = host.beemesh(&["status"]).out;
            let line = host.unit("beemesh-agent", "StatusText");
            if status.contains(words) && line.contains(words) {
                Ok(())
            } else {
                Err(format!("{status}\n{line}"))
            }
        });
    };
    says(
        h2,
        "the host name of the system is localhost",
        "trouble on h2",
    );
    says(
        h3,
        "the host name of the system is localhost",
        "trouble on h3",
    );
    let applied = || h1.status()["applied"].as_u64().unwrap();
    let (_, hosts) = h1.api("GET", "/v1/hosts", b"");
    let names: Vec<_> = hosts["hosts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|host| host["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["h1", "h2", "h3"], "{hosts}");
    let index = applied();
    std::thread::sleep(secs(2));
    assert!(
        applied() <= index + 1,
        "the log grows: {index}, {}",
        applied()
    );
    // A name that another member has changes nothing either. Only a unique name does.
    let set = |name: &str| {
        let line = format!(
            "mkdir -p /etc/beemesh/agent.toml.d && echo 'name = \"{name}\"' >/etc/beemesh/agent.toml.d/name.toml && \
             systemctl reload beemesh-agent"
        );
        let _ = h3.sh(&line).ok();
    };
    set("h1");
    says(h3, "`name` is set to h1", "trouble on h3");
    let index = applied();
    std::thread::sleep(secs(3));
    assert!(
        applied() <= index + 1,
        "the log grows: {index}, {}",
        applied()
    );
    set("db");
    wait_for("h3 is called db", secs(30), || {
        let list = h1.beemesh(&["host", "list"]).out;
        if list.contains("\ndb ") {
            Ok(())
        } else {
            Err(list)
        }
    });
    set("h3");
    for (host, name) in [(h2, "h2"), (h3, "h3")] {
        let _ = host.sh(&renamed(name)).ok();
    }
    cluster.ready();
    assert_eq!(h2.containers("pinned"), before);
}
