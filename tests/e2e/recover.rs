//! The survivors of a cluster continue after an administrator's `recover`, and the hosts that return later do not
//! rejoin by themselves.

#![allow(clippy::unwrap_used, reason = "whatever is missing fails the test")]

use harness::{Answer, Cluster, Host, pod, secs, wait_for};

const AGENT: &str = "/usr/libexec/beemesh/beemesh-agent";

/// One link is cut. The host without a connection to the leader reports that other members have one.
#[track_caller]
fn others_have_a_leader(cluster: &Cluster) {
    let leader = cluster.leader(cluster.host(1));
    let deaf = cluster.hosts.iter().find(|host| host.name != leader.name);
    let deaf = deaf.unwrap();
    cluster.cut(leader, deaf);
    let words = format!(
        "other members reach the leader {}, this host does not",
        leader.name
    );
    let said = wait_for("a host that hears no leader", secs(60), || {
        let said = deaf.beemesh(&["status"]).out;
        if said.contains(&words) {
            Ok(said)
        } else {
            Err(said)
        }
    });
    assert!(!said.contains("recover"), "{said}");
    refuses(&recover(deaf, &[]), "the cluster works");
    cluster.heal();
    cluster.ready();
}

#[test]
fn a_survivor_goes_on_alone_and_the_old_majority_that_returns_ends_when_it_reaches_it() {
    let cluster = Cluster::formed("recover", 3);
    let [h1, h2, h3] = [cluster.host(1), cluster.host(2), cluster.host(3)];
    let answer = h1.apply(&pod("web", "here"));
    assert_eq!(answer["settled"], true, "{answer}");
    let old = cluster_of(h1);
    refuses(&recover(h1, &["--confirm", &old]), "has a quorum");
    others_have_a_leader(&cluster);

    cluster.crash(&[h2, h3]);
    lost_quorum(h1);
    let said = h1.beemesh(&["status"]).out;
    assert!(said.contains("beemesh-agent recover"), "{said}");
    let asked = recover(h1, &[]);
    refuses(&asked, "nothing was changed");
    for words in [
        "h2 (not reachable), h3 (not reachable)",
        "may be lost",
        &old[..8],
    ] {
        assert!(asked.out.contains(words), "{asked}");
    }
    refuses(&recover(h1, &["--confirm", "web"]), "nothing was changed");
    assert_eq!(cluster_of(h1), old);

    let before = (h1.containers("web"), unit(h1, "web"));
    let done = recover(h1, &["--confirm", &old[..8]]).ok();
    let new = cluster_of(h1);
    assert!(new != old && done.contains(&new), "{done}");
    cluster.agree_on(&[h1], 1, 1);
    let answer = h1.apply(&pod("ours", "ours"));
    assert_eq!(answer["settled"], true, "{answer}");
    assert_eq!((h1.containers("web"), unit(h1, "web")), before);
    refuses(&recover(h1, &["--confirm", &new]), "has a quorum");

    // The old majority returns in a network without the survivor: it cannot know that the survivor was recovered.
    cluster.isolate(h1);
    cluster.boot(&[h2, h3]);
    cluster.agree_on(&[h2, h3], 2, 3);
    let answer = h2.try_apply(&pod("theirs", "theirs"), &["--wait=60"]);
    assert!(answer.out.contains("committed"), "{answer}");
    cluster.running("theirs", 1, &[h2, h3]);
    cluster.heal();
    for host in [h2, h3] {
        says_that_it_is_removed(host);
        refuses(
            &host.try_apply(&pod("late", "late"), &[]),
            "removed from its cluster",
        );
        let kept = host.unit("beemesh-pod-theirs.service", "StatusText");
        assert!(kept.starts_with("1/1 healthy"), "{kept}");
    }
    alone(h1, &new);

    let kept = h2.containers("web");
    for host in [h2, h3] {
        let token = h1.beemesh(&["token", "create"]).ok();
        let _ = host.beemesh(&["join", token.trim()]).ok();
    }
    cluster.ready();
    for host in [h1, h2, h3] {
        assert_eq!(cluster_of(host), new);
        cluster.running("web", 1, &[host]);
        cluster.running("ours", 1, &[host]);
        wait_for("nothing of the old cluster", secs(60), || {
            match host.leftovers("theirs").as_str() {
                "" => Ok(()),
                left => Err(left.to_owned()),
            }
        });
    }
    assert_eq!(h1.containers("web"), before.0);
    assert_eq!(
        h2.containers("web"),
        kept,
        "what it ran is what it should run"
    );
    cluster.crash(&[h1, h2, h3]);
    cluster.boot(&[h1, h2, h3]);
    cluster.ready();
    cluster.running("ours", 1, &[h1, h2, h3]);
}

