//! ConfigMaps, Secrets and claims exist independently of workloads, and an apply is atomic.

use harness::{Cluster, Host, IMAGE, pod, secs, wait_for};

#[test]
fn objects_of_one_file_serve_workloads_of_another() {
    let cluster = Cluster::formed("objects", 2);
    shared_objects(&cluster);
    a_dry_run_changes_nothing(&cluster);
    one_wrong_document_stops_all(&cluster);
}

fn settings(marker: &str) -> String {
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: settings\ndata:\n  marker: {marker}\n---\n\
         apiVersion: v1\nkind: Secret\nmetadata:\n  name: key\nstringData:\n  word: sesame\n---\n\
         apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata:\n  name: store\nspec:\n  accessModes: [ReadWriteOnce]\n  \
         resources:\n    requests: {{storage: 1Gi}}\n"
    )
}

fn reader(config: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: reader\nspec:\n  terminationGracePeriodSeconds: 2\n  containers:\n  \
         - name: main\n    image: {IMAGE}\n    command: [sh, -c, 'echo $HOSTNAME >>/store/starts; while :; do sleep 1; done']\n    \
         env:\n    - name: WORD\n      valueFrom: {{secretKeyRef: {{name: key, key: word}}}}\n    \
         volumeMounts:\n    - {{name: conf, mountPath: /conf}}\n    - {{name: key, mountPath: /key}}\n    - {{name: store, mountPath: /store}}\n  \
         volumes:\n  - {{name: conf, configMap: {{name: {config}}}}}\n  - {{name: key, secret: {{secretName: key}}}}\n  \
         - {{name: store, persistentVolumeClaim: {{claimName: store}}}}\n"
    )
}

fn inside(host: &Host) -> String {
    host.run(&[
        "podman",
        "exec",
        "reader-main",
        "sh",
        "-c",
        "cat /conf/marker; echo; echo $WORD; cat /key/word; echo; wc -l </store/starts",
    ])
    .ok()
}

fn shared_objects(cluster: &Cluster) {
    let [h1, h2] = [cluster.host(1), cluster.host(2)];
    let refused = h1.try_apply(&reader("settings"), &[]);
    assert_eq!(refused.code, 1, "{refused}");
    // Podman makes a volume for a claim that no manifest describes.
    for words in ["ConfigMap settings", "Secret key"] {
        assert!(refused.err.contains(words), "{words}: {refused}");
    }
    let answer = h1.apply(&settings("one"));
    assert_eq!(
        (&answer["settled"], &answer["manifest"]),
        (&true.into(), &"settings".into()),
        "{answer}"
    );
    let kept = h2.beemesh(&["get", "manifests"]).ok();
    assert!(
        kept.contains("ConfigMap settings, Secret key, PersistentVolumeClaim store"),
        "{kept}"
    );

    let answer = h2.apply(&reader("settings"));
    assert_eq!(answer["settled"], true, "{answer}");
    for host in &cluster.hosts {
        assert_eq!(inside(host), "one\nsesame\nsesame\n1\n", "on {}", host.name);
    }
    // A change of the ConfigMap alone, in its own file, makes the workload in the other file roll out; the claim keeps
    // its files.
    let answer = h2.apply(&settings("two"));
    assert_eq!(answer["settled"], true, "{answer}");
    let rolled = answer["objects"].as_array().is_some_and(|all| {
        all.iter().any(|one| {
            one["name"] == "reader" && one["action"] == "updated" && one["revision"] == 2
        })
    });
    assert!(rolled, "the answer names what rolls with it: {answer}");
    cluster.running("reader", 2, &[h1, h2]);
    for host in &cluster.hosts {
        assert_eq!(inside(host), "two\nsesame\nsesame\n2\n", "on {}", host.name);
    }
    let before = h1.containers("reader");
    let refused = h1.beemesh(&["delete", "--manifest", "settings"]);
    assert_eq!(refused.code, 1, "{refused}");
    assert!(
        refused
            .err
            .contains("ConfigMap settings is used by workload reader"),
        "{refused}"
    );
    // A new version of the file without the ConfigMap cannot delete it either.
    let without = settings("two")
        .split_once("---\n")
        .map(|(_, rest)| rest.to_owned())
        .unwrap_or_default();
    let refused = h1.try_apply(&without, &["--name", "settings", "--prune"]);
    assert_eq!(refused.code, 1, "{refused}");
    assert!(
        refused
            .err
            .contains("ConfigMap settings is used by workload reader"),
        "{refused}"
    );
    let refused = h2.try_apply(&reader("nowhere"), &[]);
    assert_eq!(refused.code, 1, "{refused}");
    assert!(refused.err.contains("ConfigMap nowhere"), "{refused}");
    assert_eq!(h1.containers("reader"), before);

    let _ = h1.beemesh(&["delete", "reader", "--wait=60"]).ok();
    let _ = h1
        .beemesh(&["delete", "--manifest", "settings", "--wait=60"])
        .ok();
    for host in &cluster.hosts {
        wait_for("only the claim's volume to be left", secs(30), || {
            let left = host.sh("podman volume ls -q; podman secret ls -q").out;
            if left == "beemesh__pvc__default__store\n" {
                Ok(())
            } else {
                Err(left)
            }
        });
    }
}

/// The objects of the cluster, and what the hosts run.
fn everything(cluster: &Cluster) -> String {
    let of = |host: &Host| {
        let (_, manifests) = host.api("GET", "/v1/manifests", b"");
        let files = host.sh("ls -l --time-style=full-iso /etc/containers/systemd/beemesh; podman ps -a --no-trunc --format '{{.ID}}'").out;
        format!("{manifests}\n{files}")
    };
    cluster.hosts.iter().map(of).collect()
}

fn a_dry_run_changes_nothing(cluster: &Cluster) {
    let [h1, h2] = [cluster.host(1), cluster.host(2)];
    let _ = h1.apply(&pod("kept", "first"));
    let before = everything(cluster);
    for (yaml, words) in [
        (pod("new", "new"), "would be created"),
        (pod("kept", "second"), "would be updated"),
        (pod("kept", "first"), "unchanged"),
    ] {
        let told = h2.try_apply(&yaml, &["--dry-run"]).ok();
        assert!(told.contains(words), "{words}: {told}");
    }
    let refused = h2.try_apply(&reader("settings"), &["--dry-run"]);
    assert_eq!(refused.code, 1, "what an apply would refuse: {refused}");
    assert_eq!(everything(cluster), before);
}

fn one_wrong_document_stops_all(cluster: &Cluster) {
    let before = everything(cluster);
    let wrong = pod("wrong", "x").replace(IMAGE, "'no such: image'");
    let yaml = [
        pod("kept", "second"),
        settings("one"),
        wrong,
        pod("last", "x"),
    ]
    .join("---\n");
    let refused = cluster.host(2).try_apply(&yaml, &["--wait=60"]);
    assert_eq!((refused.code, &*refused.out), (1, ""), "{refused}");
    let line = yaml.lines().position(|line| line.contains("no such"));
    let place = format!(
        "<stdin>:{}: spec.containers[0].image:",
        line.map_or(0, |line| line + 1)
    );
    assert!(refused.err.contains(&place), "{place} {refused}");
    assert_eq!(everything(cluster), before);
}
