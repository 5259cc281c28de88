//! Kinds that the replicated state does not have: what they are carried as, what is not kept, and old versions.

#![allow(clippy::unwrap_used, reason = "whatever is missing fails the test")]

use beemesh_protocol::{
    ClusterId,
    state::{Kind, Object},
};
use beemesh_quadlet::{
    manifest::{Problem, as_written, kind_of, parse, reread},
    render::{Revision, render},
};
use serde_json::{Value, json};

const POD: &str = "---\napiVersion: v1\nkind: Pod\nmetadata: {name: web, namespace: shop}\nspec: {containers: [{name: a, image: quay.io/a:1}]}\n";

/// `DOCUMENT:LINE FIELD: MESSAGE` for each finding.
fn shown(problems: &[Problem]) -> Vec<String> {
    let show = |p: &Problem| format!("{}:{} {}: {}", p.document, p.line, p.field, p.message);
    problems.iter().map(show).collect()
}

fn refused(yaml: &str) -> Vec<String> {
    shown(&parse(yaml.as_bytes(), false).expect_err(yaml))
}

/// A workload whose `spec` begins with `more` on line 5.
fn workload(kind: &str, more: &str) -> String {
    let version = match kind {
        "ReplicationController" => "v1",
        _ => "apps/v1",
    };
    format!(
        "apiVersion: {version}\nkind: {kind}\nmetadata: {{name: web}}\nspec:\n  {more}\n  template:\n    metadata: {{labels: {{app: web}}}}\n    \
         spec: {{nodeSelector: {{disk: ssd}}, containers: [{{name: a, image: quay.io/a:1, envFrom: [{{configMapRef: {{name: c}}}}]}}]}}\n"
    )
}

fn one(yaml: &str) -> Object {
    let mut manifest = parse(yaml.as_bytes(), true).expect(yaml);
    assert_eq!(shown(&manifest.warnings), [""; 0], "{yaml}");
    manifest.objects.remove(0)
}

fn written(object: &Object) -> Value {
    serde_json::from_slice(&as_written(&object.body)).unwrap()
}

fn rendered(object: &Object) -> Vec<u8> {
    let map = one("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {a: x}\n");
    let revision = Revision {
        cluster: ClusterId([0xbe; 16]),
        revision: 1,
        index: 9,
        object,
        number: 0,
        uses: &[&map],
    };
    render(&revision).unwrap().yaml
}

#[test]
fn what_counts_pods_is_carried_and_rendered_as_a_deployment() {
    let deployment = one(&workload(
        "Deployment",
        "replicas: 2\n  selector: {matchLabels: {app: web}}",
    ));
    for (kind, version, selector) in [
        (
            "ReplicaSet",
            "apps/v1",
            json!({"matchLabels": {"app": "web"}}),
        ),
        ("ReplicationController", "v1", json!({"app": "web"})),
    ] {
        let object = one(&workload(
            kind,
            &format!("replicas: 2\n  selector: {selector}"),
        ));
        assert_eq!(kind_of(&object), kind);
        let mut body: Value = serde_json::from_slice(&object.body).unwrap();
        let labels = body["metadata"].as_object_mut().unwrap().remove("labels");
        assert_eq!(labels, Some(json!({"beemesh.io/kind": kind})));
        let expected: Value = serde_json::from_slice(&deployment.body).unwrap();
        assert_eq!(body, expected, "an earlier release can read it");
        assert_eq!(rendered(&object), rendered(&deployment));
        let rest = Object {
            body: deployment.body.clone(),
            hash: deployment.hash,
            ..object.clone()
        };
        assert_eq!(rest, deployment);

        let form = written(&object);
        assert_eq!(
            (
                &form["apiVersion"],
                &form["kind"],
                &form["spec"]["selector"]
            ),
            (&version.into(), &kind.into(), &selector)
        );
        assert_eq!(
            form["metadata"],
            json!({"name": "web", "namespace": "default"})
        );
        let again = reread(&[&object.body], None).unwrap();
        assert_eq!(again.objects, [object]);
    }
    assert_eq!(kind_of(&deployment), "Deployment");
}

#[test]
fn without_replicas_and_selector_they_are_as_a_deployment_without_them() {
    let deployment = one(&workload("Deployment", "minReadySeconds: 5"));
    for kind in ["ReplicaSet", "ReplicationController"] {
        let object = one(&workload(kind, "minReadySeconds: 5"));
        assert_eq!((object.kind, object.replicas), (Kind::Deployment, None));
        assert_eq!(rendered(&object), rendered(&deployment));
        assert_eq!(reread(&[&object.body], None).unwrap().objects, [object]);
    }
}

