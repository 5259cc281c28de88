//! Manifests that are admitted, and all findings about the others, with their places.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use beemesh_protocol::{
    state::{Kind, Object, Reference},
    workload::WORKLOAD_BYTES_MAX,
};
use proptest::prelude::*;

use beemesh_quadlet::manifest::{
    BYTES_MAX, DOCUMENTS_MAX, Manifest, Place, Problem, parse, parse_under, policy::Rules,
};

/// Ten times the time of the slowest manifest on an idle machine. A manifest whose expansion is not limited takes
/// minutes.
const TOOK_MAX: Duration = Duration::from_secs(10);

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

#[test]
fn each_fault_is_told_with_its_place() {
    let cases: &[(&str, String, &[&str])] = &[
        ("empty", String::new(), &["0:0 : contains no object"]),
        ("no object", "---\n# nothing\n---\n".to_owned(), &["0:0 : contains no object"]),
        ("text", "hello".to_owned(), &["1:1 : is not an object: it has no kind"]),
        (
            "not YAML",
            "kind: Pod\nmetadata: {name: [}".to_owned(),
            &["1:2 metadata.name: not YAML: while parsing a node, did not find expected node content"],
        ),
        (
            "quotes in the words of the parser",
            "a: [1\n".to_owned(),
            &["1:1 a: not YAML: while parsing a flow sequence, expected ',' or ']'"],
        ),
        ("no kind", "a: 1".to_owned(), &["1:1 apiVersion: is missing", "1:1 kind: is missing"]),
        (
            "twice the same key",
            pod("", "  restartPolicy: Always\n  restartPolicy: Never\n"),
            &["1:9 spec.restartPolicy: appears twice"],
        ),
        ("no name", "apiVersion: v1\nkind: ConfigMap".to_owned(), &["1:1 metadata.name: is missing"]),
        (
            "misspelt",
            pod("", "  containrs: []\n"),
            &["1:8 spec.containrs: unknown field `containrs`; did you mean `containers`?"],
        ),
        (
            "wrong types",
            pod(", tty: maybe, env: [{name: A, value: 1}]", ""),
            &[
                "1:7 spec.containers[0].env[0].value: invalid type: integer `1`, expected a string: quote it",
                "1:7 spec.containers[0].tty: invalid type: string \"maybe\", expected a boolean",
            ],
        ),
        (
            "old version",
            "apiVersion: extensions/v1beta1\nkind: Deployment".to_owned(),
            &["1:1 apiVersion: `extensions/v1beta1` is not supported: write Deployment as apps/v1"],
        ),
        (
            "no template",
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\nspec:\n  replicas: 1".to_owned(),
            &["1:4 spec.template: is missing: it says which containers run"],
        ),
        (
            "no containers",
            "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {}".to_owned(),
            &["1:4 spec.containers: has no container"],
        ),
        (
            "negative replicas",
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\nspec:\n  replicas: -1\n  template: {spec: {containers: [{name: a, image: quay.io/a:1}]}}".to_owned(),
            &["1:5 spec.replicas: -1 is not a number of replicas: use 0 to 10000"],
        ),
        (
            "a Job that never ends",
            "apiVersion: batch/v1\nkind: Job\nmetadata: {name: a}\nspec:\n  template: {spec: {containers: [{name: a, image: quay.io/a:1}]}}".to_owned(),
            &["1:5 spec.template.spec.restartPolicy: is missing: a Job needs Never or OnFailure"],
        ),
        (
            "no image",
            pod("", "  - {name: b}\n"),
            &["1:8 spec.containers[1].image: has no image"],
        ),
        (
            "latest that is not pulled",
            pod("", "  - name: b\n    image: quay.io/b:latest\n    imagePullPolicy: IfNotPresent\n"),
            &["1:9 spec.containers[1].image: `quay.io/b:latest` may differ from host to host with imagePullPolicy IfNotPresent: give it a fixed tag, or use Always"],
        ),
        (
            "not an image",
            pod("", "  - {name: b, image: 'a b'}\n"),
            &["1:8 spec.containers[1].image: `a b` is not an image reference: use [REGISTRY/]PATH[:TAG] with a path of lower-case letters, digits, `-`, `_` and `.`"],
        ),
        (
            "images that Podman would take from the host",
            pod("", "  - {name: b, image: 'dir:x'}\n  - {name: c, image: 'tarball:y'}\n  - {name: d, image: 'dir:5000/x'}\n"),
            &[
                "1:8 spec.containers[1].image: `dir:x` is not an image reference: Podman would not ask a registry for it, but look for it on the host, because of the word before the first `:`; name the registry in full: REGISTRY.DOMAIN/PATH:TAG",
                "1:9 spec.containers[2].image: `tarball:y` is not an image reference: Podman would not ask a registry for it, but look for it on the host, because of the word before the first `:`; name the registry in full: REGISTRY.DOMAIN/PATH:TAG",
                "1:10 spec.containers[3].image: `dir:5000/x` is not an image reference: Podman would not ask a registry for it, but look for it on the host, because of the word before the first `:`; name the registry in full: REGISTRY.DOMAIN/PATH:TAG",
            ],
        ),
        (
            "options of mounts",
            pod(
                ", volumeMounts: [{name: v, mountPath: '/a:ro:rw'}, {name: v, mountPath: '/b:rw'}, {name: s, mountPath: '/c:ro,copy'}]",
                "  volumes:\n  - {name: v, configMap: {name: c}}\n  - {name: s, secret: {secretName: s}}\n",
            ),
            &[
                "1:7 spec.containers[0].volumeMounts[0].mountPath: has more than one `:`: use PATH, or PATH:OPTION,OPTION for Podman's options of a mount",
                "1:7 spec.containers[0].volumeMounts[1].mountPath: `rw` is not for files of a ConfigMap or Secret: they are read-only and hide what the image has there",
                "1:7 spec.containers[0].volumeMounts[2].mountPath: `copy` is not for files of a ConfigMap or Secret: they are read-only and hide what the image has there",
            ],
        ),
        (
            "two containers of a name, a volume that is not there",
            pod("", "  - {name: app, image: quay.io/a:1, volumeMounts: [{name: v, mountPath: x}]}\n"),
            &[
                "1:8 spec.containers[1].name: another container of this pod is named `app`",
                "1:8 spec.containers[1].volumeMounts[0].mountPath: is not an absolute path",
                "1:8 spec.containers[1].volumeMounts[0].name: no volume of this pod is named `v`",
            ],
        ),
        (
            "volumes that Podman lacks, and files outside of theirs",
            pod("", "  volumes:\n  - {name: a, nfs: {server: s, path: /p}}\n  - name: b\n    configMap: {name: c, items: [{key: k, path: ../k}, {key: k, path: a/b}]}\n"),
            &[
                "1:9 spec.volumes[0].nfs: no host has such a volume: use one of configMap, downwardAPI, emptyDir, hostPath, image, persistentVolumeClaim, projected, secret",
                "1:11 spec.volumes[1].configMap.items[0].path: `../k` is not a file of the volume: use a relative path that has no `..` and does not begin with it",
            ],
        ),
        (
            "an init container with a probe",
            pod("", "  initContainers:\n  - {name: b, image: quay.io/a:1, livenessProbe: {exec: {command: [a]}}}\n"),
            &["1:9 spec.initContainers[0].livenessProbe: an init container runs to its end: only a sidecar, with `restartPolicy: Always`, can have one"],
        ),
        (
            "a play that would not return",
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n  annotations:\n    io.containers.sdnotify: container\n  labels: {beemesh.io/workload: b}\nspec: {containers: [{name: a, image: quay.io/a:1}]}".to_owned(),
            &[
                "1:6 metadata.annotations[io.containers.sdnotify]: Podman would wait for the container instead of starting it: only `ignore` is accepted",
                "1:7 metadata.labels[beemesh.io/workload]: `beemesh.io/workload` is set by Beemesh",
            ],
        ),
        (
            "names that escape",
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: ../../etc/passwd, namespace: a_b}\ndata:\n  ../x: y\n---\napiVersion: v1\nkind: Secret\nmetadata:\n  name: \"a\\n[Service]\"".to_owned(),
            &[
                "1:3 metadata.name: `../../etc/passwd` is not a name: use lower-case letters, digits, `-` and `.`, a letter or digit at both ends",
                "1:3 metadata.namespace: `a_b` is not a namespace: use at most 63 lower-case letters, digits and `-`, a letter or digit at both ends",
                "1:5 data[../x]: `../x` is not a key: use letters, digits, `-`, `_` and `.`, and do not begin with `..`",
                "2:10 metadata.name: `a\\n[Service]` is not a name: use lower-case letters, digits, `-` and `.`, a letter or digit at both ends",
            ],
        ),
        (
            "several documents, and what is wrong with each",
            format!("{}---\n{}---\nkind: List\napiVersion: v1\nitems:\n- {{apiVersion: v1, kind: Pod, metadata: {{name: b}}}}\n---\na: [", pod("", ""), pod("", "  replicas: 2\n")),
            &[
                "2:12 metadata.name: Pod `web` has the name of Pod in document 1, line 4",
                "2:16 spec.replicas: unknown field `replicas`",
                "3:21 items[0].spec: is missing: it says which containers run",
                "4:23 a: not YAML: while parsing a node, did not find expected node content",
            ],
        ),
        (
            "an alias of what holds it",
            "a: &a [*a]".to_owned(),
            &["1:1 a: an alias is inside of what it refers to"],
        ),
        ("a tag", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {a: !foo b}".to_owned(), &["1:4 data.a: the YAML tag `!foo` is not allowed here"]),
    ];
    for (name, yaml, expected) in cases {
        assert_eq!(problems(yaml.as_bytes()), *expected, "{name}:\n{yaml}");
    }
    assert_eq!(problems(b"a: \xff"), ["0:1 : not UTF-8 text"]);
}

