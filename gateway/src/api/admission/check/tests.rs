use beemesh_protocol::{
    ClusterId,
    state::{Change, Command, TokenRecord},
};
use beemesh_quadlet::manifest::parse;

use super::*;

/// A state with the hosts h1 (disk: ssd) and h2.
pub(super) fn state() -> State {
    let mut state = State::default();
    let host = |n: u8, disk: &str| Host {
        id: HostId([n; 32]),
        name: format!("h{n}"),
        addresses: Vec::new(),
        labels: [("disk".to_owned(), disk.to_owned())].into(),
        drained: false,
        claims_as: None,
        votes_from_ms: 0,
        lost_at_ms: 0,
        declared_lost: false,
        steady_at_ms: 0,
    };
    let cluster = ClusterId([7; 16]);
    let first = host(1, "ssd");
    let token = TokenRecord {
        id: [1; 8],
        secret_hash: [2; 32],
        expires_ms: 1000,
        uses: 1,
    };
    let second = host(2, "hdd");
    let admit = Change::Admit {
        token: token.id,
        secret_hash: token.secret_hash,
        host: second.clone(),
        replaces: None,
    };
    let drain = Change::DrainHost {
        host: second.id,
        drained: true,
    };
    for change in [
        Change::Found {
            cluster,
            host: first,
        },
        Change::PutToken(token),
        admit,
        drain,
    ] {
        let _ = state.apply(2, &Command::unasked(1, change));
    }
    assert_eq!(state.hosts().len(), 2);
    state
}

pub(super) fn applied(state: &mut State, index: u64, yaml: &str) {
    let objects = parse(yaml.as_bytes(), false).expect(yaml).objects;
    let manifest = objects[0].name.clone();
    let change = Change::Apply {
        manifest,
        objects,
        policy: None,
        keep: false,
        if_index: None,
    };
    let outcome = state.apply(index, &Command::unasked(1, change));
    assert!(
        matches!(outcome, beemesh_protocol::peer::Outcome::Applied(_)),
        "{outcome:?}"
    );
}

fn reports() -> BTreeMap<HostId, Arc<HostReport>> {
    let report = |podman: &str, reserved: &[u16]| HostReport {
        podman: podman.to_owned(),
        reserved_ports: reserved.to_vec(),
        ..HostReport::default()
    };
    [
        (HostId([1; 32]), Arc::new(report("5.4.2", &[4701, 8443]))),
        (HostId([2; 32]), Arc::new(report("5.8.0-rc1", &[4800]))),
    ]
    .into()
}

/// The `wrong`, `held` and `warnings` of a manifest, each as `DOCUMENT:LINE FIELD: MESSAGE`.
pub(super) fn verdict(state: &State, yaml: &str) -> [Vec<String>; 3] {
    let manifest = parse(yaml.as_bytes(), false).expect(yaml);
    let name = manifest.objects[0].name.clone();
    let Verdict {
        wrong,
        held,
        warnings,
        awaited,
    } = checked(&name, &manifest, state, false);
    assert_eq!(awaited, []);
    [wrong, held, warnings].map(|problems| shown(&problems))
}

fn checked(name: &str, manifest: &Manifest, state: &State, waits: bool) -> Verdict {
    let reports = reports();
    let around = Around {
        state,
        reports: &reports,
        waits,
        prune: true,
    };
    check(name, manifest, around, &mut Ledger::default())
}

fn shown(problems: &[Problem]) -> Vec<String> {
    let shown = |one: &Problem| {
        format!(
            "{}:{} {}: {}",
            one.document, one.line, one.field, one.message
        )
    };
    problems.iter().map(shown).collect()
}

/// A pod with these containers and fields of each, and more fields of the pod.
fn pod(name: &str, containers: &[(&str, &str)], more: &str) -> String {
    let containers: String = containers
        .iter()
        .map(|(name, fields)| format!("  - {{name: {name}, image: 'quay.io/a:1'{fields}}}\n"))
        .collect();
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n{more}  containers:\n{containers}"
    )
}

