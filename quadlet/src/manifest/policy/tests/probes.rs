//! The rule on the hosts that probes and hooks may reach, and the releases that know a rule.

use super::*;

#[test]
fn a_policy_names_the_release_that_can_read_it() {
    for (document, since) in [
        ("privileged: true", None),
        ("hostPorts: [80]", Some(Version::new(0, 2, 1))),
        (
            "terminationGracePeriodSeconds: 1",
            Some(Version::new(0, 2, 1)),
        ),
        (
            "{hostPorts: [80], probeHosts: [10.0.0.1]}",
            Some(Version::new(0, 3, 0)),
        ),
    ] {
        let policy = Policy::read(document).expect(document);
        assert_eq!(policy.since(), since, "{document}");
    }
}

/// A probe runs in the host's network, so that it reaches what no container reaches.
#[test]
fn probes_and_hooks_reach_the_hosts_that_the_rule_lists() {
    let some = rules(2, "probeHosts: [10.0.0.3, 10.0.0.1]");
    let c = "spec.containers[0]";
    for (fields, refusing) in [
        ("livenessProbe: {httpGet: {port: 80}}", None),
        ("livenessProbe: {httpGet: {port: 80, host: ''}}", None),
        ("livenessProbe: {httpGet: {port: 80, host: 10.0.0.3}}", None),
        (
            "startupProbe: {tcpSocket: {port: 80, host: 10.0.0.1}}",
            None,
        ),
        (
            "livenessProbe: {httpGet: {port: 80, host: 169.254.169.254}}",
            Some("livenessProbe.httpGet.host"),
        ),
        (
            "readinessProbe: {httpGet: {port: 80, host: 127.0.0.1}}",
            Some("readinessProbe.httpGet.host"),
        ),
        (
            "startupProbe: {tcpSocket: {port: 80, host: 10.0.0.2}}",
            Some("startupProbe.tcpSocket.host"),
        ),
        (
            "lifecycle: {postStart: {httpGet: {port: 80, host: a}}}",
            Some("lifecycle.postStart.httpGet.host"),
        ),
        (
            "lifecycle: {preStop: {httpGet: {port: 80, host: a}}}",
            Some("lifecycle.preStop.httpGet.host"),
        ),
    ] {
        let found = refused(&some, &pod(&format!(", {fields}"), "", ""));
        let found: Vec<_> = found.into_iter().map(|(_, field, _)| field).collect();
        let expected = refusing.map(|field| format!("{c}.{field}"));
        assert_eq!(found, Vec::from_iter(expected), "{fields}");
    }
}
