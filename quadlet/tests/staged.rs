//! Which pods the supervisor starts, and in which order.

#![allow(clippy::unwrap_used, reason = "whatever is missing fails the test")]

use std::collections::BTreeSet;

use beemesh_protocol::{ClusterId, state::Object};
use beemesh_quadlet::{
    manifest::{self, is_workload},
    render::{Revision, init_containers, member_names, ports, render, staged},
};
use serde_json::Value;

fn render_text(yaml: &str) -> Vec<u8> {
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
    render(&revision).expect("rendered").yaml
}

fn pod(spec: &str) -> Vec<u8> {
    render_text(&format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: web}}, spec: {{{spec}}}}}"
    ))
}

fn json(yaml: &[u8]) -> Value {
    let text = str::from_utf8(yaml).unwrap();
    serde_json::from_str(text.rsplit("\n---\n").next().unwrap()).unwrap()
}

#[test]
fn podman_starts_a_pod_that_needs_nothing_else() {
    let yaml = pod("containers: [{name: a, image: 'quay.io/a:1'}]");
    assert_eq!(staged(&yaml), None);
    assert_eq!(json(&yaml)["metadata"]["annotations"], Value::Null);
    assert_eq!(staged(b"no pod"), None);
}

/// Podman would run init containers again after one has failed, and makes no working directory.
#[test]
fn init_containers_and_working_directories_are_of_the_supervisor() {
    let yaml = pod(
        "initContainers: [{name: i, image: 'quay.io/a:1'}], containers: [{name: a, image: 'quay.io/a:1'}]",
    );
    assert_eq!(staged(&yaml).expect("staged").init, ["i"]);
    let yaml = pod("containers: [{name: a, image: 'quay.io/a:1', workingDir: /usr/new}]");
    let found = staged(&yaml).expect("staged").working_dirs;
    assert_eq!(found, [("a".to_owned(), "/usr/new".to_owned())].into());
    let yaml = pod("containers: [{name: a, image: 'quay.io/a:1', workingDir: /../a/./../b/}]");
    let written = &json(&yaml)["spec"]["containers"][0]["workingDir"];
    assert_eq!(written, "/b");
}

#[test]
fn probes_and_hooks_are_run_by_the_supervisor() {
    for field in [
        "livenessProbe: {exec: {command: [a]}}",
        "readinessProbe: {exec: {command: [a]}}",
        "startupProbe: {exec: {command: [a]}}",
        "lifecycle: {postStart: {exec: {command: [a]}}}",
        "lifecycle: {preStop: {exec: {command: [a]}}}",
        "lifecycle: {stopSignal: SIGQUIT}",
    ] {
        let yaml = pod(&format!(
            "initContainers: [{{name: i, image: 'quay.io/a:1'}}], containers: [{{name: a, image: 'quay.io/a:1'}}, {{name: b, image: 'quay.io/a:1', {field}}}]"
        ));
        let found = staged(&yaml).expect(field);
        assert_eq!(found.init, ["i"], "{field}");
        assert_eq!(found.containers, ["a", "b"], "{field}");
        assert_eq!(found.sidecars, BTreeSet::new(), "{field}");
        let annotations = &json(&yaml)["metadata"]["annotations"];
        assert_eq!(
            annotations,
            &serde_json::json!({"beemesh.io/start": "supervisor"}),
            "{field}"
        );
    }
}

