mod probes;

use proptest::prelude::*;

use super::*;
use crate::manifest::parse_under;

/// Line, field and message of every refusal.
fn refused(rules: &Rules, yaml: &str) -> Vec<(u32, String, String)> {
    match parse_under(yaml.as_bytes(), false, Some(rules)) {
        Ok(_) => Vec::new(),
        Err(found) => found
            .into_iter()
            .map(|one| (one.line, one.field, one.message))
            .collect(),
    }
}

fn rules(version: u64, document: &str) -> Rules {
    let policy = Policy::read(document).expect(document);
    Rules { version, policy }
}

/// A pod with its annotations on line 4, its container's fields on line 8, and its own fields from line 9 on.
fn pod(container: &str, spec: &str, annotations: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  {{name: web, annotations: {{{annotations}}}}}\nspec:\n  containers:\n  -\n    \
         {{name: app, image: quay.io/a:1{container}}}\n{spec}\n"
    )
}

/// Manifests that the default policy refuses: the request, its line and field, the policy's line, and a line that
/// allows it.
fn cases() -> Vec<(
    &'static str,
    String,
    u32,
    &'static str,
    &'static str,
    &'static str,
)> {
    let container = |fields: &str| pod(fields, "", "");
    let spec = |fields: &str| pod("", &format!("  {fields}"), "");
    let noted = |annotation: &str| pod("", "", annotation);
    let path = |path: &str| spec(&format!("volumes: [{{name: v, hostPath: {path}}}]"));
    const C: &str = "spec.containers[0].securityContext";
    let c = |field: &str| -> &'static str { format!("{C}.{field}").leak() };
    let v = "spec.volumes[0].hostPath.path";
    vec![
        (
            "privileged",
            container(", securityContext: {privileged: true}"),
            8,
            c("privileged"),
            "privileged: false",
            "privileged: true",
        ),
        (
            "an init container, too",
            spec("initContainers: [{name: i, image: quay.io/a:1, securityContext: {privileged: true}}]"),
            9,
            "spec.initContainers[0].securityContext.privileged",
            "privileged: false",
            "privileged: true",
        ),
        ("network", spec("hostNetwork: true"), 9, "spec.hostNetwork", "hostNetwork: false", "hostNetwork: true"),
        ("pid", spec("hostPID: true"), 9, "spec.hostPID", "hostPID: false", "hostPID: true"),
        ("ipc", spec("hostIPC: true"), 9, "spec.hostIPC", "hostIPC: false", "hostIPC: true"),
        ("path", path("{path: /etc}"), 9, v, "hostPaths: []", "hostPaths: [/etc]"),
        ("Podman's socket", path("{path: /run/podman}"), 9, v, "hostPaths: []", "hostPaths: [/]"),
        ("device", path("{path: /dev/kvm, type: CharDevice}"), 9, v, "devices: []", "devices: [/dev/kvm]"),
        ("disk", path("{path: /srv/disk, type: BlockDevice}"), 9, v, "devices: []", "devices: [/srv]"),
        ("bound device", path("{path: //dev/./kvm}"), 9, v, "devices: []", "devices: [/dev]"),
        (
            "device of the resources",
            container(", resources: {limits: {podman.io/device=/dev/fuse: 1}}"),
            8,
            "spec.containers[0].resources.limits[podman.io/device=/dev/fuse]",
            "devices: []",
            "devices: [/dev/fuse]",
        ),
        (
            "device of a vendor",
            container(", resources: {requests: {nvidia.com/gpu=all: 1}}"),
            8,
            "spec.containers[0].resources.requests[nvidia.com/gpu=all]",
            "devices: []",
            "devices: ['nvidia.com/gpu=all']",
        ),
        (
            "capability",
            container(", securityContext: {capabilities: {add: [chown, CAP_SYS_ADMIN]}}"),
            8,
            c("capabilities.add[1]"),
            "capabilities: [CHOWN, DAC_OVERRIDE,",
            "capabilities: [CAP_CHOWN, sys_admin]",
        ),
        (
            "all capabilities",
            container(", securityContext: {capabilities: {add: [ALL]}}"),
            8,
            c("capabilities.add[0]"),
            "capabilities: [CHOWN, DAC_OVERRIDE,",
            "capabilities: [ALL]",
        ),
        (
            "proc",
            container(", securityContext: {procMount: Unmasked}"),
            8,
            c("procMount"),
            "procUnmasked: false",
            "procUnmasked: true",
        ),
        (
            "SELinux",
            container(", securityContext: {seLinuxOptions: {type: spc_t}}"),
            8,
            c("seLinuxOptions"),
            "seLinuxOptions: false",
            "seLinuxOptions: true",
        ),
        (
            "SELinux of the pod",
            spec("securityContext: {seLinuxOptions: {level: s0}}"),
            9,
            "spec.securityContext.seLinuxOptions",
            "seLinuxOptions: false",
            "seLinuxOptions: true",
        ),
        (
            "sysctl",
            spec("securityContext: {sysctls: [{name: net/ipv4/tcp_syncookies, value: '1'}, {name: kernel.msgmax, value: '1'}]}"),
            9,
            "spec.securityContext.sysctls[1].name",
            "sysctls: [kernel.shm_rmid_forced,",
            "sysctls: [kernel.msgmax, net.ipv4.tcp_syncookies]",
        ),
        (
            "seccomp",
            spec("securityContext: {seccompProfile: {type: Unconfined}}"),
            9,
            "spec.securityContext.seccompProfile.type",
            "seccompUnconfined: false",
            "seccompUnconfined: true",
        ),
        (
            "seccomp as Podman reads it",
            noted("container.seccomp.security.alpha.kubernetes.io/app: unconfined"),
            4,
            "metadata.annotations[container.seccomp.security.alpha.kubernetes.io/app]",
            "seccompUnconfined: false",
            "seccompUnconfined: true",
        ),
        (
            "seccomp of the pod",
            noted("seccomp.security.alpha.kubernetes.io/pod: localhost/mine"),
            4,
            "metadata.annotations[seccomp.security.alpha.kubernetes.io/pod]",
            "seccompUnconfined: false",
            "seccompUnconfined: true",
        ),
        (
            "volumes of another container",
            noted("io.podman.annotations.volumes-from/app: beemesh-gateway"),
            4,
            "metadata.annotations[io.podman.annotations.volumes-from/app]",
            "annotations: [volume.podman.io/gid, volume.podman.io/uid]",
            "annotations: [io.podman.annotations.volumes-from]",
        ),
        (
            "the runtime's",
            noted("run.oci.hooks.stdout: /etc/passwd"),
            4,
            "metadata.annotations[run.oci.hooks.stdout]",
            "annotations: [volume.podman.io/gid, volume.podman.io/uid]",
            "annotations: ['run.oci.*']",
        ),
        (
            "an overlay of another folder",
            pod(
                ", volumeMounts: [{name: v, mountPath: '/data:O,upperdir=/etc'}]",
                "  volumes: [{name: v, emptyDir: {}}]",
                "",
            ),
            8,
            "spec.containers[0].volumeMounts[0].mountPath",
            "mountOptions: [ro, rw]",
            "mountOptions: [O, 'upperdir=/etc']",
        ),
        (
            "a claim of a folder",
            "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata:\n  name: a\n  annotations:\n    volume.podman.io/device: /etc\n"
                .to_owned(),
            6,
            "metadata.annotations[volume.podman.io/device]",
            "annotations: [volume.podman.io/gid, volume.podman.io/uid]",
            "annotations: [volume.podman.io/device]",
        ),
    ]
}

