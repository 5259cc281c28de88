//! What volumes and mounts of a manifest become in the YAML that Podman plays.

#![allow(clippy::unwrap_used, reason = "whatever is missing fails the test")]

use std::collections::BTreeSet;

use beemesh_protocol::{ClusterId, state::Object};
use beemesh_quadlet::{
    belongings::belongs_to,
    manifest::{self, is_workload},
    render::{
        LateFolder, PreparedVolume, RenderError, Revision, TERMINATION_MESSAGE, render, staged,
        termination_messages, volumes,
    },
};
use serde_json::{Value, json};

const DATA: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {a: one, b: two}\nbinaryData: {x: 3q2+7wD/}\n---\n\
                    apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata: {t: b2xk, u: dXU=}\nstringData: {t: top}\n---\n\
                    apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: d}\nspec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1}}}\n---\n";

fn try_render(spec: &str) -> Result<Vec<u8>, RenderError> {
    let yaml = format!(
        "{DATA}apiVersion: v1\nkind: Pod\nmetadata: {{name: web, labels: {{app: w, tier: \"1\"}}, annotations: {{note: \"a\\\"b\\n\"}}}}\nspec: {{{spec}}}\n"
    );
    let objects = manifest::parse(yaml.as_bytes(), false).expect("a manifest");
    let objects = objects.objects;
    let uses: Vec<&Object> = objects
        .iter()
        .filter(|one| !is_workload(one.kind))
        .collect();
    let object = objects.iter().find(|one| is_workload(one.kind));
    let revision = Revision {
        cluster: ClusterId([7; 16]),
        revision: 1,
        index: 9,
        object: object.expect("a workload"),
        number: 0,
        uses: &uses,
    };
    render(&revision).map(|rendered| rendered.yaml)
}

fn rendered(spec: &str) -> Vec<u8> {
    try_render(spec).expect("rendered")
}

/// A pod with one container that has these mounts.
fn pod(mounts: &str, volumes: &str) -> Vec<u8> {
    rendered(&format!(
        "containers: [{{name: a, image: 'quay.io/a:1', volumeMounts: [{mounts}]}}], volumes: [{volumes}]"
    ))
}

fn documents(yaml: &[u8]) -> Vec<Value> {
    let text = str::from_utf8(yaml).unwrap();
    let documents = text.split("\n---\n");
    documents
        .map(|text| serde_json::from_str(text).unwrap())
        .collect()
}

fn spec(yaml: &[u8]) -> Value {
    documents(yaml).pop().unwrap()["spec"].clone()
}

fn mounts(yaml: &[u8], container: usize) -> Value {
    spec(yaml)["containers"][container]["volumeMounts"].clone()
}

fn named(yaml: &[u8], name: &Value) -> Value {
    let found = documents(yaml)
        .into_iter()
        .find(|one| &one["metadata"]["name"] == name);
    found.unwrap_or_else(|| panic!("no document {name}"))
}

fn prepared(yaml: &[u8]) -> Vec<PreparedVolume> {
    staged(yaml).map_or_else(Vec::new, |staged| staged.volumes)
}

/// The content, the mode and the subPath that each mount of a container shows, by path.
fn shown(yaml: &[u8], container: usize) -> Vec<String> {
    let spec = spec(yaml);
    let mounts = spec["containers"][container]["volumeMounts"].clone();
    let show = |mount: &Value| {
        assert_eq!(mount["readOnly"], true, "{mount}");
        let volumes = spec["volumes"].as_array().unwrap();
        let volume = volumes.iter().find(|one| one["name"] == mount["name"]);
        let volume = volume.expect("a volume");
        let (name, mode, text) = match &volume["secret"] {
            Value::Null => (
                &volume["configMap"]["name"],
                &volume["configMap"]["defaultMode"],
                "data",
            ),
            secret => (&secret["secretName"], &secret["defaultMode"], "data"),
        };
        let document = named(yaml, name);
        let keys = ["data", "binaryData"];
        let all = keys.iter().flat_map(|key| document[key].as_object());
        let all: Value = all
            .flatten()
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        let content = match mount["subPath"].as_str() {
            Some(path) => all[path].clone(),
            None => all,
        };
        assert!(
            document[text].is_object()
                || document["binaryData"].is_object()
                || content == json!({})
        );
        format!(
            "{} {:o} {content}",
            mount["mountPath"].as_str().unwrap(),
            mode.as_u64().unwrap()
        )
    };
    mounts.as_array().unwrap().iter().map(show).collect()
}

