//! Values that are checked before a manifest is committed. Podman or the kernel would refuse them only after the
//! previous pod is gone.

use beemesh_quadlet::manifest::{Problem, is_stopped, parse};

/// `DOCUMENT:LINE FIELD: MESSAGE` for each finding.
fn shown(problems: &[Problem]) -> Vec<String> {
    let show = |p: &Problem| format!("{}:{} {}: {}", p.document, p.line, p.field, p.message);
    problems.iter().map(show).collect()
}

fn problems(yaml: &[u8]) -> Vec<String> {
    shown(&parse(yaml, false).expect_err("accepted"))
}

/// A pod whose first container ends on line 7 with `more`, which begins on line 8 at the depth of `spec`'s fields.
fn pod(container: &str, more: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: web\nspec:\n  containers:\n  - {{name: app, image: quay.io/a:1{container}}}\n{more}"
    )
}

/// Invalid quantities, one at a time, with the message about each.
#[test]
fn every_quantity_is_one_of_kubernetes() {
    let resources = |what: &str| pod(&format!(", resources: {{{what}}}"), "");
    let limit = "1:7 spec.containers[0].resources.limits";
    let form = "use digits, alone or followed by one of m, k, M, G, T, P, E, Ki, Mi, Gi, Ti, Pi, Ei or an exponent such as e3";
    for (name, value) in [
        ("memory", "64MB"),
        ("memory", "6GiB"),
        ("memory", "64mi"),
        ("cpu", "'0,5'"),
        ("cpu", "half"),
        ("cpu", "1e"),
        ("memory", "''"),
    ] {
        let found = problems(resources(&format!("limits: {{{name}: {value}}}")).as_bytes());
        let value = value.trim_matches('\'');
        assert_eq!(
            found,
            [format!(
                "{limit}.{name}: `{value}` is not a quantity: {form}"
            )]
        );
    }
    let claim = "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: a}\nspec:\n  resources:\n    requests: {storage: 1GB}\n";
    let empty_dir = "  volumes:\n  - name: v\n    emptyDir: {sizeLimit: 5MB}\n";
    let divisor = |resource: &str, divisor: &str| {
        pod(
            &format!(
                ", env: [{{name: A, valueFrom: {{resourceFieldRef: {{resource: {resource}, divisor: {divisor}}}}}}}]"
            ),
            "",
        )
    };
    for (yaml, place) in [
        (
            resources("limits: {memory: -64Mi}"),
            "1:7 spec.containers[0].resources.limits.memory: `-64Mi` is negative",
        ),
        (
            resources("limits: {memory: 12E}"),
            "1:7 spec.containers[0].resources.limits.memory: `12E` is not a quantity: the maximum is 2^63-1",
        ),
        (
            resources("limits: {memory: 100m}"),
            "1:7 spec.containers[0].resources.limits.memory: is less than 512Ki",
        ),
        (
            resources("limits: {cpu: 2000000}"),
            "1:7 spec.containers[0].resources.limits.cpu: is more cores than any host has",
        ),
        (
            resources("requests: {cpu: x}"),
            "1:7 spec.containers[0].resources.requests.cpu: `x` is not",
        ),
        (
            resources("limits: {memory: 1Gi}, requests: {memory: 1.5Gi}"),
            "1:7 spec.containers[0].resources.limits.memory: is below the request",
        ),
        (
            resources("limits: {cpu: 0.5}, requests: {cpu: 501m}"),
            "1:7 spec.containers[0].resources.limits.cpu: is below the request",
        ),
        (
            resources("limits: {memroy: 1Gi}"),
            "1:7 spec.containers[0].resources.limits.memroy: is not a resource",
        ),
        (
            pod(
                "",
                "  initContainers: [{name: b, image: quay.io/a:1, resources: {limits: {cpu: a}}}]\n",
            ),
            "1:8 spec.initContainers[0].resources.limits.cpu: `a` is not",
        ),
        (
            pod("", empty_dir),
            "1:10 spec.volumes[0].emptyDir.sizeLimit: `5MB` is not",
        ),
        (
            claim.to_owned(),
            "1:6 spec.resources.requests.storage: `1GB` is not",
        ),
        (
            divisor("limits.memory", "1MB"),
            "1:7 spec.containers[0].env[0].valueFrom.resourceFieldRef.divisor: `1MB` is not a quantity",
        ),
        (
            divisor("limits.memory", "2Mi"),
            "1:7 spec.containers[0].env[0].valueFrom.resourceFieldRef.divisor: `2Mi` is not one of 1, 1k",
        ),
        (
            divisor("limits.pids", "1"),
            "1:7 spec.containers[0].env[0].valueFrom.resourceFieldRef.resource: `limits.pids` is not one of",
        ),
        (
            pod("", "  overhead: {cpu: a}\n"),
            "1:8 spec.overhead.cpu: `a` is not",
        ),
    ] {
        let found = problems(yaml.as_bytes());
        assert!(
            found.len() == 1 && found[0].starts_with(place),
            "{place}: {found:?}"
        );
    }
    for fine in [
        "limits: {cpu: 1, memory: 128974848}, requests: {cpu: 0.5, memory: 128e6}",
        "limits: {cpu: 1e3, memory: 129M}",
        "limits: {memory: 1.5Gi}",
        "limits: {nvidia.com/gpu: 0}",
        "limits: {cpu: 0}",
        "",
    ] {
        let yaml = resources(fine);
        assert!(
            parse(yaml.as_bytes(), true).is_ok(),
            "{yaml}: {:?}",
            parse(yaml.as_bytes(), true)
        );
    }
}

