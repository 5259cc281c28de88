//! A manifest applied on any host runs on all hosts, as units whose state agrees in systemd and Podman.

#![allow(clippy::unwrap_used, reason = "whatever is missing fails the test")]

use harness::{Cluster, Host, pod, secs, two_containers, wait_for};

#[test]
fn a_manifest_given_to_any_host_runs_on_all_as_adopted_units() {
    let cluster = Cluster::formed("apply", 3);
    let before: Vec<u64> = cluster.hosts.iter().map(last_reload).collect();
    for (n, host) in (1..).zip(&cluster.hosts) {
        let name = format!("web{n}");
        let answer = host.apply(&two_containers(&name, "first"));
        assert_eq!(answer["settled"], true, "{answer}");
        if n == 1 {
            let hosts = cluster.hosts.iter().zip(&before);
            hosts.for_each(|(host, before)| assert_started_without_reload(host, *before));
        }
        assert_eq!(answer["objects"][1]["action"], "created", "{answer}");
        for host in &cluster.hosts {
            assert_adopted(host, &name, "2/2 healthy · rev 1 · 0 restarts");
            assert_eq!(host.containers(&name).len(), 2);
        }
    }
    cluster
        .hosts
        .iter()
        .for_each(assert_generated_as_by_a_reload);
    identical_apply_touches_nothing(&cluster);
    update_keeps_the_unit_active(&cluster);
    delete_reaches_a_host_that_was_off(&cluster);
}

/// The number of pods of one update: twice as many as are played at the same time.
const MANY: usize = 16;

#[test]
fn pods_that_wait_for_their_update_are_not_looked_at() {
    let cluster = Cluster::formed("queue", 1);
    let host = cluster.host(1);
    let folder = "/etc/systemd/system/podman.service.d";
    let logging = "[Service]\\nEnvironment=LOGGING=--log-level=info\\n";
    let line = format!(
        "mkdir -p {folder} && printf '{logging}' > {folder}/log.conf \
         && systemctl daemon-reload && systemctl restart podman.service"
    );
    let _ = host.sh(&line).ok();
    // The containers ignore SIGTERM, so that a pod occupies its place in the queue for the whole grace period.
    let slow = "spec:\n  terminationGracePeriodSeconds: 8\n";
    let manifest = |marker: &str| {
        let pods = (1..=MANY).map(|n| pod(&format!("many{n}"), marker));
        let pods = pods.map(|pod| pod.replace("exit 0", ":").replace("spec:\n", slow));
        pods.collect::<Vec<_>>().join("---\n")
    };
    let answer = host.apply(&manifest("first"));
    assert_eq!(answer["settled"], true, "{answer}");
    let looks = || -> usize {
        let line = "journalctl -u podman.service -o cat | grep -c 'GET .*/pods/many[0-9]*/json'";
        host.sh(line).out.trim().parse().unwrap()
    };
    let before = looks();
    assert!(before >= MANY, "{before} looks at {MANY} new pods");
    let _ = host.try_apply(&manifest("second"), &[]).ok();
    let written = "grep -l second /etc/containers/systemd/beemesh/*.yaml | wc -l";
    wait_for("all Quadlets of the update", secs(10), || {
        let count = host.sh(written).out;
        if count.trim() == MANY.to_string() {
            Ok(())
        } else {
            Err(count)
        }
    });
    // Each pod has an event, at which its supervisor looks at it. The events of an old pod that is being stopped cause
    // no look.
    let _ = host.sh(&format!(
        "for n in $(seq {MANY}); do podman exec many$n-main true; done"
    ));
    let answer = host.apply(&manifest("second"));
    assert_eq!(answer["settled"], true, "{answer}");
    let seen = looks() - before;
    // Per pod: one look at the event above, one when the old pod has ended, one when the new one is played, one by the
    // process that ends the containers, and one to spare.
    assert!(seen <= 5 * MANY, "{seen} looks at {MANY} updated pods");
}

/// The time of systemd's last daemon-reload, in microseconds of the monotonic clock; 0 if there was none.
fn last_reload(host: &Host) -> u64 {
    let line = "systemctl show --value -p UnitsLoadTimestampMonotonic";
    host.sh(line).ok().trim().parse().unwrap()
}

/// Asserts that no reload was needed to start a new workload. A later reload is the one that the agent makes after a
/// quiet time.
fn assert_started_without_reload(host: &Host, before: u64) {
    let started = host.unit("beemesh-pod-web1.service", "InactiveExitTimestampMonotonic");
    let (started, now): (u64, u64) = (started.parse().unwrap(), last_reload(host));
    assert!(
        now == before || now > started,
        "reloaded at {before} and {now}, started at {started}"
    );
}

/// Asserts that the unit generated for a new workload equals the one that a reload generates, and that systemd finds no
/// changed file.
fn assert_generated_as_by_a_reload(host: &Host) {
    let ours = generated(host);
    assert_eq!(
        host.unit("beemesh-pod-web1.service", "NeedDaemonReload"),
        "no"
    );
    let _ = host.run(&["systemctl", "daemon-reload"]).ok();
    assert_eq!(generated(host), ours);
    assert_eq!(
        host.unit("beemesh-pod-web1.service", "UnitFileState"),
        "generated"
    );
}

/// The generated unit. It is absent for a moment during a reload, which the agent makes after a quiet time.
fn generated(host: &Host) -> String {
    wait_for("the generated unit", secs(10), || {
        let read = host.sh("cat /run/systemd/generator/beemesh-pod-web1.service");
        if read.code == 0 {
            Ok(read.out)
        } else {
            Err(read.err)
        }
    })
}

