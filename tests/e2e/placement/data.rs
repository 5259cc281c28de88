//! A pod stays on the host with the data of its claims.

use harness::{Cluster, Host, secs, wait_for};

use super::{claim, mounts, named, places, runs_only_on, templated};

pub(super) fn stays_with_its_host(cluster: &Cluster) {
    let writes =
        "echo entry >>/data/entries; trap \"exit 0\" TERM; while :; do sleep 1 & wait $!; done";
    let ledger = templated("Deployment", "ledger", "  replicas: 1\n", writes);
    let answer = cluster
        .host(1)
        .apply(&(claim("ledger") + &ledger + &mounts("ledger", "/data")));
    assert_eq!(answer["settled"], true, "{answer}");
    let home = &places(cluster, "ledger")[0];
    let asked = cluster
        .hosts
        .iter()
        .find(|host| host.name != *home)
        .unwrap();
    let entries = |host: &Host| {
        let read = host.sh("podman exec ledger-main sh -c 'cat /data/entries | wc -l'");
        read.out.trim().to_owned()
    };
    wait_for("an entry", secs(10), || {
        match entries(named(cluster, home)) {
            one if one == "1" => Ok(()),
            other => Err(other),
        }
    });
    let said = asked.beemesh(&["host", "drain", home]).ok();
    let kept = format!("ledger stops, and waits for host {home}, which has its claim ledger");
    assert!(
        said.contains(&kept) && said.contains("--move-without-data"),
        "{said}"
    );
    assert!(places(cluster, "ledger").is_empty());
    let _ = asked.beemesh(&["host", "undrain", home]).ok();
    runs_only_on(cluster, "ledger", 1, &[home]);
    wait_for("its data", secs(10), || {
        match entries(named(cluster, home)) {
            two if two == "2" => Ok(()),
            other => Err(other),
        }
    });
    let moving = ["host", "drain", home, "--move-without-data"];
    let said = asked.beemesh(&moving).ok();
    assert!(!said.contains("ledger"), "{said}");
    let now = places(cluster, "ledger");
    assert!(now.len() == 1 && now[0] != *home, "{now:?}");
    let _ = asked.beemesh(&["host", "undrain", home]).ok();
    let _ = asked.beemesh(&["delete", "ledger", "--wait=60"]).ok();
}
