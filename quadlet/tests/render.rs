//! Compares rendered files with those under `tests/golden`. `BLESS=1` writes the golden files again.

use std::{collections::BTreeSet, fs, path::Path};

use beemesh_protocol::{
    ClusterId,
    state::{Kind, Object},
    workload::{pod_name, workload_name, yaml_file},
};
use beemesh_quadlet::{
    belongings::{belongs_to, private_prefix},
    manifest::{self, is_workload},
    render::{
        Image, Pull, Quadlet, RenderError, Rendered, Revision, container_names, images,
        init_containers, member_names, read_quadlet, render, volumes,
    },
};
use proptest::prelude::*;

const CLUSTER: ClusterId = ClusterId([0xbe; 16]);

fn parse(yaml: &str) -> Vec<Object> {
    manifest::parse(yaml.as_bytes(), false)
        .expect("a manifest")
        .objects
}

fn first_workload(objects: &[Object]) -> &Object {
    objects
        .iter()
        .find(|object| is_workload(object.kind))
        .expect("a workload")
}

fn rendered(objects: &[Object], revision: u64, index: u64) -> Result<Rendered, RenderError> {
    let uses: Vec<&Object> = objects
        .iter()
        .filter(|object| !is_workload(object.kind))
        .collect();
    render(&Revision {
        cluster: CLUSTER,
        revision,
        index,
        object: first_workload(objects),
        number: 0,
        uses: &uses,
    })
}

fn golden(name: &str, actual: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    if std::env::var_os("BLESS").is_some() {
        fs::write(&path, actual).expect("write the golden file");
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        actual,
        expected,
        "{} differs: BLESS=1 writes it anew",
        path.display()
    );
}

#[test]
fn rendered_files_are_the_golden_ones() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    for (name, input) in [
        ("web", tests.join("../../../examples/web.yaml")),
        ("everything", tests.join("everything.in.yaml")),
        ("job", tests.join("job.in.yaml")),
    ] {
        let objects = parse(&fs::read_to_string(input).unwrap());
        let rendered = rendered(&objects, 1, 9).unwrap();
        golden(&format!("{name}.kube"), &rendered.kube);
        golden(
            &format!("{name}.yaml"),
            str::from_utf8(&rendered.yaml).unwrap(),
        );
        assert_eq!(images(&rendered.yaml), rendered.images, "{name}");
    }
}

#[test]
fn a_quadlet_says_what_it_runs() {
    let objects = parse(include_str!("golden/everything.in.yaml"));
    let rendered = rendered(&objects, 3, 17).unwrap();
    let expected = Quadlet {
        workload: "shop_everything".to_owned(),
        revision: 3,
        index: 17,
        cluster: CLUSTER,
        yaml: "beemesh-pod-shop_everything.17.yaml".to_owned(),
        format: 3,
    };
    assert_eq!(read_quadlet(&rendered.kube), Some(expected.clone()));
    let before = Quadlet {
        format: 1,
        ..expected
    };
    let kube = rendered.kube.replace("Format=3\n", "");
    assert_eq!(read_quadlet(&kube), Some(before), "as 0.2.0 wrote it");
    for (from, to) in [
        ("Workload=shop_everything", "Workload=../everything"),
        ("Yaml=beemesh", "Yaml=/etc/beemesh"),
        ("Index=17", "Index=18"),
        ("Format=3", "Format=two"),
        ("[X-Beemesh]", "[X-Other]"),
    ] {
        assert_eq!(read_quadlet(&rendered.kube.replace(from, to)), None, "{to}");
    }
    let image = |reference: &str, pull| Image {
        reference: reference.to_owned(),
        pull,
    };
    assert_eq!(
        images(&rendered.yaml),
        [
            image("docker.io/library/busybox", Pull::Always),
            image("quay.io/shop/assets:3", Pull::Never),
            image("quay.io/shop/web:1.2", Pull::IfNotPresent),
        ]
    );
    assert_eq!(init_containers(&rendered.yaml), ["prepare"]);
    assert_eq!(
        container_names(&rendered.yaml),
        ["shop_everything-prepare", "shop_everything-app"]
    );
    assert_eq!(member_names(&rendered.yaml), ["shop_everything-app"]);
    let names = volumes(&rendered.yaml);
    let private = names
        .iter()
        .filter(|name| belongs_to(name, "shop_everything"));
    assert_eq!(private.count(), names.len() - 1, "{names:?}");
    assert!(names.contains("beemesh__pvc__shop__data"), "{names:?}");
}