#[test]
fn the_default_refuses_what_leaves_the_container_and_says_which_line_does() {
    let default = Rules::default();
    for (name, yaml, line, field, refusing, allowing) in cases() {
        let found = refused(&default, &yaml);
        let (at, of, message) = found.first().expect(name);
        assert!(found.iter().all(|one| one.1 == *of), "{name}: {found:?}");
        assert_eq!((*at, of.as_str()), (line, field), "{name}: {message}");
        let quoted = format!("is refused by `{refusing}");
        assert!(message.contains(&quoted), "{name}: {message}");
        assert!(
            message.contains("of the cluster's policy (version 0, the default): "),
            "{message}"
        );
        assert_eq!(
            refused(&rules(1, allowing), &yaml),
            [],
            "{name} with {allowing}"
        );
    }
}

#[test]
fn a_deployments_template_is_held_to_the_rules_too() {
    let yaml = "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: web\n  annotations: {io.podman.annotations.userns: host}\n\
                spec:\n  selector: {matchLabels: {app: a}}\n  template:\n    metadata:\n      labels: {app: a}\n      \
                annotations: {bind-mount-options: '/srv:U'}\n    spec:\n      hostPID: true\n      containers: [{name: a, image: quay.io/a:1}]\n";
    let found = refused(&rules(3, "hostIPC: true"), yaml);
    let places: Vec<_> = found
        .iter()
        .map(|(line, field, _)| (*line, field.as_str()))
        .collect();
    let expected = [
        (5, "metadata.annotations[io.podman.annotations.userns]"),
        (11, "spec.template.metadata.annotations.bind-mount-options"),
        (13, "spec.template.spec.hostPID"),
    ];
    assert_eq!(places, expected);
    assert!(found[2].2.contains("(version 3)"), "{found:?}");
}