#[test]
fn unavailable_resources_are_refused_and_unaccounted_ones_reported() {
    let limits = |limits: &str| pod(&format!(", resources: {{limits: {{{limits}}}}}"), "");
    let scratch = "1:7 spec.containers[0].resources.limits.ephemeral-storage: it is not limited: the container can write as much as its host has";
    let counted = parse(limits("ephemeral-storage: 1Gi").as_bytes(), false).unwrap();
    assert_eq!(shown(&counted.warnings), [scratch]);
    assert_eq!(
        shown(&parse(limits("ephemeral-storage: 1Gi").as_bytes(), true).unwrap_err()),
        [scratch]
    );
    let found = problems(
        limits("ephemeral-storage: 1Gi, hugepages-2Mi: 4Mi, nvidia.com/gpu: 1").as_bytes(),
    );
    let fields: Vec<_> = found
        .iter()
        .map(|found| found.split(": ").next().unwrap())
        .collect();
    assert_eq!(
        fields,
        [
            "1:7 spec.containers[0].resources.limits.ephemeral-storage",
            "1:7 spec.containers[0].resources.limits.hugepages-2Mi",
            "1:7 spec.containers[0].resources.limits[nvidia.com/gpu]"
        ]
    );
    assert!(
        found[2].contains("no host has such a resource"),
        "{found:?}"
    );
}

#[test]
fn truth_values_of_yaml_1_1_are_told_by_the_word_that_is_meant() {
    for (word, means) in [
        ("yes", "true"),
        ("on", "true"),
        ("Y", "true"),
        ("\"true\"", "true"),
        ("no", "false"),
        ("Off", "false"),
        ("n", "false"),
    ] {
        let found = problems(pod("", &format!("  shareProcessNamespace: {word}\n")).as_bytes());
        let word = word.trim_matches('"');
        let expected = format!(
            "1:8 spec.shareProcessNamespace: `{word}` is text, as in YAML 1.2: write `{means}` without quotes"
        );
        assert_eq!(found, [expected]);
    }
    let tty = parse(pod(", tty: true", "").as_bytes(), true).expect("Podman gives it a terminal");
    assert!(tty.warnings.is_empty());
}

