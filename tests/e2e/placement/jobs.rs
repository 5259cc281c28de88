//! A Job runs once in the cluster, or once on each selected host on request, and a completed Job stays completed.

use harness::{Cluster, Host, secs, wait_for};

use super::{claim, mounts, templated};

/// The hosts on which the workload's pod has succeeded according to the API. Waits until there are `count` of them and
/// no other host reports a state.
#[track_caller]
fn succeeded_on(cluster: &Cluster, workload: &str, count: usize) -> Vec<String> {
    wait_for(&format!("{workload} completed"), secs(30), || {
        let path = format!("/v1/workloads/{workload}");
        let (_, found) = cluster.host(1).api("GET", &path, b"");
        let reports = found["hosts"].as_array().cloned().unwrap_or_default();
        if reports.len() == count && reports.iter().all(|one| one["phase"] == "succeeded") {
            let names = reports.iter().filter_map(|one| one["host"].as_str());
            Ok(names.map(str::to_owned).collect())
        } else {
            Err(found)
        }
    })
}

pub(super) fn come_to_an_end(cluster: &Cluster) {
    let answer = cluster
        .host(3)
        .apply(&templated("Job", "once", "", "echo done once"));
    assert_eq!(answer["settled"], true, "{answer}");
    let home = &succeeded_on(cluster, "once", 1)[0];
    for host in &cluster.hosts {
        if host.name != *home {
            assert_eq!(host.leftovers("once").trim(), "", "{}", host.name);
            continue;
        }
        let unit = "beemesh-pod-once.service";
        assert_eq!(
            host.unit(unit, "StatusText"),
            "completed · rev 1 · 0 restarts"
        );
        assert_eq!(
            (host.unit(unit, "ActiveState"), host.unit(unit, "Result")),
            ("active".into(), "success".into())
        );
        assert_eq!(host.beemesh(&["logs", "once"]).ok(), "done once\n");
    }
    // A Job with the annotation runs on each host.
    let each = templated("Job", "all-once", "", "echo done").replace(
        "name: all-once",
        "name: all-once\n  annotations: {beemesh.io/every-host: \"true\"}",
    );
    let _ = cluster.host(2).try_apply(&each, &["--wait=60"]);
    succeeded_on(cluster, "all-once", 3);
    let table = cluster.host(1).beemesh(&["get", "workloads"]).ok();
    let line = table
        .lines()
        .find(|line| line.starts_with("once "))
        .unwrap_or_default();
    assert!(
        line.contains("Job") && line.contains("1/1") && line.ends_with("succeeded"),
        "{table}"
    );

    // A failed Job is reported.
    let answer = cluster.host(1).try_apply(
        &templated("Job", "fails", "  backoffLimit: 0\n", "echo cannot; exit 3"),
        &["--wait=60"],
    );
    assert_eq!(answer.code, 1, "{answer}");
    assert!(
        answer.err.contains("fails on h")
            && answer.err.contains("main: exit 3")
            && answer.err.contains("cannot"),
        "{answer}"
    );
    let _ = cluster
        .host(1)
        .beemesh(&["delete", "fails", "--wait=60"])
        .ok();
}

/// A Job that adds a line to its claim `NAME-log` at each start.
fn counted(name: &str, more: &str, restart: &str, command: &str) -> String {
    let line = format!("echo run >>/log/runs; sync; {command}");
    let job = templated("Job", name, more, &line);
    let job = job.replace("restartPolicy: Never", &format!("restartPolicy: {restart}"));
    let log = format!("{name}-log");
    claim(&log) + &job + &mounts(&log, "/log")
}

/// The number of starts of the Job, by host.
fn starts(cluster: &Cluster, name: &str) -> Vec<usize> {
    let of = |host: &Host| {
        let line = format!(
            "cat $(podman volume inspect -f '{{{{.Mountpoint}}}}' beemesh__pvc__default__{name}-log)/runs"
        );
        host.sh(&line).out.lines().count()
    };
    cluster.hosts.iter().map(of).collect()
}

/// The line of `beemesh get workloads` for the Job, once it contains these words.
#[track_caller]
fn told(cluster: &Cluster, name: &str, words: &str) -> String {
    wait_for(&format!("{name}: {words}"), secs(60), || {
        let table = cluster.host(1).beemesh(&["get", "workloads"]).out;
        let mut lines = table.lines();
        let line = lines.find(|line| line.starts_with(&format!("{name} ")));
        let line = line.unwrap_or_default().to_owned();
        if line.contains(words) {
            Ok(line)
        } else {
            Err(table)
        }
    })
}

