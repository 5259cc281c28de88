//! The Quadlet of a singleton, and what a manifest may say about one.

#![allow(clippy::unwrap_used, reason = "whatever is missing fails the test")]

use beemesh_protocol::{ClusterId, state::Object};
use beemesh_quadlet::{
    health::Restart,
    manifest::{Failover, Problem, parse},
    render::{Rendered, Revision, is_installed, needs_lease, render, rules, staged},
};
use serde_json::{Value, json};

/// A workload of one kind: its annotations, `replicas`, the annotations of its pods, and more of the pod's `spec`.
fn of(kind: &str, annotations: &str, replicas: &str, template: &str, spec: &str) -> String {
    let version = match kind {
        "Job" => "batch/v1",
        "ReplicationController" => "v1",
        _ => "apps/v1",
    };
    let selector = match kind {
        "Job" => "",
        "ReplicationController" => "  selector: {a: b}\n",
        _ => "  selector: {matchLabels: {a: b}}\n",
    };
    format!(
        "apiVersion: {version}\nkind: {kind}\nmetadata: {{name: w, annotations: {{{annotations}}}}}\nspec:\n{selector}{replicas}  template:\n    \
         metadata: {{labels: {{a: b}}, annotations: {{{template}}}}}\n    spec: {{{spec}containers: [{{name: a, image: quay.io/a:1}}]}}\n"
    )
}

const TRUE: &str = "beemesh.io/singleton: 'true'";
const ONE: &str = "  replicas: 1\n";

fn objects(yaml: &str) -> Vec<Object> {
    let read = parse(yaml.as_bytes(), true);
    read.unwrap_or_else(|found| panic!("{found:?}\n{yaml}"))
        .objects
}

fn rendered(yaml: &str) -> Rendered {
    let revision = Revision {
        cluster: ClusterId([7; 16]),
        revision: 1,
        index: 9,
        object: &objects(yaml)[0],
        number: 0,
        uses: &[],
    };
    render(&revision).unwrap()
}

fn shown(problems: &[Problem]) -> Vec<String> {
    let show = |p: &Problem| format!("{}:{} {}: {}", p.document, p.line, p.field, p.message);
    problems.iter().map(show).collect()
}

#[test]
fn only_the_supervisor_starts_the_containers_of_a_singleton() {
    let sidecar = "initContainers: [{name: s, image: quay.io/a:1, restartPolicy: Always}], ";
    for kind in ["Deployment", "ReplicaSet", "ReplicationController"] {
        let yaml = of(kind, TRUE, ONE, "", sidecar);
        assert!(Failover::of(&objects(&yaml)[0]).singleton, "{kind}");
        let Rendered { kube, yaml, .. } = rendered(&yaml);
        assert!(needs_lease(&yaml), "{kind}");
        assert!(staged(&yaml).unwrap().sidecars.contains("s"), "{kind}");
        assert_eq!(rules(&yaml).restart, Restart::Always, "{kind}");
        let pod: Value = serde_json::from_slice(&yaml).unwrap();
        let metadata = &pod["metadata"];
        assert_eq!(metadata["annotations"]["beemesh.io/lease"], "required");
        let policy = &metadata["annotations"]["beemesh.io/restart-policy"];
        assert_eq!(policy, "Always");
        assert_eq!(metadata["labels"]["beemesh.io/lease"], "required");
        assert_eq!(pod["spec"]["restartPolicy"], "Never");
        for container in pod["spec"]["containers"].as_array().unwrap() {
            assert_eq!(container["restartPolicy"], Value::Null, "{container}");
        }
        assert!(!is_installed(&kube), "{kube}");
        assert!(!kube.contains("without Beemesh, Podman plays it"), "{kube}");
        let condition =
            "\nConditionPathExists=/nonexistent/only-beemesh-starts-a-singleton\n\n[Kube]\n";
        assert!(kube.contains(condition), "{kube}");
    }
}

#[test]
fn what_is_no_singleton_is_rendered_as_before() {
    let plain = of("Deployment", "", ONE, "", "");
    let Rendered { kube, yaml, .. } = rendered(&plain);
    assert!(!needs_lease(&yaml));
    assert!(is_installed(&kube) && !kube.contains("Condition"));
    let not = of("Deployment", "beemesh.io/singleton: 'false'", ONE, "", "");
    assert!(!needs_lease(&rendered(&not).yaml));
    assert_eq!(rendered(&not).kube, kube);
    assert!(!needs_lease(b"beemesh.io/lease"));
    // A body that no manifest could bring.
    let mut object = objects(&plain).remove(0);
    let mut body: Value = serde_json::from_slice(&object.body).unwrap();
    let forged = json!({"beemesh.io/lease": "required", "beemesh.io/restart-policy": "Never"});
    body["spec"]["template"]["metadata"]["annotations"] = forged;
    object.body = body.to_string().into_bytes();
    let revision = Revision {
        cluster: ClusterId([7; 16]),
        revision: 1,
        index: 9,
        object: &object,
        number: 0,
        uses: &[],
    };
    assert_eq!(render(&revision).unwrap().yaml, yaml);
}

