//! Fields that are refused or have no effect, each by its name; and the tables of the documentation.

use std::{fs, path::Path};

use beemesh_quadlet::{
    manifest::{Problem, Room, fields, parse, reread},
    render,
};

/// `DOCUMENT:LINE FIELD: MESSAGE` for each finding.
fn shown(problems: &[Problem]) -> Vec<String> {
    let show = |p: &Problem| format!("{}:{} {}: {}", p.document, p.line, p.field, p.message);
    problems.iter().map(show).collect()
}

/// A pod whose first container ends on line 7 with `more`, which begins on line 8 at the depth of `spec`'s fields.
fn pod(container: &str, more: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: web\nspec:\n  containers:\n  - {{name: app, image: quay.io/a:1{container}}}\n{more}"
    )
}

fn controller(kind: &str, labels: &str, more: &str) -> String {
    let (group, policy) = match kind {
        "Job" => ("batch/v1", "Never"),
        _ => ("apps/v1", "Always"),
    };
    format!(
        "apiVersion: {group}\nkind: {kind}\nmetadata: {{name: a}}\nspec:\n  template:\n    metadata: {{labels: {{{labels}}}}}\n    \
         spec: {{restartPolicy: {policy}, containers: [{{name: a, image: quay.io/a:1}}]}}\n{more}"
    )
}

fn object(kind: &str, more: &str) -> String {
    format!("apiVersion: v1\nkind: {kind}\nmetadata: {{name: a}}\n{more}\n")
}

/// Each manifest is refused, with one problem, which begins with these words.
fn are_refused(cases: &[(String, &str)]) {
    for (yaml, expected) in cases {
        let found = shown(&parse(yaml.as_bytes(), false).expect_err(yaml));
        assert!(
            found.len() == 1 && found[0].starts_with(expected),
            "{expected}: {found:?}\n{yaml}"
        );
    }
}

/// Each manifest has one warning, which begins with these words, and is refused for it with `strict`.
fn are_warned_about(cases: &[(String, &str)]) {
    for (yaml, expected) in cases {
        let warnings = shown(&parse(yaml.as_bytes(), false).expect(yaml).warnings);
        assert!(
            warnings.len() == 1 && warnings[0].starts_with(expected),
            "{expected}: {warnings:?}\n{yaml}"
        );
        let strict = parse(yaml.as_bytes(), true).expect_err(yaml);
        assert_eq!(shown(&strict), warnings);
    }
}

/// Each manifest is admitted without a word, also with `strict`.
fn are_taken(cases: &[String]) {
    for yaml in cases {
        let found = parse(yaml.as_bytes(), true).map(|manifest| manifest.warnings);
        assert_eq!(found.as_ref().map(Vec::len), Ok(0), "{found:?}\n{yaml}");
    }
}