#[test]
fn a_workloads_name_is_no_longer_than_units_can_have_it() {
    let pod = |namespace: &str, bytes: usize| {
        // A label has at most 63 bytes.
        let name = format!(
            "{}.{}.b",
            "a".repeat(63),
            "a".repeat(bytes - 66 - namespace.len())
        );
        let namespace = if namespace.is_empty() {
            "default"
        } else {
            namespace.trim_end_matches('_')
        };
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata:\n  namespace: {namespace}\n  name: {name}\nspec: {{containers: [{{name: a, image: quay.io/a:1}}]}}"
        )
    };
    for prefix in ["", "shop_"] {
        let fits = pod(prefix, WORKLOAD_BYTES_MAX);
        assert!(parse(fits.as_bytes(), true).is_ok(), "{fits}");
        let shown = problems(pod(prefix, WORKLOAD_BYTES_MAX + 1).as_bytes()).join("\n");
        assert!(
            shown.starts_with(&format!("1:5 metadata.name: `{prefix}aaa"))
                && shown.ends_with("` has 128 bytes, at most 127 are allowed"),
            "{shown}"
        );
    }
}

#[test]
fn what_will_not_be_done_is_a_warning_and_strictly_a_problem() {
    let yaml = format!(
        "{}---\napiVersion: v1\nkind: Service\nmetadata: {{name: web}}\n---\napiVersion: example.org/v1\nkind: Job\nmetadata: {{name: x}}\n",
        pod(
            ", stdin: true, readinessProbe: {httpGet: {port: 1}}, livenessProbe: {tcpSocket: {port: 80}}",
            "  - {name: short, image: 'nginx:1'}\n  affinity: {podAffinity: {}}\n  dnsPolicy: ClusterFirst\n"
        )
    );
    let ignored = [
        "1:7 spec.containers[0].stdin: Podman ignores it: nothing can be typed into a container",
        "1:9 spec.affinity.podAffinity: has no effect: without `replicas` every host that matches `nodeSelector` runs a pod",
        "2:13 kind: Service `web` (v1) is not supported: it gives no address to the pods; give a container a hostPort",
        "3:17 kind: Job `x` (example.org/v1) is not supported: it is ignored",
    ];
    let advice = [
        "1:8 spec.containers[1].image: each host looks up `nginx:1` in its own registries.conf: name the registry",
    ];
    let mut all = [ignored.as_slice(), advice.as_slice()].concat();
    all.sort_unstable();
    let mut warnings = shown(&parse(yaml.as_bytes(), false).unwrap().warnings);
    warnings.sort_unstable();
    assert_eq!(warnings, all);
    assert_eq!(shown(&parse(yaml.as_bytes(), true).unwrap_err()), ignored);
}

