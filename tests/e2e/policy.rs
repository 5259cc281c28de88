//! The cluster's policy: requests of hosts' resources are refused before they reach the log, until an administrator
//! allows them.

#![allow(clippy::unwrap_used, reason = "whatever is missing fails the test")]

use harness::{Answer, Cluster, Host, IMAGE, pod, secs, start_agent, wait_for};

/// A command that reads a file of the host and the name of the host's first process.
const CURIOUS: &str =
    "trap \"exit 0\" TERM; cat /m/word /proc/1/comm; while :; do sleep 1 & wait $!; done";
const LOOSE: &str = "hostPID: true\nhostPaths: [/srv/shared:ro]\n";

/// A Pod with its container's fields on line 8 and its own fields on line 9.
fn asking(annotations: &str, container: &str, spec: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  {{name: asks, annotations: {{{annotations}}}}}\nspec:\n  containers:\n  -\n    \
         {{name: main, image: {IMAGE}, command: [sleep, inf]{container}}}\n{spec}\n"
    )
}

fn curious() -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: curious\nspec:\n  hostPID: true\n  containers:\n  - name: main\n    image: {IMAGE}\n    \
         command: [sh, -c, '{CURIOUS}']\n    volumeMounts: [{{name: v, mountPath: /m, readOnly: true}}]\n  \
         volumes:\n  - name: v\n    hostPath:\n      path: /srv/shared\n"
    )
}

fn set(host: &Host, policy: &str, more: &[&str]) -> Answer {
    let args = [&["beemesh", "policy", "set", "-f", "-"], more].concat();
    host.run_with(&args, policy.as_bytes())
}

#[test]
fn what_leaves_a_container_is_refused_until_the_policy_allows_it() {
    let cluster = Cluster::formed("policy", 3);
    let leader = cluster.leader(cluster.host(1));
    let follower = cluster.hosts.iter().find(|host| host.name != leader.name);
    let follower = follower.unwrap();
    the_default_refuses(leader, follower);
    a_policy_that_makes_no_sense_changes_nothing(leader);

    cluster.each(|host| {
        let _ = host
            .sh("mkdir -p /srv/shared && echo shared >/srv/shared/word")
            .ok();
    });
    let done = set(leader, LOOSE, &["--if-version=0"]).ok();
    assert!(
        done.starts_with("policy   version 1   committed at log index "),
        "{done}"
    );
    // The follower may not have the new policy yet: it asks the leader before it refuses.
    let answer = follower.apply(&curious());
    assert_eq!(answer["settled"], true, "{answer}");
    let hosts: Vec<_> = cluster.hosts.iter().collect();
    cluster.running("curious", 1, &hosts);
    for host in &cluster.hosts {
        wait_for("the pod's words", secs(20), || {
            let logs = host.beemesh(&["logs", "curious", "--host", &host.name]).out;
            match logs.contains("shared\nsystemd\n") {
                true => Ok(()),
                false => Err(logs),
            }
        });
    }
    the_policy_survives(&cluster);
    what_runs_goes_on_under_a_stricter_policy(&cluster, follower);
}

fn the_default_refuses(leader: &Host, follower: &Host) {
    let context = |fields: &str| asking("", &format!(", securityContext: {{{fields}}}"), "");
    let spec = |fields: &str| asking("", "", &format!("  {fields}"));
    let volume = |path: &str| spec(&format!("volumes: [{{name: v, hostPath: {path}}}]"));
    let c = "spec.containers[0].securityContext";
    let before = leader.status()["applied"].clone();
    for (manifest, place, line) in [
        (
            context("privileged: true"),
            format!("8: {c}.privileged"),
            "privileged: false",
        ),
        (
            context("procMount: Unmasked"),
            format!("8: {c}.procMount"),
            "procUnmasked: false",
        ),
        (
            context("capabilities: {add: [SYS_ADMIN]}"),
            format!("8: {c}.capabilities.add[0]"),
            "capabilities: [CHOWN,",
        ),
        (
            context("seLinuxOptions: {type: spc_t}"),
            format!("8: {c}.seLinuxOptions"),
            "seLinuxOptions: false",
        ),
        (
            spec("hostNetwork: true"),
            "9: spec.hostNetwork".into(),
            "hostNetwork: false",
        ),
        (
            spec("hostPID: true"),
            "9: spec.hostPID".into(),
            "hostPID: false",
        ),
        (
            spec("hostIPC: true"),
            "9: spec.hostIPC".into(),
            "hostIPC: false",
        ),
        (
            volume("{path: /run/podman}"),
            "9: spec.volumes[0].hostPath.path".into(),
            "hostPaths: []",
        ),
        (
            volume("{path: /dev/null, type: CharDevice}"),
            "9: spec.volumes[0].hostPath.path".into(),
            "devices: []",
        ),
        (
            spec("securityContext: {sysctls: [{name: kernel.msgmax, value: '9'}]}"),
            "9: spec.securityContext.sysctls[0].name".into(),
            "sysctls: [kernel.shm_rmid_forced,",
        ),
        (
            asking("io.podman.annotations.userns: host", "", ""),
            "4: metadata.annotations[io.podman.annotations.userns]".into(),
            "annotations: [volume.podman.io/gid,",
        ),
        (
            asking(
                "seccomp.security.alpha.kubernetes.io/pod: unconfined",
                "",
                "",
            ),
            "4: metadata.annotations[seccomp.security.alpha.kubernetes.io/pod]".into(),
            "seccompUnconfined: false",
        ),
        (
            asking(
                "",
                ", volumeMounts: [{name: v, mountPath: '/m:U'}]",
                "  volumes: [{name: v, emptyDir: {}}]",
            ),
            "8: spec.containers[0].volumeMounts[0].mountPath".into(),
            "mountOptions: [ro, rw]",
        ),
    ] {
        let refused = follower.try_apply(&manifest, &[]);
        let told = refused.code == 1
            && refused.err.contains(&format!("<stdin>:{place}: "))
            && refused.err.contains(&format!("is refused by `{line}"))
            && refused.err.contains("(version 0, the default)");
        assert!(told, "{place}: {refused}");
        let dry = follower.try_apply(&manifest, &["--dry-run"]);
        assert_eq!((dry.code, dry.err), (refused.code, refused.err));
    }
    assert_eq!(
        leader.status()["applied"],
        before,
        "something reached the log"
    );
    assert_eq!(
        follower.beemesh(&["get", "manifests"]).ok(),
        "no manifests\n"
    );
}