#[test]
fn what_would_do_something_wrong_without_a_field_is_refused() {
    let c = |fields: &str| pod(&format!(", {fields}"), "");
    let p = |fields: &str| pod("", &format!("  {fields}\n"));
    are_refused(&[
        (
            c("restartPolicy: Never"),
            "1:7 spec.containers[0].restartPolicy: is for init containers only",
        ),
        (
            c("volumeDevices: [{name: v, devicePath: /dev/a}]"),
            "1:7 spec.containers[0].volumeDevices: the container would lack the device",
        ),
        (
            c("resources: {claims: [{name: gpu}]}"),
            "1:7 spec.containers[0].resources.claims: no host has such a resource",
        ),
        (
            c("resources: {limits: {hugepages-2Mi: 4Mi}}"),
            "1:7 spec.containers[0].resources.limits.hugepages-2Mi: Podman does not set huge pages aside",
        ),
        (
            c("resources: {limits: {nvidia.com/gpu: 1}}"),
            "1:7 spec.containers[0].resources.limits[nvidia.com/gpu]: no host has such a resource",
        ),
        (
            c("resources: {requests: {example.org/dongle: 1}}"),
            "1:7 spec.containers[0].resources.requests[example.org/dongle]: no host has such a resource",
        ),
        (
            p("runtimeClassName: kata"),
            "1:8 spec.runtimeClassName: no host has runtime classes",
        ),
        (
            p("resourceClaims: [{name: gpu, resourceClaimName: a}]"),
            "1:8 spec.resourceClaims: no host has such a resource",
        ),
        (
            p("schedulingGates: [{name: a}]"),
            "1:8 spec.schedulingGates: no controller removes a gate",
        ),
        (
            p("securityContext: {supplementalGroupsPolicy: Strict}"),
            "1:8 spec.securityContext.supplementalGroupsPolicy: the groups that the image gives its user",
        ),
        (
            controller("Job", "", "  suspend: true\n"),
            "1:8 spec.suspend: Podman ignores it, so the Job would run",
        ),
        (
            controller("Job", "", "  managedBy: example.org/other\n"),
            "1:8 spec.managedBy: no other controller runs here",
        ),
        (
            object(
                "PersistentVolumeClaim",
                "spec: {dataSource: {kind: VolumeSnapshot, name: a}}",
            ),
            "1:4 spec.dataSource: the volume would start empty",
        ),
    ]);
    are_taken(&[
        p("runtimeClassName: ''"),
        p("securityContext: {supplementalGroupsPolicy: Merge}"),
        c("resources: {requests: {cpu: 100m, memory: 64Mi}}"),
        controller("Job", "", "  suspend: false\n"),
        controller("Job", "", "  managedBy: kubernetes.io/job-controller\n"),
    ]);
}

#[test]
fn fields_that_exclude_or_need_each_other_are_refused() {
    let c = |fields: &str| pod(&format!(", {fields}"), "");
    let mount = |mount: &str, more: &str| {
        pod(
            &format!(", volumeMounts: [{{name: v, mountPath: /v, {mount}}}]{more}"),
            "  volumes: [{name: v, emptyDir: {}}]\n",
        )
    };
    let named = |name: &str| c(&format!("ports: [{{containerPort: 1, name: '{name}'}}]"));
    let port = "is not the name of a port: use at most 15";
    let not = |name: &str| format!("1:7 spec.containers[0].ports[0].name: `{name}` {port}");
    let names = [
        "a-name-that-is-too-long",
        "HTTP",
        "80",
        "-a",
        "a-",
        "a--b",
        "a_b",
    ];
    for name in names {
        are_refused(&[(named(name), &not(name))]);
    }
    are_refused(&[
        (
            c("ports: [{containerPort: 1, name: a}, {containerPort: 2, name: a}]"),
            "1:7 spec.containers[0].ports[1].name: another port of this container is named `a`",
        ),
        (
            mount("mountPropagation: Bidirectional", ""),
            "1:7 spec.containers[0].volumeMounts[0].mountPropagation: `Bidirectional` is only for privileged",
        ),
        (
            mount("recursiveReadOnly: Enabled, readOnly: true", ""),
            "1:7 spec.containers[0].volumeMounts[0].recursiveReadOnly: file systems that are mounted below",
        ),
        (
            mount("readOnly: true}, {name: v, mountPath: '/v:ro'", ""),
            "1:7 spec.containers[0].volumeMounts[1].mountPath: another volume is mounted at `/v`",
        ),
    ]);
    are_taken(&[
        named("http"),
        named("a-1-b"),
        named(""),
        mount("mountPropagation: HostToContainer", ""),
        mount("recursiveReadOnly: IfPossible, readOnly: true", ""),
        mount(
            "mountPropagation: Bidirectional",
            ", securityContext: {privileged: true}",
        ),
    ]);
    // What refers to the name of a port means one of them: a warning, also with `strict`.
    let twice = pod(
        ", ports: [{containerPort: 1, name: a}]",
        "  - {name: b, image: quay.io/a:1, ports: [{containerPort: 2, name: a}]}\n",
    );
    let found = shown(&parse(twice.as_bytes(), true).unwrap().warnings);
    let expected =
        "1:8 spec.containers[1].ports[0].name: a port of container `app` is named `a`, too";
    assert!(
        found.len() == 1 && found[0].starts_with(expected),
        "{found:?}"
    );
}

