//! The variables, commands and arguments of containers.

use beemesh_quadlet::belongings::belongs_to;
use serde_json::{Value, json};

use super::{container, documents, documents_at, problems, reason, warnings};

const OBJECTS: &str = "\
apiVersion: v1
kind: ConfigMap
metadata: {name: one}
data: {A: one, B: one, file.conf: text, 'no-name': n}
binaryData: {RAW: AAAA}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: two}
data: {B: two, C: two}
---
apiVersion: v1
kind: Secret
metadata: {name: login}
stringData: {user: app, B: secret}
data: {password: czNjcjN0, user: b3RoZXI=}
---
";

/// A Pod with the fields of its first container, and further ones of its spec.
fn pod(container: &str, more: &str) -> String {
    format!(
        "{OBJECTS}apiVersion: v1\nkind: Pod\nmetadata: {{name: web, namespace: default, labels: {{app: shop}}, annotations: {{a: note}}}}\n\
         spec:\n  containers:\n  - {{name: app, image: 'quay.io/a:1'{container}}}\n{more}"
    )
}

/// `NAME=VALUE` for each variable, with the contents of Secrets in `<>`.
fn variables(yaml: &str) -> Vec<String> {
    let documents = super::documents(yaml);
    let container = &documents.last().expect("a pod")["spec"]["containers"][0];
    assert_eq!(container["envFrom"], Value::Null);
    let show = |var: &Value| {
        let name = var["name"].as_str().expect("a name");
        match (&var["value"], &var["valueFrom"]["secretKeyRef"]) {
            (Value::String(text), Value::Null) => format!("{name}={text}"),
            (Value::Null, Value::Object(from)) => {
                format!("{name}=<{}>", of_secret(&documents, &json!(from)))
            }
            _ => format!("{name} {}", var["valueFrom"]),
        }
    };
    let env = container["env"].as_array();
    env.into_iter().flatten().map(show).collect()
}

/// What Podman reads for a reference: `stringData` before `data`.
fn of_secret(documents: &[Value], from: &Value) -> String {
    let mut named = documents
        .iter()
        .filter(|one| one["metadata"]["name"] == from["name"]);
    let secret = named.next().expect("the Secret is in the file");
    assert_eq!(secret["kind"], "Secret");
    assert!(belongs_to(from["name"].as_str().expect("a name"), "web"));
    let key = from["key"].as_str().expect("a key");
    match (&secret["stringData"][key], &secret["data"][key]) {
        (Value::String(text), _) => text.clone(),
        (_, Value::String(text)) => decoded(text),
        _ => panic!("no key {key}"),
    }
}

fn decoded(text: &str) -> String {
    let value: k8s_openapi::ByteString = serde_json::from_value(json!(text)).expect("base64");
    String::from_utf8(value.0).expect("text")
}

#[test]
fn each_variable_is_rendered_once_and_the_later_source_wins() {
    let yaml = pod(
        ", envFrom: [{configMapRef: {name: one}}, {configMapRef: {name: two}}, {secretRef: {name: absent, optional: true}}], \
         env: [{name: C, value: '3'}, {name: D, value: x}, {name: D, value: ''}, {name: E}]",
        "",
    );
    assert_eq!(
        variables(&yaml),
        [
            "A=one",
            "B=two",
            "file.conf=text",
            "no-name=n",
            "C=3",
            "D=",
            "E="
        ]
    );
    let kinds: Vec<_> = documents(&yaml)
        .iter()
        .map(|one| one["kind"].clone())
        .collect();
    assert_eq!(kinds, ["Pod"], "no ConfigMap is needed");
}

#[test]
fn a_prefix_is_a_part_of_the_name() {
    let yaml = pod(
        ", envFrom: [{prefix: 'P ', configMapRef: {name: two}}, {prefix: S_, secretRef: {name: login}}]",
        "",
    );
    assert_eq!(
        variables(&yaml),
        [
            "P B=two",
            "P C=two",
            "S_B=<secret>",
            "S_password=<s3cr3t>",
            "S_user=<app>"
        ]
    );
    for (prefix, message) in [("é", "`é` cannot begin"), ("'A='", "`A=` cannot begin")] {
        let yaml = pod(
            &format!(", envFrom: [{{prefix: {prefix}, configMapRef: {{name: two}}}}]"),
            "",
        );
        let found = problems(&yaml);
        assert!(found.len() == 1 && found[0].contains(message), "{found:?}");
    }
}