#[test]
fn octal_is_read_where_files_have_modes_and_nowhere_else() {
    let volumes = "{name: v, configMap: {name: c, defaultMode: 0640}}";
    let more = format!("  nodeSelector: {{mode: '0640'}}\n  volumes: [{volumes}]\n");
    let manifest = parse(pod("", &more).as_bytes(), true).unwrap();
    let object = &manifest.objects[0];
    assert_eq!(object.selector["mode"], "0640");
    let body: serde_json::Value = serde_json::from_slice(&object.body).unwrap();
    let mode = body.pointer("/spec/volumes/0/configMap/defaultMode");
    assert_eq!(mode, Some(&0o640.into()));
}

#[test]
fn no_number_of_warnings_hides_a_problem() {
    let names = (0..500).map(|index| format!("{{name: c{index}, image: 'nginx:1'}}"));
    let containers = names.collect::<Vec<_>>().join(", ");
    let yaml = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: web}}\nspec:\n  containers: [{containers}]\n  hostPID: true\n"
    );
    assert_eq!(parse(yaml.as_bytes(), false).unwrap().warnings.len(), 101);
    let refused = parse_under(yaml.as_bytes(), false, Some(&Rules::default()));
    let refused = refused.map(|manifest| manifest.warnings.len()).unwrap_err();
    let fields: Vec<_> = refused.iter().map(|p| (p.line, &p.field[..])).collect();
    assert_eq!(fields, [(6, "spec.hostPID")]);
    let yaml = format!("{yaml}  restartPolicy: Sometimes\n");
    assert_eq!(
        problems(yaml.as_bytes()),
        ["1:7 spec.restartPolicy: `Sometimes` is not one of Always, Never, OnFailure"]
    );
}