#[test]
fn a_selector_has_to_match_the_pods_of_its_workload() {
    let with = |selector: &str| {
        controller(
            "Deployment",
            "app: web",
            &format!("  selector: {selector}\n"),
        )
    };
    let rest = "a selector matches the pods of its own workload";
    for kind in ["Deployment", "DaemonSet", "Job"] {
        let yaml = controller(kind, "app: web", "  selector: {matchLabels: {app: db}}\n");
        let expected = format!(
            "1:8 spec.selector.matchLabels.app: `app: db` is not among the labels of the template: {rest}"
        );
        are_refused(&[(yaml, &expected)]);
    }
    are_refused(&[
        (
            with("{matchLabels: {app: web, tier: a}}"),
            "1:8 spec.selector.matchLabels.tier: `tier: a` is not among the labels",
        ),
        (
            with("{matchExpressions: [{key: app, operator: In, values: [db]}]}"),
            "1:8 spec.selector.matchExpressions[0]: does not match the labels of the template",
        ),
        (
            with("{matchExpressions: [{key: app, operator: DoesNotExist}]}"),
            "1:8 spec.selector.matchExpressions[0]: does not match the labels of the template",
        ),
        (
            with("{matchExpressions: [{key: app, operator: Is, values: [web]}]}"),
            "1:8 spec.selector.matchExpressions[0].operator: `Is` is not one of In",
        ),
        (
            with("{matchExpressions: [{key: app, operator: In}]}"),
            "1:8 spec.selector.matchExpressions[0].values: `In` needs values",
        ),
        (
            with("{matchExpressions: [{key: app, operator: Exists, values: [web]}]}"),
            "1:8 spec.selector.matchExpressions[0].values: `Exists` has no values",
        ),
    ]);
    are_taken(&[
        with("{}"),
        with("{matchLabels: {app: web}}"),
        with(
            "{matchExpressions: [{key: app, operator: In, values: [db, web]}, {key: a, operator: NotIn, values: [b]}]}",
        ),
        with(
            "{matchExpressions: [{key: app, operator: Exists}, {key: a, operator: DoesNotExist}]}",
        ),
        controller("Deployment", "", ""),
    ]);
}

#[test]
fn a_secret_has_the_keys_of_its_type() {
    let secret = |kind: &str, more: &str| object("Secret", &format!("type: {kind}\n{more}"));
    are_refused(&[
        (
            secret("kubernetes.io/tls", "stringData: {tls.crt: a}"),
            "1:4 type: a Secret of type `kubernetes.io/tls` needs the key `tls.key`",
        ),
        (
            secret("kubernetes.io/basic-auth", "stringData: {user: a}"),
            "1:4 type: a Secret of type `kubernetes.io/basic-auth` needs the key `username` or `password`",
        ),
        (
            secret("kubernetes.io/ssh-auth", ""),
            "1:4 type: a Secret of type `kubernetes.io/ssh-auth` needs the key `ssh-privatekey`",
        ),
        (
            secret(
                "kubernetes.io/dockerconfigjson",
                "stringData: {config.json: '{}'}",
            ),
            "1:4 type: a Secret of type `kubernetes.io/dockerconfigjson` needs the key `.dockerconfigjson`",
        ),
        (
            secret(
                "kubernetes.io/dockerconfigjson",
                "stringData: {.dockerconfigjson: '{'}",
            ),
            "1:4 type: the value of `.dockerconfigjson` is not JSON",
        ),
        (
            secret("kubernetes.io/dockercfg", ""),
            "1:4 type: a Secret of type `kubernetes.io/dockercfg` needs the key `.dockercfg`",
        ),
    ]);
    are_warned_about(&[(
        secret("kubernetes.io/service-account-token", ""),
        "1:4 type: there is no API server that makes the token",
    )]);
    are_taken(&[
        secret(
            "kubernetes.io/tls",
            "data: {tls.crt: YQ==}\nstringData: {tls.key: b}",
        ),
        secret("kubernetes.io/basic-auth", "stringData: {password: a}"),
        secret(
            "kubernetes.io/dockerconfigjson",
            "data: {.dockerconfigjson: e30=}",
        ),
        secret("example.org/own", ""),
        secret("Opaque", ""),
        object("Secret", ""),
    ]);
}

