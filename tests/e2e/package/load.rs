//! Continuous applies during another operation on the cluster, and the check that none is lost.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use harness::{Cluster, Host, secs, wait_for};
use serde_json::Value;

/// The pause between applies, as of the users of a small host; more load would only measure this machine.
const PAUSE: Duration = Duration::from_millis(200);

/// Manifests with the log index of their commit.
pub(crate) type Acknowledged = BTreeMap<String, u64>;

/// Runs `act` while every host applies one small manifest after the other. No apply may fail.
pub(crate) fn under_load(cluster: &Cluster, act: impl FnOnce()) -> Acknowledged {
    let done = &AtomicBool::new(false);
    thread::scope(|scope| {
        let apply = |host| scope.spawn(move || apply_until(host, done));
        let load: Vec<_> = cluster.hosts.iter().map(apply).collect();
        {
            // Even if a check fails: the scope waits for the load.
            let _ends = Ends(done);
            act();
        }
        let mut all = Acknowledged::new();
        for (host, load) in cluster.hosts.iter().zip(load) {
            let applied = load.join().expect("no apply fails");
            eprintln!("{}: {} applies", host.name, applied.len());
            assert!(!applied.is_empty(), "{}", host.name);
            all.extend(applied);
        }
        all
    })
}

struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Every manifest has its own name, so that none hides the loss of an earlier one.
fn apply_until(host: &Host, done: &AtomicBool) -> Acknowledged {
    let mut acknowledged = Acknowledged::new();
    while !done.load(Ordering::Relaxed) {
        let name = format!("load-{}-{}", host.name, acknowledged.len());
        let yaml = format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\ndata:\n  from: {}\n",
            host.name
        );
        let answer = host.try_apply(&yaml, &["--timeout", "60s", "-o", "json"]);
        assert_eq!(answer.code, 0, "{name}: {answer}");
        let index = answer.json()["index"].as_u64();
        acknowledged.insert(name, index.expect("an apply has an index"));
        thread::sleep(PAUSE);
    }
    acknowledged
}

/// The manifests of the load in a host's own state.
fn held(host: &Host) -> Acknowledged {
    let (_, kept) = host.api("GET", "/v1/manifests?stale=true", b"");
    let kept = kept["manifests"].as_array().cloned().unwrap_or_default();
    let of_load = |one: &Value| {
        let name = one["name"].as_str()?.to_owned();
        let whole = one["objects"][0]["name"] == name.as_str();
        let index = one["index"].as_u64()?;
        (whole && name.starts_with("load-")).then_some((name, index))
    };
    kept.iter().filter_map(of_load).collect()
}

/// Asserts that every acknowledged manifest is in the state of every host, and that all states are equal.
#[track_caller]
pub(crate) fn all_kept(cluster: &Cluster, acknowledged: &Acknowledged) {
    let first = held(cluster.host(1));
    for host in &cluster.hosts {
        let what = format!("{} manifests on {}", acknowledged.len(), host.name);
        let held = wait_for(&what, secs(30), || {
            let held = held(host);
            // An apply that was repeated may have been committed the first time.
            let is_lost = |(name, index): &(&String, &u64)| {
                held.get(*name).is_none_or(|found| found > *index)
            };
            let lost: Vec<_> = acknowledged.iter().filter(is_lost).collect();
            if lost.is_empty() {
                Ok(held)
            } else {
                Err(format!("{lost:?} not in {held:?}"))
            }
        });
        assert_eq!(held, first, "{} and h1", host.name);
    }
}
