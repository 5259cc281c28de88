//! What is refused, in words: a workload is a singleton from its creation to its deletion, and has one replica.

use harness::Host;

use super::{
    START_MAX, apply,
    beats::{Beats, now, singleton},
    formed, goes_on, start,
};

const YES: &str = "beemesh.io/singleton: \"true\", ";

#[track_caller]
fn refused(host: &Host, yaml: &str, words: &[&str]) {
    let answer = host.try_apply(yaml, &[]);
    assert_eq!(answer.code, 1, "{answer}");
    for words in words {
        assert!(answer.err.contains(words), "{words}: {answer}");
    }
}

/// The same workload that is no singleton.
fn plain(name: &str) -> String {
    singleton(name, "exit 0", 1).replace(YES, "")
}

#[test]
fn what_a_singleton_cannot_be_is_refused() {
    let cluster = formed("singleton-manifests", 1);
    let host = cluster.host(1);
    what_is_no_singleton(host);
    apply(host, &plain("old"));
    let yaml = singleton("web", "exit 0", 1);
    let mut beats = Beats::of(&cluster, "web");
    let run = start(&cluster, &mut beats, &yaml);
    what_cannot_change(host, &yaml);
    goes_on(&mut beats, run);

    // A new workload of the name may be something else.
    let _ = host.beemesh(&["delete", "old", "--wait"]).ok();
    apply(host, &singleton("old", "exit 0", 1));
    let _ = Beats::of(&cluster, "old").after(now(), START_MAX);
    eprintln!("{}", beats.hold());
}

fn what_is_no_singleton(host: &Host) {
    let yaml = singleton("web", "exit 0", 1);
    let field = "metadata.annotations";
    for (bad, words) in [
        (
            yaml.replace("\"true\"", "\"yes\""),
            [field, "`yes` is neither \"true\" nor \"false\""],
        ),
        (
            yaml.replace("replicas: 1", "replicas: 2"),
            ["spec.replicas", "singleton"],
        ),
        (
            yaml.replace("replicas: 1", "replicas: 0"),
            ["spec.replicas", "beemesh stop"],
        ),
        (
            yaml.replace("  replicas: 1\n", ""),
            [field, "write `replicas: 1`"],
        ),
        (
            yaml.replace("kind: Deployment", "kind: DaemonSet")
                .replace("  replicas: 1\n", ""),
            [field, "use a Deployment"],
        ),
        (
            plain("web").replace(
                "metadata: {labels: {app: web}}",
                "metadata: {labels: {app: web}, annotations: {beemesh.io/singleton: \"true\"}}",
            ),
            ["spec.template.metadata", "move it to"],
        ),
    ] {
        refused(host, &bad, &words);
    }
    let none = host.api("GET", "/v1/workloads/web", b"");
    assert_eq!(none.0, 404, "{none:?}");
}

fn what_cannot_change(host: &Host, yaml: &str) {
    let delete = "delete it first";
    refused(
        host,
        &singleton("old", "exit 0", 1),
        &["become a singleton", delete],
    );
    refused(host, &plain("web"), &["stop being a singleton", delete]);
    let off = yaml.replace("\"true\"", "\"false\"");
    refused(host, &off, &["stop being a singleton", delete]);
    let (status, answer) = host.api("POST", "/v1/apply", off.as_bytes());
    assert_eq!(status, 409, "{answer}");
    let more = yaml.replace("replicas: 1", "replicas: 3");
    refused(host, &more, &["spec.replicas", "singleton"]);
    for (replicas, words) in [("2", "singleton"), ("0", "beemesh stop")] {
        let answer = host.beemesh(&["scale", "web", "--replicas", replicas]);
        assert_eq!(answer.code, 1, "{answer}");
        assert!(answer.err.contains(words), "{answer}");
    }
    let same = host.beemesh(&["scale", "web", "--replicas", "1"]);
    assert_eq!(same.code, 0, "{same}");
}