#[test]
fn what_stays_in_the_container_is_accepted_by_the_default() {
    let harmless = pod(
        ", securityContext: {privileged: false, procMount: Default, seLinuxOptions: {}, capabilities: {add: [KILL], drop: [ALL]}, \
         seccompProfile: {type: RuntimeDefault}}, resources: {limits: {cpu: 1, memory: 1Gi}}, \
         volumeMounts: [{name: v, mountPath: '/data:ro'}], ports: [{containerPort: 80, hostPort: 80}]",
        "  hostNetwork: false\n  shareProcessNamespace: true\n  hostUsers: false\n  volumes: [{name: v, emptyDir: {}}]",
        "example.com/note: x, seccomp.security.alpha.kubernetes.io/pod: runtime/default",
    );
    assert_eq!(refused(&Rules::default(), &harmless), []);
    let claim = "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata:\n  name: a\n  annotations:\n    volume.podman.io/driver: local\n    \
                 volume.podman.io/uid: '7'\n";
    assert_eq!(refused(&Rules::default(), claim), []);
}

#[test]
fn a_path_is_allowed_by_its_components_and_to_read_only_where_the_rule_says_so() {
    let rules = rules(
        2,
        "hostPaths: [/srv, /var/lib/data:ro]\ndevices: [/dev/dri]",
    );
    let mounted = |path: &str, mount: &str| {
        pod(
            &format!(", volumeMounts: [{{name: v, mountPath: /m{mount}}}]"),
            &format!("  volumes: [{{name: v, hostPath: {{path: {path}}}}}]"),
            "",
        )
    };
    let path = "spec.volumes[0].hostPath.path";
    let write = "spec.containers[0].volumeMounts[0].readOnly";
    let kind = "spec.volumes[0].hostPath.type";
    for (at, mount, refusing) in [
        ("/srv", "", None),
        ("/srv//a/./b/", "", None),
        ("/srvx", "", Some(path)),
        ("/", "", Some(path)),
        ("/srv/../etc", "", Some(path)),
        ("/var/lib", ", readOnly: true", Some(path)),
        ("/var/lib/data/x", "", Some(write)),
        ("/var/lib/data/x", ", readOnly: false", Some(write)),
        ("/var/lib/data/x", ", readOnly: true", None),
        (
            "/var/lib/data/x, type: DirectoryOrCreate",
            ", readOnly: true",
            Some(kind),
        ),
        ("/dev/dri/card0", "", None),
        ("/dev/dri/../kvm", "", Some(path)),
        ("/dev/dri/a:b, type: CharDevice", "", Some(path)),
        ("/dev", "", Some(path)),
    ] {
        let found = refused(&rules, &mounted(at, mount));
        let fields: Vec<_> = found.iter().map(|one| one.1.as_str()).collect();
        assert_eq!(
            fields,
            refusing.into_iter().collect::<Vec<_>>(),
            "{at}{mount}: {found:?}"
        );
    }
}