#[test]
fn what_counts_pods_is_checked_like_a_deployment() {
    let not =
        "is not among the labels of the template: a selector matches the pods of its own workload";
    let cases = [
        (
            "ReplicaSet",
            "selector: {matchLabels: {app: db}}",
            format!("1:5 spec.selector.matchLabels.app: `app: db` {not}"),
        ),
        (
            "ReplicationController",
            "selector: {app: db}",
            format!("1:5 spec.selector.app: `app: db` {not}"),
        ),
        (
            "ReplicaSet",
            "strategy: {type: Recreate}",
            "1:5 spec.strategy: unknown field `strategy`".to_owned(),
        ),
        (
            "ReplicationController",
            "minReadySeconds: -1",
            "1:5 spec.minReadySeconds: -1 is too small: use 0 or more".to_owned(),
        ),
        (
            "ReplicaSet",
            "replicas: -1",
            "1:5 spec.replicas: -1 is not a number of replicas: use 0 to 10000".to_owned(),
        ),
    ];
    for (kind, more, expected) in cases {
        assert_eq!(refused(&workload(kind, more)), [expected]);
    }
    let never = workload("ReplicaSet", "replicas: 1")
        .replace("{nodeSelector", "{restartPolicy: Never, nodeSelector");
    assert_eq!(
        refused(&never),
        ["1:8 spec.template.spec.restartPolicy: `Never` is not one of Always"]
    );
    assert_eq!(
        refused(
            "apiVersion: v1\nkind: ReplicationController\nmetadata: {name: web}\nspec: {replicas: 1}"
        ),
        ["1:4 spec.template: is missing: it says which containers run"]
    );
    // Only Beemesh itself says that a Deployment was written as another kind.
    let forged = workload("Deployment", "replicas: 1").replace(
        "{name: web}",
        "{name: web, labels: {beemesh.io/kind: ReplicaSet}}",
    );
    assert_eq!(
        refused(&forged),
        ["1:3 metadata.labels[beemesh.io/kind]: `beemesh.io/kind` is set by Beemesh"]
    );
    let twice =
        workload("ReplicaSet", "replicas: 1") + "---\n" + &workload("Deployment", "replicas: 1");
    assert_eq!(
        refused(&twice),
        ["2:12 metadata.name: Deployment `web` has the name of ReplicaSet in document 1, line 3"]
    );
}

#[test]
fn a_namespace_and_a_service_account_are_checked_and_not_kept() {
    let both = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {a: b}}\nspec: {finalizers: [kubernetes]}\n---\n\
                apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: web, namespace: shop}\nautomountServiceAccountToken: false\n";
    let yaml = format!("{both}{POD}");
    let manifest = parse(yaml.as_bytes(), false).unwrap();
    let kept: Vec<_> = manifest.objects.iter().map(kind_of).collect();
    assert_eq!(kept, ["Pod"]);
    let told = [
        "1:2 kind: a Namespace has no effect and is not kept: a namespace is a part of the names of its objects",
        "2:7 kind: a ServiceAccount has no effect and is not kept: there is no API server that a token would be for",
    ];
    assert_eq!(shown(&manifest.warnings), told);
    assert_eq!(shown(&parse(yaml.as_bytes(), true).unwrap_err()), told);
    let alone = parse(both.as_bytes(), false).unwrap();
    assert_eq!(alone.objects, []);
    assert_eq!(shown(&alone.warnings), told);
    let secrets = yaml.replace(
        "automountServiceAccountToken: false",
        "imagePullSecrets: [{name: a}]",
    );
    let warnings = shown(&parse(secrets.as_bytes(), false).unwrap().warnings);
    assert_eq!(
        warnings[2],
        "2:9 imagePullSecrets: Podman ignores it: log in to the registry on each host"
    );
    let wrong = yaml
        .replace("name: shop, labels", "name: shop.a, labels")
        .replace(
            "name: web, namespace: shop}\nauto",
            "name: Web, namespace: s.p, x: y}\nauto",
        );
    assert_eq!(
        refused(&wrong),
        [
            "1:3 metadata.name: `shop.a` is not a name: use at most 63 lower-case letters, digits and `-`, a letter or digit at both ends",
            "2:8 metadata.name: `Web` is not a name: use lower-case letters, digits, `-` and `.`, a letter or digit at both ends",
            "2:8 metadata.namespace: `s.p` is not a namespace: use at most 63 lower-case letters, digits and `-`, a letter or digit at both ends",
            "2:8 metadata.x: unknown field `x`",
        ]
    );
}

#[test]
fn an_old_version_names_what_follows_it() {
    for (version, kind, now) in [
        ("extensions/v1beta1", "Deployment", "apps/v1"),
        ("extensions/v1beta1", "ReplicaSet", "apps/v1"),
        ("extensions/v1beta1", "DaemonSet", "apps/v1"),
        ("apps/v1beta1", "Deployment", "apps/v1"),
        ("apps/v1beta2", "ReplicaSet", "apps/v1"),
        ("batch/v2alpha1", "Job", "batch/v1"),
        ("v1beta3", "ReplicationController", "v1"),
    ] {
        let yaml = format!("apiVersion: {version}\nkind: {kind}\nmetadata: {{name: a}}\n");
        let expected =
            format!("1:1 apiVersion: `{version}` is not supported: write {kind} as {now}");
        assert_eq!(refused(&yaml), [expected]);
    }
    for (version, kind, now, what) in [
        (
            "apps/v1beta1",
            "StatefulSet",
            ", now apps/v1",
            "it is ignored",
        ),
        (
            "batch/v1beta1",
            "CronJob",
            ", now batch/v1",
            "it is ignored",
        ),
        (
            "policy/v1beta1",
            "PodDisruptionBudget",
            ", now policy/v1",
            "it is ignored",
        ),
        (
            "extensions/v1beta1",
            "Ingress",
            ", now networking.k8s.io/v1",
            "no request is routed; give a container a hostPort",
        ),
        (
            "networking.k8s.io/v1beta1",
            "Ingress",
            ", now networking.k8s.io/v1",
            "no request is routed; give a container a hostPort",
        ),
        // Kubernetes has removed this one without a successor, and serves that one.
        ("policy/v1beta1", "PodSecurityPolicy", "", "it is ignored"),
        (
            "autoscaling/v1",
            "HorizontalPodAutoscaler",
            "",
            "it is ignored",
        ),
    ] {
        let yaml = format!("apiVersion: {version}\nkind: {kind}\nmetadata: {{name: a}}\n{POD}");
        let expected = format!("1:2 kind: {kind} `a` ({version}{now}) is not supported: {what}");
        let warnings = parse(yaml.as_bytes(), false).unwrap().warnings;
        assert_eq!(shown(&warnings), [expected]);
    }
}