#[test]
fn a_changed_config_map_changes_the_name_of_its_volume_and_no_other() {
    let before = include_str!("golden/everything.in.yaml");
    let after = before.replace("greeting: hello", "greeting: good day");
    let names = |yaml: &str| volumes(&rendered(&parse(yaml), 1, 9).unwrap().yaml);
    let (before, after) = (names(before), names(&after));
    let gone: Vec<&String> = before.difference(&after).collect();
    let is_config =
        |name: &&String| name.starts_with("beemesh__OWN__shop_everything__c__settings__");
    assert_eq!(
        gone.iter().copied().filter(is_config).count(),
        gone.len(),
        "{gone:?}"
    );
    assert_eq!(
        gone.len(),
        2,
        "as it is, and as a volume with items: {gone:?}"
    );
}

#[test]
fn what_is_missing_is_named_unless_it_is_optional() {
    let whole = parse(include_str!("golden/everything.in.yaml"));
    let without = |kind: Kind, name: &str| {
        let mut objects = whole.clone();
        objects.retain(|object| (object.kind, object.name.as_str()) != (kind, name));
        rendered(&objects, 1, 9).map(|_| ())
    };
    let missing = |kind, name: &str| {
        Err(RenderError::Missing {
            kind,
            name: name.to_owned(),
        })
    };
    assert_eq!(
        without(Kind::ConfigMap, "settings"),
        missing("ConfigMap", "settings")
    );
    assert_eq!(without(Kind::Secret, "keys"), missing("Secret", "keys"));
    assert_eq!(without(Kind::PersistentVolumeClaim, "data"), Ok(()));
}

/// Podman does not start a container without a variable's key, and silently omits a file without its key.
#[test]
fn a_key_that_is_missing_is_named_unless_it_is_optional() {
    let map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {a: x}\nbinaryData: {b: AAAA}\n---\n";
    let pod = |variable: &str, item: &str| {
        let pod = format!(
            "{map}apiVersion: v1\nkind: Pod\nmetadata: {{name: p}}\nspec: {{containers: [{{name: a, image: 'quay.io/a:1', env: [{{name: V, \
             valueFrom: {{configMapKeyRef: {{name: c, {variable}}}}}}}]}}], volumes: [{{name: v, configMap: {{name: c, {item}}}}}]}}\n"
        );
        rendered(&parse(&pod), 1, 9).map(|_| ())
    };
    let missing = |key: &str| {
        Err(RenderError::MissingKey {
            kind: "ConfigMap",
            name: "c".into(),
            key: key.into(),
        })
    };
    for (variable, item, expected) in [
        ("key: a", "items: [{key: b, path: f}]", Ok(())),
        (
            "key: no, optional: true",
            "items: [{key: no, path: f}], optional: true",
            Ok(()),
        ),
        ("key: no", "items: []", missing("no")),
        ("key: b", "items: []", missing("b")),
        ("key: a", "items: [{key: no, path: f}]", missing("no")),
    ] {
        assert_eq!(pod(variable, item), expected, "{variable} {item}");
    }
}