#[test]
fn a_document_that_makes_no_sense_is_told_line_by_line() {
    let shown = |text: &str| match Policy::read(text) {
        Ok(_) => Vec::new(),
        Err(found) => found
            .iter()
            .map(|one| format!("{} {}: {}", one.line, one.field, one.message))
            .collect::<Vec<_>>(),
    };
    for (text, expected) in [
        (
            "",
            "0 : contains no rule: `beemesh policy show` prints all rules",
        ),
        ("a: 1\n---\nb: 2\n", "0 : is more than one document"),
        (
            "- a\n",
            "1 : is not a mapping: write one rule on each line, as `privileged: false`",
        ),
        (
            "privileged: maybe\n",
            "1 privileged: is neither true nor false",
        ),
        (
            "hostPaths: /srv\n",
            "1 hostPaths: is not a list: write `[]` for nothing",
        ),
        (
            "hostPaths: [1]\n",
            "1 hostPaths[0]: is not a string: quote it",
        ),
        (
            "privileged: true\nprivileged: false\n",
            "2 privileged: appears twice",
        ),
        (
            "hostPID: true\nhostPaths:\n- /srv/../etc\n",
            "3 hostPaths[0]: `/srv/../etc` is not a path such as /srv or /srv/data:ro, absolute and without `..`",
        ),
        (
            "devices: [kvm]\n",
            "1 devices[0]: `kvm` is neither a path such as /dev/kvm nor a device such as nvidia.com/gpu=all",
        ),
        (
            "capabilities: [SYS_ADMN]\n",
            "1 capabilities[0]: `SYS_ADMN` is not a capability: write it as NET_RAW, or ALL",
        ),
        (
            "annotations: ['*']\n",
            "1 annotations[0]: `*` is not an annotation that a policy can refuse",
        ),
        (
            "privileged: !!bool true\n",
            "1 : a YAML tag is not allowed here",
        ),
    ] {
        assert_eq!(shown(text), [expected], "{text}");
    }
    let unknown = shown("privileged: true\nhostPath: []\n");
    assert!(
        unknown.len() == 1
            && unknown[0]
                .starts_with("2 hostPath: is not a rule; the rules are privileged, hostNetwork, "),
        "{unknown:?}"
    );
    let long = format!("# {}\n{{}}", "x".repeat(DOCUMENT_BYTES_MAX));
    assert!(
        shown(&long)[0].contains("bytes, at most 65536"),
        "{:?}",
        shown(&long)
    );
    let many = format!("hostPaths: [{}]", "/a, ".repeat(257));
    assert!(shown(&many)[0].contains("more than 256 entries"));
}

#[test]
fn what_a_document_leaves_out_is_as_in_the_default() {
    let default = Policy::default();
    assert_eq!(Policy::read("{}"), Ok(default.clone()));
    let text = default.text();
    assert_eq!(Policy::read(&text), Ok(default.clone()));
    assert_eq!(
        text.lines().count(),
        Switch::ALL.len() + List::ALL.len() + 1
    );
    assert!(
        text.starts_with("privileged: false\nhostNetwork: false\n"),
        "{text}"
    );
    let json = serde_json::to_string(&default.json()).expect("it is JSON");
    assert_eq!(Policy::read(&json), Ok(default));
}

