//! Clients that ask the port of their host all the time, and what their logs say about an update.
//!
//! Each host has a client of its own, in the host's network. It asks for the page of a workload ten times a second, and
//! writes the time and the answer. A host that loses its power loses the log, too, so such a host has no judge.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{
    Host, IMAGE,
    wait::{secs, wait_for},
};

/// The log of a client: times in milliseconds since 1970, and the answers.
pub type Log = Vec<(u64, String)>;

/// The answer of a port that does not answer.
const NOTHING: &str = "nothing";
/// Time for a version to be everywhere. It is not what a judge measures.
const ANSWER_MAX: u64 = 120;

/// A web server `web` on port 8080 of each host. `start` runs in the container before it waits for its end; `more` is a
/// part of the specification, and `probe` the readiness probe.
#[must_use]
pub fn server(start: &str, image: &str, more: &str, probe: &str) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web}}\nspec:\n{more}  selector: {{matchLabels: {{app: web}}}}\n  template:\n    \
         metadata: {{labels: {{app: web}}}}\n    spec:\n      terminationGracePeriodSeconds: 1\n      containers:\n      - name: app\n        \
         image: {image}\n        command: [sh, -c, 'trap \"exit 0\" TERM; {start}; while :; do sleep 1 & wait $!; done']\n        \
         ports: [{{containerPort: 8080, hostPort: 8080}}]\n        readinessProbe: {probe}\n"
    )
}

/// A readiness probe that asks for the page of [`server`].
pub const PROBE: &str = "{httpGet: {port: 8080, path: /index.html}, periodSeconds: 1}";

/// The commands that serve a version.
#[must_use]
pub fn serves(version: &str) -> String {
    format!("echo {version} >/index.html; httpd -p 8080 -h /")
}

/// A web server that answers with a version on each host; `more` is a part of the specification.
#[must_use]
pub fn web(version: &str, more: &str) -> String {
    server(&serves(version), IMAGE, more, PROBE)
}

/// Starts the client of each host, with an empty log.
pub fn watch(hosts: &[&Host]) {
    let line = "systemctl stop judge 2>/dev/null; rm -f /tmp/judge; systemd-run -q --unit=judge --collect sh -c \
                'while :; do found=$(busybox wget -q -T 1 -O- http://127.0.0.1:8080/index.html 2>/dev/null); \
                echo \"$(date +%s%3N) ${found:-nothing}\" >>/tmp/judge; sleep 0.1; done'";
    for host in hosts {
        let _ = host.sh(line).ok();
    }
}

/// The log of a client.
#[must_use]
pub fn log(host: &Host) -> Log {
    let text = host.sh("cat /tmp/judge").ok();
    let lines = text.lines().filter_map(|line| line.split_once(' '));
    lines
        .filter_map(|(at, found)| Some((at.parse().ok()?, found.to_owned())))
        .collect()
}

/// The last answer of a host.
#[must_use]
pub fn last(host: &Host) -> String {
    let line = host.sh("tail -n1 /tmp/judge").out;
    line.split_whitespace().nth(1).unwrap_or_default().into()
}

/// The times without an answer: from the last answer before to the first one after. One request without an answer may be
/// that of a busy machine; while a pod is replaced, its port refuses many.
#[must_use]
pub fn gaps(log: &[(u64, String)]) -> Vec<(u64, u64)> {
    let mut gaps = Vec::new();
    let mut last = 0;
    let mut missed = 0;
    for (at, found) in log {
        if found == NOTHING {
            missed += 1;
            continue;
        }
        if missed > 1 {
            gaps.push((last, *at));
        }
        (last, missed) = (*at, 0);
    }
    if missed > 1 {
        gaps.push((last, u64::MAX));
    }
    gaps
}

/// Fails if two of these hosts were without an answer at the same time. Returns the logs by host.
///
/// # Panics
/// If they were, or if a client did not ask.
#[track_caller]
pub fn one_at_a_time(hosts: &[&Host]) -> BTreeMap<String, Log> {
    let logs: Vec<_> = hosts.iter().map(|host| log(host)).collect();
    for (one, mine) in logs.iter().enumerate() {
        assert!(mine.len() > 10, "{mine:?}");
        for (other, theirs) in logs.iter().enumerate().skip(one + 1) {
            for (from, to) in gaps(mine) {
                let theirs = gaps(theirs);
                let both = theirs.iter().find(|gap| from < gap.1 && gap.0 < to);
                let names = (&hosts[one].name, &hosts[other].name);
                let all: Vec<_> = logs.iter().map(|log| runs(log)).collect();
                assert_eq!(both, None, "{names:?}: {from} to {to}: {all:?}");
            }
        }
    }
    let names = hosts.iter().map(|host| host.name.clone());
    names.zip(logs).collect()
}

/// A log in which equal answers that follow each other are one: when the first came, how many, and what.
#[must_use]
pub fn runs(log: &[(u64, String)]) -> Vec<(u64, usize, String)> {
    let mut runs: Vec<(u64, usize, String)> = Vec::new();
    for (at, found) in log {
        match runs.last_mut() {
            Some((_, count, last)) if last == found => *count += 1,
            _ => runs.push((*at, 1, found.clone())),
        }
    }
    runs
}

/// Waits until each of these hosts answers with this version.
#[track_caller]
pub fn answers(hosts: &[&Host], version: &str) {
    for host in hosts {
        wait_for(
            &format!("{version} on {}", host.name),
            secs(ANSWER_MAX),
            || {
                let found = last(host);
                if found == version { Ok(()) } else { Err(found) }
            },
        );
    }
}

/// The revisions of the web server, the latest first.
///
/// # Panics
/// If the host's gateway does not answer.
#[must_use]
#[track_caller]
pub fn history(host: &Host) -> Vec<Value> {
    wait_for("the history of web", secs(30), || {
        let (_, found) = host.api("GET", "/v1/workloads/web/revisions", b"");
        found["revisions"].as_array().cloned().ok_or(found)
    })
}

/// Waits for the end of the rollout of this revision. Returns its entry of the history.
#[must_use]
#[track_caller]
pub fn ended(host: &Host, revision: u64) -> Value {
    let what = format!("the end of revision {revision}");
    wait_for(&what, secs(ANSWER_MAX), || {
        let found = history(host);
        let mut all = found.iter().filter(|one| one["revision"] == revision);
        match all.next().filter(|one| one["outcome"].is_string()) {
            Some(one) => Ok(one.clone()),
            None => Err(format!("{found:?}")),
        }
    })
}