#[test]
fn a_secret_is_referred_to_and_an_overridden_one_is_left_out() {
    let yaml = pod(
        ", envFrom: [{configMapRef: {name: one}}, {secretRef: {name: login}}], \
         env: [{name: user, value: me}, {name: B, valueFrom: {configMapKeyRef: {name: two, key: B}}}]",
        "",
    );
    assert_eq!(
        variables(&yaml),
        [
            "A=one",
            "B=two",
            "file.conf=text",
            "no-name=n",
            "password=<s3cr3t>",
            "user=me"
        ]
    );
    let yaml = pod(
        ", env: [{name: P, valueFrom: {secretKeyRef: {name: login, key: password}}}, {name: P, value: plain}]",
        "",
    );
    assert_eq!(variables(&yaml), ["P=plain"]);
    assert_eq!(documents(&yaml).len(), 1, "the Secret is not needed");
}

#[test]
fn references_are_expanded_in_order() {
    let yaml = pod(
        ", envFrom: [{configMapRef: {name: one}}], env: [{name: HOST, value: db}, {name: URL, value: '$(HOST):$(PORT)/$(A)'}, \
         {name: PORT, value: '1'}, {name: URL2, value: '$(URL)-$(PORT)'}, {name: ESC, value: '$$(HOST) $$5 $HOME $('}, \
         {name: HOST, value: 'x$(HOST)'}, {name: SELF, value: '$(SELF)'}]",
        "",
    );
    let expected = [
        "A=one",
        "B=one",
        "file.conf=text",
        "no-name=n",
        "HOST=xdb",
        "URL=db:$(PORT)/one",
        "PORT=1",
        "URL2=db:$(PORT)/one-1",
        "ESC=$(HOST) $5 $HOME $(",
        "SELF=$(SELF)",
    ];
    assert_eq!(variables(&yaml), expected);
}

#[test]
fn a_value_made_of_a_secret_is_in_a_secret() {
    let yaml = pod(
        ", env: [{name: USER, valueFrom: {secretKeyRef: {name: login, key: user}}}, {name: URL, value: 'pg://$(USER)@db'}, \
         {name: SAME, value: $(USER)}, {name: TWICE, value: '$(URL)$(URL)'}]",
        "",
    );
    assert_eq!(
        variables(&yaml),
        [
            "USER=<app>",
            "URL=<pg://app@db>",
            "SAME=<app>",
            "TWICE=<pg://app@dbpg://app@db>"
        ]
    );
    let documents = super::documents(&yaml);
    assert_eq!(documents.len(), 3, "the Secret, the made one and the pod");
    assert!(!documents[2].to_string().contains("app@"));
    let other = yaml.replace("stringData: {user: app", "stringData: {user: ape");
    let names = |documents: &[Value]| {
        let names = documents
            .iter()
            .map(|one| one["metadata"]["name"].to_string());
        names.collect::<Vec<_>>()
    };
    let (before, after) = (names(&documents), names(&super::documents(&other)));
    assert!(before[..2].iter().all(|name| !after.contains(name)));
}

#[test]
fn commands_and_arguments_are_expanded_with_all_variables() {
    let yaml = pod(
        ", command: [/bin/$(NAME), '$$(NAME)'], args: ['a b', $HOME, cost $$5, '$(', '$(LATER) $(NOPE)', '$(USER)'], \
         env: [{name: NAME, value: echo}, {name: LATER, value: late}, {name: USER, valueFrom: {secretKeyRef: {name: login, key: user}}}]",
        "",
    );
    let container = super::container(&yaml);
    assert_eq!(container["command"], json!(["/bin/echo", "$$(NAME)"]));
    let args = json!(["a b", "$HOME", "cost $5", "$$(", "late $$(NOPE)", "app"]);
    assert_eq!(container["args"], args);
    let found = warnings(&yaml);
    let place = "spec.containers[0].args[5]: `$(USER)` is the value of a Secret";
    assert!(found.len() == 1 && found[0].starts_with(place), "{found:?}");
    let yaml = pod(
        ", args: ['$(password)'], envFrom: [{secretRef: {name: login}}]",
        "",
    );
    assert_eq!(super::container(&yaml)["args"], json!(["s3cr3t"]));
    assert!(warnings(&yaml)[0].contains("may be the value of a Secret"));
}