#[test]
fn what_has_no_effect_is_a_warning_by_its_name() {
    let c = |fields: &str| pod(&format!(", {fields}"), "");
    let p = |fields: &str| pod("", &format!("  {fields}\n"));
    let claim = |fields: &str| object("PersistentVolumeClaim", &format!("spec: {{{fields}}}"));
    let deployment = |more: &str| controller("Deployment", "", &format!("  {more}\n"));
    let job = |more: &str| controller("Job", "", &format!("  {more}\n"));
    let disk = p("volumes: [{name: v, emptyDir: {sizeLimit: 5Mi}}]");
    are_warned_about(&[
        (
            c("resizePolicy: [{resourceName: cpu, restartPolicy: NotRequired}]"),
            "1:7 spec.containers[0].resizePolicy: ",
        ),
        (c("stdin: true"), "1:7 spec.containers[0].stdin: "),
        (
            c("resources: {limits: {ephemeral-storage: 1Gi}}"),
            "1:7 spec.containers[0].resources.limits.ephemeral-storage: ",
        ),
        (
            c("securityContext: {windowsOptions: {hostProcess: true}}"),
            "1:7 spec.containers[0].securityContext.windowsOptions: ",
        ),
        (
            c("securityContext: {appArmorProfile: {type: Unconfined}}"),
            "1:7 spec.containers[0].securityContext.appArmorProfile: ",
        ),
        (
            p(
                "initContainers: [{name: b, image: quay.io/a:1, ports: [{containerPort: 1, hostPort: 80}]}]",
            ),
            "1:8 spec.initContainers[0].ports[0].hostPort: it is not published",
        ),
        (
            p("securityContext: {fsGroupChangePolicy: OnRootMismatch}"),
            "1:8 spec.securityContext.fsGroupChangePolicy: ",
        ),
        (
            p("securityContext: {seLinuxChangePolicy: MountOption}"),
            "1:8 spec.securityContext.seLinuxChangePolicy: ",
        ),
        (p("priority: 1000"), "1:8 spec.priority: "),
        (p("priorityClassName: high"), "1:8 spec.priorityClassName: "),
        (p("preemptionPolicy: Never"), "1:8 spec.preemptionPolicy: "),
        (p("overhead: {memory: 1Mi}"), "1:8 spec.overhead: "),
        (p("nodeName: h1"), "1:8 spec.nodeName: "),
        (p("schedulerName: mine"), "1:8 spec.schedulerName: "),
        (
            p("readinessGates: [{conditionType: a}]"),
            "1:8 spec.readinessGates: ",
        ),
        (
            p("ephemeralContainers: [{name: d, image: quay.io/a:1}]"),
            "1:8 spec.ephemeralContainers: ",
        ),
        (
            disk.clone(),
            "1:8 spec.volumes[0].emptyDir.sizeLimit: it is not limited",
        ),
        (
            deployment("strategy: {rollingUpdate: {maxSurge: 1}}"),
            "1:8 spec.strategy.rollingUpdate.maxSurge: a host replaces its pod where it is",
        ),
        (
            deployment("strategy: {rollingUpdate: {maxUnavailable: 0%}}"),
            "1:8 spec.strategy.rollingUpdate.maxUnavailable: counts as 1",
        ),
        (
            job("activeDeadlineSeconds: 5"),
            "1:8 spec.activeDeadlineSeconds: ",
        ),
        (job("completions: 3"), "1:8 spec.completions: "),
        (
            job("podFailurePolicy: {rules: [{action: FailJob}]}"),
            "1:8 spec.podFailurePolicy: ",
        ),
        (
            claim("storageClassName: fast"),
            "1:4 spec.storageClassName: hosts have no storage classes",
        ),
        (
            claim("").replace(
                "{name: a}",
                "{name: a, annotations: {volume.beta.kubernetes.io/storage-class: fast}}",
            ),
            "1:3 metadata.annotations[volume.beta.kubernetes.io/storage-class]: has no effect: hosts have no storage classes",
        ),
        (
            object("Pod", "spec: {containers: [{name: c, image: 'quay.io/a:1'}]}").replace(
                "{name: a}",
                "{name: a, annotations: {kubernetes.io/egress-bandwidth: 1M}}",
            ),
            "1:3 metadata.annotations[kubernetes.io/egress-bandwidth]: has no effect",
        ),
        (
            object("Pod", "spec: {containers: [{name: c, image: 'quay.io/a:1'}]}").replace(
                "{name: a}",
                "{name: a, annotations: {container.apparmor.security.beta.kubernetes.io/c: localhost/p}}",
            ),
            "1:3 metadata.annotations[container.apparmor.security.beta.kubernetes.io/c]: has no effect",
        ),
        (
            claim("volumeAttributesClassName: gold"),
            "1:4 spec.volumeAttributesClassName: ",
        ),
        (
            claim("accessModes: [ReadWriteMany]"),
            "1:4 spec.accessModes: each host has a volume of its own",
        ),
        (
            object("ConfigMap", "").replace("{name: a}", "{name: a, finalizers: [example.org/a]}"),
            "1:3 metadata.finalizers: nothing holds back a deletion",
        ),
        (
            object("ConfigMap", "").replace(
                "{name: a}",
                "{name: a, ownerReferences: [{apiVersion: v1, kind: Pod, name: b, uid: c}]}",
            ),
            "1:3 metadata.ownerReferences: ",
        ),
    ]);
    // Every claim has a size.
    let size = claim("resources: {requests: {storage: 1Gi}}");
    let found = shown(&parse(size.as_bytes(), true).unwrap().warnings);
    let expected = "1:4 spec.resources.requests: the size is not limited: the volume can take as much as its host has";
    assert_eq!(found, [expected]);
    are_taken(&[
        p("enableServiceLinks: true"),
        p("automountServiceAccountToken: true"),
        p("preemptionPolicy: PreemptLowerPriority\n  priority: 0"),
        p("volumes: [{name: v, emptyDir: {medium: Memory, sizeLimit: 5Mi}}]"),
        c("stdin: false, securityContext: {appArmorProfile: {type: RuntimeDefault}}"),
        p("initContainers: [{name: b, image: quay.io/a:1, ports: [{containerPort: 1}]}]"),
        deployment(
            "progressDeadlineSeconds: 60\n  revisionHistoryLimit: 3\n  strategy: {type: RollingUpdate, rollingUpdate: {maxSurge: 25%, maxUnavailable: 2}}",
        ),
        claim("accessModes: [ReadWriteOnce], volumeMode: Filesystem"),
        object("ConfigMap", "immutable: true").replace(
            "{name: a}",
            "{name: a, uid: b, managedFields: [{manager: kubectl}], resourceVersion: '1'}",
        ),
    ]);
}

