//! What containers run as, and what their pod is called.

use beemesh_quadlet::{
    belongings::belongs_to,
    render::{non_root, root_image, volumes},
};
use serde_json::{Value, json};

use super::{documents, file, problems, warnings};

fn pod(container: &str, spec: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: web, namespace: shop}}, spec: {{containers: [{{name: app, image: 'quay.io/a:1'{container}}}, \
         {{name: side, image: 'quay.io/b:1'}}], {spec}}}}}"
    )
}

fn rendered(yaml: &str) -> Value {
    documents(yaml).pop().expect("a pod")
}

fn found(all: &[String], start: &str) -> bool {
    all.iter().any(|one| one.starts_with(start))
}

#[test]
fn images_whose_user_must_not_be_root_are_listed() {
    let list = |container: &str, spec: &str| {
        let yaml = file(&pod(container, spec), 9).expect("rendered");
        (non_root(&yaml).join(","), root_image(&yaml).join(","))
    };
    let init = "initContainers: [{name: first, image: 'quay.io/c:1'}]";
    for (container, spec, expected) in [
        ("", "", ("", "")),
        (
            "",
            "securityContext: {runAsNonRoot: true}",
            ("app,side", ""),
        ),
        (", securityContext: {runAsNonRoot: true}", "", ("app", "")),
        (
            ", securityContext: {runAsNonRoot: false}",
            "securityContext: {runAsNonRoot: true}",
            ("side", ""),
        ),
        (
            ", securityContext: {runAsUser: 7}",
            "securityContext: {runAsNonRoot: true}",
            ("side", ""),
        ),
        (
            "",
            "securityContext: {runAsNonRoot: true, runAsUser: 7}",
            ("", ""),
        ),
        (", securityContext: {runAsGroup: 7}", "", ("", "app")),
        (
            ", securityContext: {runAsUser: 1}",
            "securityContext: {runAsGroup: 7}",
            ("", "side"),
        ),
        (
            "",
            &format!("securityContext: {{runAsNonRoot: true}}, {init}"),
            ("first,app,side", ""),
        ),
    ] {
        let expected = (expected.0.to_owned(), expected.1.to_owned());
        assert_eq!(list(container, spec), expected, "{container} {spec}");
    }
    assert_eq!(
        rendered(&pod("", ""))["metadata"]["annotations"],
        Value::Null
    );
}

#[test]
fn root_by_number_is_refused_where_root_is_forbidden() {
    let at = "spec.containers[0].securityContext";
    for (container, spec, expected) in [
        (
            ", securityContext: {runAsUser: 0, runAsNonRoot: true}",
            "",
            "runAsUser: is 0, which is root",
        ),
        (
            ", securityContext: {runAsUser: 0}",
            "securityContext: {runAsNonRoot: true}",
            "runAsUser: is 0, which is root",
        ),
        (
            ", securityContext: {runAsGroup: 5, runAsNonRoot: true}",
            "",
            "runAsUser: is missing: with a runAsGroup alone",
        ),
        (
            ", securityContext: {privileged: true, allowPrivilegeEscalation: false}",
            "",
            "allowPrivilegeEscalation: must not be false",
        ),
        (
            ", securityContext: {seccompProfile: {type: Localhost, localhostProfile: a.json}}",
            "",
            "seccompProfile.type: Podman takes no file",
        ),
        (
            ", securityContext: {seccompProfile: {type: default}}",
            "",
            "seccompProfile.type: `default` is not one of",
        ),
    ] {
        let problems = problems(&pod(container, spec));
        assert!(
            problems.len() == 1 && found(&problems, &format!("{at}.{expected}")),
            "{problems:?}"
        );
    }
    let warned = warnings(&pod(", securityContext: {runAsGroup: 5}", ""));
    assert!(found(
        &warned,
        &format!("{at}.runAsGroup: with a group alone Podman runs the container as root")
    ));
    let refused = problems(&pod("", "shareProcessNamespace: true, hostPID: true"));
    assert!(found(
        &refused,
        "spec.shareProcessNamespace: is not allowed"
    ));
}

