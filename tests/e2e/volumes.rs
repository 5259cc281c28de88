//! Files of ConfigMaps and Secrets: a workload can neither change them nor make Podman write elsewhere through them.

use harness::{Cluster, Host, IMAGE};

/// A manifest with the content that Podman writes at a play: `marker` for the ConfigMap's one file, and a Secret.
fn manifest(name: &str, marker: &str) -> String {
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: conf\ndata:\n  marker: {marker}\n---\n\
         apiVersion: v1\nkind: Secret\nmetadata:\n  name: key\nstringData:\n  word: {marker}\n---\n\
         apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\nspec:\n  terminationGracePeriodSeconds: 1\n  containers:\n  \
         - name: main\n    image: {IMAGE}\n    command: [sh, -c, 'while :; do sleep 1; done']\n    \
         volumeMounts:\n    - {{name: conf, mountPath: /conf}}\n    - {{name: key, mountPath: /key}}\n  \
         volumes:\n  - {{name: conf, configMap: {{name: conf}}}}\n  - {{name: key, secret: {{secretName: key}}}}\n"
    )
}

fn volumes(host: &Host, workload: &str) -> Vec<String> {
    let listed = host.run(&["podman", "volume", "ls", "-q"]).ok();
    let prefix = format!("beemesh__OWN__{workload}__");
    let own = listed.lines().filter(|name| name.starts_with(&prefix));
    own.map(str::to_owned).collect()
}

#[track_caller]
fn shows(host: &Host, marker: &str) {
    for file in ["/conf/marker", "/key/word"] {
        let inside = host.run(&["podman", "exec", "reader-main", "cat", file]);
        assert_eq!(inside.ok(), marker, "{file}");
    }
}

#[test]
fn a_link_planted_in_a_volume_reaches_nothing_outside() {
    let cluster = Cluster::formed("volumes", 1);
    let host = cluster.host(1);
    let victim = "/root/victim";
    let _ = host.sh(&format!("echo untouched >{victim}")).ok();
    let answer = host.apply(&manifest("reader", "one"));
    assert_eq!(answer["settled"], true, "{answer}");
    shows(host, "one");

    // The workload itself cannot plant a link: its view of the files is read-only, as in Kubernetes.
    for folder in ["/conf", "/key"] {
        for line in [
            format!("busybox ln -s {victim} {folder}/planted"),
            format!("busybox rm {folder}/*"),
            format!("busybox touch {folder}/new"),
        ] {
            let planted = host.run(&["podman", "exec", "reader-main", "sh", "-c", &line]);
            assert_ne!(planted.code, 0, "{line}: {planted}");
            assert!(planted.err.contains("Read-only file system"), "{planted}");
        }
    }
    // Podman plays the same bytes into the same volume.
    let unit = "beemesh-pod-reader.service";
    let _ = host.run(&["systemctl", "restart", unit]).ok();
    cluster.running("reader", 1, &[host]);
    shows(host, "one");

    // A link is planted from outside, under every name that is written. The next content goes to a new volume.
    let before = volumes(host, "reader");
    assert_eq!(before.len(), 2, "{before:?}");
    for volume in &before {
        let line = format!(
            "folder=$(podman volume inspect -f '{{{{.Mountpoint}}}}' {volume}) && \
             ln -sf {victim} $folder/marker && ln -sf {victim} $folder/word"
        );
        let _ = host.sh(&line).ok();
    }
    let answer = host.apply(&manifest("reader", "two"));
    assert_eq!(answer["settled"], true, "{answer}");
    cluster.running("reader", 2, &[host]);
    shows(host, "two");
    let after = volumes(host, "reader");
    assert_eq!(after.len(), 2, "{after:?}");
    assert!(
        before.iter().all(|old| !after.contains(old)),
        "{before:?} and {after:?}"
    );

    // Another workload with the same content has its own volumes.
    let other = manifest("other", "two").replace("name: conf\ndata", "name: other-conf\ndata");
    let other = other.replace("{name: conf}", "{name: other-conf}");
    let other = other.replace("name: key\nstringData", "name: other-key\nstringData");
    let other = other.replace("secretName: key", "secretName: other-key");
    let answer = host.apply(&other);
    assert_eq!(answer["settled"], true, "{answer}");
    let others = volumes(host, "other");
    assert_eq!(others.len(), 2, "{others:?}");
    assert!(others.iter().all(|name| !after.contains(name)));
    assert_eq!(host.sh(&format!("cat {victim}")).ok(), "untouched\n");
    names_reach_no_claim_of_another(host);
}

/// A Pod, optionally with a namespace. Its container mounts the given volume at `/x` and runs this line first.
fn holder(name: &str, volume: &str, line: &str) -> String {
    let (namespace, name) = name.split_once('/').unwrap_or(("default", name));
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec:\n  terminationGracePeriodSeconds: 1\n  \
         containers:\n  - name: main\n    image: {IMAGE}\n    command: [sh, -c, '{line}; sleep 600']\n    \
         volumeMounts: [{{name: secret, mountPath: /x}}]\n  volumes:\n  - {{name: secret, {volume}}}\n"
    )
}