#[test]
fn what_is_no_number_or_no_file_mode_is_told_in_words() {
    let volume = |mode: &str| {
        format!("  volumes:\n  - name: v\n    configMap: {{name: c, defaultMode: {mode}}}\n")
    };
    let mode = "10 spec.volumes[0].configMap.defaultMode";
    let digits = "is not a file mode: use 0 to 0777 with the digits 0 to 7";
    for (container, spec, expected) in [
        ("", volume("0o9"), format!("{mode}: `0o9` {digits}")),
        ("", volume("09"), format!("{mode}: `09` {digits}")),
        (
            ", ports: [{containerPort: http}]",
            String::new(),
            "7 spec.containers[0].ports[0].containerPort: `http` is text: write a whole number"
                .to_owned(),
        ),
        (
            ", ports: [{containerPort: 99999999999}]",
            String::new(),
            "7 spec.containers[0].ports[0].containerPort: 99999999999 is too large or too small"
                .to_owned(),
        ),
        (
            "",
            "  terminationGracePeriodSeconds: 99999999999999999999\n".to_owned(),
            "8 spec.terminationGracePeriodSeconds: 99999999999999999999 is too large or too small"
                .to_owned(),
        ),
        (
            "",
            "  terminationGracePeriodSeconds: '5'\n".to_owned(),
            "8 spec.terminationGracePeriodSeconds: `5` is text: write it without quotes".to_owned(),
        ),
    ] {
        let found = problems(pod(container, &spec).as_bytes());
        assert_eq!(found, [format!("1:{expected}")]);
    }
    for mode in ["0644", "0o644", "420"] {
        let map = "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\n";
        let yaml = pod("", &volume(mode)) + map;
        assert!(parse(yaml.as_bytes(), true).is_ok(), "{mode}");
    }
}

#[test]
fn a_job_for_each_host_is_asked_for_at_the_job_and_by_a_truth_value() {
    let job = |outer: &str, inner: &str| {
        format!(
            "apiVersion: batch/v1\nkind: Job\nmetadata: {{name: j, annotations: {{{outer}}}}}\nspec:\n  template:\n    metadata: {{annotations: {{{inner}}}}}\n    \
             spec: {{restartPolicy: Never, containers: [{{name: a, image: quay.io/a:1}}]}}\n"
        )
    };
    let asks = |value: &str| format!("beemesh.io/every-host: {value}");
    for value in ["'true'", "'false'"] {
        assert!(parse(job(&asks(value), "").as_bytes(), true).is_ok());
    }
    let wrong = problems(job(&asks("'yes'"), "").as_bytes());
    let place = "1:3 metadata.annotations[beemesh.io/every-host]: `yes` is neither";
    assert!(wrong.len() == 1 && wrong[0].starts_with(place), "{wrong:?}");
    let wrong = problems(job("", &asks("'true'")).as_bytes());
    let place = "1:6 spec.template.metadata.annotations[beemesh.io/every-host]: belongs to the Job";
    assert!(wrong.len() == 1 && wrong[0].starts_with(place), "{wrong:?}");
}