fn port(name: &str, port: &str, more: &str) -> String {
    pod(name, &[("a", &format!(", ports: [{{{port}}}]"))], more)
}

fn none() -> [Vec<String>; 3] {
    [vec![], vec![], vec![]]
}

#[test]
fn names_that_would_meet_on_a_host_are_refused_with_both() {
    let one = pod("shop", &[("web", ""), ("cart-db", "")], "");
    let two = pod("shop-cart", &[("db", "")], "");
    let message = "container `db` of Pod shop-cart and container `cart-db` of Pod shop";
    let rest = "would both be named `shop-cart-db` on a host: Podman names a container POD-CONTAINER; rename one of them";
    let [wrong, held, _] = verdict(&state(), &format!("{one}---\n{two}"));
    let expected = format!("2:14 spec.containers[0].name: {message} (document 1, line 7) {rest}");
    assert_eq!((wrong, held), (vec![expected], vec![]));

    let mut known = state();
    applied(&mut known, 3, &one);
    assert_eq!(verdict(&known, &one), none(), "the same again");
    let [wrong, held, _] = verdict(&known, &two);
    let expected = format!("1:6 spec.containers[0].name: {message} {rest}");
    assert_eq!((wrong, held), (vec![], vec![expected]));

    for (name, container, meets) in [
        ("shop-web", "x", true),
        ("shop-holder", "x", true),
        ("shop", "holder", true),
        ("shop-cart", "dbx", false),
        ("web", "a", false),
        ("0123456789ab", "infra", true),
        ("0123456789ab-service", "x", true),
        ("0123456789ax", "infra", false),
    ] {
        let mut known = state();
        applied(
            &mut known,
            3,
            &one.replace("name: shop}", "name: shop, labels: {a: b}}"),
        );
        let yaml = match name {
            "shop" => pod(name, &[(container, ""), ("web", "")], ""),
            _ => pod(name, &[(container, "")], ""),
        };
        assert_eq!(
            verdict(&known, &yaml) != none(),
            meets,
            "{name} {container}"
        );
    }
    let elsewhere = one.replace("name: shop}", "name: shop, namespace: other}");
    assert_eq!(verdict(&known, &elsewhere), none(), "another namespace");
    let init = pod(
        "shop-cart",
        &[("x", "")],
        "  initContainers: [{name: db, image: 'quay.io/a:1'}]\n",
    );
    assert_eq!(verdict(&known, &init)[1].len(), 1);
}