fn a_policy_that_makes_no_sense_changes_nothing(host: &Host) {
    let shown = || host.beemesh(&["policy", "show"]).ok();
    let before = shown();
    assert!(
        before.starts_with("# version 0 (the default policy)\nprivileged: false\n"),
        "{before}"
    );
    let refused = set(host, "privileged: true\nhostPath: [/]\n", &[]);
    assert!(
        refused.code == 1
            && refused
                .err
                .contains("<stdin>:2: hostPath: is not a rule; the rules are privileged,"),
        "{refused}"
    );
    let late = set(host, LOOSE, &["--if-version=7"]);
    assert!(
        late.code == 1 && late.err.contains("has version 0, not 7"),
        "{late}"
    );
    assert_eq!(shown(), before);
}

/// Every host has the policy after its gateway was killed, and one host has it after a power cut.
fn the_policy_survives(cluster: &Cluster) {
    let victim = cluster.host(3);
    cluster.crash(&[victim]);
    cluster.boot(&[victim]);
    cluster.ready();
    cluster.each(|host| {
        let _ = host.sh("podman kill -s KILL beemesh-gateway-gateway").ok();
    });
    cluster.ready();
    for host in &cluster.hosts {
        let shown = host
            .beemesh(&["policy", "show", "--stale", "-o", "json"])
            .json();
        assert_eq!(shown["version"], 1, "{shown}");
        assert_eq!(shown["rules"]["hostPID"], true, "{shown}");
        assert_eq!(shown["rules"]["hostPaths"][0], "/srv/shared:ro", "{shown}");
    }
}

fn what_runs_goes_on_under_a_stricter_policy(cluster: &Cluster, follower: &Host) {
    let hosts: Vec<_> = cluster.hosts.iter().collect();
    cluster.running("curious", 1, &hosts);
    let before: Vec<_> = hosts
        .iter()
        .map(|host| host.containers("curious"))
        .collect();
    let done = set(cluster.host(2), "{}", &[]).ok();
    assert!(done.starts_with("policy   version 2   "), "{done}");
    let refused = follower.try_apply(&curious(), &[]);
    let told = [
        "<stdin>:6: spec.hostPID: ",
        "<stdin>:15: spec.volumes[0].hostPath.path: ",
        "(version 2)",
    ];
    assert!(
        refused.code == 1 && told.iter().all(|words| refused.err.contains(words)),
        "{refused}"
    );
    // The apply of another object makes the hosts reconcile once.
    let answer = follower.apply(&pod("harmless", "x"));
    assert_eq!(answer["settled"], true, "{answer}");
    let after: Vec<_> = hosts
        .iter()
        .map(|host| host.containers("curious"))
        .collect();
    assert_eq!(after, before);
    // After a deletion the same manifest is a new apply, which the policy refuses.
    let _ = follower.beemesh(&["delete", "curious", "--wait"]).ok();
    assert_eq!(follower.try_apply(&curious(), &[]).code, 1);
}

#[test]
fn a_backup_brings_its_policy_where_there_is_none() {
    // Each host is a cluster of its own.
    let cluster = Cluster::booted("policy-backup", 3);
    cluster.each(start_agent);
    let [old, new, strict] = [1, 2, 3].map(|n| cluster.host(n));
    for host in &cluster.hosts {
        let _ = host
            .sh("mkdir -p /srv/shared && echo shared >/srv/shared/word")
            .ok();
    }
    let _ = set(old, LOOSE, &[]).ok();
    let _ = old.apply(&curious());
    let backup = old
        .sh("beemesh backup >/root/backup && base64 -w0 /root/backup")
        .ok();
    let restore = |host: &Host| {
        let line = "base64 -d >/root/backup && beemesh restore /root/backup";
        host.run_with(&["sh", "-c", line], backup.as_bytes())
    };
    assert!(restore(new).ok().contains("1 of 1 manifests restored"));
    cluster.running("curious", 1, &[new]);
    let shown = new.beemesh(&["policy", "show"]).ok();
    assert!(
        shown.contains("\nhostPaths: [\"/srv/shared:ro\"]\n"),
        "{shown}"
    );

    let _ = set(strict, "hostPID: true", &[]).ok();
    let refused = restore(strict);
    assert!(
        refused.code == 1
            && refused.err.contains("is refused by `hostPaths: []`")
            && refused.err.contains("(manifest `curious`)"),
        "{refused}"
    );
    assert_eq!(strict.beemesh(&["get", "manifests"]).ok(), "no manifests\n");
}
