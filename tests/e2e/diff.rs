//! Several files are compared, applied and deleted as the manifests that they are, and an error in one stops the others.

#![allow(clippy::unwrap_used, reason = "whatever is missing fails the test")]

use harness::{Answer, Cluster, Host, pod, secs, wait_for};
use serde_json::Value;

#[test]
fn the_files_of_a_folder_are_compared_applied_and_deleted() {
    let cluster = Cluster::formed("diff", 2);
    let h1 = cluster.host(1);
    a_folder_is_compared_and_applied(&cluster);
    a_change_is_shown_without_the_values_of_secrets(&cluster);
    the_first_error_stops(h1);
    files_of_one_manifest_add_up_or_are_refused(h1);
    sources_that_cannot_be_read_are_refused(h1);
    a_folder_is_deleted(&cluster);
}

fn settings(marker: &str, word: &str) -> String {
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: settings\ndata:\n  marker: {marker}\n---\n\
         apiVersion: v1\nkind: Secret\nmetadata:\n  name: key\nstringData:\n  word: {word}\n"
    )
}

/// A Pod that needs the settings.
fn reader(name: &str) -> String {
    pod(name, "reads")
        + "    envFrom: [{configMapRef: {name: settings}}, {secretRef: {name: key}}]\n"
}

fn put(host: &Host, path: &str, text: &str) {
    let line = format!("mkdir -p $(dirname {path}) && cat >{path}");
    let _ = host.run_with(&["sh", "-c", &line], text.as_bytes()).ok();
}

/// The names of the manifests of the cluster.
fn manifests(host: &Host) -> Vec<String> {
    let (_, answer) = host.api("GET", "/v1/manifests", b"");
    let all = answer["manifests"].as_array().unwrap().iter();
    all.map(|one| one["name"].as_str().unwrap().to_owned())
        .collect()
}

#[track_caller]
fn has(answer: &Answer, code: i32, words: &[&str]) {
    assert_eq!(answer.code, code, "{answer}");
    for words in words {
        let found = answer.out.contains(words) || answer.err.contains(words);
        assert!(found, "{words}: {answer}");
    }
}

fn a_folder_is_compared_and_applied(cluster: &Cluster) {
    let h1 = cluster.host(1);
    put(
        h1,
        "/root/shop/10-settings.yaml",
        &settings("one", "sesame"),
    );
    put(h1, "/root/shop/20-web.yml", &reader("web"));
    put(h1, "/root/shop/more/30-late.yaml", &reader("late"));
    put(h1, "/root/shop/notes.txt", "no manifest");
    let shown = h1.beemesh(&["diff", "-f", "/root/shop"]);
    let new = [
        "--- cluster: ConfigMap settings (absent)\n+++ /root/shop/10-settings.yaml: ConfigMap settings\n@@ -0,0 ",
        "\n+  marker: one\n",
        "\n+++ /root/shop/20-web.yml: Pod web\n",
    ];
    has(&shown, 1, &new);
    assert!(
        !shown.out.contains("sesame") && !shown.out.contains("late"),
        "{shown}"
    );
    assert_eq!(manifests(h1), Vec::<String>::new(), "{shown}");

    let applied: Value = h1
        .beemesh(&["apply", "-f", "/root/shop", "--wait=60", "-o", "json"])
        .json();
    let [first, second] = &applied.as_array().unwrap()[..] else {
        panic!("{applied}");
    };
    assert_eq!(
        (&first["manifest"], &second["manifest"]),
        (&"settings".into(), &"web".into())
    );
    assert_eq!(
        (&first["settled"], &second["settled"]),
        (&true.into(), &true.into()),
        "{applied}"
    );
    assert!(
        first["index"].as_u64() < second["index"].as_u64(),
        "{applied}"
    );
    cluster.running("web", 1, &[h1, cluster.host(2)]);
    let none = h1.beemesh(&["diff", "-f", "/root/shop"]);
    assert_eq!((none.code, &*none.out, &*none.err), (0, "", ""), "{none}");

    let late = h1.beemesh(&["diff", "-R", "-f", "/root/shop"]);
    has(&late, 1, &["+++ /root/shop/more/30-late.yaml: Pod late\n"]);
    assert!(!late.out.contains("Pod web"), "{late}");
    let applied = h1.beemesh(&["apply", "-R", "-f", "/root/shop", "--wait=60"]);
    has(
        &applied,
        0,
        &["web", "unchanged", "late", "running 1/1 healthy"],
    );
}

fn a_change_is_shown_without_the_values_of_secrets(cluster: &Cluster) {
    let [h1, h2] = [cluster.host(1), cluster.host(2)];
    let changed = settings("two", "poppy");
    put(h1, "/root/shop/10-settings.yaml", &changed);
    let shown = h1.beemesh(&["diff", "-f", "/root/shop/10-settings.yaml"]);
    let words = [
        "--- cluster: ConfigMap settings\n+++ /root/shop/10-settings.yaml: ConfigMap settings\n",
        "\n-  marker: one\n+  marker: two\n",
        "--- cluster: Secret key\n",
        "\n-  word: hmac-sha256:",
        "\n+  word: hmac-sha256:",
    ];
    has(&shown, 1, &words);
    assert!(
        !shown.out.contains("poppy") && !shown.out.contains("sesame"),
        "{shown}"
    );
    // The answer of the API is the same, with all objects that roll out.
    let (status, answer) = h2.api(
        "POST",
        "/v1/apply?dryRun=true&diff=true",
        changed.as_bytes(),
    );
    assert_eq!((status, &answer["dryRun"]), (200, &true.into()), "{answer}");
    let objects = answer["objects"].as_array().unwrap();
    let web = objects.iter().find(|one| one["name"] == "web").unwrap();
    assert_eq!(
        (&web["action"], &web["before"]),
        (&"updated".into(), &web["after"]),
        "{answer}"
    );
    let (status, refused) = h2.api("POST", "/v1/apply?diff=true", changed.as_bytes());
    assert_eq!(status, 400, "{refused}");

    let removed = h1.run_with(
        &[
            "beemesh", "diff", "--prune", "-f", "-", "--name", "settings",
        ],
        settings("one", "sesame")
            .split("---\n")
            .next()
            .unwrap()
            .as_bytes(),
    );
    // The Secret is in use, so that no apply could remove it.
    has(&removed, 4, &["Secret key is used by workload"]);
    let before = h1
        .beemesh(&["get", "workloads", "web", "-o", "json"])
        .json();
    assert_eq!(
        before["revision"], 1,
        "no comparison changed anything: {before}"
    );
}

