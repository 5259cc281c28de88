//! Faults at each stage of a rollout: hosts without power or network, killed programs, full disks, and changes by users in
//! the middle. Clients on every host ask the port of their host all the time, and their logs judge.

#![allow(clippy::unwrap_used, reason = "whatever is missing fails the test")]

use std::time::{Duration, Instant};

use harness::{
    Answer, Cluster, Host, IMAGE,
    judge::{
        PROBE, answers, ended, gaps, history, last, log, one_at_a_time, server, serves, watch, web,
    },
    secs, wait_for,
};

/// A deadline that a revision that never gets ready passes soon.
const SOON: &str = "  progressDeadlineSeconds: 8\n";
/// The file of the next revision is on the host, and the agent is about to take it into systemd.
const WRITTEN: &str = "[ -n \"$(find /etc/containers/systemd/beemesh -name 'beemesh-pod-web.*' -newer /run/armed)\" ]";
/// The pod of the host is being replaced.
const DOWN: &str = "tail -n1 /tmp/judge | grep -q nothing";
const KILL_AGENT: &str = "systemctl kill --kill-whom=main -s KILL beemesh-agent.service";
// Not by its name: a gateway that has joined a cluster has executed itself under another one.
const KILL_GATEWAY: &str = "kill -9 $(podman inspect -f '{{.State.Pid}}' beemesh-gateway-gateway)";

/// Three hosts that answer with `one`, which is revision 1.
fn serving(test: &str) -> Cluster {
    let cluster = Cluster::formed(test, 3);
    let answer = cluster.host(1).apply(&web("one", ""));
    assert_eq!(answer["settled"], true, "{answer}");
    outcome(cluster.host(1), 1, "ready");
    observe(&cluster, "one");
    cluster
}

/// Waits until all hosts answer with this version, and begins new logs.
#[track_caller]
fn observe(cluster: &Cluster, version: &str) {
    watch(&cluster.all());
    answers(&cluster.all(), version);
}

/// Applies a version without a wait for the hosts.
#[track_caller]
fn begin(host: &Host, yaml: &str) {
    let _ = host.try_apply(yaml, &[]).ok();
}

/// Runs a line on the host as soon as a condition holds there.
fn arm(host: &Host, condition: &str, line: &str) {
    let script = format!(
        "rm -f /run/struck; touch /run/armed; until {condition}; do sleep 0.01; done; {line}; touch /run/struck"
    );
    let _ = host
        .run(&[
            "systemd-run",
            "-q",
            "--collect",
            "--unit=saboteur",
            "sh",
            "-c",
            &script,
        ])
        .ok();
}

#[track_caller]
fn struck(host: &Host) {
    wait_for(&format!("the fault on {}", host.name), secs(60), || {
        let seen = host.sh("test -e /run/struck");
        if seen.code == 0 { Ok(()) } else { Err(seen) }
    });
}

/// Waits until a host has answered with this version.
#[track_caller]
fn reached(host: &Host, version: &str) {
    wait_for(&format!("{version} on {}", host.name), secs(60), || {
        let log = log(host);
        let has = log.iter().any(|(_, found)| found == version);
        has.then_some(()).ok_or_else(|| format!("{:?}", log.last()))
    });
}

/// Waits until the pod of a host is being replaced.
#[track_caller]
fn replaced(host: &Host) {
    wait_for(
        &format!("{} without an answer", host.name),
        secs(60),
        || {
            let found = last(host);
            if found == "nothing" {
                Ok(())
            } else {
                Err(found)
            }
        },
    );
}

/// Fails unless this revision ended in this way. Returns the reason.
#[track_caller]
fn outcome(host: &Host, revision: u64, outcome: &str) -> String {
    let end = ended(host, revision);
    assert_eq!(end["outcome"], outcome, "{end}");
    end["reason"].as_str().unwrap_or_default().to_owned()
}

/// Waits until every host runs only containers of the same revision, and the cluster says so.
#[track_caller]
fn all_run(cluster: &Cluster, revision: u64) {
    cluster.running("web", revision, &cluster.all());
}

fn rollout(host: &Host, args: &[&str]) -> Answer {
    host.beemesh(&[&["rollout"], args].concat())
}

