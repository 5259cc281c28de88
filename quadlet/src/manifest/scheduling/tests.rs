use crate::manifest::parse;

/// The findings on a Deployment with this affinity or spread; empty if it is accepted.
fn found(replicas: &str, spec: &str) -> String {
    let yaml = format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web}}\nspec:\n{replicas}  selector: {{matchLabels: {{app: web}}}}\n  \
         template:\n    metadata: {{labels: {{app: web}}}}\n    spec:\n      containers: [{{name: c, image: \"quay.io/a:1\"}}]\n{spec}"
    );
    let all = match parse(yaml.as_bytes(), false) {
        Ok(manifest) => manifest.warnings,
        Err(problems) => problems,
    };
    let words = all
        .iter()
        .map(|one| format!("{}: {}", one.field, one.message));
    words.collect::<Vec<_>>().join("\n")
}

fn hosts(terms: &str) -> String {
    format!(
        "      affinity: {{nodeAffinity: {{requiredDuringSchedulingIgnoredDuringExecution: {{nodeSelectorTerms: {terms}}}}}}}\n"
    )
}

fn spread(constraint: &str) -> String {
    format!("      topologySpreadConstraints: [{constraint}]\n")
}

const TWO: &str = "  replicas: 2\n";

#[test]
fn what_kubernetes_refuses_is_refused() {
    let good = hosts("[{matchExpressions: [{key: disk, operator: In, values: [ssd]}]}]");
    assert_eq!(found(TWO, &good), "");
    for (spec, words) in [
        (hosts("[]"), "is empty: no host would match"),
        (hosts("[{matchExpressions: [{key: a, operator: In}]}]"), "needs values"),
        (hosts("[{matchExpressions: [{key: a, operator: Exists, values: [b]}]}]"), "takes no values"),
        (hosts("[{matchExpressions: [{key: a, operator: Gt, values: [b]}]}]"), "must be one integer"),
        (hosts("[{matchExpressions: [{key: a, operator: Is, values: [b]}]}]"), "is not one of In"),
        (hosts("[{matchFields: [{key: metadata.uid, operator: In, values: [b]}]}]"), "is not a field of hosts"),
        (spread("{maxSkew: 0, topologyKey: a, whenUnsatisfiable: DoNotSchedule}"), "must be at least 1"),
        (spread("{maxSkew: 1, topologyKey: a, whenUnsatisfiable: Never}"), "is neither `DoNotSchedule`"),
        (spread("{maxSkew: 1, topologyKey: \"\", whenUnsatisfiable: DoNotSchedule}"), "is missing: it names a label"),
        (
            "      affinity: {podAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{weight: 101, podAffinityTerm: {topologyKey: a}}]}}\n".to_owned(),
            "101 is not between 1 and 100",
        ),
        (
            "      affinity: {podAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: a, namespaceSelector: {matchLabels: {a: b}}}]}}\n".to_owned(),
            "namespaces have no labels here",
        ),
    ] {
        let found = found(TWO, &spec);
        assert!(found.contains(words), "{spec}: {found}");
    }
}

#[test]
fn rules_that_contradict_each_other_are_refused() {
    for (spec, words) in [
        (
            hosts("[{matchExpressions: [{key: a, operator: In, values: [x]}, {key: a, operator: NotIn, values: [x]}]}]"),
            "no host can match this",
        ),
        (
            hosts("[{matchExpressions: [{key: a, operator: Exists}, {key: a, operator: DoesNotExist}]}]"),
            "no host can match this",
        ),
        (
            hosts("[{matchExpressions: [{key: a, operator: In, values: [x]}]}]") + "      nodeSelector: {a: y}\n",
            "together with `nodeSelector`",
        ),
        (
            "      affinity:\n        podAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: a, labelSelector: {matchLabels: {app: db}}}]}\n        podAntiAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: a, labelSelector: {matchLabels: {app: db}}}]}\n".to_owned(),
            "contradicts podAffinity",
        ),
    ] {
        let found = found(TWO, &spec);
        assert!(found.contains(words), "{spec}: {found}");
    }
    let either = hosts(
        "[{matchExpressions: [{key: a, operator: In, values: [x]}, {key: a, operator: NotIn, values: [x]}]}, {matchExpressions: [{key: a, operator: Exists}]}]",
    );
    assert_eq!(found(TWO, &either), "", "one of the terms can match");
}

#[test]
fn rules_without_replicas_are_followed_as_far_as_every_host_can() {
    let one = hosts("[{matchExpressions: [{key: disk, operator: In, values: [ssd]}]}]");
    assert_eq!(found("", &one), "");
    let yaml = |spec: &str| {
        format!(
            "apiVersion: apps/v1\nkind: DaemonSet\nmetadata: {{name: web}}\nspec:\n  selector: {{matchLabels: {{app: web}}}}\n  template:\n    \
             metadata: {{labels: {{app: web}}}}\n    spec:\n      nodeSelector: {{a: b}}\n      containers: [{{name: c, image: \"quay.io/a:1\"}}]\n{spec}"
        )
    };
    let manifest = parse(yaml(&one).as_bytes(), false).unwrap();
    let selector = &manifest.objects[0].selector;
    let selector: Vec<_> = selector
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    assert_eq!(selector, ["a=b", "disk=ssd"]);
    for (rule, words) in [
        (
            hosts("[{matchExpressions: [{key: disk, operator: In, values: [ssd, hdd]}]}]"),
            "only one term with one value for each label is followed",
        ),
        (
            hosts("[{matchExpressions: [{key: disk, operator: Exists}]}]"),
            "only one term with one value for each label is followed",
        ),
        (
            spread("{maxSkew: 1, topologyKey: a, whenUnsatisfiable: DoNotSchedule}"),
            "every host that matches `nodeSelector` runs a pod",
        ),
    ] {
        let found = found("", &rule);
        assert!(found.contains(words), "{rule}: {found}");
    }
}