#[test]
fn what_podman_would_find_wrong_when_the_old_pod_is_gone_is_refused() {
    for (container, spec, place) in [
        (
            ", ports: [{containerPort: 1, hostPort: 80, hostIP: localhost}]",
            "",
            "1:7 spec.containers[0].ports[0].hostIP: `localhost` is not an IP address",
        ),
        (
            ", ports: [{containerPort: 1, hostPort: 80, hostIP: 10.0.0.1}, {containerPort: 2, hostPort: 80, hostIP: 0.0.0.0}]",
            "",
            "1:7 spec.containers[0].ports[1].hostPort: port 80 of the host is published twice by this pod",
        ),
        (
            ", ports: [{containerPort: 1, hostPort: 80}]",
            "  hostNetwork: true\n",
            "1:7 spec.containers[0].ports[0].hostPort: must be the containerPort",
        ),
        (
            ", securityContext: {runAsUser: -1}",
            "",
            "1:7 spec.containers[0].securityContext.runAsUser: -1 is too small",
        ),
        (
            ", securityContext: {procMount: All}",
            "",
            "1:7 spec.containers[0].securityContext.procMount: `All` is not one of",
        ),
        (
            ", lifecycle: {stopSignal: USR1}",
            "",
            "1:7 spec.containers[0].lifecycle.stopSignal: `USR1` is not a signal",
        ),
        (
            ", livenessProbe: {exec: {command: [a]}, periodSeconds: -5}",
            "",
            "1:7 spec.containers[0].livenessProbe.periodSeconds: -5 is too small",
        ),
        (
            ", livenessProbe: {exec: {command: [a]}, successThreshold: 2}",
            "",
            "1:7 spec.containers[0].livenessProbe.successThreshold: must be 1",
        ),
        (
            "",
            "  terminationGracePeriodSeconds: -1\n",
            "1:8 spec.terminationGracePeriodSeconds: -1 is too small",
        ),
        (
            "",
            "  hostAliases: [{ip: nowhere, hostnames: [a]}]\n",
            "1:8 spec.hostAliases[0].ip: `nowhere` is not an IP address",
        ),
        (
            "",
            "  dnsConfig: {nameservers: [dns]}\n",
            "1:8 spec.dnsConfig.nameservers[0]: `dns` is not an IP address",
        ),
        (
            "",
            "  os: {name: windows}\n",
            "1:8 spec.os.name: `windows` is not `linux`",
        ),
        (
            "",
            "  volumes: [{name: v, emptyDir: {medium: HugePages}}]\n",
            "1:8 spec.volumes[0].emptyDir.medium: `HugePages` is not one of",
        ),
        (
            "",
            "  volumes: [{name: v, hostPath: {path: /srv, type: Folder}}]\n",
            "1:8 spec.volumes[0].hostPath.type: `Folder` is not one of",
        ),
        (
            "",
            "  volumes: [{name: v, configMap: {name: c, items: [{key: a, path: x}, {key: b, path: x}]}}]\n",
            "1:8 spec.volumes[0].configMap.items[1].path: another item of this volume is the file `x`",
        ),
        (
            "",
            "  volumes: [{name: v, configMap: {name: c, items: [{key: a, path: ..x}]}}]\n",
            "1:8 spec.volumes[0].configMap.items[0].path: `..x` is not a file of the volume",
        ),
    ] {
        let found = problems(pod(container, spec).as_bytes());
        assert!(
            found.len() == 1 && found[0].starts_with(place),
            "{place}: {found:?}"
        );
    }
    let deployment = |more: &str| {
        format!(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: a}}\nspec:\n  template: {{spec: {{containers: [{{name: a, image: quay.io/a:1}}]}}}}\n  {more}\n"
        )
    };
    for (more, place) in [
        ("strategy: {rollingUpdate: {maxUnavailable: 25}}", ""),
        (
            "strategy: {rollingUpdate: {maxUnavailable: 25%, maxSurge: 0%}}",
            "",
        ),
        (
            "strategy: {rollingUpdate: {maxUnavailable: a lot}}",
            "1:6 spec.strategy.rollingUpdate.maxUnavailable: `a lot` is neither",
        ),
        (
            "strategy: {rollingUpdate: {maxUnavailable: 101%}}",
            "1:6 spec.strategy.rollingUpdate.maxUnavailable: `101%` is neither",
        ),
        (
            "strategy: {type: rolling}",
            "1:6 spec.strategy.type: `rolling` is not one of",
        ),
        (
            "minReadySeconds: -1",
            "1:6 spec.minReadySeconds: -1 is too small",
        ),
        ("minReadySeconds: 30\n  progressDeadlineSeconds: 31", ""),
        (
            "minReadySeconds: 30\n  progressDeadlineSeconds: 30",
            "1:7 spec.progressDeadlineSeconds: 30 must be more than minReadySeconds (30)",
        ),
        (
            "minReadySeconds: 600",
            "1:6 spec.minReadySeconds: 600 must be less than progressDeadlineSeconds (600 unless written)",
        ),
        ("minReadySeconds: 599", ""),
        (
            "strategy: {type: Recreate, rollingUpdate: {maxUnavailable: 1}}",
            "1:6 spec.strategy.rollingUpdate: belongs to the type RollingUpdate",
        ),
    ] {
        let found = parse(deployment(more).as_bytes(), false)
            .map_or_else(|found| shown(&found), |_| vec![]);
        assert!(
            found.concat().starts_with(place) && found.is_empty() == place.is_empty(),
            "{more}: {found:?}"
        );
    }
}