fn the_first_error_stops(host: &Host) {
    put(host, "/root/bad/a.yaml", &pod("a", "x"));
    put(
        host,
        "/root/bad/b.yaml",
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: b\n",
    );
    put(host, "/root/bad/c.yaml", &pod("c", "x"));
    let compared = host.beemesh(&["diff", "-f", "/root/bad"]);
    let words = [
        "error: diff /root/bad/b.yaml: ",
        "compared before this file: /root/bad/a.yaml",
    ];
    has(&compared, 4, &words);
    let applied = host.beemesh(&["apply", "-f", "/root/bad", "--wait=60"]);
    let words = [
        "error: apply /root/bad/b.yaml: ",
        "note: applied before this file: /root/bad/a.yaml; not tried: /root/bad/c.yaml\n",
    ];
    has(&applied, 1, &words);
    let all = manifests(host);
    let there = |name: &str| all.iter().any(|one| one == name);
    assert!(there("a") && !there("b") && !there("c"), "{all:?}");
    let _ = host.beemesh(&["delete", "a", "--wait=60"]).ok();
}

fn files_of_one_manifest_add_up_or_are_refused(host: &Host) {
    let map = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: twice\ndata: {a: b}\n---\n";
    put(
        host,
        "/root/twice/a.yaml",
        &format!("{map}{}", pod("one", "x")),
    );
    put(
        host,
        "/root/twice/b.yaml",
        &format!("{map}{}", pod("two", "x")),
    );
    for command in [&["apply"][..], &["apply", "--dry-run"][..], &["diff"][..]] {
        let args = [command, &["--prune", "-f", "/root/twice"]].concat();
        let code = if command == ["diff"] { 4 } else { 1 };
        let words = "its manifest has the name `twice`, as that of /root/twice/a.yaml";
        has(&host.beemesh(&args), code, &[words]);
    }
    let (status, one) = host.api("GET", "/v1/workloads/one", b"");
    assert_eq!(
        status, 200,
        "the second file removed an object of the first: {one}"
    );
    // Without `--prune` they add up.
    let _ = host
        .beemesh(&["apply", "-f", "/root/twice", "--wait=60"])
        .ok();
    for pod in ["one", "two"] {
        assert!(!host.containers(pod).is_empty(), "{pod}");
    }
    let _ = host
        .beemesh(&["delete", "-f", "/root/twice/a.yaml", "--wait=60"])
        .ok();
}

fn sources_that_cannot_be_read_are_refused(host: &Host) {
    let before = manifests(host);
    let file = "/root/bad/a.yaml";
    for (args, code, words) in [
        (&["-f", "-", "-f", "-"][..], 2, "only once"),
        (&["-f", file, "-f", file, "--name", "x"][..], 2, "`--name`"),
        (
            &["-f", "http://example.com/web.yaml"][..],
            2,
            "use https://",
        ),
        (
            &["-f", file, "-f", "/root/none.yaml"][..],
            1,
            "cannot read /root/none.yaml",
        ),
        (&["-f", "/var/empty-of-manifests"][..], 1, "cannot read"),
        // Nothing listens there.
        (
            &["-f", file, "-f", "https://127.0.0.1:9/web.yaml"][..],
            1,
            "error: ",
        ),
    ] {
        has(&host.beemesh(&[&["apply"], args].concat()), code, &[words]);
        let code = if code == 1 { 4 } else { code };
        has(&host.beemesh(&[&["diff"], args].concat()), code, &[words]);
    }
    assert_eq!(manifests(host), before);
    let nobody = host.beemesh(&["--socket", "/root/none/api.sock", "diff", "-f", file]);
    has(&nobody, 3, &["no gateway listens"]);
}

/// The last file first: an object that a workload uses cannot be deleted.
fn a_folder_is_deleted(cluster: &Cluster) {
    let h1 = cluster.host(1);
    let deleted = h1.beemesh(&["delete", "-R", "-f", "/root/shop", "--wait=60"]);
    has(&deleted, 0, &["late", "web", "manifest settings"]);
    assert_eq!(manifests(h1), Vec::<String>::new(), "{deleted}");
    for host in &cluster.hosts {
        wait_for("no pod", secs(60), || {
            let left = host.leftovers("web") + &host.leftovers("late");
            if left.trim().is_empty() {
                Ok(())
            } else {
                Err(left)
            }
        });
    }
    let again = h1.beemesh(&["delete", "-R", "-f", "/root/shop"]);
    has(&again, 1, &["0 of 3 manifests were deleted"]);
}
