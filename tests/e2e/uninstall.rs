//! Without Beemesh its workloads are plain Quadlets: no lock-in.

use harness::{Cluster, secs, two_containers, wait_for};

#[test]
fn workloads_boot_as_plain_quadlets_when_every_program_of_ours_is_gone() {
    let cluster = Cluster::formed("uninstall", 1);
    let host = cluster.host(1);
    let answer = host.apply(&two_containers("web", "first"));
    assert_eq!(answer["settled"], true, "{answer}");
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