#[test]
fn a_volume_in_memory_is_one_tmpfs_of_the_pod_with_its_size() {
    let yaml = rendered(
        "containers: [{name: a, image: 'quay.io/a:1', volumeMounts: [{name: m, mountPath: /m}]}, \
         {name: b, image: 'quay.io/a:1', volumeMounts: [{name: m, mountPath: /k, readOnly: true, subPath: x/y}]}], \
         volumes: [{name: m, emptyDir: {medium: Memory, sizeLimit: 16Mi}}]",
    );
    let name = "beemesh__OWN__web__m__m__16777216";
    let claim = named(&yaml, &json!(name));
    assert_eq!(claim["kind"], "PersistentVolumeClaim");
    assert_eq!(
        claim["metadata"]["annotations"],
        json!({
            "volume.podman.io/device": "tmpfs",
            "volume.podman.io/mount-options": "size=16777216,mode=0777",
            "volume.podman.io/type": "tmpfs",
        })
    );
    assert_eq!(
        spec(&yaml)["volumes"],
        json!([{"name": "m", "persistentVolumeClaim": {"claimName": name}}])
    );
    assert_eq!(
        mounts(&yaml, 0),
        json!([{"name": "m", "mountPath": "/m:nocopy"}])
    );
    assert_eq!(
        mounts(&yaml, 1),
        json!([{"name": "m", "mountPath": "/k:nocopy", "readOnly": true, "subPath": "x/y"}])
    );
    let expected = PreparedVolume {
        name: name.to_owned(),
        mode: Some(0o777),
        folders: vec!["x/y".to_owned()],
        tmpfs: Some("size=16777216,mode=0777".to_owned()),
        ..PreparedVolume::default()
    };
    assert_eq!(prepared(&yaml), [expected]);
    // The volume is removed with the workload, and is in use as long as this revision is.
    assert!(belongs_to(name, "web"));
    assert!(volumes(&yaml).contains(name));
}

#[test]
fn a_volume_in_memory_is_no_larger_than_what_the_pod_may_use() {
    for (limits, size, expected) in [
        ("", "", "max"),
        ("", ", sizeLimit: 0", "max"),
        ("memory: 1Mi", "", "2097152"),
        ("memory: 1Mi", ", sizeLimit: 1Ki", "1024"),
        ("memory: 1Mi", ", sizeLimit: 1Gi", "2097152"),
    ] {
        let yaml = rendered(&format!(
            "containers: [{{name: a, image: 'quay.io/a:1', resources: {{limits: {{{limits}}}}}, volumeMounts: [{{name: m, mountPath: /m}}]}}, \
             {{name: b, image: 'quay.io/a:1', resources: {{limits: {{{limits}}}}}}}], volumes: [{{name: m, emptyDir: {{medium: Memory{size}}}}}]"
        ));
        let name = format!("beemesh__OWN__web__m__m__{expected}");
        assert_eq!(prepared(&yaml)[0].name, name, "{limits} {size}");
    }
}

