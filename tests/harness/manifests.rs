//! Manifests that the tests apply.

use crate::IMAGE;

/// A Pod with one container that prints its marker and keeps running.
#[must_use]
pub fn pod(name: &str, marker: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\nspec:\n  containers:\n  - name: main\n    image: {IMAGE}\n    \
         command: [sh, -c, 'trap \"exit 0\" TERM; echo {marker}; while :; do sleep 1 & wait $!; done']\n"
    )
}

/// The same Pod for one host only.
#[must_use]
pub fn pod_on(host: &str, name: &str, marker: &str) -> String {
    let selector = format!("spec:\n  nodeSelector: {{kubernetes.io/hostname: {host}}}\n");
    pod(name, marker).replace("spec:\n", &selector)
}

/// A Deployment with two containers, one of which has a health check, and the ConfigMap that they read.
#[must_use]
pub fn two_containers(name: &str, marker: &str) -> String {
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}-conf\ndata:\n  marker: {marker}\n---\n\
         apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: {name}\nspec:\n  selector:\n    matchLabels: {{app: {name}}}\n  \
         template:\n    metadata:\n      labels: {{app: {name}}}\n    spec:\n      terminationGracePeriodSeconds: 2\n      containers:\n      \
         - name: one\n        image: {IMAGE}\n        \
         command: [sh, -c, 'trap \"exit 0\" TERM; echo one says $MARKER; while :; do sleep 1 & wait $!; done']\n        \
         env:\n        - name: MARKER\n          valueFrom: {{configMapKeyRef: {{name: {name}-conf, key: marker}}}}\n      \
         - name: two\n        image: {IMAGE}\n        \
         command: [sh, -c, 'trap \"exit 0\" TERM; echo two says hello; while :; do sleep 1 & wait $!; done']\n"
    )
}

/// A Pod whose container cannot start.
#[must_use]
pub fn broken_command(name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\nspec:\n  containers:\n  - name: main\n    image: {IMAGE}\n    \
         command: [/no/such/program]\n"
    )
}
