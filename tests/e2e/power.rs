//! Power cuts: no acknowledged change is lost, and every workload starts again by itself.

#![allow(clippy::unwrap_used, reason = "whatever is missing fails the test")]

use std::{fs, thread};

use harness::{Cluster, Host, IMAGE, pod, secs, two_containers, wait_for};

#[test]
fn a_host_without_power_catches_up_and_a_minority_refuses_in_words() {
    let cluster = Cluster::formed("power-minority", 3);
    let [h1, h2, h3] = [1, 2, 3].map(|n| cluster.host(n));
    let _ = h1.apply(&pod("before", "before"));

    cluster.crash(&[h3]);
    cluster.agree(&[h1, h2], 2);
    let answer = h2.try_apply(&pod("meanwhile", "meanwhile"), &["--wait=30", "-o", "json"]);
    assert!(
        answer.out.contains("\"index\""),
        "committed without h3: {answer}"
    );
    cluster.running("meanwhile", 1, &[h1, h2]);
    // Ctrl-C ends the wait for h3, not the rollout.
    let line = "timeout --preserve-status -s INT 5 beemesh apply -f - --wait 60s";
    let left = h2.run_with(&["sh", "-c", line], pod("left", "left").as_bytes());
    let words = "interrupted; the change is committed";
    assert!(left.code == 130 && left.err.contains(words), "{left}");
    cluster.running("left", 1, &[h1, h2]);
    cluster.boot(&[h3]);
    cluster.ready();
    cluster.running("meanwhile", 1, &[h3]);
    cluster.running("before", 1, &[h3]);

    let before = h1.containers("before");
    cluster.crash(&[h2, h3]);
    let begun = std::time::Instant::now();
    let refused = h1.try_apply(&pod("never", "never"), &[]);
    assert!(
        begun.elapsed() < secs(30),
        "refused only after {:?}",
        begun.elapsed()
    );
    assert_eq!(refused.code, 1, "{refused}");
    assert!(
        refused.err.contains("h2") && refused.err.contains("h3"),
        "names the missing hosts: {refused}"
    );
    assert_eq!(h1.containers("before"), before, "running pods keep running");
    let status = h1.status();
    assert_eq!(status["quorum"], false, "{status}");
    assert_eq!(
        status["hosts"]["missing"],
        serde_json::json!(["h2", "h3"]),
        "{status}"
    );
    let begun = std::time::Instant::now();
    let stale = h1.beemesh(&["get", "workloads"]);
    assert!(
        stale.code == 0 && stale.err.contains("may be stale") && stale.out.contains("before"),
        "{stale}"
    );
    assert!(begun.elapsed() < secs(6), "{:?}", begun.elapsed());
    let shown = h1.beemesh(&["status"]).ok();
    let told = "1 of 3 voters reachable; 1 of h2 and h3 must return";
    assert!(shown.contains(told), "{shown}");

    cluster.boot(&[h2, h3]);
    cluster.ready();
    let all: Vec<&Host> = cluster.hosts.iter().collect();
    cluster.running("before", 1, &all);
}

/// Checks the harness itself. If its power cuts differed from real ones, the other tests would blame the wrong program,
/// or none.
#[test]
fn what_a_host_said_to_be_synced_is_there_after_a_power_cut_and_nothing_is_said_after_it() {
    let cluster = Cluster::booted("power-instant", 1);
    let host = cluster.host(1);
    let number = |text: &str| text.trim().parse::<u64>().unwrap_or_default();
    for _ in 0..5 {
        let _ = host.sh("rm -f /root/said").ok();
        let line = "cd /root && i=0 && while :; do i=$((i+1)); \
                    printf %08d $i | dd of=said conv=notrunc,fdatasync 2>/dev/null && echo $i; done";
        let talking = host.clone();
        let talk = thread::spawn(move || talking.sh(line).out);
        wait_for("some words", secs(10), || {
            let said = fs::read_to_string(host.root().join("root/said")).unwrap_or_default();
            if number(&said) >= 20 {
                Ok(())
            } else {
                Err(said)
            }
        });
        cluster.crash(&[host]);
        let said = talk.join().expect("it does not panic");
        cluster.boot(&[host]);
        let said = number(said.lines().last().unwrap_or_default());
        let kept = number(&host.sh("cat /root/said").ok());
        assert!(said > 0, "it said nothing");
        assert!(
            (said..=said + 1).contains(&kept),
            "said {said}, kept {kept}"
        );
    }
}