/// Asserts that the unit is active, its supervisor is its main process, every conmon is in its cgroup, and its journal
/// has the output of the containers.
fn assert_adopted(host: &Host, workload: &str, status: &str) {
    let unit = format!("beemesh-pod-{workload}.service");
    assert_eq!(host.unit(&unit, "ActiveState"), "active");
    assert_eq!(host.unit(&unit, "StatusText"), status);
    let cgroup = host.unit(&unit, "ControlGroup");
    for (name, container) in host.containers(workload) {
        let line = format!("cat /proc/{}/cgroup", container.conmon);
        let place = host.sh(&line).out;
        assert!(
            place.contains(&cgroup),
            "{name}: conmon in {place}, unit in {cgroup}"
        );
    }
    wait_for(
        "the containers' output in the unit's journal",
        secs(10),
        || {
            let journal = host
                .run(&["journalctl", "--no-pager", "-o", "cat", "-u", &unit])
                .out;
            let has = |line: &str| journal.lines().any(|one| one.contains(line));
            if has("one says first") && has("two says hello") {
                Ok(())
            } else {
                Err(journal)
            }
        },
    );
    let shown = host.run(&["systemctl", "status", "--no-pager", &unit]).out;
    assert!(
        shown.contains(&format!("{unit} - {workload} (Beemesh workload)")),
        "{shown}"
    );
    assert!(
        shown.contains("Drop-In: /usr/lib/systemd/system/beemesh-pod-.service.d"),
        "{shown}"
    );
}

fn identical_apply_touches_nothing(cluster: &Cluster) {
    let before: Vec<_> = cluster
        .hosts
        .iter()
        .map(|host| host.containers("web1"))
        .collect();
    let answer = cluster.host(3).apply(&two_containers("web1", "first"));
    let actions: Vec<_> = answer["objects"]
        .as_array()
        .unwrap()
        .iter()
        .map(|o| o["action"].clone())
        .collect();
    assert_eq!(actions, ["unchanged", "unchanged"], "{answer}");
    let said = cluster
        .host(3)
        .try_apply(&two_containers("web1", "first"), &[])
        .ok();
    assert!(said.contains("unchanged"), "{said}");
    let after: Vec<_> = cluster
        .hosts
        .iter()
        .map(|host| host.containers("web1"))
        .collect();
    assert_eq!(before, after);
}

/// A changed ConfigMap alone makes the workload that uses it roll out, and the unit stays active.
fn update_keeps_the_unit_active(cluster: &Cluster) {
    let since: Vec<_> = cluster
        .hosts
        .iter()
        .map(|h| h.unit("beemesh-pod-web1.service", "ActiveEnterTimestampMonotonic"))
        .collect();
    let before = cluster.host(1).containers("web1");
    let answer = cluster.host(2).apply(&two_containers("web1", "second"));
    assert_eq!(answer["settled"], true, "{answer}");
    let workload = &answer["workloads"][0];
    assert_eq!(workload["revision"], 2, "{answer}");
    let hosts: Vec<&Host> = cluster.hosts.iter().collect();
    cluster.running("web1", 2, &hosts);
    for (host, since) in cluster.hosts.iter().zip(since) {
        let unit = "beemesh-pod-web1.service";
        assert_eq!(
            host.unit(unit, "ActiveEnterTimestampMonotonic"),
            since,
            "{}: the unit stopped",
            host.name
        );
        assert_eq!(
            host.unit(unit, "StatusText"),
            "2/2 healthy · rev 2 · 0 restarts"
        );
        wait_for("nothing left of the old revision", secs(10), || {
            let count = |line: &str| host.sh(line).out.trim().to_owned();
            let volumes = count("podman volume ls -q | grep -c '^beemesh__OWN__web1__c__'");
            let files =
                count("ls /etc/containers/systemd/beemesh | grep -c '^beemesh-pod-web1\\.'");
            let stale = host.unit(unit, "NeedDaemonReload");
            if ["0", "1"].contains(&&*volumes) && files == "2" && stale == "no" {
                Ok(())
            } else {
                Err(format!(
                    "{volumes} ConfigMap volumes, {files} files, NeedDaemonReload={stale}"
                ))
            }
        });
    }
    assert_ne!(cluster.host(1).containers("web1"), before);
    let journal = wait_for("the new pod's output", secs(10), || {
        let journal = cluster
            .host(1)
            .sh("journalctl --no-pager -o cat -u beemesh-pod-web1")
            .out;
        if journal.contains("one says second") {
            Ok(journal)
        } else {
            Err(journal)
        }
    });
    for line in ["one says first", "one says second"] {
        let count = journal.lines().filter(|one| one.contains(line)).count();
        assert_eq!(
            count, 1,
            "{line}: once, also where it was logged before the adoption\n{journal}"
        );
    }
}

fn delete_reaches_a_host_that_was_off(cluster: &Cluster) {
    let off = cluster.host(3);
    let on = [cluster.host(1), cluster.host(2)];
    let _ = cluster.host(1).apply(&pod("stays", "stays"));
    cluster.crash(&[off]);
    cluster.agree(&on, 2);
    let deleted = cluster
        .host(2)
        .beemesh(&["delete", "web1", "-o", "json"])
        .json();
    assert_eq!(deleted["removed"], serde_json::json!(["web1"]), "{deleted}");
    for host in on {
        assert_gone(host, "web1");
    }
    cluster.boot(&[off]);
    cluster.ready();
    assert_gone(off, "web1");
    let all: Vec<&Host> = cluster.hosts.iter().collect();
    cluster.running("stays", 1, &all);
    cluster.running("web2", 1, &all);
    let missing = cluster.host(1).beemesh(&["delete", "web1"]);
    assert_eq!(missing.code, 1, "{missing}");
    assert!(
        missing.err.contains("workload `web1` not found"),
        "{missing}"
    );
}

#[track_caller]
fn assert_gone(host: &Host, workload: &str) {
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
