//! Defaults of Kubernetes, and names of ports.

use serde_json::{Value, json};

use super::{container, documents};

fn pod(container: &str, more: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: web}}, spec: {{containers: [{{name: app, image: 'quay.io/a:1'{container}}}]{more}}}}}"
    )
}

#[test]
fn defaults_that_podman_lacks_are_written_out() {
    let yaml = pod(
        ", ports: [{containerPort: 80}, {containerPort: 53, protocol: UDP}]",
        "",
    );
    let documents = documents(&yaml);
    let spec = &documents.last().expect("a pod")["spec"];
    assert_eq!(spec["terminationGracePeriodSeconds"], 30);
    assert_eq!(spec["restartPolicy"], "Always");
    let ports = &spec["containers"][0]["ports"];
    assert_eq!(ports[0], json!({"containerPort": 80, "protocol": "TCP"}));
    assert_eq!(ports[1]["protocol"], "UDP");

    let yaml = pod("", ", terminationGracePeriodSeconds: 0");
    let documents = super::documents(&yaml);
    let spec = &documents.last().expect("a pod")["spec"];
    assert_eq!(spec["terminationGracePeriodSeconds"], 0, "as it is written");
}

#[test]
fn probes_have_all_their_numbers_and_the_number_of_their_port() {
    let yaml = pod(
        ", ports: [{name: web, containerPort: 8080}, {name: admin, containerPort: 9090}], \
         livenessProbe: {httpGet: {port: web}, periodSeconds: 0}, \
         startupProbe: {tcpSocket: {port: '81'}, periodSeconds: 3, failureThreshold: 30, timeoutSeconds: 2}, \
         readinessProbe: {httpGet: {port: admin, path: /ready, scheme: HTTPS}, successThreshold: 2}, \
         lifecycle: {preStop: {httpGet: {port: admin}}}",
        "",
    );
    let container = container(&yaml);
    let numbers = |probe: &str| {
        let probe = &container[probe];
        [
            "periodSeconds",
            "timeoutSeconds",
            "successThreshold",
            "failureThreshold",
        ]
        .map(|key| probe[key].as_i64())
    };
    let all = |numbers: [i64; 4]| numbers.map(Some);
    assert_eq!(numbers("livenessProbe"), all([10, 1, 1, 3]));
    assert_eq!(numbers("startupProbe"), all([3, 2, 1, 30]));
    assert_eq!(numbers("readinessProbe"), all([10, 1, 2, 3]));
    assert_eq!(
        container["livenessProbe"]["httpGet"],
        json!({"path": "/", "port": 8080, "scheme": "HTTP"})
    );
    assert_eq!(container["startupProbe"]["tcpSocket"]["port"], 81);
    assert_eq!(
        container["readinessProbe"]["httpGet"],
        json!({"path": "/ready", "port": 9090, "scheme": "HTTPS"})
    );
    assert_eq!(
        container["lifecycle"]["preStop"]["httpGet"],
        json!({"path": "/", "port": 9090, "scheme": "HTTP"})
    );
}

/// Podman reads the digits of memory and ignores a point and a suffix.
#[test]
fn quantities_are_whole_numbers() {
    for (written, bytes) in [
        ("1.5Gi", "1610612736"),
        ("128974848000m", "128974848"),
        ("1e9", "1000000000"),
        ("129M", "129000000"),
        ("1.1E9", "1100000000"),
        ("1048576", "1048576"),
    ] {
        let yaml = pod(
            &format!(
                ", resources: {{limits: {{memory: {written}, ephemeral-storage: {written}}}, requests: {{memory: {written}}}}}"
            ),
            &format!(", volumes: [{{name: v, emptyDir: {{sizeLimit: {written}}}}}]"),
        );
        let documents = documents(&yaml);
        let spec = &documents.last().expect("a pod")["spec"];
        let resources = &spec["containers"][0]["resources"];
        for name in ["memory", "ephemeral-storage"] {
            assert_eq!(resources["limits"][name], bytes, "{written}");
        }
        assert_eq!(resources["requests"]["memory"], bytes, "{written}");
        assert_eq!(
            spec["volumes"][0]["emptyDir"]["sizeLimit"], bytes,
            "{written}"
        );
    }
    for (written, millis) in [
        ("0.5", "500m"),
        ("2", "2000m"),
        ("1e-1", "100m"),
        ("0.0101", "11m"),
    ] {
        let yaml = pod(&format!(", resources: {{limits: {{cpu: {written}}}}}"), "");
        assert_eq!(container(&yaml)["resources"]["limits"]["cpu"], millis);
    }
    let yaml = pod("", "");
    assert_eq!(container(&yaml)["resources"], Value::Null);
}