#[test]
fn a_power_cut_of_all_hosts_loses_nothing_even_while_the_gateway_is_held() {
    let cluster = Cluster::formed("power-all", 3);
    let all: Vec<&Host> = cluster.hosts.iter().collect();
    let _ = cluster.host(1).apply(&two_containers("web", "first"));
    let answer = cluster.host(2).apply(&pod("fresh", "fresh"));
    assert_eq!(answer["settled"], true, "{answer}");
    // The apply was reported as running; a stock Quadlet does not survive a power cut this soon.
    std::thread::sleep(secs(1));
    for host in &all {
        let _ = host.run(&["systemctl", "mask", "beemesh-gateway.service"]);
        let _ = host.sh("sync -f /etc/systemd/system").ok();
    }
    cluster.crash(&all);
    cluster.boot(&all);
    for host in &all {
        for (workload, count) in [("web", 2), ("fresh", 1)] {
            let unit = format!("beemesh-pod-{workload}.service");
            wait_for(
                &format!("{workload} on {} without a gateway", host.name),
                secs(90),
                || {
                    let seen = (
                        host.unit(&unit, "ActiveState"),
                        host.containers(workload).len(),
                    );
                    if seen == ("active".into(), count) {
                        Ok(())
                    } else {
                        Err(format!("{seen:?}"))
                    }
                },
            );
        }
        assert_ne!(
            host.unit("beemesh-gateway.service", "ActiveState"),
            "active"
        );
    }
    for host in &all {
        let _ = host
            .run(&["systemctl", "unmask", "beemesh-gateway.service"])
            .ok();
        let _ = host.run(&["systemctl", "daemon-reload"]).ok();
        let _ = host
            .run(&["systemctl", "restart", "beemesh-agent.service"])
            .ok();
    }
    cluster.ready();
    let (_, manifests) = cluster.host(3).api("GET", "/v1/manifests", b"");
    let names: Vec<_> = manifests["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| m["name"].clone())
        .collect();
    assert_eq!(names, ["fresh", "web-conf"], "{manifests}");
    cluster.running("web", 1, &all);
    cluster.running("fresh", 1, &all);
}

#[test]
fn a_power_cut_right_after_the_first_start_leaves_a_gateway_that_comes_back() {
    let cluster = Cluster::booted("power-first-start", 1);
    let host = cluster.host(1);
    for with_a_change in [false, true] {
        let _ = host
            .run(&[
                "systemctl",
                "enable",
                "--now",
                "beemesh-agent.socket",
                "beemesh-agent.service",
            ])
            .ok();
        let answers = || {
            let status = host.status();
            if status["leader"]["name"] == "h1" {
                Ok(())
            } else {
                Err(status)
            }
        };
        wait_for("the gateway", secs(60), answers);
        // Once as soon as the host answers, and once after it has acknowledged a change.
        if with_a_change {
            let _ = host.apply(&pod("web", "first"));
        }
        let _ = host.sh("sync -f /etc").ok();
        cluster.crash(&[host]);
        cluster.boot(&[host]);
        wait_for("the gateway after the power cut", secs(120), answers);
        let status = host.status();
        assert_eq!(
            status["workloads"]["total"],
            u64::from(with_a_change),
            "{status}"
        );
    }
    cluster.running("web", 1, &[host]);
}

#[test]
fn a_gateway_image_that_a_power_cut_damaged_is_repaired_without_a_human() {
    let cluster = Cluster::booted("power-damaged", 1);
    let host = cluster.host(1);
    // The agent, which syncs, is stopped. The image is loaded and the pod created, and neither reaches the disk.
    let line = "systemctl enable -q beemesh-agent.socket beemesh-agent.service && sync && \
                systemctl mask -q --runtime --now beemesh-agent.socket beemesh-agent.service && \
                systemctl start beemesh-gateway.service";
    let _ = host.sh(line).ok();
    cluster.crash(&[host]);
    cluster.boot(&[host]);
    wait_for("the gateway after the power cut", secs(180), || {
        let status = host.status();
        if status["leader"]["name"] == "h1" {
            Ok(())
        } else {
            Err(status)
        }
    });
}

/// Podman's cleanup stops the pod of a gateway that has ended. If the cleanup does not run, systemd does not notice.
#[test]
fn a_gateway_that_is_gone_while_its_unit_is_active_is_restarted() {
    let cluster = Cluster::formed("power-silent", 1);
    let host = cluster.host(1);
    for damaged in [false, true] {
        if damaged {
            host.empty_gateway_image();
        }
        let line = "kill -9 $(podman inspect -f '{{.State.ConmonPid}} {{.State.Pid}}' beemesh-gateway-gateway)";
        let _ = host.sh(line).ok();
        assert_eq!(
            host.unit("beemesh-gateway.service", "ActiveState"),
            "active"
        );
        wait_for("the agent to know", secs(5), || {
            let status = host.unit("beemesh-agent.service", "StatusText");
            if status.contains("waiting for the gateway") {
                Ok(())
            } else {
                Err(status)
            }
        });
        cluster.agree(&[host], 1);
    }
}

/// Podman's database is on the disk at once and its storage is not. After a pod was taken down, a power cut may restore
/// the storage of its containers and with it their names.
#[test]
fn a_pod_is_played_again_whose_containers_only_the_storage_still_knows() {
    let cluster = Cluster::formed("power-strays", 1);
    let host = cluster.host(1);
    let answer = host.apply(&pod("web", "first"));
    assert_eq!(answer["settled"], true, "{answer}");
    let listed = "podman ps -a --external --format '{{.Names}} {{.Status}}' | grep ^web-main";
    let line = "cd /var/lib/containers/storage && cp -a overlay-containers/containers.json overlay-layers/layers.json /root \
                && systemctl stop beemesh-pod-web.service \
                && cp -a /root/containers.json overlay-containers && cp -a /root/layers.json overlay-layers \
                && systemctl restart podman.service";
    let _ = host.sh(line).ok();
    assert_eq!(host.sh(listed).ok(), "web-main Storage\n");
    let _ = host
        .run(&["systemctl", "start", "beemesh-pod-web.service"])
        .ok();
    cluster.running("web", 1, &[host]);
    assert!(host.sh(listed).ok().starts_with("web-main Up"));

    // Podman removes a service container some time after its pod. The container's name depends on the bytes of the
    // play.
    let line = format!(
        "systemctl stop beemesh-pod-web.service && cd /etc/containers/systemd/beemesh \
         && podman create --name $(sha256sum beemesh-pod-web.*.yaml | cut -c1-12)-service {IMAGE} true \
         && systemctl start beemesh-pod-web.service"
    );
    let _ = host.sh(&line).ok();
    cluster.running("web", 1, &[host]);
}

/// Podman's cleanup process in a scope that systemd stops may wait for the pod, which waits for that scope. A process
/// named `podman` stands for it here: the real one reaches that state in only a few of many shutdowns during a play.
#[test]
fn a_shutdown_does_not_wait_for_what_waits_for_it() {
    let cluster = Cluster::formed("power-off", 1);
    let host = cluster.host(1);
    // The container takes longer to end than the supervisor waits before it moves stuck processes. It starts no process
    // meanwhile: systemd kills those of a scope until it finds no new one.
    let slow = pod("web", "first").replace(
        "trap \"exit 0\" TERM",
        "slow() { n=; read s rest </proc/uptime; while [ ${#n} -lt 6 ]; do read now rest </proc/uptime; \
         [ ${now%%.*} = ${s%%.*} ] || { s=$now; n=x$n; }; done; exit 0; }; trap slow TERM",
    );
    assert!(slow.contains("trap slow TERM"), "{slow}");
    let answer = host.apply(&slow);
    assert_eq!(answer["settled"], true, "{answer}");
    let stuck = "cp /bin/sh /root/podman && { setsid systemd-run --quiet --scope --unit=libpod-conmon-stuck \
                 --slice=machine-libpod_pod_stuck.slice /root/podman -c \
                 'trap \"\" TERM; while grep -q libpod-conmon-stuck /proc/self/cgroup; do sleep 0.2; done' \
                 >/dev/null 2>&1 </dev/null & }";
    let _ = host.sh(stuck).ok();
    wait_for("the process in its scope", secs(10), || {
        let state = host.unit("libpod-conmon-stuck.scope", "ActiveState");
        if state == "active" {
            Ok(())
        } else {
            Err(state)
        }
    });
    let begun = std::time::Instant::now();
    host.power_off();
    let took = begun.elapsed();
    assert!(took < secs(30), "the shutdown took {took:?}");
    cluster.crash(&[host]);
    cluster.boot(&[host]);
    cluster.ready();
    cluster.running("web", 1, &[host]);
}

/// Podman plays a pod in steps. Whatever the step at a shutdown, nothing delays the shutdown, and no partial pod counts
/// as a whole one.
#[test]
fn a_shutdown_in_the_middle_of_plays_is_quick_and_every_pod_is_whole_after_it() {
    let cluster = Cluster::formed("power-play", 1);
    let host = cluster.host(1);
    for round in 0..8 {
        for n in 1..=3 {
            let marker = format!("round {round}");
            let answer = host.try_apply(&two_containers(&format!("p{n}"), &marker), &[]);
            assert_eq!(answer.code, 0, "{answer}");
        }
        // From the first container to the last; the times differ between machines.
        std::thread::sleep(std::time::Duration::from_millis(50 * round));
        let begun = std::time::Instant::now();
        host.power_off();
        let took = begun.elapsed();
        assert!(
            took < secs(30),
            "the shutdown took {took:?} in round {round}"
        );
        cluster.crash(&[host]);
        cluster.boot(&[host]);
        cluster.ready();
        for n in 1..=3 {
            let workload = format!("p{n}");
            cluster.running(&workload, round + 1, &[host]);
            assert_eq!(
                host.containers(&workload).len(),
                2,
                "{workload}, round {round}"
            );
        }
    }
}