/// Podman reads the digits of `1.5Gi` or `100m` of memory and ignores the point.
#[test]
fn quantities_are_written_as_podman_reads_them_right() {
    let yaml = "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {volumes: [{name: v, emptyDir: {medium: Memory, sizeLimit: 1.5Mi}}],
        containers: [{name: a, image: 'quay.io/a:1', resources: {limits: {cpu: 0.5, memory: 1.5Gi}, requests: {cpu: 1e-1, memory: 1e9}}},
        {name: b, image: 'quay.io/a:1', resources: {limits: {cpu: 1m}}, env: [{name: A, valueFrom: {resourceFieldRef: {resource: limits.cpu, divisor: 1e-3}}}]}]}}";
    let rendered = rendered(&parse(yaml), 1, 1).unwrap();
    let pod: serde_yaml::Value = serde_yaml::from_slice(&rendered.yaml).unwrap();
    let container = &pod["spec"]["containers"][0]["resources"];
    for (list, name, text) in [
        ("limits", "cpu", "500m"),
        ("limits", "memory", "1610612736"),
        ("requests", "cpu", "100m"),
        ("requests", "memory", "1000000000"),
    ] {
        assert_eq!(container[list][name], text, "{list} {name}");
    }
    let other = &pod["spec"]["containers"][1];
    assert_eq!(
        other["resources"]["limits"]["cpu"], "10m",
        "the kernel takes no less"
    );
    assert_eq!(other["env"][0]["value"], "1", "as the manifest says");
    assert_eq!(
        pod["spec"]["volumes"][0]["emptyDir"]["sizeLimit"],
        "1572864"
    );
}

#[test]
fn ports_of_the_host_are_read_back() {
    let ports = |spec: &str| {
        let yaml =
            format!("{{apiVersion: v1, kind: Pod, metadata: {{name: a}}, spec: {{{spec}}}}}");
        let ports = beemesh_quadlet::render::ports(&rendered(&parse(&yaml), 1, 1).unwrap().yaml);
        ports.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let own = "containers: [{name: a, image: 'quay.io/a:1', ports: [{containerPort: 80, hostPort: 8080}, {containerPort: 81}, \
               {containerPort: 53, hostPort: 53, protocol: UDP, hostIP: 10.0.0.1}]}]";
    assert_eq!(ports(own), ["8080/tcp", "10.0.0.1:53/udp"]);
    let own = "hostNetwork: true, containers: [{name: a, image: 'quay.io/a:1', ports: [{containerPort: 80}]}]";
    assert_eq!(ports(own), ["80/tcp"]);
    assert_eq!(
        ports("containers: [{name: a, image: 'quay.io/a:1'}]"),
        Vec::<String>::new()
    );
}

#[test]
fn text_that_yaml_would_change_is_escaped() {
    let yaml = r#"{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {containers: [{name: a, image: "quay.io/a:1",
        args: ["a\u0085b\u2028c\u007fd\ufeffe\u0001\n---\n%n ${x} é 🐝"]}]}}"#;
    let hostile = "a\u{85}b\u{2028}c\u{7f}d\u{feff}e\u{1}\n---\n%n ${x} é 🐝";
    let rendered = rendered(&parse(yaml), 1, 1).unwrap();
    let text = String::from_utf8(rendered.yaml.clone()).unwrap();
    assert!(
        !text.contains(['\u{85}', '\u{2028}', '\u{7f}', '\u{feff}', '\u{1}']),
        "{text}"
    );
    let back: serde_yaml::Value = serde_yaml::from_str(&text).unwrap();
    assert_eq!(back["spec"]["containers"][0]["args"][0], hostile);
    assert_eq!(images(&rendered.yaml).len(), 1);
}

/// Valid and invalid names.
fn any_name() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z0-9.-]{1,20}",
        "[a-z]{1,3}[%\\n\\r\\\\_@/= \\[\\];a-z]{1,8}",
        "\\PC{0,12}"
    ]
}

fn pod(namespace: &str, name: &str) -> Object {
    let mut objects = parse(include_str!("golden/everything.in.yaml"));
    objects.retain(|object| is_workload(object.kind));
    let mut object = objects.remove(0);
    (object.namespace, object.name) = (namespace.to_owned(), name.to_owned());
    object
}

