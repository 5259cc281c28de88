//! Rules choose hosts: node affinity, pods that are apart, even spreads, and what pods request.

use harness::{Cluster, Host, IMAGE};

use super::{named, runs_only_on};

fn deployment(name: &str, replicas: u32, container: &str, rules: &str) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {name}}}\nspec:\n  replicas: {replicas}\n  selector: {{matchLabels: {{app: {name}}}}}\n  \
         template:\n    metadata: {{labels: {{app: {name}}}}}\n    spec:\n      terminationGracePeriodSeconds: 1\n      containers:\n      - name: main\n        \
         image: {IMAGE}\n        command: [sh, -c, '{}']\n{container}{rules}",
        super::STAYS
    )
}

fn reason(host: &Host, workload: &str) -> String {
    let (_, found) = host.api("GET", &format!("/v1/workloads/{workload}"), b"");
    found["reason"].as_str().unwrap_or_default().to_owned()
}

pub(crate) fn choose_hosts(cluster: &Cluster) {
    let host = cluster.host(1);
    for (name, zone) in [("h1", "a"), ("h2", "a"), ("h3", "b")] {
        let _ = host
            .beemesh(&["host", "label", name, &format!("zone={zone}")])
            .ok();
    }
    let ssd = "      affinity:\n        nodeAffinity:\n          requiredDuringSchedulingIgnoredDuringExecution:\n            \
               nodeSelectorTerms: [{matchExpressions: [{key: zone, operator: NotIn, values: [a]}]}]\n";
    let answer = host.apply(&deployment("bound", 1, "", ssd));
    assert_eq!(answer["settled"], true, "{answer}");
    runs_only_on(cluster, "bound", 1, &["h3"]);

    let apart = "      affinity:\n        podAntiAffinity:\n          requiredDuringSchedulingIgnoredDuringExecution:\n          \
                 - {topologyKey: zone, labelSelector: {matchLabels: {app: bound}}}\n";
    // With a host port it has one pod on each host.
    let port = "        ports: [{containerPort: 80, hostPort: 8090}]\n";
    let answer = host.try_apply(&deployment("shy", 3, port, apart), &["--wait=5s"]);
    assert_ne!(answer.code, 0, "{answer}");
    runs_only_on(cluster, "shy", 1, &["h1", "h2"]);
    assert_eq!(
        reason(host, "shy"),
        "waits for a host: must be apart from bound on h3"
    );

    let even = "      topologySpreadConstraints:\n      - {maxSkew: 1, topologyKey: zone, whenUnsatisfiable: DoNotSchedule, \
                labelSelector: {matchLabels: {app: even}}}\n";
    let answer = host.apply(&deployment("even", 2, "", even));
    assert_eq!(answer["settled"], true, "{answer}");
    assert!(!named(cluster, "h3").containers("even").is_empty());

    let shown = host.beemesh(&["host", "show", "h2"]).ok();
    assert!(shown.contains("MiB of memory"), "{shown}");
    let much = "        resources: {requests: {memory: 1Pi}}\n";
    let answer = host.try_apply(&deployment("huge", 1, much, ""), &["--wait=3s"]);
    assert_ne!(answer.code, 0, "{answer}");
    let words = reason(host, "huge");
    assert!(words.contains("memory requested: "), "{words}");
    what_is_refused(host);
    for name in ["bound", "shy", "even", "huge"] {
        let _ = host.beemesh(&["delete", name, "--wait"]).ok();
    }
    for name in ["h1", "h2", "h3"] {
        let _ = host.beemesh(&["host", "label", name, "zone-"]).ok();
    }
}

fn what_is_refused(host: &Host) {
    let nowhere = "      topologySpreadConstraints:\n      - {maxSkew: 1, topologyKey: rack, whenUnsatisfiable: DoNotSchedule}\n";
    let never = "      affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: \
                 [{key: zone, operator: In, values: [a]}, {key: zone, operator: NotIn, values: [a]}]}]}}}\n";
    for (rules, words) in [
        (
            nowhere,
            "topologySpreadConstraints[0].topologyKey: no host has the label `rack`",
        ),
        (never, "nodeSelectorTerms: no host can match this"),
    ] {
        let answer = host.try_apply(&deployment("bad", 1, "", rules), &[]);
        assert_eq!(answer.code, 1, "{answer}");
        assert!(answer.err.contains(words), "{words}: {answer}");
    }
}