#[test]
fn a_revision_that_is_not_ready_stays_on_one_host() {
    let cluster = serving("rollout-unready");
    let [h1, h2, h3] = [1, 2, 3].map(|n| cluster.host(n));

    // A slow start is waited for.
    let slow = server(&format!("sleep 4; {}", serves("slow")), IMAGE, "", PROBE);
    let answer = h1.try_apply(&slow, &["--wait=120s"]);
    assert_eq!(answer.code, 0, "{answer}");
    answers(&cluster.all(), "slow");
    for log in one_at_a_time(&cluster.all()).values() {
        assert!(gaps(log).iter().any(|gap| gap.1 - gap.0 > 3000), "{log:?}");
    }
    outcome(h1, 2, "ready");

    // One that takes longer than the deadline is not, nor is a probe that does not end.
    let late = server(&format!("sleep 60; {}", serves("late")), IMAGE, SOON, PROBE);
    let hangs = "{exec: {command: [sleep, '1000']}, periodSeconds: 1, timeoutSeconds: 1}";
    let hangs = server(&serves("hangs"), IMAGE, SOON, hangs);
    for (revision, yaml, words) in [(3, late, "readiness"), (4, hangs, "timed out")] {
        observe(&cluster, "slow");
        let answer = h2.try_apply(&yaml, &["--wait=120s"]);
        let said = &answer.err;
        let told =
            said.contains("rolled back to revision 2") && said.contains("no progress for 8 s: h1");
        assert!(answer.code == 1 && told && said.contains(words), "{answer}");
        let reason = outcome(h2, revision, "rolledBack");
        assert!(reason.contains(words), "{reason}");
        answers(&cluster.all(), "slow");
        all_run(&cluster, 2);
        let logs = one_at_a_time(&cluster.all());
        for host in [h2, h3] {
            assert_eq!(gaps(&logs[&host.name]), [], "{}", host.name);
        }
    }

    // The second host has too little room for the revision that the first one has: the files of the revision fit in, and
    // its pod might not.
    observe(&cluster, "slow");
    let fill = "dd if=/dev/zero of=/spare bs=1M count=1; fallocate -l $(df --output=avail -B1 / | tail -n1) /filler; \
                dd if=/dev/zero of=/filler2 bs=4k; rm /spare; sync -f /";
    let _ = h2.sh(fill).ok();
    let answer = h1.try_apply(&web("five", ""), &["--wait=120s"]);
    assert_eq!(answer.code, 1, "{answer}");
    let reason = outcome(h1, 5, "rolledBack");
    let told = reason.contains("h2: ") && reason.contains("no space left for another pod in ");
    assert!(told, "{reason}");
    answers(&cluster.all(), "slow");
    let logs = one_at_a_time(&cluster.all());
    assert_eq!(gaps(&logs["h2"]), [], "its pod goes on");
    let _ = h2.sh("rm -f /filler /filler2; sync").ok();
    cluster.ready();
    all_run(&cluster, 2);
    begin(h1, &web("six", ""));
    outcome(h1, 6, "ready");
    answers(&cluster.all(), "six");
    one_at_a_time(&cluster.all());
}

#[test]
fn an_agent_or_a_gateway_that_is_killed_only_delays_a_rollout() {
    let cluster = serving("rollout-kills");
    let mut before = "one".to_owned();
    let faults = [
        (1, WRITTEN, KILL_AGENT),
        (2, DOWN, KILL_AGENT),
        (1, WRITTEN, KILL_GATEWAY),
        (2, DOWN, KILL_GATEWAY),
    ];
    for (revision, (number, condition, line)) in (2..).zip(faults) {
        let host = cluster.host(number);
        let version = format!("v{revision}");
        observe(&cluster, &before);
        arm(host, condition, line);
        begin(cluster.host(number % 3 + 1), &web(&version, ""));
        struck(host);
        assert_eq!(outcome(host, revision, "ready"), "", "{line} on h{number}");
        answers(&cluster.all(), &version);
        one_at_a_time(&cluster.all());
        cluster.ready();
        all_run(&cluster, revision);
        before = version;
    }
}