#[test]
fn an_empty_dir_is_writable_for_all_and_has_the_folders_that_are_mounted() {
    let yaml = rendered(
        "initContainers: [{name: i, image: 'quay.io/a:1', volumeMounts: [{name: later, mountPath: /l}]}], \
         containers: [{name: a, image: 'quay.io/a:1', env: [{name: N, value: x}], volumeMounts: [{name: v, mountPath: /a, subPath: sub//dir/.}, \
         {name: v, mountPath: /e, subPathExpr: $(N)/y}, {name: later, mountPath: /l, subPath: made}]}, \
         {name: b, image: 'quay.io/a:1', volumeMounts: [{name: v, mountPath: '/b:copy', readOnly: true}]}], \
         volumes: [{name: v, emptyDir: {}}, {name: later}, {name: unused, emptyDir: {medium: Memory}}]",
    );
    let own = |volume: &str| format!("beemesh__OWN__web__e__{volume}");
    let found = prepared(&yaml);
    assert_eq!(
        found,
        [
            PreparedVolume {
                name: own("later"),
                mode: Some(0o777),
                late: vec![LateFolder {
                    container: "a".to_owned(),
                    folder: "made".to_owned()
                }],
                ..PreparedVolume::default()
            },
            PreparedVolume {
                name: own("v"),
                mode: Some(0o777),
                folders: vec!["sub/dir".to_owned(), "x/y".to_owned()],
                ..PreparedVolume::default()
            },
        ]
    );
    assert_eq!(mounts(&yaml, 0)[0]["mountPath"], "/a:nocopy");
    assert_eq!(mounts(&yaml, 0)[1]["subPath"], "x/y");
    assert_eq!(mounts(&yaml, 1)[0]["mountPath"], "/b:nocopy");
    assert_eq!(mounts(&yaml, 1)[0]["readOnly"], true);
    assert_eq!(spec(&yaml)["volumes"][2]["name"], own("unused"));
}

#[test]
fn the_group_of_a_pod_gets_its_volumes() {
    let yaml = rendered(
        "securityContext: {fsGroup: 2000, supplementalGroups: [7]}, containers: [{name: a, image: 'quay.io/a:1', volumeMounts: [{name: v, mountPath: /v}, \
         {name: m, mountPath: /m}, {name: d, mountPath: /d}, {name: c, mountPath: /c}, {name: k, mountPath: /k}]}], \
         volumes: [{name: v, emptyDir: {}}, {name: m, emptyDir: {medium: Memory}}, {name: d, persistentVolumeClaim: {claimName: d}}, \
         {name: c, configMap: {name: c}}, {name: k, secret: {secretName: s, defaultMode: 0400}}]",
    );
    let spec = spec(&yaml);
    assert_eq!(
        spec["securityContext"]["supplementalGroups"],
        json!([7, 2000])
    );
    let found = prepared(&yaml);
    let of = |name: &str| {
        let one = found.iter().find(|one| one.name == name).expect(name);
        (one.mode, one.gid, one.fresh)
    };
    assert_eq!(
        of("beemesh__OWN__web__e__v"),
        (Some(0o2777), Some(2000), false)
    );
    assert_eq!(
        of("beemesh__OWN__web__m__m__max-2000"),
        (Some(0o2777), Some(2000), false)
    );
    assert_eq!(
        of("beemesh__pvc__default__d"),
        (Some(0o2775), Some(2000), true)
    );
    let claim = named(&yaml, &json!("beemesh__OWN__web__m__m__max-2000"));
    assert_eq!(
        claim["metadata"]["annotations"]["volume.podman.io/mount-options"],
        "mode=2777,uid=0,gid=2000"
    );
    // The file belongs to root, so the rights of the group are those of others, too.
    assert_eq!(spec["volumes"][3]["configMap"]["defaultMode"], Value::Null);
    assert_eq!(spec["volumes"][4]["secret"]["defaultMode"], 0o444);
}

#[test]
fn a_claim_is_read_only_where_the_volume_is_and_gets_its_folders_when_it_is_new() {
    let yaml = pod(
        "{name: r, mountPath: /r}, {name: w, mountPath: /w}, {name: w, mountPath: /s, subPath: a/b}",
        "{name: r, persistentVolumeClaim: {claimName: d, readOnly: true}}, {name: w, persistentVolumeClaim: {claimName: e}}",
    );
    assert_eq!(
        mounts(&yaml, 0),
        json!([
            {"name": "r", "mountPath": "/r:nocopy", "readOnly": true},
            {"name": "w", "mountPath": "/w:nocopy"},
            {"name": "w", "mountPath": "/s:nocopy", "subPath": "a/b"},
        ])
    );
    let expected = PreparedVolume {
        name: "beemesh__pvc__default__e".to_owned(),
        mode: Some(0o777),
        fresh: true,
        folders: vec!["a/b".to_owned()],
        ..PreparedVolume::default()
    };
    assert_eq!(prepared(&yaml), [expected]);
}