#[test]
fn a_port_that_another_workload_holds_is_refused_where_both_may_run() {
    let mut known = state();
    let tcp = "containerPort: 8080, hostPort: 80";
    applied(&mut known, 3, &port("first", tcp, ""));
    assert_eq!(
        verdict(&known, &port("first", tcp, "")),
        none(),
        "the same again"
    );
    let expected = "1:6 spec.containers[0].ports[0].hostPort: port 80/tcp of the host is held by workload first";
    assert_eq!(
        verdict(&known, &port("second", tcp, "")),
        [vec![], vec![expected.to_owned()], vec![]]
    );
    let mut stopped = state();
    let annotated = "name: first, annotations: {beemesh.io/stopped: 'true'}}";
    let first = port("first", tcp, "").replace("name: first}", annotated);
    applied(&mut stopped, 3, &first);
    assert_eq!(
        verdict(&stopped, &port("second", tcp, "")),
        [vec![], vec![expected.to_owned()], vec![]],
        "a stopped workload keeps its ports"
    );
    for (ports, more, meets) in [
        ("containerPort: 1, hostPort: 80, hostIP: 0.0.0.0", "", true),
        ("containerPort: 1, hostPort: 80, hostIP: 10.0.0.1", "", true),
        ("containerPort: 1, hostPort: 80, hostIP: '::'", "", true),
        ("containerPort: 1, hostPort: 80, protocol: UDP", "", false),
        ("containerPort: 80", "", false),
        ("containerPort: 80", "  hostNetwork: true\n", true),
        (
            "containerPort: 1, hostPort: 80",
            "  nodeSelector: {disk: hdd}\n",
            true,
        ),
        (
            "containerPort: 1, hostPort: 80",
            "  nodeSelector: {disk: tape}\n",
            false,
        ),
        ("containerPort: 1, hostPort: 81", "", false),
    ] {
        let found = verdict(&known, &port("second", ports, more));
        assert_eq!(!found[1].is_empty(), meets, "{ports} {more}: {found:?}");
    }
    let mut pinned = state();
    applied(
        &mut pinned,
        3,
        &port(
            "first",
            tcp,
            "  nodeSelector: {kubernetes.io/hostname: h1}\n",
        ),
    );
    for (host, meets) in [("h1", true), ("h2", false)] {
        let more = format!("  nodeSelector: {{kubernetes.io/hostname: {host}}}\n");
        assert_eq!(
            verdict(&pinned, &port("second", tcp, &more)) != none(),
            meets,
            "{host}"
        );
    }
    let both = format!("{}---\n{}", port("first", tcp, ""), port("second", tcp, ""));
    let [wrong, held, _] = verdict(&state(), &both);
    let expected = "2:13 spec.containers[0].ports[0].hostPort: port 80/tcp of the host is held by Pod first (document 1, line 6)";
    assert_eq!((wrong, held), (vec![expected.to_owned()], vec![]));
    assert_eq!(
        verdict(&known, &both.replace("name: second", "name: third"))[1],
        Vec::<String>::new(),
        "it replaces the holder"
    );
}

#[test]
fn two_that_meet_by_labels_of_hosts_can_each_be_changed() {
    let mut state = state();
    let on = |name: &str, label: &str| {
        let more = format!("  nodeSelector: {{{label}}}\n");
        port(name, "containerPort: 80, hostPort: 80", &more)
    };
    applied(&mut state, 3, &on("first", "disk: ssd"));
    let label = |state: &mut State, index, key: &str, value: &str| {
        let set = [(key.to_owned(), value.to_owned())].into();
        let (host, remove) = (HostId([2; 32]), Vec::new());
        let change = Change::LabelHost { host, set, remove };
        let _ = state.apply(index, &Command::unasked(1, change));
    };
    label(&mut state, 4, "zone", "b");
    applied(&mut state, 5, &on("second", "zone: b"));
    label(&mut state, 6, "disk", "ssd");
    for (name, selector, held) in [
        ("first", "disk: ssd", ""),
        ("second", "zone: b", ""),
        ("second", "disk: ssd", "held by workload first"),
        ("third", "zone: b", "held by workload"),
    ] {
        let yaml = on(name, selector).replace("quay.io", "docker.io");
        let [wrong, refused, _] = verdict(&state, &yaml);
        assert_eq!(
            (wrong, refused.is_empty()),
            (Vec::new(), held.is_empty()),
            "{name}"
        );
        assert!(refused.concat().contains(held), "{refused:?}");
    }
}

#[test]
fn no_workload_may_use_the_ports_of_the_hosts() {
    let reserved = |number: u16, more: &str| {
        let [wrong, held, _] = verdict(
            &state(),
            &port(
                "web",
                &format!("containerPort: 1, hostPort: {number}"),
                more,
            ),
        );
        assert!(held.is_empty(), "{held:?}");
        wrong.concat()
    };
    let on = |n: u8| format!("  nodeSelector: {{kubernetes.io/hostname: h{n}}}\n");
    assert!(reserved(4701, "").contains("port 4701 is reserved for Beemesh itself on host h1"));
    assert!(
        reserved(4701, &on(2)).contains("port 4701 is reserved for the mesh of Beemesh"),
        "whatever it reports"
    );
    assert!(reserved(8443, &on(1)).contains("host h1"));
    assert_eq!(reserved(8443, &on(2)), "");
    assert!(reserved(4800, "").contains("host h2"));
    assert_eq!(reserved(4702, ""), "");
    let [wrong, ..] = verdict(
        &state(),
        &port(
            "web",
            "containerPort: 4701, protocol: UDP",
            "  hostNetwork: true\n",
        ),
    );
    assert!(
        wrong[0]
            .starts_with("1:7 spec.containers[0].ports[0].containerPort: port 4701 is reserved"),
        "{wrong:?}"
    );
}

