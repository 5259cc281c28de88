//! Every kind of workload runs on the hosts that its manifest means, and nowhere else.

#![allow(clippy::unwrap_used, reason = "whatever is missing fails the test")]

use harness::{Cluster, Host, IMAGE, pod, pod_on, secs, wait_for};

#[test]
fn every_kind_runs_where_its_manifest_says() {
    let cluster = Cluster::formed("placement", 3);
    daemon_sets_run_everywhere(&cluster);
    jobs_come_to_an_end(&cluster);
    replicas_choose_as_many_hosts(&cluster);
    selectors_choose_hosts_and_may_change(&cluster);
    namespaces_show_in_names(&cluster);
    labels_choose_hosts(&cluster);
    a_drained_host_gives_away_what_it_runs(&cluster);
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

/// Waits until the workload runs on these hosts, and nothing of it is left on the others.
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

fn jobs_come_to_an_end(cluster: &Cluster) {
    let answer = cluster
        .host(3)
        .apply(&templated("Job", "once", "", "echo done once"));
    assert_eq!(answer["settled"], true, "{answer}");
    for host in &cluster.hosts {
        wait_for(
            &format!("once completed on {}", host.name),
            secs(30),
            || {
                let (_, found) = host.api("GET", "/v1/workloads/once", b"");
                let reports = found["hosts"].as_array().cloned().unwrap_or_default();
                if reports.len() == 3 && reports.iter().all(|one| one["phase"] == "succeeded") {
                    Ok(())
                } else {
                    Err(found)
                }
            },
        );
        let unit = "beemesh-pod-once.service";
        assert_eq!(
            host.unit(unit, "StatusText"),
            "completed · rev 1 · 0 restarts"
        );
        assert_eq!(
            (host.unit(unit, "ActiveState"), host.unit(unit, "Result")),
            ("active".into(), "success".into())
        );
        assert_eq!(
            host.beemesh(&["logs", "once", "--host", &host.name]).ok(),
            "done once\n"
        );
    }
    let table = cluster.host(1).beemesh(&["get", "workloads"]).ok();
    let line = table
        .lines()
        .find(|line| line.starts_with("once "))
        .unwrap_or_default();
    assert!(
        line.contains("Job") && line.contains("3/3") && line.ends_with("succeeded"),
        "{table}"
    );

    // One that fails says so.
    let answer = cluster.host(1).try_apply(
        &templated("Job", "fails", "  backoffLimit: 0\n", "echo cannot; exit 3"),
        &["--wait=60"],
    );
    assert_eq!(answer.code, 1, "{answer}");
    assert!(
        answer.err.contains("fails on h1") && answer.err.contains("ended with code 3"),
        "{answer}"
    );
    let _ = cluster
        .host(1)
        .beemesh(&["delete", "fails", "--wait=60"])
        .ok();
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
    let answer = cluster.host(1).apply(&pod_on("h9", "picky", "nowhere"));
    assert_eq!(answer["settled"], true, "no host to wait for: {answer}");
    runs_only_on(cluster, "picky", 4, &[]);
    let table = cluster.host(3).beemesh(&["get", "workloads"]).ok();
    assert!(table.contains("no host should run it"), "{table}");
}

fn namespaces_show_in_names(cluster: &Cluster) {
    let shop = pod("each", "in the shop").replace("name: each", "name: each\n  namespace: shop");
    // The first object names the manifest, and that name is taken by the one outside the namespace.
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
    let answer = cluster.host(1).apply(&labelled);
    assert_eq!(answer["settled"], true, "{answer}");
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
        unknown.code == 1 && unknown.err.contains("no host `h9`"),
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
    // All is done when it returns: nothing is left there, and what is placed by count runs elsewhere.
    let left = drained.sh("podman ps -q --filter label=beemesh.io/workload; ls /etc/containers/systemd/ | grep beemesh-pod");
    assert_eq!(left.out, "");
    let now = places(cluster, "one");
    assert!(now.len() == 1 && now[0] != *home, "{now:?}");
    let listed = asked.beemesh(&["host", "list"]).ok();
    assert!(listed.contains(", drained"), "{listed}");
    // A reboot of the agent brings nothing back, an undrain everything.
    let _ = drained.sh("systemctl restart beemesh-agent").ok();
    let _ = asked.beemesh(&["host", "undrain", home]).ok();
    runs_only_on(cluster, "one", 1, &[home]);
    runs_only_on(cluster, "each", 1, &["h1", "h2", "h3"]);
}
