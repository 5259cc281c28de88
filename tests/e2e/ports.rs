//! The agent owns the ports of the mesh and of the remote API: no other process can bind them at any moment.

use std::{fs, thread};

use harness::{Cluster, Host, IMAGE, pod, secs, wait_for};

const AGENT: &str = "beemesh-agent.service";
/// Tries to bind TCP, and UDP of the first port, over IPv4 and IPv6, as fast as possible: without options, with
/// SO_REUSEADDR, and for UDP also with SO_REUSEPORT. It reports its successes and keeps no socket.
const GRAB: &str = r#"
use Socket qw(:all);
$| = 1;
my ($seconds, @ports) = @ARGV;
my ($end, $tries) = (time + $seconds, 0);
while (time < $end && !-e "/root/enough") {
  for my $port (@ports) { for my $kind (0 .. 11) {
    my ($six, $tcp, $way) = ($kind & 1, ($kind >> 1) & 1, $kind >> 2);
    next if $tcp ? $way == 2 : $port != 4701;
    socket(my $s, $six ? AF_INET6 : AF_INET, $tcp ? SOCK_STREAM : SOCK_DGRAM, 0) or next;
    setsockopt($s, IPPROTO_IPV6, IPV6_V6ONLY, 1) if $six;
    setsockopt($s, SOL_SOCKET, $way == 1 ? SO_REUSEADDR : SO_REUSEPORT, 1) if $way;
    my $to = $six ? pack_sockaddr_in6($port, IN6ADDR_ANY) : pack_sockaddr_in($port, INADDR_ANY);
    print "got ", $tcp ? "tcp" : "udp", $six ? 6 : 4, " $port way $way\n" if bind($s, $to) && (!$tcp || listen($s, 1));
    $tries++;
  } }
}
print "$tries tries\n";
"#;

/// Tries to bind the ports in the network of a host until `act` is done. It runs as root, like a pod with
/// `hostNetwork`.
#[track_caller]
fn while_grabbed(host: &Host, act: impl FnOnce()) {
    let grabbing = host.clone();
    let grabber = thread::spawn(move || grabbing.sh("exec perl /root/grab 120 4701 7443").ok());
    act();
    assert!(
        !grabber.is_finished(),
        "it ended too soon to prove anything"
    );
    let _ = host.sh("touch /root/enough").ok();
    got_nothing(&grabber.join().expect("it does not panic"));
}

/// Asserts that it bound nothing, in a sufficient number of attempts.
#[track_caller]
fn got_nothing(said: &str) {
    let lines: Vec<_> = said.lines().collect();
    let (last, got) = lines.split_last().expect("it says how often it tried");
    eprintln!("{last}");
    assert!(got.is_empty(), "{got:?}");
    let tries: u64 = last.trim_end_matches(" tries").parse().expect(last);
    assert!(tries > 10_000, "{last}");
}

#[track_caller]
fn is_member(cluster: &Cluster, host: &Host) {
    wait_for(&format!("{} to be ready", host.name), secs(60), || {
        match (
            host.unit(AGENT, "ActiveState"),
            host.unit(AGENT, "SubState"),
        ) {
            (active, running) if active == "active" && running == "running" => Ok(()),
            seen => Err(format!("{seen:?}")),
        }
    });
    cluster.ready();
}

