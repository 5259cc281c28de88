//! The agent as systemd and D-Bus show it.

use harness::{Cluster, pod, secs, wait_for};

const INTERFACE: &str = "io.beemesh.Agent1";

#[test]
fn the_agent_shows_itself_on_the_bus_and_in_systemctl() {
    let cluster = Cluster::formed("bus", 2);
    let host = cluster.host(1);
    let introspected = host
        .run(&[
            "busctl",
            "introspect",
            "--no-pager",
            "--no-legend",
            INTERFACE,
            "/io/beemesh/Agent1",
            INTERFACE,
        ])
        .ok();
    let members: Vec<(String, String, String)> = introspected
        .lines()
        .map(|line| {
            let mut words = line.split_whitespace();
            let mut next = || words.next().unwrap_or_default().to_owned();
            (next(), next(), next())
        })
        .collect();
    let xml = include_str!("../../systemd/dbus-1/interfaces/io.beemesh.Agent1.xml");
    let mut expected: Vec<(String, String, String)> = xml
        .lines()
        .filter_map(|line| line.trim().strip_prefix("<property "))
        .map(|line| {
            let attribute = |name: &str| {
                line.split(&format!("{name}=\""))
                    .nth(1)
                    .and_then(|rest| rest.split('"').next())
                    .unwrap_or_default()
                    .to_owned()
            };
            (
                format!(".{}", attribute("name")),
                "property".to_owned(),
                attribute("type"),
            )
        })
        .collect();
    let mut found = members;
    found.sort();
    expected.sort();
    assert_eq!(found, expected, "the bus and the XML contract differ");

    let _ = host.apply(&pod("web", "first"));
    let property = |name: &str| {
        host.run(&[
            "busctl",
            "get-property",
            INTERFACE,
            "/io/beemesh/Agent1",
            INTERFACE,
            name,
        ])
        .out
    };
    wait_for("the workload on the bus", secs(20), || {
        let workloads = property("Workloads");
        if workloads.contains("web") {
            Ok(())
        } else {
            Err(workloads)
        }
    });
    let role = property("Role");
    assert!(
        role.contains("leader") || role.contains("follower"),
        "{role}"
    );
    assert!(property("PeerId").contains("12D3KooW"));
    wait_for("the agent's status line", secs(20), || {
        let line = host.unit("beemesh-agent.service", "StatusText");
        if line.ends_with("· 2/2 hosts · 1 workload, 1 healthy") {
            Ok(())
        } else {
            Err(line)
        }
    });
    let refused = host.sh("setpriv --reuid=65534 --regid=65534 --clear-groups busctl get-property io.beemesh.Agent1 /io/beemesh/Agent1 io.beemesh.Agent1 Role");
    assert_ne!(refused.code, 0, "an ordinary user is refused: {refused}");
}

#[test]
fn what_is_ours_has_no_more_rights_than_it_needs() {
    let cluster = Cluster::formed("rights", 1);
    let host = cluster.host(1);
    let answer = host.apply(&pod("web", "hello"));
    assert_eq!(answer["settled"], true, "{answer}");
    // In tenths. docs/security.md has the same figures.
    for (unit, most) in [
        ("beemesh-agent.service", 20),
        ("beemesh-ports.service", 25),
        ("beemesh-pod-web.service", 21),
    ] {
        let line = format!("systemd-analyze security --no-pager --threshold={most} {unit}");
        let exposure = host.sh(&line);
        assert_eq!(exposure.code, 0, "{exposure}");
    }
    let gateway = host.sh("podman inspect beemesh-gateway-gateway").json();
    let (gateway, config) = (&gateway[0], &gateway[0]["HostConfig"]);
    assert_eq!(config["ReadonlyRootfs"], true, "{config}");
    assert_eq!(config["Privileged"], false, "{config}");
    assert_eq!(gateway["EffectiveCaps"].as_array().map_or(0, Vec::len), 0);
    // The kernel's view of the process is authoritative.
    let kernel = host
        .sh("grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/$(pgrep -x beemesh-gateway)/status")
        .ok();
    let told: Vec<_> = kernel.split_whitespace().collect();
    let none = "0000000000000000";
    let wanted = [
        "CapEff:",
        none,
        "CapBnd:",
        none,
        "NoNewPrivs:",
        "1",
        "Seccomp:",
        "2",
    ];
    assert_eq!(told, wanted);
}

#[test]
fn the_sockets_and_files_are_closed_to_ordinary_users() {
    let cluster = Cluster::formed("modes", 1);
    let host = cluster.host(1);
    let _ = host.apply(&pod("web", "first"));
    let open = host
        .sh("find /run/beemesh /var/lib/beemesh /etc/containers/systemd/beemesh -perm /007 ! -type l 2>/dev/null")
        .out;
    assert_eq!(open, "", "world-accessible");
    let modes = host.sh("stat -c '%a %U %G' /run/beemesh/gateway.sock /run/beemesh/agent.sock /var/lib/beemesh/agent/identity").out;
    assert_eq!(
        modes.lines().collect::<Vec<_>>(),
        ["660 root beemesh", "600 root root", "600 root root"]
    );

    let as_user = |groups: &str, command: &str| {
        host.sh(&format!(
            "setpriv --reuid=65534 --regid=65534 {groups} {command}"
        ))
    };
    let property =
        "busctl get-property io.beemesh.Agent1 /io/beemesh/Agent1 io.beemesh.Agent1 Role";
    let member = "--groups=\"$(getent group beemesh | cut -d: -f3)\"";
    for command in ["beemesh get hosts", property] {
        assert_eq!(as_user(member, command).code, 0, "{command}");
        let refused = as_user("--clear-groups", command);
        assert_ne!(refused.code, 0, "{command}: {refused}");
    }
    // The journal records who changed what.
    let label = as_user(member, "beemesh host label h9 a=b");
    assert_eq!(label.code, 1, "no such host: {label}");
    let _ = as_user(member, "beemesh host label h1 a=b").ok();
    wait_for("the trail", secs(10), || {
        let said = host.sh(
            "journalctl -b -u beemesh-gateway -g 'host h1 labelled index=[0-9]* caller=uid 65534'",
        );
        if said.code == 0 { Ok(()) } else { Err(said) }
    });

    // A workload's supervisor cannot reach devices either: a shell in its unit's control group is subject to the same
    // policy.
    let cgroup = "/sys/fs/cgroup/system.slice/beemesh-pod-web.service/cgroup.procs";
    let reach = |device: &str| {
        let line = format!("echo $$ > {cgroup} && exec 3</dev/{device}");
        host.run(&["sh", "-c", &line])
    };
    assert_eq!(host.sh("exec 3</dev/fuse").code, 0, "outside it opens");
    assert_eq!(reach("null").code, 0);
    let refused = reach("fuse");
    assert!(
        refused.code != 0 && refused.err.contains("not permitted"),
        "{refused}"
    );
}