/// Podman would find these faults only after the old pod is removed.
#[test]
fn capabilities_exist_and_are_in_one_list() {
    let at = "spec.containers[0].securityContext.capabilities";
    let of = |lists: &str| {
        pod(
            &format!(", securityContext: {{capabilities: {{{lists}}}}}"),
            "",
        )
    };
    for (lists, expected) in [
        (
            "add: [SYS_ADMINISTRATOR]",
            "add[0]: `SYS_ADMINISTRATOR` is not a capability",
        ),
        (
            "drop: [CAP_NETRAW]",
            "drop[0]: `CAP_NETRAW` is not a capability",
        ),
        (
            "add: [KILL, CHOWN], drop: [ALL, cap_chown]",
            "drop[1]: `cap_chown` is both added and dropped",
        ),
        ("add: [ALL], drop: [ALL]", "drop[0]: `ALL` is both"),
    ] {
        let problems = problems(&of(lists));
        assert!(
            problems.len() == 1 && found(&problems, &format!("{at}.{expected}")),
            "{problems:?}"
        );
    }
    let lists = "add: [NET_BIND_SERVICE, cap_bpf], drop: [ALL]";
    let rendered = rendered(&of(lists));
    let capabilities = &rendered["spec"]["containers"][0]["securityContext"]["capabilities"];
    assert_eq!(
        *capabilities,
        json!({"add": ["NET_BIND_SERVICE", "cap_bpf"], "drop": ["ALL"]})
    );
}

#[test]
fn seccomp_profiles_are_annotations_that_podman_reads() {
    const POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
    const APP: &str = "container.seccomp.security.alpha.kubernetes.io/app";
    let of = |profile: &str| format!("securityContext: {{seccompProfile: {{type: {profile}}}}}");
    let both = |app: &str, all: &str| {
        let app = if app.is_empty() {
            String::new()
        } else {
            format!(", {}", of(app))
        };
        let all = if all.is_empty() {
            String::new()
        } else {
            of(all)
        };
        rendered(&pod(&app, &all))["metadata"]["annotations"].clone()
    };
    assert_eq!(both("", ""), Value::Null);
    assert_eq!(both("RuntimeDefault", "RuntimeDefault"), Value::Null);
    assert_eq!(both("Unconfined", ""), json!({APP: "unconfined"}));
    assert_eq!(both("", "Unconfined"), json!({POD: "unconfined"}));
    assert_eq!(
        both("RuntimeDefault", "Unconfined"),
        json!({POD: "unconfined", APP: "runtime/default"})
    );
}

#[test]
fn sysctls_have_dots_and_belong_to_the_pod() {
    let of =
        |list: &str, more: &str| pod("", &format!("securityContext: {{sysctls: [{list}]}}{more}"));
    let yaml = of(
        "{name: net/ipv4/conf/eth0.1/arp_filter, value: '1'}, {name: kernel.sem, value: '250 32'}",
        "",
    );
    let sysctls = &rendered(&yaml)["spec"]["securityContext"]["sysctls"];
    assert_eq!(sysctls[0]["name"], "net.ipv4.conf.eth0/1.arp_filter");
    assert_eq!(sysctls[1], json!({"name": "kernel.sem", "value": "250 32"}));
    for (list, more, expected) in [
        (
            "{name: vm.swappiness, value: '1'}",
            "",
            "sysctls[0].name: `vm.swappiness` belongs to the whole host",
        ),
        (
            "{name: net.core.somaxconn, value: '1'}",
            ", hostNetwork: true",
            "sysctls[0].name: `net.core.somaxconn` belongs to the host in",
        ),
        (
            "{name: kernel.shmmax, value: '1'}",
            ", hostIPC: true",
            "sysctls[0].name: `kernel.shmmax` belongs to the host with hostIPC",
        ),
        (
            "{name: net.a, value: '1'}, {name: net/a, value: '2'}",
            "",
            "sysctls[1].name: `net/a` appears twice",
        ),
        (
            "{name: net.a, value: ' 1'}",
            "",
            "sysctls[0].value: ` 1` is not accepted",
        ),
    ] {
        let problems = problems(&of(list, more));
        let expected = format!("spec.securityContext.{expected}");
        assert!(
            problems.len() == 1 && found(&problems, &expected),
            "{problems:?}"
        );
    }
}