#[test]
fn nothing_is_writable_in_a_read_only_root() {
    let yaml = rendered(
        "containers: [{name: a, image: 'quay.io/a:1', securityContext: {readOnlyRootFilesystem: true}, volumeMounts: [{name: v, mountPath: /tmp/}, {name: v, mountPath: /run/x}]}, \
         {name: b, image: 'quay.io/a:1', securityContext: {readOnlyRootFilesystem: true}, volumeMounts: [{name: v, mountPath: /var}]}, {name: c, image: 'quay.io/a:1'}], \
         volumes: [{name: v, emptyDir: {}}]",
    );
    let places = |container: usize| {
        let mounts = mounts(&yaml, container);
        let mounts = mounts.as_array().cloned().unwrap_or_default().into_iter();
        let empty = mounts.filter(|mount| mount["name"].as_str().unwrap().starts_with("empty."));
        empty
            .map(|mount| {
                assert_eq!(mount["readOnly"], true);
                mount["mountPath"].as_str().unwrap().to_owned()
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(places(0), ["/run", "/var/tmp"]);
    assert_eq!(places(1), ["/run", "/tmp"]);
    assert_eq!(places(2), [""; 0]);
    let volumes = spec(&yaml)["volumes"].clone();
    assert_eq!(
        volumes[1],
        json!({"name": "empty.run", "hostPath": {"path": "/var/lib/beemesh/empty/run", "type": "DirectoryOrCreate"}})
    );
    assert_eq!(volumes.as_array().unwrap().len(), 4);
}

#[test]
fn files_with_folders_and_modes_are_mounted_one_by_one() {
    let yaml = pod(
        "{name: v, mountPath: /etc/v}, {name: v, mountPath: /deep, subPath: p}, {name: v, mountPath: /bin/b, subPath: p/q/b}",
        "{name: v, configMap: {name: c, defaultMode: 0640, items: [{key: a, path: a}, {key: b, path: p/q/b}, {key: x, path: p/x, mode: 0400}]}}",
    );
    assert_eq!(
        shown(&yaml, 0),
        [
            r#"/etc/v:nocopy 640 {"a":"one"}"#,
            r#"/etc/v/p/x:nocopy 400 "3q2+7wD/""#,
            r#"/etc/v/p/q/b:nocopy 640 "two""#,
            r#"/deep:nocopy 640 {}"#,
            r#"/deep/x:nocopy 400 "3q2+7wD/""#,
            r#"/deep/q/b:nocopy 640 "two""#,
            r#"/bin/b:nocopy 640 "two""#,
        ]
    );
    for name in volumes(&yaml) {
        assert!(belongs_to(&name, "web"), "{name}");
    }
    assert_eq!(staged(&yaml), None, "Podman alone plays it");
}

#[test]
fn a_projected_volume_has_the_files_of_all_its_sources() {
    let yaml = pod(
        "{name: p, mountPath: /p}",
        "{name: p, projected: {defaultMode: 0444, sources: [{configMap: {name: c}}, {secret: {name: s, items: [{key: t, path: a}]}}, \
         {configMap: {name: gone, optional: true}}, {secret: {name: s, optional: true, items: [{key: no, path: no}]}}, \
         {downwardAPI: {items: [{path: name, fieldRef: {fieldPath: metadata.name}}]}}]}}",
    );
    // The later source wins, and all of it is secret.
    assert_eq!(
        shown(&yaml, 0),
        [r#"/p:nocopy 444 {"a":"dG9w","b":"dHdv","name":"d2Vi","x":"3q2+7wD/"}"#]
    );
    assert!(
        !documents(&yaml)
            .iter()
            .any(|one| one["kind"] == "ConfigMap")
    );
    let both = "containers: [{name: a, image: 'quay.io/a:1', volumeMounts: [{name: p, mountPath: /p}]}], \
                volumes: [{name: p, projected: {sources: [{configMap: {name: c}}, {secret: {name: s, items: [{key: t, path: a/b}]}}]}}]";
    let refused = try_render(both).expect_err("a file and a folder of one name");
    assert!(refused.to_string().contains("`a` and `a/b`"), "{refused}");
}

/// Each mount repeats the files of its volume.
#[test]
fn mounts_do_not_multiply_files_without_bound() {
    let items: String = (0..300)
        .map(|n| format!("{{key: a, path: p/{n}}},"))
        .collect();
    let mounts: String = (0..300)
        .map(|n| format!("{{name: v, mountPath: /m/{n}}},"))
        .collect();
    let refused = try_render(&format!(
        "containers: [{{name: a, image: 'quay.io/a:1', volumeMounts: [{mounts}]}}], volumes: [{{name: v, configMap: {{name: c, items: [{items}]}}}}]"
    ));
    let refused = refused.expect_err("90,000 mounts").to_string();
    assert!(refused.contains("more than 16 MiB"), "{refused}");
}

#[test]
fn a_pod_sees_itself_in_files() {
    let yaml = rendered(
        "containers: [{name: a, image: 'quay.io/a:1', resources: {limits: {cpu: 1500m, memory: 64Mi}}, volumeMounts: [{name: i, mountPath: /i}]}], \
         volumes: [{name: i, downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}, {path: notes, fieldRef: {fieldPath: metadata.annotations}}, \
         {path: ns, fieldRef: {fieldPath: metadata.namespace}}, {path: app, fieldRef: {fieldPath: \"metadata.labels['app']\"}}, \
         {path: cpu, resourceFieldRef: {containerName: a, resource: limits.cpu}}, {path: mem, resourceFieldRef: {containerName: a, resource: requests.memory, divisor: 1Mi}}]}}]",
    );
    let mounts = mounts(&yaml, 0);
    let map = named(&yaml, &mounts[0]["name"]);
    assert_eq!(
        map["data"],
        json!({
            "labels": "app=\"w\"\ntier=\"1\"",
            "notes": "note=\"a\\\"b\\n\"",
            "ns": "default",
            "app": "w",
            "cpu": "2",
            "mem": "64",
        })
    );
}

#[test]
fn a_missing_object_or_key_of_a_projection_is_named() {
    let of = |source: &str| {
        try_render(&format!(
            "containers: [{{name: a, image: 'quay.io/a:1'}}], volumes: [{{name: p, projected: {{sources: [{source}]}}}}]"
        ))
        .map(|_| ())
        .map_err(|error| error.to_string())
    };
    assert_eq!(
        of("{secret: {name: gone}}"),
        Err("Secret `gone` does not exist".to_owned())
    );
    assert_eq!(
        of("{configMap: {name: c, items: [{key: no, path: p}]}}"),
        Err("ConfigMap `c` has no key `no`".to_owned())
    );
    assert_eq!(
        of("{configMap: {name: c, optional: true, items: [{key: no, path: p}]}}"),
        Ok(())
    );
}

#[test]
fn a_termination_message_has_a_file_where_it_is_asked_for() {
    let yaml = rendered(
        "initContainers: [{name: i, image: 'quay.io/a:1', terminationMessagePath: /x/y}], containers: [{name: a, image: 'quay.io/a:1'}, \
         {name: b, image: 'quay.io/a:1', terminationMessagePolicy: FallbackToLogsOnError}, {name: c, image: 'quay.io/a:1', terminationMessagePolicy: File}, \
         {name: d, image: 'quay.io/a:1', command: [sh, -c, 'echo done >/dev/termination-log']}, \
         {name: e, image: 'quay.io/a:1', env: [{name: LOG, value: /dev/termination-log}]}]",
    );
    let found = termination_messages(&yaml);
    let names: Vec<&str> = found.keys().map(String::as_str).collect();
    assert_eq!(names, ["b", "c", "d", "e", "i"]);
    assert_eq!(mounts(&yaml, 0), Value::Null);
    assert_eq!(
        mounts(&yaml, 1),
        json!([{"name": "termination.b", "mountPath": "/dev/termination-log:nocopy", "subPath": "message"}])
    );
    let init = &spec(&yaml)["initContainers"][0]["volumeMounts"];
    assert_eq!(init[0]["mountPath"], "/x/y:nocopy");
    let all = spec(&yaml)["volumes"].clone();
    let names: Vec<&Value> = all
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["configMap"]["name"])
        .collect();
    assert_eq!(names.len(), 5);
    let different: BTreeSet<String> = names.iter().map(ToString::to_string).collect();
    assert_eq!(different.len(), 5);
    for volume in all.as_array().unwrap() {
        assert_eq!(volume["configMap"]["defaultMode"], 0o666);
        let map = named(&yaml, &volume["configMap"]["name"]);
        assert_eq!(map["data"], json!({TERMINATION_MESSAGE: ""}));
        let container = volume["name"].as_str().unwrap().replace("termination.", "");
        assert_eq!(volume["configMap"]["name"], found[&container].as_str());
        assert!(belongs_to(map["metadata"]["name"].as_str().unwrap(), "web"));
    }
    let prepared = staged(&yaml).map(|staged| staged.volumes);
    assert_eq!(prepared, Some(Vec::new()), "nothing is prepared for it");
}

#[test]
fn a_mount_asks_podman_for_no_word_that_it_does_not_know() {
    let yaml = rendered(
        "containers: [{name: a, image: 'quay.io/a:1', securityContext: {privileged: true}, volumeMounts: [{name: h, mountPath: /n, mountPropagation: None}, \
         {name: h, mountPath: /c, mountPropagation: HostToContainer}, {name: h, mountPath: /b, mountPropagation: Bidirectional}]}], \
         volumes: [{name: h, hostPath: {path: /srv}}]",
    );
    let mounts = mounts(&yaml, 0);
    let words: Vec<&Value> = mounts
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["mountPropagation"])
        .collect();
    assert_eq!(
        words,
        [
            &Value::Null,
            &json!("HostToContainer"),
            &json!("Bidirectional")
        ]
    );
}

#[test]
fn what_kubernetes_refuses_of_a_volume_is_refused() {
    let problems = |container: &str, volumes: &str| {
        let yaml = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: web}}\nspec:\n  containers: [{{name: a, image: 'quay.io/a:1'{container}}}]\n  volumes: [{volumes}]\n"
        );
        let found = manifest::parse(yaml.as_bytes(), false).err();
        let found = found.unwrap_or_default().into_iter();
        found
            .map(|problem| format!("{}: {}", problem.field, problem.message))
            .collect::<Vec<_>>()
    };
    let map = |items: &str| format!("{{name: v, configMap: {{name: c, items: [{items}]}}}}");
    let projected = |source: &str| format!("{{name: v, projected: {{sources: [{source}]}}}}");
    let v = "spec.volumes[0]";
    for (volume, expected) in [
        (map("{key: a, path: /a}"), format!("{v}.configMap.items[0].path: `/a` is not a file")),
        (map("{key: a, path: a/../b}"), format!("{v}.configMap.items[0].path: `a/../b` is not a file")),
        (map("{key: a, path: ./}"), format!("{v}.configMap.items[0].path: `./` is not a file")),
        (map("{key: a, path: 'a:b'}"), format!("{v}.configMap.items[0].path: `a:b` has a `:`")),
        (map("{key: a, path: a, mode: 01000}"), format!("{v}.configMap.items[0].mode: is not a file mode")),
        (map("{key: a, path: a/b}, {key: b, path: a//b}"), format!("{v}.configMap.items[1].path: another item of this volume")),
        (map("{key: a, path: a/b}, {key: b, path: a}"), format!("{v}.configMap.items[1].path: `a` and `a/b` cannot be both")),
        (projected("{serviceAccountToken: {path: t}}"), format!("{v}.projected.sources[0].serviceAccountToken: there is no API server")),
        (projected("{clusterTrustBundle: {path: t}}"), format!("{v}.projected.sources[0].clusterTrustBundle: there is no API server")),
        (projected("{}"), format!("{v}.projected.sources[0]: needs one of")),
        (
            projected("{configMap: {name: c, items: [{key: a, path: a}]}}, {secret: {name: s, items: [{key: a, path: a}]}}"),
            format!("{v}.projected.sources[1].secret.items[0].path: another item"),
        ),
        (
            "{name: v, downwardAPI: {items: [{path: a, fieldRef: {fieldPath: status.podIP}}]}}".to_owned(),
            format!("{v}.downwardAPI.items[0].fieldRef.fieldPath: `status.podIP` is not known"),
        ),
        (
            "{name: v, downwardAPI: {items: [{path: a, resourceFieldRef: {containerName: a, resource: limits.cpu}}]}}".to_owned(),
            format!("{v}.downwardAPI.items[0].resourceFieldRef.resource: container `a` sets no such limit"),
        ),
        (
            "{name: v, downwardAPI: {items: [{path: a}]}}".to_owned(),
            format!("{v}.downwardAPI.items[0]: needs one of fieldRef, resourceFieldRef"),
        ),
    ] {
        let found = problems("", &volume);
        assert!(found.len() == 1 && found[0].starts_with(&expected), "{expected}: {found:?}");
    }
    let mount = |more: &str| format!(", volumeMounts: [{{name: v, mountPath: /v, {more}}}]");
    let at = "spec.containers[0]";
    for (container, volume, expected) in [
        (
            mount("subPathExpr: ../$(A)"),
            "{name: v}",
            format!("{at}.volumeMounts[0].subPathExpr: leaves the volume"),
        ),
        (
            mount("subPathExpr: /a"),
            "{name: v}",
            format!("{at}.volumeMounts[0].subPathExpr: leaves the volume"),
        ),
        (
            mount("subPathExpr: a, subPath: b"),
            "{name: v}",
            format!("{at}.volumeMounts[0].subPathExpr: cannot be set together"),
        ),
        (
            mount("subPath: a=b"),
            "{name: v, hostPath: {path: /srv}}",
            format!("{at}.volumeMounts[0].subPath: has a `=`"),
        ),
        (
            ", terminationMessagePolicy: Log".to_owned(),
            "",
            format!("{at}.terminationMessagePolicy: `Log` is not one of"),
        ),
        (
            ", terminationMessagePath: log".to_owned(),
            "",
            format!("{at}.terminationMessagePath: is not an absolute path"),
        ),
    ] {
        let found = problems(&container, volume);
        assert!(
            found.len() == 1 && found[0].starts_with(&expected),
            "{expected}: {found:?}"
        );
    }
}

/// Podman may mount its own tmpfs over a volume if a container has many mounts.
#[test]
fn a_volume_that_podman_may_hide_is_warned_about() {
    let warnings = |path: &str, further: usize| {
        let more: String = (0..further)
            .map(|n| format!(", {{name: v, mountPath: /m/{n}}}"))
            .collect();
        let yaml = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: web}}\nspec:\n  containers: [{{name: a, image: 'quay.io/a:1', volumeMounts: [{{name: v, mountPath: {path}}}{more}]}}]\n  volumes: [{{name: v, emptyDir: {{}}}}]\n"
        );
        let found = manifest::parse(yaml.as_bytes(), false)
            .expect("accepted")
            .warnings;
        found
            .into_iter()
            .filter(|one| one.message.contains("tmpfs"))
            .count()
    };
    assert_eq!(warnings("/tmp", 4), 0);
    assert_eq!(warnings("/tmp/", 5), 1);
    assert_eq!(warnings("/run", 6), 1);
    assert_eq!(warnings("/var/tmp/x", 9), 0);
}
