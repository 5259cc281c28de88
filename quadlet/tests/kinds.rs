//! Old versions of kinds.

use beemesh_quadlet::manifest::{Problem, parse};

const POD: &str = "---\napiVersion: v1\nkind: Pod\nmetadata: {name: web, namespace: shop}\nspec: {containers: [{name: a, image: quay.io/a:1}]}\n";

/// `DOCUMENT:LINE FIELD: MESSAGE` for each finding.
fn shown(problems: &[Problem]) -> Vec<String> {
    let show = |p: &Problem| format!("{}:{} {}: {}", p.document, p.line, p.field, p.message);
    problems.iter().map(show).collect()
}

fn refused(yaml: &str) -> Vec<String> {
    shown(&parse(yaml.as_bytes(), false).expect_err(yaml))
}

#[test]
fn an_old_version_names_what_follows_it() {
    for (version, kind, now) in [
        ("extensions/v1beta1", "Deployment", "apps/v1"),
        ("extensions/v1beta1", "DaemonSet", "apps/v1"),
        ("apps/v1beta1", "Deployment", "apps/v1"),
        ("apps/v1beta2", "DaemonSet", "apps/v1"),
        ("batch/v2alpha1", "Job", "batch/v1"),
        ("v1beta3", "Pod", "v1"),
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