const MAP: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: conf}\ndata: {MODE: blue}\nbinaryData: {logo: AAAA}\n";

fn uses(variable: &str, item: &str) -> String {
    let variable =
        format!(", env: [{{name: A, valueFrom: {{configMapKeyRef: {{name: conf, {variable}}}}}}}]");
    let volume = format!("  volumes: [{{name: v, configMap: {{name: conf, {item}}}}}]\n");
    pod("web", &[("a", &variable)], &volume)
}

#[test]
fn keys_that_are_not_there_are_refused() {
    let fine = "items: [{key: MODE, path: a}]";
    for (variable, item, expected) in [
        ("key: MODE", fine, ""),
        ("key: MOOD, optional: true", fine, ""),
        ("key: MODE", "items: [{key: logo, path: a}]", ""),
        (
            "key: MODE",
            "optional: true, items: [{key: no, path: a}]",
            "",
        ),
        (
            "key: MOOD",
            fine,
            "2:13 spec.containers[0].env[0].valueFrom.configMapKeyRef.key: ConfigMap conf has no key `MOOD`: it has MODE, logo",
        ),
        // A variable needs text, and this value is binary.
        (
            "key: logo",
            fine,
            "2:13 spec.containers[0].env[0].valueFrom.configMapKeyRef.key: ConfigMap conf has no key `logo`: it has MODE, logo",
        ),
        (
            "key: MODE",
            "items: [{key: app.cfg, path: a}]",
            "2:11 spec.volumes[0].configMap.items[0].key: ConfigMap conf has no key `app.cfg`: it has MODE, logo",
        ),
    ] {
        let [wrong, held, _] = verdict(&state(), &format!("{MAP}---\n{}", uses(variable, item)));
        assert_eq!(
            (wrong.concat().as_str(), held.len()),
            (expected, 0),
            "{variable} {item}"
        );
    }
    // The state has the ConfigMap, or the Secret.
    let mut known = state();
    applied(&mut known, 3, MAP);
    assert_eq!(verdict(&known, &uses("key: MODE", fine)), none());
    assert_eq!(verdict(&known, &uses("key: MOOD", fine))[0].len(), 1);
    let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: conf}\nstringData: {MODE: blue}\ndata: {B: AAAA}\n";
    for (key, there) in [("MODE", true), ("B", true), ("C", false)] {
        let pod = uses(
            &format!("key: {key}"),
            &format!("items: [{{key: {key}, path: a}}]"),
        );
        let pod = pod
            .replace("configMapKeyRef: {name", "secretKeyRef: {name")
            .replace("configMap: {name", "secret: {secretName");
        let [wrong, ..] = verdict(&state(), &format!("{secret}---\n{pod}"));
        assert_eq!(wrong.is_empty(), there, "{wrong:?}");
    }
}