/// Release 0.2.0 refuses a document with a rule that it does not know. So the stored document leaves out such rules
/// where they have their default.
#[test]
fn what_is_stored_has_newer_rules_only_where_they_are_set() {
    for (document, newer) in [
        ("{}", None),
        (
            "hostPorts: ['1-65535']\nterminationGracePeriodSeconds: 3600",
            None,
        ),
        (
            "hostPorts: [80, '443', 8000-8999]",
            Some("hostPorts: [\"80\", \"443\", \"8000-8999\"]\n"),
        ),
        ("hostPorts: []", Some("hostPorts: []\n")),
        ("probeHosts: []", None),
        (
            "probeHosts: [10.0.0.1, '::1']",
            Some("probeHosts: [\"10.0.0.1\", \"::1\"]\n"),
        ),
        (
            "terminationGracePeriodSeconds: 7200",
            Some("terminationGracePeriodSeconds: 7200\n"),
        ),
    ] {
        let policy = Policy::read(document).expect(document);
        let stored = policy.stored();
        assert_eq!(policy.since().is_some(), newer.is_some(), "{document}");
        assert!(newer.is_none_or(|newer| stored.contains(newer)), "{stored}");
        assert_eq!(
            ["hostPorts", "probeHosts", "Grace"]
                .iter()
                .any(|rule| stored.contains(rule)),
            newer.is_some(),
            "{stored}"
        );
        assert_eq!(Policy::read(&stored), Ok(policy));
    }
    for wrong in [
        "hostPorts: ['0']",
        "hostPorts: [90-80]",
        "hostPorts: [70000]",
        "hostPorts: [a]",
        "hostPorts: ['080']",
        "hostPorts: 80",
        "probeHosts: [http://a]",
        "probeHosts: [db.example.org]",
        "probeHosts: ['']",
        "terminationGracePeriodSeconds: -1",
        "terminationGracePeriodSeconds: 1h",
        "terminationGracePeriodSeconds: 99999999",
    ] {
        assert!(Policy::read(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn ports_of_the_host_are_those_that_the_rule_lists() {
    let some = rules(2, "hostPorts: [80, 8000-8999]\nhostNetwork: true");
    for (ports, spec, refusing) in [
        ("{containerPort: 1, hostPort: 80}", "", None),
        (
            "{containerPort: 1, hostPort: 8999, protocol: UDP}",
            "",
            None,
        ),
        ("{containerPort: 9}", "", None),
        (
            "{containerPort: 1, hostPort: 81}",
            "",
            Some("spec.containers[0].ports[0].hostPort"),
        ),
        (
            "{containerPort: 1, hostPort: 9000}",
            "",
            Some("spec.containers[0].ports[0].hostPort"),
        ),
        (
            "{containerPort: 81}",
            "  hostNetwork: true",
            Some("spec.containers[0].ports[0].containerPort"),
        ),
        ("{containerPort: 80}", "  hostNetwork: true", None),
    ] {
        let found = refused(&some, &pod(&format!(", ports: [{ports}]"), spec, ""));
        let fields: Vec<_> = found.iter().map(|(_, field, _)| field.as_str()).collect();
        assert_eq!(fields, refusing.into_iter().collect::<Vec<_>>(), "{ports}");
        assert!(
            found
                .iter()
                .all(|(.., words)| words.contains("`hostPorts: [\"80\", \"8000-8999\"]`")),
            "{found:?}"
        );
    }
}

#[test]
fn a_pod_may_take_no_longer_to_end_than_the_rule_says() {
    let long = |seconds: u32| {
        pod(
            "",
            &format!("  terminationGracePeriodSeconds: {seconds}"),
            "",
        )
    };
    let probe = |kind: &str| {
        let probe = "{exec: {command: [a]}, terminationGracePeriodSeconds: 3601}";
        pod(&format!(", {kind}: {probe}"), "", "")
    };
    let month = rules(1, "terminationGracePeriodSeconds: 2592000");
    for (yaml, line, field) in [
        (long(3601), 9, "spec.terminationGracePeriodSeconds"),
        (
            probe("livenessProbe"),
            8,
            "spec.containers[0].livenessProbe.terminationGracePeriodSeconds",
        ),
        (
            probe("startupProbe"),
            8,
            "spec.containers[0].startupProbe.terminationGracePeriodSeconds",
        ),
    ] {
        let [(at, found, words)] = &refused(&Rules::default(), &yaml)[..] else {
            panic!("{yaml}")
        };
        assert_eq!((*at, found.as_str()), (line, field));
        assert!(
            words.starts_with("`3601` is refused by `terminationGracePeriodSeconds: 3600` of"),
            "{words}"
        );
        assert_eq!(refused(&month, &yaml), []);
    }
    assert_eq!(refused(&Rules::default(), &long(3600)), []);
}

proptest! {
    #[test]
    fn any_policy_reads_back_as_it_was_written(
        switches: [bool; Switch::ALL.len()],
        paths in proptest::collection::vec("/[a-z~#' \u{e4}]{1,8}(:ro)?", 0..4),
        devices in proptest::collection::vec("/dev/[a-z]{1,4}|[a-z]{1,4}\\.com/[a-z]{1,3}=[a-z0-9:]{1,4}", 0..4),
        options in proptest::collection::vec("[a-zA-Z][a-z=/0-9:]{0,6}", 0..4),
        ports in proptest::collection::vec((1..u16::MAX, 0..2000_u16), 0..4),
        grace in 0..31 * 86_400_i64,
    ) {
        let mut policy = Policy { switches, ..Policy::default() };
        policy.lists[List::HostPaths as usize] = paths;
        policy.lists[List::Devices as usize] = devices;
        policy.lists[List::MountOptions as usize] = options;
        policy.lists[List::HostPorts as usize] = ports.iter().map(|(first, more)| format!("{first}-{}", first.saturating_add(*more))).collect();
        policy.grace_seconds = grace;
        let text = policy.text();
        prop_assert_eq!(text.lines().count(), Switch::ALL.len() + List::ALL.len() + 1);
        prop_assert_eq!(Policy::read(&policy.stored()), Ok(policy.clone()));
        prop_assert_eq!(Policy::read(&text), Ok(policy), "{}", text);
    }

    #[test]
    fn no_document_makes_the_reader_fail(text: String) {
        let _ = Policy::read(&text);
    }
}