#[test]
fn the_full_host_name_is_the_host_name_where_the_pod_asks_for_it() {
    let hostname = |spec: &str| rendered(&pod("", spec))["spec"]["hostname"].clone();
    assert_eq!(hostname(""), "web");
    assert_eq!(hostname("subdomain: db"), "web");
    assert_eq!(hostname("setHostnameAsFQDN: true"), "web");
    assert_eq!(
        hostname("setHostnameAsFQDN: true, subdomain: db"),
        "web.db.shop.svc.cluster.local"
    );
    assert_eq!(
        hostname("setHostnameAsFQDN: true, subdomain: db, hostname: a"),
        "a.db.shop.svc.cluster.local"
    );
    let warned = warnings(&pod("", "subdomain: db"));
    assert!(found(
        &warned,
        "spec.subdomain: no name in DNS is made of it"
    ));
    let long = "d".repeat(63);
    let refused = problems(&pod(
        "",
        &format!("setHostnameAsFQDN: true, subdomain: {long}"),
    ));
    assert!(
        found(&refused, "spec.setHostnameAsFQDN: the full host name"),
        "{refused:?}"
    );
    let refused = problems(&pod(
        "",
        "subdomain: a.b, hostAliases: [{ip: 10.0.0.1, hostnames: [ok.example, 'a b']}]",
    ));
    assert!(found(&refused, "spec.subdomain: `a.b` is not a subdomain"));
    assert!(found(
        &refused,
        "spec.hostAliases[0].hostnames[1]: `a b` is not a host name"
    ));
}

#[test]
fn a_pod_that_names_its_name_servers_gets_exactly_them() {
    let config = "dnsPolicy: None, dnsConfig: {nameservers: [10.0.0.1, 'fd00::1'], searches: [a.example, b.example], \
                  options: [{name: ndots, value: '2'}, {name: edns0}]}";
    let own = ", volumeMounts: [{name: own, mountPath: /etc/resolv.conf}]";
    let yaml = pod("", config);
    let documents = documents(&yaml);
    assert_eq!(documents.len(), 2);
    let name = documents[0]["metadata"]["name"].as_str().expect("a name");
    assert!(belongs_to(name, "shop_web"));
    assert_eq!(
        documents[0]["data"]["resolv.conf"],
        "search a.example b.example\nnameserver 10.0.0.1\nnameserver fd00::1\noptions ndots:2 edns0\n"
    );
    let spec = &documents[1]["spec"];
    assert_eq!(
        spec["volumes"],
        json!([{"name": name, "configMap": {"name": name}}])
    );
    let mount =
        json!({"name": name, "mountPath": "/etc/resolv.conf:nocopy", "subPath": "resolv.conf"});
    for container in [0, 1] {
        assert_eq!(
            spec["containers"][container]["volumeMounts"],
            json!([mount])
        );
    }
    assert!(volumes(&file(&yaml, 9).expect("rendered")).contains(name));

    let yaml = pod(
        own,
        &format!("volumes: [{{name: own, hostPath: {{path: /srv/r}}}}], {config}"),
    );
    let spec = &rendered(&yaml)["spec"];
    assert_eq!(
        spec["containers"][0]["volumeMounts"]
            .as_array()
            .map(Vec::len),
        Some(1)
    );
    let yaml = pod(", securityContext: {readOnlyRootFilesystem: true}", config);
    assert_eq!(
        rendered(&yaml)["spec"]["containers"][0]["volumeMounts"][0]["readOnly"],
        true
    );
}

#[test]
fn what_podman_merges_otherwise_is_warned_about() {
    for (spec, expected) in [
        (
            "dnsConfig: {nameservers: [10.0.0.1]}",
            "spec.dnsConfig.nameservers: Podman asks them instead of the host's",
        ),
        (
            "dnsPolicy: Default, dnsConfig: {searches: [a.example.]}",
            "spec.dnsConfig.searches: Podman uses them instead of",
        ),
    ] {
        assert!(found(&warnings(&pod("", spec)), expected), "{spec}");
        let spec = &rendered(&pod("", spec))["spec"];
        assert_eq!(spec["volumes"], Value::Null);
    }
    for (spec, expected) in [
        ("dnsPolicy: None", "spec.dnsConfig.nameservers: is missing"),
        (
            "dnsPolicy: Cluster",
            "spec.dnsPolicy: `Cluster` is not one of",
        ),
        (
            "dnsConfig: {nameservers: [1.1.1.1, 1.1.1.2, 1.1.1.3, 1.1.1.4]}",
            "spec.dnsConfig.nameservers: has more than 3",
        ),
        (
            "dnsConfig: {searches: ['a b']}",
            "spec.dnsConfig.searches[0]: `a b` is not a domain",
        ),
        (
            "dnsConfig: {options: [{name: \"a\\nnameserver 6.6.6.6\"}]}",
            "spec.dnsConfig.options[0].name: has a space",
        ),
    ] {
        assert!(found(&problems(&pod("", spec)), expected), "{spec}");
    }
}