/// Kubernetes gives the commands of probes the values as they are written, and hooks none.
#[test]
fn commands_of_probes_get_written_values_and_hooks_none() {
    let yaml = pod(
        ", livenessProbe: {exec: {command: ['$(A)', '$(B)', '$(C)', '$(USER)', '$(NO)', '$$']}}, \
         lifecycle: {preStop: {exec: {command: ['$(A)', '$$']}}}, envFrom: [{configMapRef: {name: two}}], \
         env: [{name: A, value: a}, {name: B, value: $(A)}, {name: USER, valueFrom: {secretKeyRef: {name: login, key: user}}}]",
        "",
    );
    let container = super::container(&yaml);
    assert_eq!(
        container["livenessProbe"]["exec"]["command"],
        json!(["a", "$(A)", "$(C)", "", "$(NO)", "$"])
    );
    let hook = &container["lifecycle"]["preStop"]["exec"]["command"];
    assert_eq!(*hook, json!(["$(A)", "$$"]));
}

#[test]
fn optional_sources_may_be_missing_and_others_may_not() {
    let yaml = pod(
        ", envFrom: [{configMapRef: {name: one}}], env: [{name: A, valueFrom: {configMapKeyRef: {name: one, key: no, optional: true}}}, \
         {name: X, valueFrom: {secretKeyRef: {name: no, key: k, optional: true}}}, \
         {name: Y, valueFrom: {secretKeyRef: {name: login, key: no, optional: true}}}, {name: Z, value: '$(X)'}]",
        "",
    );
    assert_eq!(
        variables(&yaml),
        ["A=one", "B=one", "file.conf=text", "no-name=n", "Z=$(X)"]
    );
    for (env, reason) in [
        (
            "configMapKeyRef: {name: no, key: k}",
            "ConfigMap `no` does not exist",
        ),
        (
            "configMapKeyRef: {name: one, key: k}",
            "ConfigMap `one` has no key `k`",
        ),
        (
            "configMapKeyRef: {name: one, key: RAW}",
            "ConfigMap `one` has no key `RAW`",
        ),
        (
            "secretKeyRef: {name: login, key: k}",
            "Secret `login` has no key `k`",
        ),
    ] {
        let env = format!(", env: [{{name: V, valueFrom: {{{env}}}}}, {{name: V, value: other}}]");
        assert_eq!(super::reason(&pod(&env, "")), reason);
    }
}

#[test]
fn fields_of_the_pod_are_those_of_the_manifest() {
    let fields = |index: u64, yaml: &str| {
        let documents = documents_at(yaml, index).expect("rendered");
        let env = documents.last().expect("a pod")["spec"]["containers"][0]["env"].clone();
        let env = env.as_array().cloned().unwrap_or_default();
        let values = env
            .iter()
            .map(|var| var["value"].as_str().expect("a value").to_owned());
        values.collect::<Vec<_>>()
    };
    let env = |paths: &[&str]| {
        let vars = paths.iter().enumerate().map(|(index, path)| {
            format!("{{name: V{index}, valueFrom: {{fieldRef: {{fieldPath: \"{path}\"}}}}}}")
        });
        format!(", env: [{}]", vars.collect::<Vec<_>>().join(", "))
    };
    let own = env(&[
        "metadata.name",
        "metadata.namespace",
        "metadata.labels['app']",
        "metadata.labels['beemesh.io/index']",
        "metadata.annotations['a']",
        "metadata.annotations['none']",
        "spec.serviceAccountName",
    ]);
    let yaml = pod(&own, "").replace("namespace: default", "namespace: shop");
    let yaml = yaml.replace(
        "metadata: {name: one}",
        "metadata: {name: one, namespace: shop}",
    );
    assert_eq!(
        fields(9, &yaml),
        ["web", "shop", "shop", "", "note", "", "default"]
    );

    let yaml = pod(&env(&["metadata.uid"]), "");
    let uid = fields(9, &yaml).remove(0);
    let parts: Vec<usize> = uid.split('-').map(str::len).collect();
    assert_eq!(parts, [8, 4, 4, 4, 12], "{uid}");
    assert_eq!(uid.as_bytes()[14], b'8', "the version of {uid}");
    assert_eq!(fields(9, &yaml), [uid.as_str()]);
    assert_ne!(fields(10, &yaml), [uid.as_str()]);
    assert_ne!(fields(9, &yaml.replace("name: web", "name: web2")), [uid]);
}