#[test]
fn a_sidecar_is_a_container_in_front_of_the_others_and_keeps_its_place_among_the_init_containers() {
    let yaml = pod(
        "initContainers: [{name: i1, image: 'quay.io/a:1'}, {name: s, image: 'quay.io/a:1', restartPolicy: Always, \
         ports: [{containerPort: 1, hostPort: 80}], startupProbe: {exec: {command: [a]}}, lifecycle: {preStop: {exec: {command: [a]}}}}, \
         {name: i2, image: 'quay.io/a:1'}, {name: t, image: 'quay.io/a:1', restartPolicy: Always}], \
         containers: [{name: a, image: 'quay.io/a:1'}]",
    );
    let found = staged(&yaml).expect("sidecars");
    assert_eq!(found.init, ["i1", "s", "i2", "t"]);
    assert_eq!(
        found.sidecars,
        BTreeSet::from(["s".to_owned(), "t".to_owned()])
    );
    assert_eq!(found.containers, ["a"]);
    assert_eq!(init_containers(&yaml), ["i1", "i2"]);
    assert_eq!(member_names(&yaml), ["web-s", "web-t", "web-a"]);
    assert_eq!(ports(&yaml).len(), 1);
    let annotations = &json(&yaml)["metadata"]["annotations"];
    assert_eq!(annotations["beemesh.io/sidecars"], "s,t");
    assert_eq!(annotations["beemesh.io/init-order"], "i1,s,i2,t");
    let only = pod(
        "initContainers: [{name: s, image: 'quay.io/a:1', restartPolicy: Always}], containers: [{name: a, image: 'quay.io/a:1'}]",
    );
    assert_eq!(json(&only)["spec"]["initContainers"], Value::Null);
    assert_eq!(staged(&only).unwrap().init, ["s"]);
}

#[test]
fn restart_policies_of_containers_are_those_of_kubernetes() {
    let problems = |init: &str, main: &str| {
        let yaml = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: web}}\nspec:\n  initContainers: [{{name: i, image: 'quay.io/a:1'{init}}}]\n  \
             containers: [{{name: a, image: 'quay.io/a:1'{main}}}]\n"
        );
        let found = manifest::parse(yaml.as_bytes(), false).err();
        let found = found.unwrap_or_default().into_iter();
        found
            .map(|problem| format!("{}: {}", problem.field, problem.message))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        problems(
            ", restartPolicy: Always, livenessProbe: {exec: {command: [a]}}",
            ""
        ),
        [""; 0]
    );
    for (init, main, expected) in [
        (
            ", restartPolicy: Never",
            "",
            "spec.initContainers[0].restartPolicy: `Never` is not `Always`",
        ),
        (
            ", lifecycle: {preStop: {exec: {command: [a]}}}",
            "",
            "spec.initContainers[0].lifecycle: an init container runs to its end",
        ),
        (
            "",
            ", restartPolicy: Always",
            "spec.containers[0].restartPolicy: is for init containers only",
        ),
    ] {
        let found = problems(init, main);
        assert!(
            found.len() == 1 && found[0].starts_with(expected),
            "{found:?}"
        );
    }
}

#[test]
fn a_manifest_cannot_set_what_the_supervisor_reads() {
    for key in [
        "start",
        "sidecars",
        "init-order",
        "volumes",
        "lease",
        "restart-policy",
    ] {
        let yaml = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: web, annotations: {{beemesh.io/{key}: supervisor}}}}\nspec: {{containers: [{{name: a, image: 'quay.io/a:1'}}]}}\n"
        );
        let found = manifest::parse(yaml.as_bytes(), false).expect_err("accepted");
        assert!(found[0].message.ends_with("is set by Beemesh"), "{found:?}");
        // An object that an earlier release accepted has no effect either.
        let mut object = manifest::parse(yaml.replace("beemesh.io/", "else/").as_bytes(), false)
            .expect("a pod")
            .objects
            .remove(0);
        let body = String::from_utf8(object.body).unwrap();
        object.body = body.replace("else/", "beemesh.io/").into_bytes();
        let revision = Revision {
            cluster: ClusterId([7; 16]),
            revision: 1,
            index: 9,
            object: &object,
            number: 0,
            uses: &[],
        };
        let yaml = render(&revision).expect("rendered").yaml;
        assert_eq!(json(&yaml)["metadata"]["annotations"], Value::Null);
    }
}