/// In release 0.2.0 the private volumes of a workload called `pvc` had the names of claims' volumes.
fn names_reach_no_claim_of_another(host: &Host) {
    let claim = "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: secret, namespace: e}\nspec:\n  \
                 accessModes: [ReadWriteOnce]\n  resources: {requests: {storage: 1Gi}}\n---\n";
    let claimed = "persistentVolumeClaim: {claimName: secret}";
    let owner = claim.to_owned() + &holder("e/owner", claimed, "echo of-another >>/x/word");
    let apply = |yaml: &str, name: &str| {
        let answer = host.try_apply(yaml, &["--name", name, "--wait=60"]);
        let _ = answer.ok();
    };
    let see = |container: &str| {
        let found = host.run(&["podman", "exec", container, "sh", "-c", "cat /x/*"]);
        found.out
    };
    apply(&owner, "owner");
    assert_eq!(see("e_owner-main"), "of-another\n");
    for used in [true, false] {
        apply(&holder("pvc", "emptyDir: {}", "true"), "pvc");
        assert_eq!(see("pvc-main"), "", "an emptyDir of its own");
        if used {
            // Podman cannot remove a volume in use, so the host does not try again.
            let _ = host.beemesh(&["delete", "pvc", "--wait=60"]).ok();
            let _ = host.beemesh(&["delete", "e_owner", "--wait=60"]).ok();
        } else {
            let _ = host.beemesh(&["delete", "pvc", "--wait=60"]).ok();
        }
    }
    apply(&owner, "owner");
    assert_eq!(see("e_owner-main"), "of-another\nof-another\n");
}

/// A Pod of the image that [`a_link_planted_by_an_image_reaches_nothing_outside`] makes.
fn planted(name: &str, volume: &str) -> String {
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: cm}}\ndata: {{payload: written by root of the host}}\n---\n\
         apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: 1\n  containers:\n  \
         - name: main\n    image: localhost/planted:1\n    command: [/bin/busybox, sleep, '600']\n    \
         volumeMounts: [{{name: v, mountPath: /data}}]\n  volumes:\n  - {{name: v, {volume}}}\n"
    )
}

/// In release 0.2.0 both `items` had the same volume, because their hashes agree in the 32 bits that it kept. The first
/// revision shows no file, so Podman before 5.6.1 copied the image's content into the volume. Podman then wrote the
/// file of the second revision through the planted link.
#[test]
fn a_link_planted_by_an_image_reaches_nothing_outside() {
    let cluster = Cluster::formed("volumes-image", 1);
    let host = cluster.host(1);
    let victim = "/root/victim";
    let line = format!(
        "d=$(mktemp -d) && mkdir -p $d/bin $d/data && cp /bin/busybox $d/bin/ && ln -s {victim} $d/data/evil && \
         tar -C $d -c . | podman import -q - localhost/planted:1"
    );
    let _ = host.sh(&line).ok();
    let inside = || {
        let listed = host.run(&[
            "podman",
            "exec",
            "planted-main",
            "/bin/busybox",
            "ls",
            "/data",
        ]);
        listed.ok().trim().to_owned()
    };
    for (revision, items, files) in [
        (1, "[{key: absent35506, path: evil}]", ""),
        (
            2,
            "[{key: payload, path: evil}, {key: absent9644, path: y}]",
            "evil",
        ),
    ] {
        let volume = format!("configMap: {{name: cm, optional: true, items: {items}}}");
        let answer = host.apply(&planted("planted", &volume));
        assert_eq!(answer["settled"], true, "{answer}");
        cluster.running("planted", revision, &[host]);
        assert_eq!(inside(), files, "revision {revision}");
        assert_eq!(host.sh(&format!("ls {victim}")).out, "");
    }
}

/// A volume of `medium: Memory` is one tmpfs for its pod, of the size that the manifest says, and empty after a boot.
#[test]
fn memory_is_shared_in_the_pod_and_new_after_a_boot() {
    let cluster = Cluster::formed("memory", 1);
    let host = cluster.host(1);
    let container = |name: &str| {
        format!(
            "  - name: {name}\n    image: {IMAGE}\n    command: [sh, -c, 'while :; do sleep 1; done']\n    \
             volumeMounts: [{{name: shm, mountPath: /shm}}]\n"
        )
    };
    let yaml = format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: memory\nspec:\n  terminationGracePeriodSeconds: 1\n  \
         volumes:\n  - {{name: shm, emptyDir: {{medium: Memory, sizeLimit: 3Mi}}}}\n  containers:\n{}{}",
        container("one"),
        container("two")
    );
    let answer = host.apply(&yaml);
    assert_eq!(answer["settled"], true, "{answer}");
    let inside = |name: &str, line: &str| {
        let container = format!("memory-{name}");
        let answer = host.run(&["podman", "exec", &container, "sh", "-c", line]);
        answer.ok().trim().to_owned()
    };
    let is_shared = |marker: &str| {
        let _ = inside("one", &format!("echo {marker} >/shm/{marker}"));
        assert_eq!(inside("two", &format!("cat /shm/{marker}")), marker);
        for name in ["one", "two"] {
            let mounted = inside(name, "busybox grep ' /shm ' /proc/mounts");
            assert!(
                mounted.starts_with("tmpfs ") && mounted.contains("size=3072k"),
                "{mounted}"
            );
        }
    };
    is_shared("before");
    cluster.crash(&[host]);
    cluster.boot(&[host]);
    cluster.running("memory", 1, &[host]);
    assert_eq!(
        inside("two", "ls /shm"),
        "",
        "memory does not outlive power"
    );
    is_shared("after");
}