#[test]
fn old_members_that_return_one_by_one_find_neither_a_vote_nor_a_majority() {
    let cluster = Cluster::formed("recover-one-by-one", 3);
    let [h1, h2, h3] = [cluster.host(1), cluster.host(2), cluster.host(3)];
    let old = cluster_of(h1);
    cluster.crash(&[h1, h3]);
    lost_quorum(h2);
    // Any survivor may recover, as a former leader or a follower.
    let _ = recover(h2, &["--confirm", &old[..8]]).ok();
    let new = cluster_of(h2);
    let answer = h2.apply(&pod("web", "here"));
    assert_eq!(answer["settled"], true, "{answer}");

    cluster.boot(&[h1]);
    let begun = h1.try_apply(&pod("early", "early"), &[]);
    assert_ne!(begun.code, 0, "with its own vote and no other: {begun}");
    says_that_it_is_removed(h1);
    cluster.boot(&[h3]);
    says_that_it_is_removed(h3);
    for host in [h1, h3] {
        refuses(
            &host.try_apply(&pod("late", "late"), &[]),
            "removed from its cluster",
        );
    }
    alone(h2, &new);
    let _ = h2.sh("systemctl restart beemesh-gateway").ok();
    cluster.agree_on(&[h2], 1, 1);
    alone(h2, &new);
    let token = h2.beemesh(&["token", "create", "--uses=2"]).ok();
    for host in [h1, h3] {
        let _ = host.beemesh(&["join", token.trim()]).ok();
    }
    cluster.ready();
    cluster.running("web", 1, &[h1, h2, h3]);
}

#[track_caller]
fn lost_quorum(host: &Host) {
    wait_for("the quorum to be missed", secs(60), || {
        let status = host.status();
        let lost = status["quorum"] == false && status["hosts"]["reachable"] == 1;
        lost.then_some(()).ok_or(status)
    });
}

/// The host is a cluster of its own, with the objects that were applied there and no others.
#[track_caller]
fn alone(host: &Host, cluster: &str) {
    assert_eq!(cluster_of(host), cluster);
    let status = host.status();
    assert_eq!(
        status["voters"].as_array().map(Vec::len),
        Some(1),
        "{status}"
    );
    assert_eq!(status["hosts"]["total"], 1, "{status}");
    let listed = host.beemesh(&["get", "manifests"]).ok();
    for word in ["theirs", "early", "late"] {
        assert!(!listed.contains(word), "{listed}");
    }
}

fn recover(host: &Host, args: &[&str]) -> Answer {
    host.run(&[&[AGENT, "recover"], args].concat())
}

fn cluster_of(host: &Host) -> String {
    host.status()["cluster"].as_str().unwrap().to_owned()
}

/// The file from which the workload's unit is generated.
fn unit(host: &Host, workload: &str) -> String {
    let path = format!("/etc/containers/systemd/beemesh/beemesh-pod-{workload}.kube");
    host.run(&["cat", &path]).ok()
}

#[track_caller]
fn refuses(answer: &Answer, words: &str) {
    assert!(
        answer.code == 1 && answer.err.contains(words),
        "{words}: {answer}"
    );
}

#[track_caller]
fn says_that_it_is_removed(host: &Host) {
    let what = format!("{} to know that it is no member", host.name);
    wait_for(&what, secs(90), || {
        let status = host.status();
        let told = status["role"] == "removed" && status["quorum"] == false;
        told.then_some(()).ok_or(status)
    });
}