#[test]
fn a_stopped_singleton_is_still_one() {
    let annotations = format!("{TRUE}, beemesh.io/stopped: 'true'");
    let object = objects(&of("Deployment", &annotations, ONE, "", "")).remove(0);
    assert_eq!(object.replicas, Some(0));
    assert!(Failover::of(&object).singleton);
}

#[test]
fn a_singleton_has_one_written_replica() {
    let annotation = "metadata.annotations[beemesh.io/singleton]";
    let never = "restartPolicy: Never, ";
    for (yaml, expected) in [
        (
            of("Deployment", "beemesh.io/singleton: 'yes'", ONE, "", ""),
            format!("1:3 {annotation}: `yes` is neither \"true\" nor \"false\""),
        ),
        (
            of("Deployment", TRUE, "", "", ""),
            format!("1:3 {annotation}: needs `spec.replicas`: write `replicas: 1`"),
        ),
        (
            of("ReplicaSet", TRUE, "  replicas: 2\n", "", ""),
            "1:6 spec.replicas: 2 is not the 1 that a singleton needs: it runs one pod".to_owned(),
        ),
        (
            of("Deployment", TRUE, "  replicas: 0\n", "", ""),
            "1:6 spec.replicas: 0 is not the 1 that a singleton needs: `beemesh stop` stops it".to_owned(),
        ),
        (
            of("DaemonSet", TRUE, "", "", ""),
            format!("1:3 {annotation}: is for a workload with `replicas: 1`: use a Deployment"),
        ),
        (
            of("Job", TRUE, "", "", never),
            format!("1:3 {annotation}: a Job cannot be a singleton: use a Deployment"),
        ),
        (
            of("Deployment", "", ONE, TRUE, ""),
            "1:8 spec.template.metadata.annotations[beemesh.io/singleton]: belongs to the workload: move it to `metadata.annotations`".to_owned(),
        ),
        (
            format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: w, annotations: {{{TRUE}}}}}\nspec: {{containers: [{{name: a, image: quay.io/a:1}}]}}\n"),
            format!("1:3 {annotation}: is for a workload with `replicas: 1`: use a Deployment"),
        ),
        (
            of("Deployment", "beemesh.io/lease: required", ONE, "", ""),
            "1:3 metadata.annotations[beemesh.io/lease]: `beemesh.io/lease` is set by Beemesh".to_owned(),
        ),
    ] {
        let found = parse(yaml.as_bytes(), false).expect_err(&yaml);
        assert_eq!(shown(&found), [expected], "{yaml}");
    }
}

#[test]
fn an_annotation_that_beemesh_does_not_know_is_told() {
    let is_none = "is not an annotation of Beemesh, so it has no effect";
    let misspelt = of(
        "Deployment",
        "beemesh.io/reshedule-after: 90s",
        ONE,
        "beemesh.io/x: y",
        "",
    );
    let read = parse(misspelt.as_bytes(), false).unwrap();
    assert_eq!(
        shown(&read.warnings),
        [
            format!(
                "1:3 metadata.annotations[beemesh.io/reshedule-after]: `beemesh.io/reshedule-after` {is_none}; did you mean `beemesh.io/reschedule-after`?"
            ),
            format!(
                "1:8 spec.template.metadata.annotations[beemesh.io/x]: `beemesh.io/x` {is_none}"
            ),
        ]
    );
    assert!(parse(misspelt.as_bytes(), true).is_err());
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: w, annotations: {beemesh.io/Stoped: 'true', example.org/x: y}}\nspec: {containers: [{name: a, image: quay.io/a:1}]}\n";
    let read = parse(pod.as_bytes(), false).unwrap();
    assert_eq!(
        shown(&read.warnings),
        [format!(
            "1:3 metadata.annotations[beemesh.io/Stoped]: `beemesh.io/Stoped` {is_none}; did you mean `beemesh.io/stopped`?"
        )]
    );
    let known = "beemesh.io/reschedule-after: 90s, beemesh.io/on-failure: pause, beemesh.io/stopped: 'false', beemesh.io/data: keep";
    let read = parse(of("Deployment", known, ONE, "", "").as_bytes(), true).unwrap();
    assert_eq!(shown(&read.warnings), Vec::<String>::new());
}
