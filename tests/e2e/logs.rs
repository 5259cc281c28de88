//! `beemesh logs` and the journal of its unit show the output of a workload's containers.

use std::time::Duration;

use harness::{Cluster, Host, IMAGE, pod, pod_on, secs, two_containers, wait_for};

#[test]
fn output_is_read_from_any_host_and_followed_until_asked_to_end() {
    let cluster = Cluster::formed("logs", 2);
    let [h1, h2] = [cluster.host(1), cluster.host(2)];
    lines_are_lost(&cluster);
    let counting = pod_on("h2", "far", "far begins").replace(
        "while :; do sleep 1",
        "i=0; while :; do i=$((i+1)); echo far counts $i; sleep 0.1",
    );
    let answer = h1.apply(&counting);
    assert_eq!(answer["settled"], true, "{answer}");
    let answer = h1.apply(&two_containers("both", "first"));
    assert_eq!(answer["settled"], true, "{answer}");

    for (host, which) in [(h1, "h1"), (h1, "h2"), (h2, "h1")] {
        wait_for("the output of two containers", secs(20), || {
            let mut lines: Vec<_> = host
                .beemesh(&["logs", "both", "--host", which])
                .ok()
                .lines()
                .map(str::to_owned)
                .collect();
            lines.sort();
            if lines == ["one | one says first", "two | two says hello"] {
                Ok(())
            } else {
                Err(format!("{lines:?}"))
            }
        });
    }
    // h1 does not run the workload, so it asks h2 over the mesh.
    for host in [h1, h2] {
        let told = host.beemesh(&["logs", "far"]).ok();
        assert!(
            told.starts_with("far begins\nfar counts 1\nfar counts 2\n"),
            "{told}"
        );
        let told = host.beemesh(&["logs", "far", "--tail", "3"]).ok();
        assert_eq!(told.lines().count(), 3, "{told}");
        assert!(
            told.lines().all(|line| line.starts_with("far counts ")),
            "{told}"
        );
        // The reader may end before the output does.
        let told = host
            .sh("timeout -k 1 30 beemesh logs -f --tail 1 far | head -n 15")
            .ok();
        assert_eq!(told.lines().count(), 15, "{told}");
        // The user may interrupt the command: 124 means that the interruption ended it, 137 would mean that it had to
        // be killed.
        let told = host.run(&[
            "timeout", "-k", "5", "-s", "INT", "2", "beemesh", "logs", "-f", "far",
        ]);
        assert_eq!(told.code, 124, "{told}");
        assert!(told.out.lines().count() > 10, "{told}");
    }
    the_end_of_the_workload_ends_what_follows_it(&cluster);
    a_burst_arrives_whole_and_what_failed_keeps_its_output(&cluster);
    what_is_followed_goes_on_through_an_update(&cluster);
    wait_for("word of the lost lines", secs(120), || {
        let told = h1.sh("beemesh logs lossy | grep -v '^line '").out;
        let says = "Suppressed ";
        told.contains(says).then_some(()).ok_or(told)
    });

    for (args, words) in [
        (&["logs", "nothing"][..], "workload `nothing` not found"),
        (&["logs", "both", "--host", "h9"], "host `h9` not found"),
        (
            &["logs", "far", "--host", "h1"],
            "workload `far` has no pod on host h1",
        ),
    ] {
        for host in [h1, h2] {
            let answer = host.beemesh(args);
            assert_eq!((answer.code, &*answer.out), (1, ""), "{args:?}: {answer}");
            assert!(answer.err.contains(words), "{args:?}: {answer}");
        }
    }
}

