//! Without Beemesh its workloads are plain Quadlets: no lock-in.

use harness::{Cluster, Host, IMAGE, pod, secs, two_containers, wait_for};

#[test]
fn workloads_boot_as_plain_quadlets_when_every_program_of_ours_is_gone() {
    let cluster = Cluster::formed("uninstall", 1);
    let host = cluster.host(1);
    let answer = host.apply(&two_containers("web", "first"));
    assert_eq!(answer["settled"], true, "{answer}");
    let probed = pod("probed", "first").replace(
        "  containers:\n",
        "  containers:\n  - name: ready\n    image: IMAGE\n    command: [sh, -c, 'trap \"exit 0\" TERM; while :; do sleep 1; done']\n    \
         livenessProbe: {exec: {command: ['true']}, periodSeconds: 1}\n",
    );
    let answer = host.apply(&probed.replace("IMAGE", IMAGE));
    assert_eq!(answer["settled"], true, "{answer}");
    restarts_are_given_back(host);
    let _ = host
        .sh("systemctl disable --quiet beemesh-agent.service beemesh-agent.socket; \
             rm -rf /usr/lib/systemd/system/beemesh-* /usr/libexec/beemesh /usr/bin/beemesh /usr/share/beemesh \
                    /usr/share/containers/systemd/beemesh-gateway.* && sync")
        .ok();
    cluster.crash(&[host]);
    cluster.boot(&[host]);
    wait_for("web as a plain Quadlet", secs(90), || {
        let seen = (
            host.unit("beemesh-pod-web.service", "ActiveState"),
            host.containers("web").len(),
        );
        if seen == ("active".into(), 2) {
            Ok(())
        } else {
            Err(format!("{seen:?}"))
        }
    });
    let start = host.unit("beemesh-pod-web.service", "ExecStart");
    assert!(start.contains("podman kube play"), "{start}");
    let programs = host.sh("pgrep -l '^beemesh'").out;
    assert_eq!(programs, "");
}

/// The supervisor does the restarts with growing pauses. The scriptlet of `dnf remove` returns them to Podman.
fn restarts_are_given_back(host: &Host) {
    let kill = || {
        let before = host.containers("web")["web-one"].pid;
        let _ = host.sh(&format!("kill -9 {before}")).ok();
        wait_for("web-one again", secs(10), || {
            let after = host.containers("web");
            let again = after
                .get("web-one")
                .is_some_and(|one| one.pid != before && one.pid > 0);
            again.then_some(()).ok_or(format!("{after:?}"))
        });
    };
    let policy = |wanted: &str| {
        wait_for(&format!("restart policy {wanted}"), secs(10), || {
            let line = "podman inspect --format '{{.HostConfig.RestartPolicy.Name}}' web-one";
            let found = host.sh(line).ok();
            (found.trim() == wanted).then_some(()).ok_or(found)
        });
    };
    kill();
    policy("no");
    let told = host
        .run(&["/usr/libexec/beemesh/beemesh-pod", "--release"])
        .ok();
    assert!(
        told.contains("itself again, without back-off: web-one\n"),
        "{told}"
    );
    assert!(
        told.contains("Podman runs their liveness and startup probes: probed-ready\n"),
        "{told}"
    );
    policy("always");
    // Only Podman can restart it.
    let _ = host
        .run(&[
            "systemctl",
            "kill",
            "-s",
            "STOP",
            "--kill-whom=main",
            "beemesh-pod-web.service",
        ])
        .ok();
    kill();
    policy("always");
}