/// The annotations of a Deployment are Podman's, but not the pod's.
#[test]
fn annotations_of_a_controller_are_not_those_of_its_pod() {
    let yaml = "{apiVersion: batch/v1, kind: Job, metadata: {name: j, annotations: {outer: x}}, spec: {template: {metadata: {annotations: {inner: y}},
        spec: {restartPolicy: Never, containers: [{name: a, image: 'quay.io/a:1', env: [
        {name: O, valueFrom: {fieldRef: {fieldPath: \"metadata.annotations['outer']\"}}},
        {name: I, valueFrom: {fieldRef: {fieldPath: \"metadata.annotations['inner']\"}}},
        {name: L, valueFrom: {fieldRef: {fieldPath: \"metadata.annotations['beemesh.io/backoff-limit']\"}}},
        {name: J, valueFrom: {fieldRef: {fieldPath: \"metadata.labels['batch.kubernetes.io/job-name']\"}}}]}]}}}}";
    assert_eq!(variables(yaml), ["O=", "I=y", "L=", "J=j"]);
}

#[test]
fn resources_are_rounded_up_in_units_of_the_divisor() {
    let of = |resource: &str, divisor: &str| {
        let resources = "resources: {limits: {cpu: 1250m, memory: 64Mi, ephemeral-storage: 1Gi}, requests: {cpu: 1m}}";
        let other = "  - {name: b, image: 'quay.io/a:1', resources: {limits: {memory: 1.5Gi}}}\n";
        let yaml = pod(
            &format!(
                ", {resources}, env: [{{name: V, valueFrom: {{resourceFieldRef: {{resource: {resource}{divisor}}}}}}}]"
            ),
            other,
        );
        variables(&yaml).remove(0)
    };
    for (resource, divisor, expected) in [
        ("limits.cpu", "", "2"),
        ("limits.cpu", ", divisor: 1m", "1250"),
        ("limits.cpu", ", divisor: '0'", "2"),
        ("requests.cpu", "", "1"),
        ("requests.cpu", ", divisor: 1m", "1"),
        ("limits.memory", "", "67108864"),
        ("limits.memory", ", divisor: 1M", "68"),
        ("limits.memory", ", divisor: 1Gi", "1"),
        ("requests.memory", "", "67108864"),
        ("limits.ephemeral-storage", ", divisor: 1Mi", "1024"),
        ("requests.hugepages-2Mi", "", "0"),
        ("limits.memory", ", containerName: b, divisor: 1Mi", "1536"),
        (
            "requests.memory",
            ", containerName: b, divisor: 1Mi",
            "1536",
        ),
        ("requests.cpu", ", containerName: b", "0"),
    ] {
        assert_eq!(
            of(resource, divisor),
            format!("V={expected}"),
            "{resource}{divisor}"
        );
    }
}

#[test]
fn a_limit_that_is_missing_is_left_to_the_host_and_is_a_part_of_nothing() {
    let ask = |asked: &str, more: &str| {
        format!(", env: [{{name: M, valueFrom: {{resourceFieldRef: {{{asked}}}}}}}{more}]")
    };
    let yaml = pod(&ask("resource: limits.memory, divisor: 1024Ki", ""), "");
    let expected = json!([{"name": "M", "valueFrom": {"resourceFieldRef": {"divisor": "1Mi", "resource": "limits.memory"}}}]);
    assert_eq!(container(&yaml)["env"], expected);

    let resource = "spec.containers[0].env[0].valueFrom.resourceFieldRef.resource";
    let limited = ", resources: {limits: {memory: 1Gi}}";
    for (container, more, expected) in [
        (
            ask("resource: limits.memory", ", {name: V, value: -m$(M)}"),
            "",
            "spec.containers[0].env[1].value: `$(M)` is a resource of the host".to_owned(),
        ),
        (
            format!(", args: [$(M)]{}", ask("resource: limits.cpu", "")),
            "",
            "spec.containers[0].args[0]: `$(M)` is a resource of the host".to_owned(),
        ),
        (
            ask("resource: limits.ephemeral-storage", ""),
            "",
            format!("{resource}: the container has no such limit"),
        ),
        (
            format!("{limited}{}", ask("resource: limits.memory, containerName: b", "")),
            "  - {name: b, image: 'quay.io/a:1'}\n",
            format!("{resource}: container `b` has no such limit"),
        ),
        (
            ask("resource: limits.memory, containerName: c", ""),
            "",
            "spec.containers[0].env[0].valueFrom.resourceFieldRef.containerName: no container of this pod is named `c`".to_owned(),
        ),
    ] {
        let found = problems(&pod(&container, more));
        assert!(
            found.len() == 1 && found[0].starts_with(&expected),
            "{expected}: {found:?}"
        );
    }
}

#[test]
fn what_only_a_running_pod_knows_is_refused() {
    for (path, words) in [
        ("spec.nodeName", "mount the host's /etc/hostname"),
        ("status.hostIP", "host.containers.internal"),
        ("status.podIPs", "`hostname -i`"),
        ("status.phase", "Podman does not know `status.phase`"),
        ("metadata.labels", "Podman does not know `metadata.labels`"),
    ] {
        let env = format!(", env: [{{name: V, valueFrom: {{fieldRef: {{fieldPath: {path}}}}}}}]");
        let found = problems(&pod(&env, ""));
        let place = "spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: ";
        assert!(
            found.len() == 1 && found[0].starts_with(place) && found[0].contains(words),
            "{found:?}"
        );
    }
    let env = ", env: [{name: V, valueFrom: {fieldRef: {fieldPath: \"metadata.labels['pod-template-hash']\"}}}]";
    assert!(warnings(&pod(env, ""))[0].contains("no controller sets `pod-template-hash`"));
}

#[test]
fn a_variable_has_a_name_and_one_source() {
    for (env, message) in [
        (
            "env: [{name: É, value: x}]",
            "env[0].name: `É` cannot name a variable",
        ),
        (
            "env: [{name: A=B, value: x}]",
            "env[0].name: `A=B` cannot name a variable",
        ),
        (
            "env: [{name: A, value: x, valueFrom: {configMapKeyRef: {name: one, key: A}}}]",
            "env[0].valueFrom: is not allowed beside a value",
        ),
        (
            "env: [{name: A, valueFrom: {configMapKeyRef: {name: one, key: A}, secretKeyRef: {name: login, key: user}}}]",
            "env[0].valueFrom: needs one of",
        ),
        ("envFrom: [{prefix: A}]", "envFrom[0]: needs one of"),
    ] {
        let found = problems(&pod(&format!(", {env}"), ""));
        let expected = format!("spec.containers[0].{message}");
        assert!(
            found.len() == 1 && found[0].starts_with(&expected),
            "{expected}: {found:?}"
        );
    }
    let env = ", env: [{name: a.b-c, value: x}, {name: '1 2', value: y}]";
    assert_eq!(variables(&pod(env, "")), ["a.b-c=x", "1 2=y"]);
}

#[test]
fn a_secret_that_is_no_text_is_no_argument() {
    let yaml = pod(
        ", args: [$(P)], env: [{name: P, valueFrom: {secretKeyRef: {name: login, key: password}}}]",
        "",
    );
    let yaml = yaml.replace("czNjcjN0", "//79");
    assert!(reason(&yaml).contains("is no UTF-8 text"));
}

/// Podman stores, and every host renders, what a manifest multiplies.
#[test]
fn a_manifest_cannot_multiply_itself_without_bound() {
    let mut env = vec!["{name: V0, value: lol}".to_owned()];
    for level in 1..40 {
        let before = level - 1;
        env.push(format!(
            "{{name: V{level}, value: '$(V{before})$(V{before})'}}"
        ));
    }
    let yaml = pod(&format!(", env: [{}]", env.join(", ")), "");
    assert!(super::reason(&yaml).contains("longer than the 131071 bytes that the kernel passes"));
    let big = format!("{{name: B, value: {}}}", "b".repeat(100_000));
    let mut words = vec!["$(B)".to_owned(); 30];
    let yaml = |words: &[String]| {
        pod(
            &format!(", env: [{big}], args: ['{}']", words.join("', '")),
            "",
        )
    };
    assert_eq!(
        super::container(&yaml(&words))["args"][29]
            .as_str()
            .map(str::len),
        Some(100_000)
    );
    words.resize(60, "$(B)".to_owned());
    let reason = super::reason(&yaml(&words));
    assert!(
        reason.contains("its variables and commands have more than 4 MiB"),
        "{reason}"
    );
    let probe = format!(", env: [{big}], livenessProbe: {{exec: {{command: ['$(B)$(B)']}}}}");
    assert!(super::reason(&pod(&probe, "")).contains("longer than"));
}