#[test]
fn what_is_not_there_is_waited_for_where_the_user_says_so() {
    let mut state = state();
    applied(&mut state, 3, MAP);
    let other = MAP.replace("conf", "gone");
    applied(&mut state, 4, &other);
    let uses = uses("key: MOOD", "items: [{key: MODE, path: a}]");
    let missing = uses
        .replace("conf,", "none,")
        .replace("name: web", "name: two");
    let mut manifest = parse(format!("{uses}---\n{missing}").as_bytes(), false).unwrap();
    let needed = |manifest: &Manifest| {
        let all = manifest.objects.iter().flat_map(|one| &one.references);
        all.map(|one| (one.name.clone(), one.optional))
            .collect::<Vec<_>>()
    };
    let both = |first, second| vec![("conf".to_owned(), first), ("none".to_owned(), second)];
    assert_eq!(needed(&manifest), both(false, false));
    let awaited = wait_for_references("web", &mut manifest, &state, true);
    let [one] = &shown(&awaited)[..] else {
        panic!("{awaited:?}");
    };
    assert_eq!(one.split(' ').next(), Some("2:9"), "{one}");
    assert!(
        one.ends_with("ConfigMap none does not exist: the workload waits for it"),
        "{one}"
    );
    assert_eq!(
        needed(&manifest),
        both(false, true),
        "one that is there stays needed"
    );
    let Verdict {
        wrong,
        held,
        awaited,
        ..
    } = checked("web", &manifest, &state, true);
    assert_eq!((wrong, held), (Vec::new(), Vec::new()));
    let expected = "1:7 spec.containers[0].env[0].valueFrom.configMapKeyRef.key: ConfigMap conf has no key `MOOD`: the workload waits for it";
    assert_eq!(shown(&awaited), [expected]);
    // An object that this apply removes from the manifest counts as missing.
    let awaited = wait_for_references(
        "gone",
        &mut parse(uses.replace("conf,", "gone,").as_bytes(), false).unwrap(),
        &state,
        true,
    );
    assert_eq!(awaited.len(), 1, "{awaited:?}");
}

#[test]
fn a_key_that_another_workload_needs_is_not_taken_away() {
    let mut known = state();
    applied(&mut known, 3, MAP);
    applied(
        &mut known,
        4,
        &uses("key: MODE", "items: [{key: logo, path: a}]"),
    );
    assert_eq!(verdict(&known, &MAP.replace("blue", "green")), none());
    assert_eq!(
        verdict(&known, &MAP.replace("MODE: blue", "MODE: blue, MORE: b")),
        none()
    );
    for (new, key) in [("MODE: blue", "MODE"), ("logo: AAAA", "logo")] {
        let expected = format!(
            "1:1 : key `{key}` of ConfigMap `conf` is missing, and workload web of manifest `web` needs it"
        );
        let [wrong, held, _] = verdict(&known, &MAP.replace(new, "other: AAAA"));
        assert_eq!((wrong, held), (vec![], vec![expected]));
    }
    let elsewhere = MAP
        .replace("name: conf", "name: conf, namespace: other")
        .replace("MODE", "X");
    assert_eq!(verdict(&known, &elsewhere), none());
}

#[test]
fn hosts_that_ignore_a_stop_signal_are_named() {
    const PROBE: &str = ", livenessProbe: {exec: {command: [a]}}";
    let with = |signal: &str, probe: &str, more: &str| {
        let [wrong, held, warnings] = verdict(
            &state(),
            &pod(
                "web",
                &[(
                    "a",
                    &format!(", lifecycle: {{stopSignal: {signal}}}{probe}"),
                )],
                more,
            ),
        );
        assert!(wrong.is_empty() && held.is_empty());
        warnings
    };
    assert_eq!(
        with("SIGUSR1", PROBE, ""),
        [
            "1:6 spec.containers[0].lifecycle.stopSignal: Podman before 5.6 sends SIGTERM to a container whose probe fails: h1 has 5.4.2"
        ]
    );
    // Without a probe the signal works with every Podman: Beemesh sends it before it removes the pod.
    assert!(with("SIGUSR1", "", "").is_empty());
    assert!(with("SIGTERM", PROBE, "").is_empty());
    assert!(
        with(
            "SIGUSR1",
            PROBE,
            "  nodeSelector: {kubernetes.io/hostname: h2}\n"
        )
        .is_empty()
    );
}