#[test]
fn a_leader_that_dies_at_any_stage_is_followed_by_one_that_goes_on() {
    let cluster = serving("rollout-leader");
    let mut before = "one".to_owned();
    for (revision, stage) in (2..).zip([1, 3]) {
        let version = format!("v{revision}");
        observe(&cluster, &before);
        let leader = cluster.leader(cluster.host(1));
        begin(cluster.host(1), &web(&version, ""));
        replaced(cluster.host(stage));
        let _ = leader.sh(KILL_GATEWAY).ok();
        outcome(cluster.host(1), revision, "ready");
        answers(&cluster.all(), &version);
        one_at_a_time(&cluster.all());
        before = version;
    }

    // A pause outlives the leader.
    observe(&cluster, &before);
    let host = cluster.host(1);
    begin(host, &web("v4", ""));
    reached(host, "v4");
    let _ = rollout(host, &["pause", "web"]).ok();
    let leader = cluster.leader(host);
    let _ = leader.sh(KILL_GATEWAY).ok();
    cluster.ready();
    // Longer than a pod must be ready before the next one is replaced.
    let held = Instant::now();
    while held.elapsed() < secs(6) {
        let still = [2, 3].map(|n| last(cluster.host(n)));
        // The pause may have come after the second host's turn.
        assert_eq!(still[1], before, "{still:?}");
    }
    let shown = rollout(host, &["status", "web", "--watch=false"]).ok();
    assert!(shown.contains("paused: "), "{shown}");
    let _ = rollout(host, &["resume", "web"]).ok();
    outcome(host, 4, "ready");
    answers(&cluster.all(), "v4");
    one_at_a_time(&cluster.all());
    all_run(&cluster, 4);
}

#[test]
fn a_host_without_power_is_not_waited_for_and_follows() {
    let cluster = serving("rollout-power");
    let [h1, h2, h3] = [1, 2, 3].map(|n| cluster.host(n));
    // The others of a host judge; what a host without power answers is nothing that Beemesh does.
    begin(h1, &web("two", ""));
    replaced(h2);
    cluster.crash(&[h2]);
    let reason = outcome(h1, 2, "ready");
    assert_eq!(reason, "h2 is unreachable and follows when it returns");
    answers(&[h1, h3], "two");
    one_at_a_time(&[h1, h3]);
    cluster.boot(&[h2]);
    cluster.ready();
    watch(&[h2]);
    answers(&[h2], "two");
    all_run(&cluster, 2);

    // A revision that fails goes back also on the host that returns with it.
    observe(&cluster, "two");
    let bad = server("sleep 600", IMAGE, SOON, PROBE);
    begin(h2, &bad);
    replaced(h1);
    cluster.crash(&[h1]);
    outcome(h2, 3, "rolledBack");
    cluster.boot(&[h1]);
    answers(&[h2, h3], "two");
    one_at_a_time(&[h2, h3]);
    cluster.ready();
    watch(&[h1]);
    answers(&[h1], "two");
    all_run(&cluster, 2);

    // The leader loses its power, and returns before the end.
    observe(&cluster, "two");
    let leader = cluster.leader(h1);
    let others: Vec<&Host> = cluster
        .all()
        .into_iter()
        .filter(|host| host.name != leader.name)
        .collect();
    begin(others[0], &web("four", ""));
    reached(others[0], "four");
    cluster.crash(&[leader]);
    cluster.boot(&[leader]);
    outcome(others[0], 4, "ready");
    answers(&others, "four");
    one_at_a_time(&others);
    cluster.ready();
    watch(&[leader]);
    answers(&[leader], "four");
    all_run(&cluster, 4);
}

#[test]
fn a_host_without_network_is_not_waited_for_and_follows() {
    let cluster = serving("rollout-network");
    let [h1, h2, h3] = [1, 2, 3].map(|n| cluster.host(n));
    let leader = |of: &Host| cluster.leader(of).name.clone();

    // The host that is being updated, and then the leader.
    begin(h1, &web("two", ""));
    replaced(h2);
    cluster.isolate(h2);
    let reason = outcome(h1, 2, "ready");
    let away = ["", "h2 is unreachable and follows when it returns"];
    assert!(away.contains(&reason.as_str()), "{reason}");
    answers(&[h1, h3], "two");
    one_at_a_time(&[h1, h3]);
    cluster.heal();
    cluster.ready();
    answers(&[h2], "two");
    all_run(&cluster, 2);

    observe(&cluster, "two");
    let first = leader(h1);
    let cut = cluster.leader(h1);
    let others: Vec<&Host> = cluster
        .all()
        .into_iter()
        .filter(|host| host.name != first)
        .collect();
    begin(others[0], &web("three", ""));
    replaced(others[0]);
    cluster.isolate(cut);
    outcome(others[0], 3, "ready");
    answers(&others, "three");
    one_at_a_time(&others);
    cluster.heal();
    cluster.ready();
    answers(&cluster.all(), "three");
    all_run(&cluster, 3);

    // A revision that fails while the only host that has it is cut off, and a cut that ends in the middle.
    observe(&cluster, "three");
    begin(h2, &server("sleep 600", IMAGE, SOON, PROBE));
    replaced(h1);
    cluster.isolate(h1);
    replaced(h2);
    cluster.heal();
    outcome(h2, 4, "rolledBack");
    answers(&cluster.all(), "three");
    one_at_a_time(&[h2, h3]);
    cluster.ready();
    all_run(&cluster, 3);
}

