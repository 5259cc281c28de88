//! Hosts become members by tokens, and by nothing else.

#![allow(clippy::unwrap_used, reason = "whatever is missing fails the test")]

use std::thread;

use harness::{Answer, Cluster, Host, start_agent};

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
    // Both ask at once; only one of the two entries of the log finds a use left.
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

    // Any member takes a token back.
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

/// A new token's id and line.
fn create(host: &Host) -> (String, String) {
    let made = host.beemesh(&["token", "create", "-o", "json"]).ok();
    let made: serde_json::Value = serde_json::from_str(&made).unwrap();
    let text = |key: &str| made[key].as_str().unwrap().to_owned();
    (text("id"), text("token"))
}