#[test]
fn pods_named_like_ours_are_refused() {
    for (name, namespace, is_ours) in [
        ("beemesh-gateway", "default", true),
        ("beemesh", "default", true),
        ("beemesh-pod-web", "default", true),
        ("beemeshx", "default", false),
        ("my-beemesh-gateway", "default", false),
        ("beemesh-gateway", "other", false),
    ] {
        let yaml = pod("", "").replace(
            "  name: web",
            &format!("  name: {name}\n  namespace: {namespace}"),
        );
        assert_eq!(
            parse(yaml.as_bytes(), false).is_err(),
            is_ours,
            "{namespace} {name}"
        );
    }
}

#[test]
fn a_stopped_workload_requests_no_pods() {
    let stopped = |value: &str| format!("annotations: {{beemesh.io/stopped: {value}}}");
    let pod = |more: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: w, {more}}}\nspec: {{containers: [{{name: a, image: quay.io/a:1}}]}}\n"
        )
    };
    let of = |kind: &str, more: &str, spec: &str, template: &str| {
        let version = if kind == "Job" { "batch/v1" } else { "apps/v1" };
        format!(
            "apiVersion: {version}\nkind: {kind}\nmetadata: {{name: w, {more}}}\nspec:\n{spec}  template:\n    metadata: {{labels: {{a: b}}, {template}}}\n    \
             spec: {{containers: [{{name: a, image: quay.io/a:1}}]}}\n"
        )
    };
    let selects = "  selector: {matchLabels: {a: b}}\n";
    let two = "  replicas: 2\n  selector: {matchLabels: {a: b}}\n";
    for (value, is_so) in [("'true'", true), ("'false'", false)] {
        let more = stopped(value);
        for (yaml, replicas) in [
            (pod(&more), None),
            (of("DaemonSet", &more, selects, ""), None),
            (of("Deployment", &more, selects, ""), None),
            (of("Deployment", &more, two, ""), Some(2)),
            (of("ReplicaSet", &more, two, ""), Some(2)),
        ] {
            let read = parse(yaml.as_bytes(), true).unwrap_or_else(|found| panic!("{found:?}"));
            let object = &read.objects[0];
            let expected = if is_so { Some(0) } else { replicas };
            assert_eq!(
                (object.replicas, is_stopped(object)),
                (expected, is_so),
                "{yaml}"
            );
        }
    }
    let none = of(
        "Deployment",
        "",
        "  replicas: 0\n  selector: {matchLabels: {a: b}}\n",
        "",
    );
    assert!(!is_stopped(
        &parse(none.as_bytes(), true).unwrap().objects[0]
    ));
    for (yaml, place) in [
        (
            pod(&stopped("'yes'")),
            "1:3 metadata.annotations[beemesh.io/stopped]: `yes` is neither",
        ),
        (
            of("Deployment", "", selects, &stopped("'true'")),
            "1:7 spec.template.metadata.annotations[beemesh.io/stopped]: belongs to the workload",
        ),
        (
            of("Job", &stopped("'true'"), "", "").replace(
                "spec: {containers",
                "spec: {restartPolicy: Never, containers",
            ),
            "1:3 metadata.annotations[beemesh.io/stopped]: a Job cannot be stopped",
        ),
    ] {
        let wrong = problems(yaml.as_bytes());
        assert!(wrong.len() == 1 && wrong[0].starts_with(place), "{wrong:?}");
    }
}