/// A pod beside others has names of its own for all that the host has once.
#[test]
fn a_pod_beside_others_shares_no_name_with_them() {
    let uses = parse(include_str!("golden/everything.in.yaml"));
    let uses: Vec<Object> = uses
        .into_iter()
        .filter(|used| !is_workload(used.kind))
        .collect();
    let object = pod("shop", "everything");
    let rendered = |number| {
        let revision = Revision {
            cluster: CLUSTER,
            revision: 1,
            index: 9,
            object: &object,
            number,
            uses: &uses.iter().collect::<Vec<_>>(),
        };
        String::from_utf8(render(&revision).unwrap().yaml).unwrap()
    };
    let (first, second) = (rendered(0), rendered(2));
    let names = |text: &str| -> BTreeSet<String> {
        let words = text.split('"').map(str::to_owned);
        words.filter(|word| word.starts_with("beemesh__")).collect()
    };
    let shared: Vec<_> = names(&first)
        .intersection(&names(&second))
        .cloned()
        .collect();
    assert!(
        shared.iter().all(|name| name.starts_with("beemesh__pvc__")),
        "{shared:?}"
    );
    for (text, pod, host) in [
        (&first, "shop_everything", "everything"),
        (&second, "shop_everything__2", "everything-2"),
    ] {
        assert!(text.contains(&format!("\"name\": \"{pod}\"")), "{pod}");
        assert!(
            text.contains(&format!("beemesh-pod-{pod}.service")),
            "{pod}"
        );
        assert!(text.contains(&format!("\"hostname\": \"{host}\"")), "{pod}");
    }
    for (name, owner) in [
        ("beemesh__OWN__web__e__cache", "web"),
        ("beemesh__OWN__web__e__2", "web"),
        ("beemesh__OWN__web__2__e__cache", "web__2"),
        ("beemesh__OWN__web__20__c__conf__0123", "web__20"),
    ] {
        let owners = ["web", "web__2", "web__20"];
        let owners = owners.into_iter().filter(|pod| belongs_to(name, pod));
        assert_eq!(owners.collect::<Vec<_>>(), [owner], "{name}");
    }
}

#[test]
fn containers_are_named_after_their_pod() {
    let yaml = br#"{"metadata":{"name":"pvc"},"spec":{"containers":[{"name":"e"}]}}"#;
    assert_eq!(container_names(yaml), ["pvc-e"]);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// For every name of a replicated object, the Quadlet is refused or contains the fixed lines only.
    #[test]
    fn no_name_gets_a_line_or_a_specifier_into_a_unit(namespace in any_name(), name in any_name(), number in 0..3_u32) {
        let uses = parse(include_str!("golden/everything.in.yaml"));
        let uses: Vec<Object> = uses.into_iter().filter(|used| !is_workload(used.kind))
            .map(|used| Object { namespace: namespace.clone(), ..used }).collect();
        let object = pod(&namespace, &name);
        let revision = Revision { cluster: CLUSTER, revision: 1, index: 9, object: &object, number, uses: &uses.iter().collect::<Vec<_>>() };
        let Ok(rendered) = render(&revision) else { return Ok(()) };
        let workload = pod_name(&workload_name(&namespace, &name), number);
        let plain = include_str!("golden/everything.kube").replace("shop_everything", &workload);
        prop_assert_eq!(&rendered.kube, &plain);
        prop_assert!(workload.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)));
        prop_assert_eq!(yaml_file(&workload, 9).contains('/'), false);
        // The same revision gives the same bytes, and every private name in them belongs to this workload.
        prop_assert_eq!(&render(&revision).unwrap(), &rendered);
        let text = String::from_utf8(rendered.yaml).unwrap();
        let words: BTreeSet<&str> = text.split('"').filter(|word| word.starts_with("beemesh__")).collect();
        let claim = format!("beemesh__pvc__{namespace}__");
        for word in words {
            prop_assert!(word.starts_with(&private_prefix(&workload)) || word.starts_with(&claim), "{}", word);
        }
    }
}