#[test]
fn what_users_change_in_the_middle_takes_over() {
    let cluster = serving("rollout-changes");
    let host = cluster.host(1);

    begin(host, &web("two", ""));
    reached(host, "two");
    begin(cluster.host(2), &web("three", ""));
    outcome(host, 3, "ready");
    outcome(host, 2, "superseded");
    answers(&cluster.all(), "three");
    one_at_a_time(&cluster.all());
    all_run(&cluster, 3);

    // One that fails goes back to the last one that was ready everywhere, not to the one in the middle.
    observe(&cluster, "three");
    begin(host, &web("four", ""));
    reached(host, "four");
    begin(cluster.host(3), &server("exit 3", IMAGE, SOON, PROBE));
    outcome(host, 5, "rolledBack");
    outcome(host, 4, "superseded");
    answers(&cluster.all(), "three");
    one_at_a_time(&cluster.all());
    all_run(&cluster, 3);

    // An undo in the middle, and an undo of that in the middle.
    observe(&cluster, "three");
    begin(host, &web("six", ""));
    reached(host, "six");
    let undone = rollout(host, &["undo", "web", "--to-revision", "3"]).ok();
    assert!(undone.contains("revision 7"), "{undone}");
    answers(&[host], "three");
    let undone = rollout(host, &["undo", "web", "--to-revision", "6"]).ok();
    assert!(undone.contains("revision 8"), "{undone}");
    outcome(host, 8, "ready");
    answers(&cluster.all(), "six");
    one_at_a_time(&cluster.all());
    all_run(&cluster, 8);
    let outcomes = history(host).into_iter().map(|one| {
        let outcome = one["outcome"].as_str().unwrap_or_default().to_owned();
        (one["revision"].as_u64().unwrap(), outcome)
    });
    let expected = [
        (8, "ready"),
        (7, "superseded"),
        (6, "superseded"),
        (5, "rolledBack"),
        (4, "superseded"),
        (3, "ready"),
        (2, "superseded"),
        (1, "ready"),
    ];
    let expected = expected.map(|(revision, outcome)| (revision, outcome.to_owned()));
    assert_eq!(outcomes.collect::<Vec<_>>(), expected);

    takes_no_longer_than_its_hosts(&cluster);
}

/// A rollout takes no longer than the updates of its hosts one after the other.
fn takes_no_longer_than_its_hosts(cluster: &Cluster) {
    const OVERHEAD: Duration = Duration::from_millis(300);
    // The machine may be busy during either measurement.
    const TRIES: u64 = 3;
    let host = cluster.host(1);
    let alone = |version: &str, on: &str| {
        let pod = format!("    spec:\n      nodeSelector: {{kubernetes.io/hostname: {on}}}\n");
        web(version, "")
            .replace("web", &format!("only-{on}"))
            .replace("8080", "8081")
            .replace("    spec:\n", &pod)
    };
    for on in ["h1", "h2", "h3"] {
        let _ = host.apply(&alone("first", on));
    }
    let timed = |name: &str, yaml: &str| {
        let begun = Instant::now();
        begin(host, yaml);
        let path = format!("/v1/workloads/{name}/revisions");
        wait_for(&format!("the end of {name}"), secs(60), || {
            let (_, found) = host.api("GET", &path, b"");
            let is_ended = found["revisions"][0]["outcome"] == "ready";
            is_ended.then_some(()).ok_or(found)
        });
        begun.elapsed()
    };
    let mut seen = Vec::new();
    for round in 0..TRIES {
        let version = format!("round-{round}");
        // Each includes the two seconds for which a pod must be ready.
        let own = ["h1", "h2", "h3"].map(|on| timed(&format!("only-{on}"), &alone(&version, on)));
        let all = timed("web", &web(&version, ""));
        let bound = own.iter().sum::<Duration>() + 3 * OVERHEAD;
        seen.push((own, all));
        if all <= bound {
            eprintln!("hosts alone, and all: {seen:?}");
            return;
        }
    }
    panic!("hosts alone, and all: {seen:?}");
}
