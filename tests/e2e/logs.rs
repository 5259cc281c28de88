//! `beemesh logs` gives what the containers of a workload say, from any host.

use harness::{Cluster, pod, pod_on, secs, two_containers, wait_for};

#[test]
fn output_is_read_from_any_host_and_followed_until_asked_to_end() {
    let cluster = Cluster::formed("logs", 2);
    let [h1, h2] = [cluster.host(1), cluster.host(2)];
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
    // h1 does not run it, so that h2 is asked over the mesh.
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
        // Whoever reads it may go.
        let told = host
            .sh("timeout -k 1 30 beemesh logs -f --tail 1 far | head -n 15")
            .ok();
        assert_eq!(told.lines().count(), 15, "{told}");
        // Whoever asked may interrupt it: 124 is the interruption, 137 would be a kill.
        let told = host.run(&[
            "timeout", "-k", "5", "-s", "INT", "2", "beemesh", "logs", "-f", "far",
        ]);
        assert_eq!(told.code, 124, "{told}");
        assert!(told.out.lines().count() > 10, "{told}");
    }
    the_end_of_the_workload_ends_what_follows_it(&cluster);

    for (args, words) in [
        (&["logs", "nothing"][..], "there is no workload `nothing`"),
        (&["logs", "both", "--host", "h9"], "there is no host `h9`"),
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