fn the_end_of_the_workload_ends_what_follows_it(cluster: &Cluster) {
    let [h1, h2] = [cluster.host(1), cluster.host(2)];
    let answer = h1.apply(&pod("ends", "ends soon"));
    assert_eq!(answer["settled"], true, "{answer}");
    std::thread::scope(|scope| {
        let followers = [(h1, "h1"), (h1, "h2"), (h2, "h1")].map(|(host, which)| {
            let line =
                format!("timeout 60 beemesh logs -f ends --host {which} >/tmp/follow-{which} 2>&1");
            scope.spawn(move || (which, host.sh(&line), host))
        });
        for (host, which) in [(h1, "h1"), (h1, "h2"), (h2, "h1")] {
            wait_for("the follower", secs(20), || {
                let told = host.sh(&format!("cat /tmp/follow-{which}")).out;
                if told == "ends soon\n" {
                    Ok(())
                } else {
                    Err(told)
                }
            });
        }
        let _ = h2.beemesh(&["delete", "ends", "--wait=60"]).ok();
        for follower in followers {
            let (which, ended, host) = follower.join().expect("the follower does not panic");
            let told = host.sh(&format!("cat /tmp/follow-{which}")).out;
            assert_eq!(
                (ended.code, &*told),
                (0, "ends soon\n"),
                "{} of {which}: {ended}",
                host.name
            );
        }
    });
}

/// A workload logs more lines than its unit may: journald reports the loss after half a minute.
fn lines_are_lost(cluster: &Cluster) {
    let folder = "/etc/systemd/system/beemesh-pod-lossy.service.d";
    let few = "[Service]\\nLogRateLimitBurst=2000\\n";
    let line = format!("mkdir -p {folder} && printf '{few}' >{folder}/few.conf");
    let _ = cluster.host(2).sh(&line).ok();
    let storm = "sleep 6; busybox awk \"BEGIN { for (i = 1; i <= 90000; i++) print \\\"line \\\" i }\"; while :; do echo tick; sleep 2";
    let lossy = pod_on("h2", "lossy", "lossy begins").replace("while :; do sleep 1", storm);
    let answer = cluster.host(1).apply(&lossy);
    assert_eq!(answer["settled"], true, "{answer}");
}

/// A burst of lines, as from many stack traces.
const BURST: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: burst}
spec:
  nodeSelector: {kubernetes.io/hostname: h2}
  terminationGracePeriodSeconds: 1
  containers:
  - name: app
    image: IMAGE
    command: [sh, -c, 'busybox awk "BEGIN { for (i = 1; i <= 60000; i++) print \"line \" i }"; trap "exit 0" TERM; while :; do sleep 1; done']
---
apiVersion: v1
kind: Pod
metadata: {name: gone}
spec:
  nodeSelector: {kubernetes.io/hostname: h2}
  restartPolicy: Never
  containers:
  - name: app
    image: IMAGE
    command: [sh, -c, 'echo no such table; exit 3']
"#;

fn a_burst_arrives_whole_and_what_failed_keeps_its_output(cluster: &Cluster) {
    let [h1, h2] = [cluster.host(1), cluster.host(2)];
    let _ = h1.try_apply(&BURST.replace("IMAGE", IMAGE), &["--wait=1"]);
    wait_for("the burst", secs(60), || {
        let count = |host: &Host, line: &str| host.sh(&format!("{line} | grep -c '^line '")).out;
        let journal = "journalctl -u beemesh-pod-burst -o cat --no-pager";
        let told = [count(h1, "beemesh logs burst"), count(h2, journal)];
        (told == ["60000\n", "60000\n"])
            .then_some(())
            .ok_or(format!("{told:?}"))
    });
    wait_for("the failure", secs(20), || {
        let state = h2.unit("beemesh-pod-gone.service", "ActiveState");
        (state == "failed").then_some(()).ok_or(state)
    });
    assert_eq!(h1.beemesh(&["logs", "gone"]).ok(), "no such table\n");
}

fn what_is_followed_goes_on_through_an_update(cluster: &Cluster) {
    let [h1, h2] = [cluster.host(1), cluster.host(2)];
    let answer = h1.apply(&pod_on("h2", "moves", "from the first"));
    assert_eq!(answer["settled"], true, "{answer}");
    let follow = "timeout 60 beemesh logs -f moves >/tmp/follow-moves 2>&1";
    let _ = h1
        .run(&["systemd-run", "--unit=follow-moves", "sh", "-c", follow])
        .ok();
    let told = |wanted: &str| {
        wait_for("the follower", secs(20), || {
            let told = h1.sh("cat /tmp/follow-moves").out;
            (told == wanted).then_some(()).ok_or(told)
        });
    };
    told("from the first\n");
    let answer = h2.apply(&pod_on("h2", "moves", "from the second"));
    assert_eq!(answer["settled"], true, "{answer}");
    told("from the first\nfrom the second\n");
    let _ = h1.run(&["systemctl", "stop", "follow-moves.service"]).ok();
}