#[test]
fn requests_are_those_of_the_rendered_pod() {
    let pod = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a"},"spec":{"containers":[
        {"name":"a","resources":{"requests":{"cpu":"250m","memory":"67108864"}}},{"name":"b","resources":{"limits":{"cpu":"1000m"}}}]}}"#;
    let yaml = format!("{{\"kind\":\"ConfigMap\"}}\n---\n{pod}");
    let room = Room {
        millis: 1250,
        bytes: 64 << 20,
    };
    assert_eq!(render::requests(yaml.as_bytes()), room);
    assert_eq!(render::requests(b"{}"), Room::default());
}

#[test]
fn every_probe_is_checked_and_taken() {
    let c = |fields: &str| {
        pod(
            &format!(", ports: [{{containerPort: 80, name: http}}], {fields}"),
            "",
        )
    };
    let at = "1:7 spec.containers[0]";
    let none = format!("{at}.readinessProbe: needs one of exec, httpGet, tcpSocket, grpc");
    let port = format!("{at}.livenessProbe.grpc.port: is not a port");
    let name = format!("{at}.readinessProbe.tcpSocket.port: is neither 1 to 65535 nor the name");
    let grace = format!(
        "{at}.readinessProbe.terminationGracePeriodSeconds: a readiness probe ends no container"
    );
    are_refused(&[
        (c("readinessProbe: {periodSeconds: 1}"), &none),
        (
            c("readinessProbe: {httpGet: {port: 1}, grpc: {port: 1}}"),
            &none,
        ),
        (c("livenessProbe: {grpc: {port: 0}}"), &port),
        (c("readinessProbe: {tcpSocket: {port: web}}"), &name),
        (
            c("readinessProbe: {tcpSocket: {port: http}, terminationGracePeriodSeconds: 5}"),
            &grace,
        ),
    ]);
    are_taken(&[
        c("readinessProbe: {httpGet: {port: http, path: /ready}}"),
        c("livenessProbe: {grpc: {port: 80, service: a}, terminationGracePeriodSeconds: 5}"),
        c("startupProbe: {tcpSocket: {port: 80}}, readinessProbe: {exec: {command: [a]}}"),
    ]);
}

