//! A backup of a cluster is written to a file and restored in another cluster.

use harness::{Cluster, Host, pod, start_agent, two_containers};

#[test]
fn a_backup_brings_everything_into_a_new_cluster_and_nothing_over_an_old_one() {
    // Each host is a cluster of its own.
    let cluster = Cluster::booted("backup", 2);
    cluster.each(start_agent);
    let (old, new) = (cluster.host(1), cluster.host(2));
    let _ = old.apply(&two_containers("web", "first"));
    let _ = old.apply(&pod("db", "second"));
    let open = old.sh("umask 022; beemesh backup >/root/backup");
    let words = "other users can read /root/backup (mode 0644)";
    assert!(open.code == 0 && open.err.contains(words), "{open}");
    let kept = old.sh("chmod 600 /root/backup; beemesh backup >/root/backup");
    assert!(kept.code == 0 && kept.err.is_empty(), "{kept}");
    let head = old.sh("head -n1 /root/backup | cut -d' ' -f1-2").ok();
    assert_eq!(head, "beemesh-backup 1\n");
    let _ = old.beemesh(&["delete", "db"]).ok();

    for (harm, words) in [
        ("truncate -s -1 FILE", "it was truncated"),
        (
            "printf x | dd of=FILE conv=notrunc bs=1 seek=300",
            "damaged",
        ),
        ("printf PK >FILE", "not a backup"),
    ] {
        copy(old, new, "/root/harmed");
        let _ = new.sh(&harm.replace("FILE", "/root/harmed")).ok();
        let refused = new.beemesh(&["restore", "/root/harmed"]);
        assert!(
            refused.code == 1 && refused.err.contains(words),
            "{refused}"
        );
    }
    assert_eq!(new.beemesh(&["get", "manifests"]).ok(), "no manifests\n");

    copy(old, new, "/root/backup");
    for said in ["2 of 2 manifests restored", "nothing to restore"] {
        let restored = new.beemesh(&["restore", "/root/backup"]).ok();
        assert!(restored.contains(said), "{restored}");
    }
    for workload in ["web", "db"] {
        cluster.running(workload, 1, &[new]);
    }
    let logs = new.beemesh(&["logs", "web"]).ok();
    assert!(
        logs.contains("one says first"),
        "its ConfigMap, too: {logs}"
    );

    let _ = new.apply(&two_containers("web", "changed"));
    let refused = new.beemesh(&["restore", "/root/backup"]);
    assert!(
        refused.code == 1 && refused.err.contains("manifest `web"),
        "{refused}"
    );
}

fn copy(from: &Host, to: &Host, path: &str) {
    let bytes = std::fs::read(from.root().join("root/backup")).expect("a backup");
    let line = format!("cat >{path}");
    let written = to.run_with(&["sh", "-c", &line], &bytes);
    assert_eq!(written.code, 0, "{written}");
}