/// A pod with an init container, a container that begins with a long line, and one that begins with many lines.
fn talkative(name: &str, init: &str) -> String {
    let stay = "while :; do sleep 1 & wait $!; done";
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\nspec:\n  initContainers:\n  - name: zero\n    image: {IMAGE}\n    \
         command: [sh, -c, '{init}']\n  containers:\n  - name: one\n    image: {IMAGE}\n    \
         command: [sh, -c, 'trap \"exit 0\" TERM; s=xxxxx; while [ ${{#s}} -lt 5000 ]; do s=$s$s; done; echo long $s; {stay}']\n  \
         - name: two\n    image: {IMAGE}\n    \
         command: [sh, -c, 'trap \"exit 0\" TERM; i=0; while [ $i -lt 1500 ]; do i=$((i+1)); echo two counts $i; done; {stay}']\n"
    )
}

#[test]
fn what_containers_say_before_their_adoption_is_in_the_units_journal_once_for_each_run() {
    let cluster = Cluster::formed("early", 1);
    let host = cluster.host(1);
    let answer = host.apply(&talkative("early", "echo zero says hello"));
    assert_eq!(answer["settled"], true, "{answer}");
    let said = || {
        host.sh("journalctl -u beemesh-pod-early -o cat --all --no-pager")
            .ok()
    };
    let long = format!("long {}", "x".repeat(5120));
    let has = |runs: usize, lines: &str| {
        for wanted in ["zero says hello", &long, "two counts 1500"] {
            let count = lines.lines().filter(|line| *line == wanted).count();
            if count != runs {
                return Err(format!("{count} times {wanted:.20}"));
            }
        }
        Ok(())
    };
    // When a supervisor is killed during or just after its backfill, the next supervisor runs the backfill again.
    for _ in 0..5 {
        std::thread::sleep(Duration::from_millis(350));
        let kill = "systemctl kill --kill-whom=main -s KILL beemesh-pod-early.service";
        let _ = host.sh(kill).ok();
        wait_for("the next supervisor", secs(20), || {
            match host.unit("beemesh-pod-early.service", "ActiveState") {
                state if state == "active" => Ok(()),
                state => Err(state),
            }
        });
    }
    wait_for("every line in the unit's journal", secs(20), || {
        has(1, &said())
    });
    // By then the last supervisor has run the backfill twice.
    std::thread::sleep(secs(4));
    assert_eq!(has(1, &said()), Ok(()));
    // The next run has an init container of the same name.
    let _ = host
        .run(&["systemctl", "restart", "beemesh-pod-early.service"])
        .ok();
    wait_for("every line of the second run", secs(20), || has(2, &said()));
    std::thread::sleep(secs(4));
    assert_eq!(has(2, &said()), Ok(()));

    let given_up = talkative("gives-up", "echo zero gives up; exit 3");
    let answer = host.try_apply(&given_up, &["--wait=60"]);
    assert_eq!(answer.code, 1, "{answer}");
    wait_for("the reason in the unit's journal", secs(60), || {
        let line = "journalctl -u beemesh-pod-gives-up -o cat --no-pager";
        let said = host.sh(line).ok();
        if said.lines().any(|line| line == "zero gives up") {
            Ok(())
        } else {
            Err(said)
        }
    });
    // It runs again and again, after pauses.
    let asked = host.beemesh(&["logs", "gives-up", "--tail=5"]).ok();
    assert!(!asked.is_empty(), "the output can be asked for");
    assert!(
        asked.lines().all(|line| line == "zero | zero gives up"),
        "{asked}"
    );
    let mended = talkative("gives-up", "echo zero goes on");
    let answer = host.apply(&mended);
    assert_eq!(answer["settled"], true, "{answer}");
    let said = host.beemesh(&["logs", "gives-up"]).ok();
    assert!(!said.contains("gives up"), "of the pod that runs: {said}");
    let kept = "ls /run/beemesh | grep last-output";
    assert_eq!(host.sh(kept).out, "");
}
