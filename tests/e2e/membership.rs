//! Hosts become members by join tokens only.

#![allow(clippy::unwrap_used, reason = "whatever is missing fails the test")]

use std::{fs, process::Command, thread, time::Instant};

use harness::{Answer, Cluster, Host, pod, secs, start_agent, two_containers, wait_for};

#[test]
fn a_token_admits_as_many_as_it_says_and_none_once_it_is_revoked() {
    let cluster = Cluster::booted("tokens", 3);
    cluster.each(start_agent);
    let [h1, h2, h3] = [cluster.host(1), cluster.host(2), cluster.host(3)];

    let (id, token) = create(h1);
    let listed = h1.beemesh(&["token", "list"]).ok();
    assert!(listed.contains(&id), "{listed}");
    let secret = h1.sh("grep -c beemesh1- /var/lib/beemesh/gateway/raft/log/*.log");
    assert_eq!(secret.out.trim(), "0", "the secret is nowhere on the disk");
    // Both join at the same time; the token has one use left, so only one of the two entries of the log is admitted.
    let token = &token;
    let answers: Vec<Answer> = thread::scope(|scope| {
        let asked = [h2, h3].map(|host| scope.spawn(move || host.beemesh(&["join", token])));
        asked.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let (winner, loser) = match (answers[0].code, answers[1].code) {
        (0, _) => (h2, h3),
        _ => (h3, h2),
    };
    let lost = answers.iter().filter(|answer| answer.code != 0);
    let lost: Vec<_> = lost.map(|answer| &answer.err).collect();
    assert_eq!(lost.len(), 1, "{answers:?}");
    assert!(lost[0].contains("used up"), "{}", lost[0]);
    cluster.agree_on(&[h1, winner], 2, 2);
    assert_eq!(h1.beemesh(&["token", "list"]).ok(), "no tokens\n");

    // Any member can revoke a token.
    let (id, token) = create(h1);
    let revoked = winner.beemesh(&["token", "revoke", &id]).ok();
    assert!(revoked.contains("revoked"), "{revoked}");
    let again = winner.beemesh(&["token", "revoke", &id]);
    assert_eq!(again.code, 1, "{again}");
    let refused = loser.beemesh(&["join", &token]);
    assert_eq!(refused.code, 1, "{refused}");
    assert!(refused.err.contains("revoked"), "{refused}");

    let (_, token) = create(winner);
    let _ = loser.beemesh(&["join", &token]).ok();
    cluster.ready();
}

#[test]
fn a_removed_host_keeps_what_it_runs_and_needs_a_new_token() {
    let cluster = Cluster::formed("removal", 3);
    let (_, token) = create(cluster.host(1));
    let leader = cluster.leader(cluster.host(1));
    let others: Vec<&Host> = cluster
        .hosts
        .iter()
        .filter(|host| host.name != leader.name)
        .collect();
    let [asked, other] = others[..] else {
        panic!("{others:?}");
    };
    let answer = asked.apply(&pod("web", "here"));
    assert_eq!(answer["settled"], true, "{answer}");
    let before = leader.containers("web");

    let itself = leader.beemesh(&["host", "remove", &leader.name]);
    assert!(
        itself.code == 1 && itself.err.contains("another member"),
        "{itself}"
    );
    let said = asked.beemesh(&["host", "remove", &leader.name]).ok();
    assert!(said.contains("removed   committed"), "{said}");
    // When it returns, the others are a cluster of two without it.
    cluster.agree_on(&others, 2, 2);
    let listed = other.beemesh(&["host", "list"]).ok();
    assert!(!listed.contains(&leader.name), "{listed}");
    assert!(leader_of(asked) != leader.name);

    says_that_it_is_removed(leader);
    let refused = leader.try_apply(&pod("late", "never"), &[]);
    assert!(
        refused.code == 1 && refused.err.contains("removed from its cluster"),
        "{refused}"
    );
    // A removed host does not follow the cluster. Its pod stays as it was, even after a restart of its gateway.
    let answer = asked.apply(&pod("web", "there"));
    assert_eq!(answer["settled"], true, "{answer}");
    let _ = leader.sh("systemctl restart beemesh-gateway").ok();
    says_that_it_is_removed(leader);
    assert_eq!(leader.containers("web"), before);

    let _ = leader.beemesh(&["join", &token]).ok();
    cluster.ready();
    cluster.running("web", 2, &[leader]);
    let again = asked.beemesh(&["host", "remove", &leader.name]).ok();
    assert!(again.contains("removed"), "{again}");
    says_that_it_is_removed(leader);
    // Neither the key of a former member nor a token that it has used admits it again.
    let refused = leader.beemesh(&["join", &token]);
    assert!(
        refused.code == 1 && refused.err.contains("used up"),
        "{refused}"
    );
}

#[test]
fn a_host_that_is_removed_while_it_is_off_hears_of_it_and_comes_back_with_a_token() {
    let cluster = Cluster::formed("removed-away", 3);
    let [h1, h2, h3] = [cluster.host(1), cluster.host(2), cluster.host(3)];
    let answer = h1.apply(&pod("web", "here"));
    assert_eq!(answer["settled"], true, "{answer}");
    cluster.crash(&[h3]);
    // Without h2 the voters would be h1 and h3, which is off: no majority. So the cluster refuses to remove h2, and can
    // remove h3.
    cluster.agree_on(&[h1, h2], 2, 3);
    let refused = h1.beemesh(&["host", "remove", "h2"]);
    assert!(
        refused.code == 1 && refused.err.contains("h3 is unreachable"),
        "{refused}"
    );
    let _ = h1.beemesh(&["host", "remove", "h3"]).ok();
    cluster.boot(&[h3]);
    says_that_it_is_removed(h3);
    let unit = h3.unit("beemesh-pod-web.service", "StatusText");
    assert_eq!(unit, "1/1 healthy · rev 1 · 0 restarts");
    let _ = h3.sh("systemctl restart beemesh-gateway").ok();
    says_that_it_is_removed(h3);
    let (_, token) = create(h2);
    let _ = h3.beemesh(&["join", &token]).ok();
    cluster.ready();
    cluster.running("web", 1, &[h3]);
}

#[test]
fn a_host_that_was_removed_before_it_had_caught_up_joins_by_another_token() {
    let cluster = Cluster::booted("let-go", 3);
    cluster.form_of(2);
    let [h1, h3] = [1, 3].map(|n| cluster.host(n));
    start_agent(h3);
    let folder = h3.root().join("var/lib/beemesh/gateway");
    let (_, token) = create(h1);
    let admission = thread::scope(|scope| {
        let joined = scope.spawn(|| h3.beemesh(&["join", &token]).ok());
        let begun = Instant::now();
        let admission = loop {
            match fs::read(folder.join("life")) {
                Ok(bytes) if bytes.starts_with(br#"{"joining""#) => break bytes,
                _ => assert!(begun.elapsed() < secs(30), "no admission"),
            }
        };
        let _ = joined.join().unwrap();
        admission
    });
    cluster.ready();
    // As if the host had been cut off at the moment of its admission.
    let _ = h3.sh("systemctl stop beemesh-gateway").ok();
    fs::remove_dir_all(folder.join("raft")).unwrap();
    fs::write(folder.join("life"), admission).unwrap();
    let _ = h1.beemesh(&["host", "remove", "h3"]).ok();
    let _ = h3.sh("systemctl start beemesh-gateway").ok();
    wait_for("the join to go on", secs(30), || {
        let status = h3.status();
        let waits = status["id"].is_string() && status["cluster"].is_null();
        waits.then_some(()).ok_or(status)
    });
    let refused = h3.beemesh(&["join", &token]);
    assert!(
        refused.code == 1 && refused.err.contains("used up"),
        "{refused}"
    );
    let (_, token) = create(h1);
    let _ = h3.beemesh(&["join", &token]).ok();
    cluster.ready();
}

#[test]
fn a_host_that_lost_its_disk_comes_back_in_its_old_place_and_the_old_disk_opens_nothing() {
    const AGENT: &str = "/usr/libexec/beemesh/beemesh-agent";
    let cluster = Cluster::formed("replaced", 3);
    let [h1, h2, h3] = [cluster.host(1), cluster.host(2), cluster.host(3)];
    let _ = h1.beemesh(&["host", "label", "h3", "disk=ssd"]).ok();
    let answer = h1.apply(&pod("web", "here"));
    assert_eq!(answer["settled"], true, "{answer}");
    let id = |host: &Host| host.status()["id"].as_str().unwrap().to_owned();
    let old = id(h3);
    // The administrator keeps the old disk.
    let off = "systemctl stop beemesh-gateway beemesh-agent.socket beemesh-agent";
    let _ = h3
        .sh(&format!("{off} && cp -a /var/lib/beemesh /root/old"))
        .ok();
    let _ = h3.run(&[AGENT, "purge", "--yes"]).ok();
    cluster.agree_on(&[h1, h2], 2, 3);
    start_agent(h3);
    let new = id(h3);
    assert!(new != old);

    let (_, token) = create(h1);
    for (args, words) in [
        (&["join", &token][..], "--replace h3"),
        (&["join", &token, "--replace", "h9"], "host `h9` not found"),
        (&["join", &token, "--replace", "h2"], "h2 is reachable"),
    ] {
        let refused = h3.beemesh(args);
        assert!(
            refused.code == 1 && refused.err.contains(words),
            "{refused}"
        );
    }
    let _ = h3.beemesh(&["join", &token, "--replace", "h3"]).ok();
    cluster.ready();
    let shown = h1.beemesh(&["host", "show", "h3", "-o", "json"]).json();
    assert_eq!(shown["labels"]["disk"], "ssd", "{shown}");
    assert_eq!(shown["id"], new.as_str(), "{shown}");
    let status = h2.status();
    assert_eq!(status["hosts"]["total"], 3, "{status}");
    cluster.running("web", 1, &[h3]);

    // The old disk, with its key and its log.
    let swap = "mv /var/lib/beemesh /root/new && mv /root/old /var/lib/beemesh";
    let _ = h3
        .sh(&format!("{off} && {swap} && systemctl start beemesh-agent"))
        .ok();
    says_that_it_is_removed(h3);
    assert_eq!(id(h3), old);
    cluster.agree_on(&[h1, h2], 2, 3);
    assert_eq!(h1.status()["hosts"]["total"], 3);
}

#[test]
fn a_host_gets_another_key_and_nothing_else_changes() {
    let cluster = Cluster::booted("rotated", 4);
    cluster.form_of(3);
    let [h1, h2, h3, h4] = [1, 2, 3, 4].map(|n| cluster.host(n));
    let members = [h1, h2, h3];
    let _ = h1.beemesh(&["host", "label", "h3", "disk=ssd"]).ok();
    let lone = two_containers("lone", "one")
        .replace("spec:\n  selector", "spec:\n  replicas: 1\n  selector");
    for manifest in [pod("web", "here"), lone] {
        let answer = h1.apply(&manifest);
        assert_eq!(answer["settled"], true, "{answer}");
    }
    let runs = || members.map(|host| (host.containers("web"), host.containers("lone")));
    let before = runs();
    // The leader, and a follower.
    let leader = cluster.leader(h1);
    let other = members.into_iter().find(|host| host.name != leader.name);
    let (revoked, token) = create(h1);
    for host in [other.unwrap(), leader] {
        let key = host.root().join("var/lib/beemesh/agent/identity");
        let key = std::fs::read(key).unwrap();
        get_another_key(&cluster, host, &members);
        assert_eq!(runs(), before, "{}", host.name);
        let _ = h4
            .run_with(&["sh", "-c", "umask 077; cat >/root/old-key"], &key)
            .code;
    }
    let shown = h1.beemesh(&["host", "show", "h3", "-o", "json"]).json();
    assert_eq!(shown["labels"]["disk"], "ssd", "{shown}");
    let answer = h2.apply(&pod("web", "there"));
    assert_eq!(answer["settled"], true, "{answer}");

    // The members would admit a member's key without a valid token.
    let _ = h1.beemesh(&["token", "revoke", &revoked]).ok();
    let _ = h4
        .sh("install -D -m 600 /root/old-key /var/lib/beemesh/agent/identity")
        .ok();
    start_agent(h4);
    let refused = h4.beemesh(&["join", &token]);
    assert!(
        refused.code == 1 && refused.err.contains("revoked"),
        "{refused}"
    );
    cluster.crash(&[h3]);
    cluster.agree_on(&[h1, h2], 2, 3);
    let refused = h1.beemesh(&["host", "rotate-key"]);
    assert!(
        refused.code == 1
            && refused
                .err
                .contains("1 of the 2 other voters are reachable"),
        "{refused}"
    );
}

#[test]
fn a_change_of_keys_that_is_cut_short_is_finished_or_never_was() {
    let cluster = Cluster::formed("rotated-killed", 3);
    let members = [1, 2, 3].map(|n| cluster.host(n));
    let [h1, h2, _] = members;
    let answer = h1.apply(&pod("web", "here"));
    assert_eq!(answer["settled"], true, "{answer}");
    let id = || h2.status()["id"].as_str().unwrap_or_default().to_owned();
    let before = h2.containers("web");
    let file = |name: &str| fs::read(h2.root().join("var/lib/beemesh").join(name));
    let (gateway, agent) = ("beemesh-gateway", "beemesh-agent");
    for (program, moment) in [
        (gateway, "remembered"),
        (agent, "remembered"),
        (gateway, "admitted"),
        (agent, "admitted"),
        // The agent then ends by itself.
        (gateway, "taken"),
    ] {
        let (old, identity) = (id(), file("agent/identity").unwrap());
        let come = || match moment {
            "remembered" => rotating(h2).contains("\"host\""),
            "admitted" => rotating(h2).contains("\"members\""),
            _ => file("agent/identity").is_ok_and(|key| key != identity),
        };
        let pids = h2.processes()[program].clone();
        thread::scope(|scope| {
            scope.spawn(|| h2.beemesh(&["host", "rotate-key"]));
            let begun = Instant::now();
            // Some of these states last for a millisecond.
            while !come() {
                assert!(begun.elapsed() < secs(20), "never {moment}");
            }
            kill(&pids);
        });
        has_rotated(h2);
        cluster.agree_on(&members, 3, 3);
        let new = id();
        if moment != "remembered" {
            assert!(old != new, "{program} {moment}");
        }
        for asked in members {
            let shown = asked.beemesh(&["host", "show", "h2", "-o", "json"]).json();
            assert_eq!(shown["id"], new.as_str(), "{shown}");
            assert_eq!(asked.status()["hosts"]["total"], 3);
        }
        assert_eq!(h2.containers("web"), before, "{program} {moment}");
    }
}

#[test]
fn of_two_hosts_each_gets_another_key_and_each_can_leave() {
    let cluster = Cluster::formed("two", 2);
    let both = [cluster.host(1), cluster.host(2)];
    let answer = both[0].apply(&pod("web", "here"));
    assert_eq!(answer["settled"], true, "{answer}");
    let before = both.map(|host| host.containers("web"));
    let leader = cluster.leader(both[0]);
    let other = *both.iter().find(|host| host.name != leader.name).unwrap();
    for host in [other, leader] {
        get_another_key(&cluster, host, &both);
    }
    // Two rotations at the same time: one of them may be refused, and the host ends with the key that the others know.
    let codes = thread::scope(|scope| {
        let asked = [(); 2].map(|()| scope.spawn(|| other.beemesh(&["host", "rotate-key"])));
        asked.map(|one| one.join().unwrap())
    });
    assert!(codes.iter().any(|answer| answer.code == 0), "{codes:?}");
    cluster.agree_on(&both, 2, 2);
    // The command that asked for the rotation may end early. Without the leader, the other host decides, and the leader
    // learns of it later.
    let leader = cluster.leader(other);
    let old = leader.status()["id"].clone();
    thread::scope(|scope| {
        scope.spawn(|| leader.beemesh(&["host", "rotate-key"]));
        let begun = Instant::now();
        let asker = loop {
            match leader.processes().remove("beemesh") {
                Some(pids) => break pids,
                None => assert!(begun.elapsed() < secs(20), "nobody asks"),
            }
        };
        while !rotating(leader).contains("\"host\"") {
            assert!(begun.elapsed() < secs(20), "never remembered");
        }
        kill(&asker);
    });
    has_rotated(leader);
    cluster.agree_on(&both, 2, 2);
    assert!(leader.status()["id"] != old);
    // Once as the leader, once as a follower.
    let goes = cluster.leader(both[0]);
    let stays = *both.iter().find(|host| host.name != goes.name).unwrap();
    for revision in 2..=3 {
        let said = stays.beemesh(&["host", "remove", &goes.name]).ok();
        assert!(said.contains("removed   committed"), "{said}");
        says_that_it_is_removed(goes);
        cluster.agree_on(&[stays], 1, 1);
        let answer = stays.apply(&pod("alone", &format!("{revision}")));
        assert_eq!(answer["settled"], true, "{answer}");
        if revision == 2 {
            let (_, token) = create(stays);
            let _ = goes.beemesh(&["join", &token]).ok();
            cluster.agree_on(&both, 2, 2);
        }
    }
    assert_eq!(both.map(|host| host.containers("web")), before);
    let refused = stays.beemesh(&["host", "rotate-key"]);
    assert!(
        refused.code == 1 && refused.err.contains("no other host votes"),
        "{refused}"
    );
}

#[test]
fn a_host_with_a_new_address_is_found_again_also_by_who_was_off_meanwhile() {
    let cluster = Cluster::formed("readdressed", 3);
    let [h1, h2, h3] = [cluster.host(1), cluster.host(2), cluster.host(3)];
    cluster.crash(&[h3]);
    cluster.agree_on(&[h1, h2], 2, 3);
    let old = h2.address();
    let (net, _) = old.rsplit_once('.').unwrap();
    let new = format!("{net}.202");
    let line = format!("ip address del {old}/24 dev eth0 && ip address add {new}/24 dev eth0");
    let _ = h2.sh(&line).ok();
    wait_for("the new address in the list", secs(60), || {
        let shown = h1.beemesh(&["host", "show", "h2", "--stale"]).out;
        let told = shown.contains(&new) && !shown.contains(&format!("{old}/"));
        told.then_some(()).ok_or(shown)
    });
    cluster.agree_on(&[h1, h2], 2, 3);
    // The host knows only the old address, and learns the new one from the other host.
    cluster.boot(&[h3]);
    cluster.ready();
    let answer = h3.apply(&pod("web", "here"));
    assert_eq!(answer["settled"], true, "{answer}");
}

#[test]
fn two_clusters_on_one_network_do_not_mix() {
    let cluster = Cluster::booted("apart", 4);
    cluster.each(start_agent);
    let pairs = [1, 3].map(|n| (cluster.host(n), cluster.host(n + 1)));
    for (first, second) in pairs {
        let (_, token) = create(first);
        let _ = second.beemesh(&["join", &token]).ok();
        cluster.agree_on(&[first, second], 2, 2);
    }
    let [(a, other_a), (b, other_b)] = pairs;
    let _ = a.apply(&pod("of-a", "a"));
    let _ = b.apply(&pod("of-b", "b"));
    // A member of one cluster is a stranger to the other, even with a token: it belongs to a cluster with other hosts.
    let (_, token) = create(b);
    let refused = other_a.beemesh(&["join", &token]);
    assert!(
        refused.code == 1 && refused.err.contains("is a member of cluster"),
        "{refused}"
    );
    cluster.crash(&[other_a, other_b]);
    cluster.boot(&[other_a, other_b]);
    for (first, second, own) in [(a, other_a, "of-a"), (b, other_b, "of-b")] {
        cluster.agree_on(&[first, second], 2, 2);
        for host in [first, second] {
            cluster.running(own, 1, &[host]);
            let listed = host.beemesh(&["get", "manifests"]).ok();
            assert_eq!(listed.lines().count(), 2, "{listed}");
        }
    }
}

/// Rotates the key of a host and waits until all these hosts know the new key in place of the old one.
#[track_caller]
fn get_another_key(cluster: &Cluster, host: &Host, members: &[&Host]) {
    let id = || host.status()["id"].as_str().unwrap().to_owned();
    let old = id();
    let said = host.beemesh(&["host", "rotate-key"]).ok();
    let new = id();
    assert!(old != new && said.contains(&new), "{said}");
    cluster.agree_on(members, members.len(), members.len());
    for asked in members {
        let listed = asked.beemesh(&["host", "list", "-o", "json"]).ok();
        assert!(listed.contains(&new) && !listed.contains(&old), "{listed}");
    }
}

/// Kills processes by their PIDs in the machine's PID namespace. One that ends by itself may be gone already.
#[track_caller]
fn kill(pids: &[u32]) {
    assert!(!pids.is_empty());
    let pids = pids.iter().map(ToString::to_string);
    let killed = Command::new("kill").arg("-9").args(pids).output().unwrap();
    let said = String::from_utf8_lossy(&killed.stderr);
    let is_gone = said.lines().all(|line| line.contains("No such process"));
    assert!(killed.status.success() || is_gone, "{killed:?}");
}

/// The state of a host's key rotation; empty if there is none. It names the new key from the moment before the host
/// proposes it.
fn rotating(host: &Host) -> String {
    let file = host.root().join("var/lib/beemesh/gateway/life");
    let life = fs::read_to_string(file).unwrap_or_default();
    if life.starts_with("{\"rotating-key\"") {
        life
    } else {
        String::new()
    }
}

#[track_caller]
fn has_rotated(host: &Host) {
    wait_for("the change of keys to be over", secs(60), || {
        rotating(host)
            .is_empty()
            .then_some(())
            .ok_or(rotating(host))
    });
}

/// Waits until the host reports that it is no member.
#[track_caller]
fn says_that_it_is_removed(host: &Host) {
    wait_for(
        &format!("{} to know that it is removed", host.name),
        secs(60),
        || {
            let (status, unit) = (host.status(), host.unit("beemesh-agent", "StatusText"));
            let told =
                status["role"] == "removed" && unit.contains("no longer a member of the cluster");
            told.then_some(()).ok_or(format!("{status} {unit}"))
        },
    );
}

fn leader_of(host: &Host) -> String {
    host.status()["leader"]["name"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

/// A new token's id and line.
fn create(host: &Host) -> (String, String) {
    let made = host.beemesh(&["token", "create", "-o", "json"]).ok();
    let made: serde_json::Value = serde_json::from_str(&made).unwrap();
    let text = |key: &str| made[key].as_str().unwrap().to_owned();
    (text("id"), text("token"))
}