#[test]
fn objects_are_kept_in_canonical_form() {
    let yaml = "\
apiVersion: apps/v1
kind: Deployment
metadata: {uid: 1-2-3, name: web, creationTimestamp: null, labels: &l {b: c}}
spec:
  replicas: 2
  selector: {matchLabels: *l}
  template:
    metadata: {labels: {<<: *l, d: e}}
    spec:
      nodeSelector: {disk: fast}
      containers:
      - {name: a, image: 'quay.io/a:1', envFrom: [{secretRef: {name: s, optional: true}}],
         env: [{name: X, valueFrom: {secretKeyRef: {name: s, key: k}}}]}
      volumes: [{name: v, persistentVolumeClaim: {claimName: p}}, {name: w, configMap: {name: c, optional: true}}]
status: {replicas: 9}
";
    let body = concat!(
        r#"{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"labels":{"b":"c"},"name":"web","namespace":"default"},"#,
        r#""spec":{"replicas":2,"selector":{"matchLabels":{"b":"c"}},"template":{"metadata":{"labels":{"b":"c","d":"e"}},"#,
        r#""spec":{"containers":[{"env":[{"name":"X","valueFrom":{"secretKeyRef":{"key":"k","name":"s"}}}],"#,
        r#""envFrom":[{"secretRef":{"name":"s","optional":true}}],"image":"quay.io/a:1","name":"a"}],"#,
        r#""nodeSelector":{"disk":"fast"},"volumes":[{"name":"v","persistentVolumeClaim":{"claimName":"p"}},"#,
        r#"{"configMap":{"name":"c","optional":true},"name":"w"}]}}}}"#,
    );
    let reference = |kind, name: &str, optional| Reference {
        kind,
        name: name.to_owned(),
        optional,
    };
    let manifest = parse(yaml.as_bytes(), true).unwrap();
    let expected = Object {
        kind: Kind::Deployment,
        namespace: "default".to_owned(),
        name: "web".to_owned(),
        body: body.as_bytes().to_vec(),
        hash: manifest.objects[0].hash,
        references: vec![
            reference(Kind::ConfigMap, "c", true),
            reference(Kind::Secret, "s", false),
            reference(Kind::PersistentVolumeClaim, "p", true),
        ],
        replicas: Some(2),
        selector: BTreeMap::from([("disk".to_owned(), "fast".to_owned())]),
    };
    let places = vec![Place {
        document: 1,
        line: 1,
    }];
    assert_eq!(
        manifest,
        Manifest {
            objects: vec![expected],
            places,
            demands: manifest.demands.clone(),
            warnings: vec![]
        }
    );
    // Another notation of the object, and its canonical form, give the same object.
    let again = parse(body.as_bytes(), true).unwrap();
    assert_eq!(again.objects, manifest.objects);
}