#[test]
fn every_hook_is_checked_and_taken() {
    let c = |hook: &str| pod(&format!(", lifecycle: {{preStop: {{{hook}}}}}"), "");
    let at = "1:7 spec.containers[0].lifecycle.preStop";
    let none = format!("{at}: needs one of exec, httpGet, sleep");
    let port = format!("{at}.httpGet.port: is neither");
    are_refused(&[
        (c(""), &none),
        (c("exec: {command: [a]}, sleep: {seconds: 1}"), &none),
        (c("exec: {}"), &format!("{at}.exec.command: has no command")),
        (
            c("sleep: {seconds: -1}"),
            &format!("{at}.sleep.seconds: is negative"),
        ),
        (c("httpGet: {port: web}"), &port),
        (
            c("tcpSocket: {port: 1}"),
            &format!("{at}.tcpSocket: Kubernetes has no such hook"),
        ),
    ]);
    are_taken(&[
        c("exec: {command: [a]}"),
        c("httpGet: {port: 80}"),
        c("sleep: {seconds: 0}"),
        pod(", lifecycle: {postStart: {exec: {command: [a]}}}", ""),
    ]);
}

/// `BLESS=1` writes the tables again.
#[test]
fn the_documentation_has_the_tables_of_all_fields() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/kubernetes.md");
    let text = fs::read_to_string(&path).unwrap();
    let (begin, end) = ("<!-- fields -->\n", "<!-- /fields -->\n");
    let (before, rest) = text.split_once(begin).expect("the mark before the tables");
    let (now, after) = rest.split_once(end).expect("the mark after the tables");
    let tables = fields::tables();
    if std::env::var_os("BLESS").is_some() {
        fs::write(&path, format!("{before}{begin}{tables}{end}{after}")).unwrap();
    } else {
        assert!(
            now == tables,
            "{} is old: BLESS=1 writes its tables again",
            path.display()
        );
    }
}

/// A backup holds what an earlier release has admitted.
#[test]
fn what_was_admitted_before_is_read_again() {
    let mismatched = r#"{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"a"},"spec":{"selector":{"matchLabels":{"a":"b"}},
        "template":{"spec":{"runtimeClassName":"kata","containers":[{"name":"a","image":"quay.io/a:1","restartPolicy":"Always"}]}}}}"#;
    let secret =
        r#"{"apiVersion":"v1","kind":"Secret","metadata":{"name":"a"},"type":"kubernetes.io/tls"}"#;
    let pod = |container: &str| {
        format!(
            r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"a"}},"spec":{{"containers":[{{"name":"a","image":"quay.io/a:1",{container}}}]}}}}"#
        )
    };
    let variable = pod(r#""env":[{"name":"A=B","value":"x"}]"#);
    let capability = pod(r#""securityContext":{"capabilities":{"drop":["NO_SUCH"]}}"#);
    for body in [mismatched, secret, &variable, &capability] {
        assert!(parse(body.as_bytes(), false).is_err(), "{body}");
        let again = reread(&[body.as_bytes()], None).expect(body);
        assert_eq!(again.objects.len(), 1);
    }
    let wrong = mismatched.replace("quay.io/a:1", "quay.io/A B");
    assert!(reread(&[wrong.as_bytes()], None).is_err());
}