#[test]
fn no_process_gets_the_agents_ports_while_it_restarts_crashes_is_stopped_or_boots() {
    let cluster = Cluster::formed("ports", 2);
    let host = cluster.host(1);
    let _ = host
        .sh("echo 'api-port = 7443' >/etc/beemesh/agent.toml.d/api.toml && systemctl restart beemesh-agent")
        .ok();
    is_member(&cluster, host);
    wait_for("the remote API", secs(20), || {
        let listening = host.sh("ss -Hlnt 'sport = :7443'").out;
        if listening.contains("1024") {
            Ok(())
        } else {
            Err(listening)
        }
    });

    fs::write(host.root().join("root/grab"), GRAB).expect("a file on the host");
    while_grabbed(host, || {
        for _ in 0..3 {
            let _ = host.run(&["systemctl", "restart", AGENT]).ok();
            let process = host.unit(AGENT, "MainPID");
            let _ = host
                .run(&["systemctl", "kill", "--signal=KILL", AGENT])
                .ok();
            wait_for("another agent", secs(30), || {
                let now = (host.unit(AGENT, "MainPID"), host.unit(AGENT, "ActiveState"));
                if now.0 != process && now.1 == "active" {
                    Ok(())
                } else {
                    Err(format!("{now:?}"))
                }
            });
        }
        let _ = host.run(&["systemctl", "stop", AGENT]).ok();
    });
    let held = host
        .sh("ss -Hlntu '( sport = :4701 or sport = :7443 )'")
        .ok();
    assert!(held.lines().count() >= 5, "{held}");
    // Podman binds the ports of a pod like any other program.
    for port in ["4701:4701", "4701:4701/udp", "7443:7443"] {
        let played = host.sh(&format!(
            "podman run --rm --network=podman -p {port} {IMAGE} true"
        ));
        assert_ne!(played.code, 0, "{port}: {played}");
        assert!(played.err.contains("in use"), "{port}: {played}");
    }
    let _ = host.run(&["systemctl", "start", AGENT]).ok();
    is_member(&cluster, host);

    // The host still has a pod from the time when no unit reserved the ports.
    boots_first(&cluster, host);
    says_who_has_a_port(&cluster, host);
}

/// Boots a unit that tries to bind the ports as early as a Quadlet's unit does.
#[track_caller]
fn boots_first(cluster: &Cluster, host: &Host) {
    let unit = "[Unit]\\nWants=network-online.target\\n[Service]\\nExecStart=perl /root/grab 6 4701 7443\\n\
                StandardOutput=file:/root/grabbed\\n[Install]\\nWantedBy=default.target\\n";
    let _ = host
        .sh(&format!(
            "rm /root/enough; printf '{unit}' >/etc/systemd/system/grab.service && systemctl enable -q grab.service && sync"
        ))
        .ok();
    cluster.crash(&[host]);
    cluster.boot(&[host]);
    is_member(cluster, host);
    let said = wait_for("the end of it", secs(30), || {
        let said = host.sh("cat /root/grabbed").out;
        if said.contains("tries") {
            Ok(said)
        } else {
            Err(said)
        }
    });
    got_nothing(said.trim());
    let _ = host
        .sh("systemctl disable -q grab.service; rm /etc/systemd/system/grab.service")
        .ok();
}

/// Another process has bound the UDP ports, because the units that reserve them were stopped. The host stays a member
/// over TCP.
#[track_caller]
fn says_who_has_a_port(cluster: &Cluster, host: &Host) {
    let _ = host
        .sh("systemctl stop beemesh-agent.service beemesh-agent.socket beemesh-ports.service; \
             systemd-run -q --unit=squatter perl -MSocket=:all -e \
             'for ([AF_INET, pack_sockaddr_in(4701, INADDR_ANY)], [AF_INET6, pack_sockaddr_in6(4701, IN6ADDR_ANY)]) { \
                socket(my $s, $_->[0], SOCK_DGRAM, 0); setsockopt($s, IPPROTO_IPV6, IPV6_V6ONLY, 1); \
                bind($s, $_->[1]) or die $!; push @all, $s } sleep'")
        .ok();
    wait_for("the squatter", secs(10), || {
        let taken = host.sh("ss -Hlnu 'sport = :4701'").out;
        if taken.lines().count() == 2 {
            Ok(())
        } else {
            Err(taken)
        }
    });
    let _ = host
        .run(&["systemctl", "start", "beemesh-agent.socket", AGENT])
        .ok();
    cluster.ready();
    let answer = host.apply(&pod("meanwhile", "by-tcp"));
    assert_eq!(answer["settled"], true, "{answer}");
    let squatter = host.unit("squatter.service", "MainPID");
    let words = format!("UDP port 4701 is taken by perl (process {squatter})");
    wait_for("the agent to say who", secs(10), || {
        let status = host.unit(AGENT, "StatusText");
        if status.contains(&words) {
            Ok(())
        } else {
            Err(status)
        }
    });
    let _ = host.run(&["systemctl", "stop", "squatter.service"]).ok();
    wait_for("the agent to have it", secs(20), || {
        let taken = host.sh("ss -Hlnup 'sport = :4701'").out;
        let status = host.unit(AGENT, "StatusText");
        if taken.contains("beemesh-agent") && !status.contains("taken") {
            Ok(())
        } else {
            Err(format!("{status}: {taken}"))
        }
    });
    cluster.ready();
}