#[test]
fn hostile_input_costs_neither_time_nor_memory() {
    let laughs = |width: usize| {
        let mut yaml = "a0: &a0 lol\n".to_owned();
        for level in 1..9 {
            let items = vec![format!("*a{}", level - 1); width].join(",");
            yaml.push_str(&format!("a{level}: &a{level} [{items}]\n"));
        }
        yaml
    };
    let big = format!(
        "a: &a {}\nb: [{}]",
        "x".repeat(500_000),
        "*a,".repeat(100_000)
    );
    let cases = [
        (
            "laughs",
            laughs(9),
            "more than 100000 values, aliases expanded",
        ),
        (
            "one large value again and again",
            big,
            "more than 4 MiB of text, aliases expanded",
        ),
        (
            "deep flow",
            "[".repeat(400_000),
            "not YAML: recursion limit exceeded",
        ),
        (
            "deep mapping",
            "{a: ".repeat(200_000),
            "not YAML: recursion limit exceeded",
        ),
        (
            "deep block",
            "- ".repeat(400_000),
            "nested more than 64 deep",
        ),
        ("deep enough", "[".repeat(65), "nested more than 64 deep"),
        (
            "many values",
            format!("[{}]", "a,".repeat(500_000)),
            "more than 100000 values, aliases expanded",
        ),
        (
            "many documents",
            "--- a\n".repeat(DOCUMENTS_MAX + 1),
            "more than 64 documents: split the file",
        ),
        (
            "long key",
            format!("? {}\n: a", "k".repeat(900_000)),
            "a key is longer than 512 bytes",
        ),
        (
            "long file",
            "a".repeat(BYTES_MAX + 1),
            "the file has 1048577 bytes, at most 1048576 are accepted",
        ),
    ];
    for (name, yaml, expected) in cases {
        let start = Instant::now();
        let problems = parse(yaml.as_bytes(), false).expect_err(name);
        let took = start.elapsed();
        assert!(
            problems.iter().any(|problem| problem.message == expected),
            "{name}: {:?}",
            shown(&problems)
        );
        assert!(took < TOOK_MAX, "{name}: {took:?}");
    }
    // The largest valid manifests, and those with the most problems.
    for yaml in [
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: a}}\nspec: {{containers: [{}]}}",
            "{x: y},".repeat(30_000)
        ),
        "'".repeat(BYTES_MAX),
        "#".repeat(BYTES_MAX),
        "? ".repeat(BYTES_MAX / 2),
        "&a ".repeat(BYTES_MAX / 3),
        "!a ".repeat(BYTES_MAX / 3),
        "\n".repeat(BYTES_MAX),
        "a: |\n".to_owned() + &"  x\n".repeat(200_000),
    ] {
        let start = Instant::now();
        let problems = parse(yaml.as_bytes(), false).unwrap_err();
        let took = start.elapsed();
        assert!(problems.len() <= 101, "{}", problems.len());
        assert!(took < TOOK_MAX, "{}: {took:?}", &yaml[..40]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// A manifest in which a part is replaced is admitted, or refused with problems whose lines and lengths are valid.
    #[test]
    fn a_damaged_manifest_is_read_or_refused(at in 0..3000usize, cut in 0..40usize, piece in "[a-z0-9:{}\\[\\],&*!|>'\" \n\t-]{0,12}") {
        let mut yaml = concat!(include_str!("golden/everything.in.yaml"), "---\n", include_str!("golden/job.in.yaml")).as_bytes().to_vec();
        let at = at.min(yaml.len());
        let end = (at + cut).min(yaml.len());
        yaml.splice(at..end, piece.into_bytes());
        let lines = u32::try_from(yaml.iter().filter(|b| **b == b'\n').count()).unwrap() + 1;
        match parse(&yaml, false) {
            Ok(manifest) => prop_assert_eq!(manifest.objects.len(), manifest.places.len()),
            Err(problems) => {
                prop_assert!(!problems.is_empty());
                prop_assert!(problems.iter().all(|p| p.line <= lines && p.message.len() < 1000), "{:?}", problems);
            }
        }
    }
}