/// A completed Job does not start again after a restart, a power cut, a shutdown or a drain. An interrupted attempt
/// counts as failed.
pub(super) fn that_are_over_stay_over(cluster: &Cluster) {
    let host = cluster.host(1);
    let migrate = counted("migrate", "  backoffLimit: 0\n", "Never", "sleep 1; exit 3");
    let import = counted("import", "", "OnFailure", "true");
    let each = counted("each-once", "", "Never", "true").replace(
        "  name: each-once\n",
        "  name: each-once\n  annotations: {beemesh.io/every-host: \"true\"}\n",
    );
    // Its second attempt succeeds.
    let second = "[ $(wc -l </log/runs) = 2 ] || sleep 600";
    let resumed = counted("resumed", "  backoffLimit: 1\n", "Never", second);
    // Its host is not given up while it shuts down, which takes as long as the pod's grace period.
    let only = counted("only", "  backoffLimit: 0\n", "Never", "sleep 600").replace(
        "  name: only\n",
        "  name: only\n  annotations: {beemesh.io/reschedule-after: 10m}\n",
    );
    for (name, yaml) in [
        ("migrate", &migrate),
        ("import", &import),
        ("each-once", &each),
        ("resumed", &resumed),
        ("only", &only),
    ] {
        let _ = host.try_apply(yaml, &["--name", name]).ok();
    }
    let failed = "failed: main: exit 3";
    told(cluster, "migrate", failed);
    told(cluster, "import", "1/1     succeeded");
    told(cluster, "each-once", "3/3     succeeded");
    for name in ["resumed", "only"] {
        wait_for(&format!("{name} to begin"), secs(30), || {
            match starts(cluster, name) {
                starts if starts.iter().sum::<usize>() == 1 => Ok(()),
                starts => Err(format!("{starts:?}")),
            }
        });
    }
    let of = |name: &str| starts(cluster, name);
    let before = ["migrate", "import", "each-once"].map(of);

    cluster.each(|host| {
        let _ = host
            .sh("systemctl restart beemesh-agent beemesh-gateway")
            .ok();
    });
    cluster.ready();
    let ran = |name: &str| -> &Host {
        let at = of(name).iter().position(|starts| *starts > 0).unwrap();
        &cluster.hosts[at]
    };
    let home = ran("import");
    let asked = cluster
        .hosts
        .iter()
        .find(|host| host.name != home.name)
        .unwrap();
    let _ = asked.beemesh(&["host", "drain", &home.name]).ok();
    let _ = asked.beemesh(&["host", "undrain", &home.name]).ok();
    // One host shuts down cleanly, the other loses power.
    let (cut, shut) = (ran("resumed"), ran("migrate"));
    if shut.name != cut.name {
        shut.power_off();
    }
    cluster.crash(&[cut]);
    cluster.boot(&[cut]);
    if shut.name != cut.name {
        cluster.boot(&[shut]);
    }
    cluster.ready();
    told(cluster, "resumed", "1/1     succeeded");
    // The host that ran it may not be one of those that were off.
    let interrupted = [cut, shut].iter().any(|host| host.name == ran("only").name);
    if interrupted {
        told(cluster, "only", "failed: interrupted");
    }
    // A repeated apply changes nothing.
    let answer = host.try_apply(&migrate, &["--name", "migrate", "--wait=60"]);
    assert!(
        answer.code == 1 && answer.err.contains(failed) && answer.out.contains("unchanged"),
        "{answer}"
    );
    let answer = host
        .try_apply(&import, &["--name", "import", "--wait=60"])
        .ok();
    assert!(
        answer.contains("unchanged") && answer.contains("succeeded"),
        "{answer}"
    );
    assert_eq!(["migrate", "import", "each-once"].map(of), before);
    assert_eq!(before.map(|starts| starts.iter().sum::<usize>()), [1, 1, 3]);
    assert_eq!(of("resumed").iter().sum::<usize>(), 2);
    assert_eq!(of("only").iter().sum::<usize>(), 1);
    for name in ["migrate", "import", "each-once", "resumed", "only"] {
        let _ = host.beemesh(&["delete", name, "--wait=60"]).ok();
    }
}
