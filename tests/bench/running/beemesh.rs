//! Beemesh on booted hosts.

use harness::Cluster;

/// Makes the hosts one cluster.
pub(super) fn form(cluster: &Cluster) {
    // Each host gets its own copy of the program files, as real hosts have: hosts do not share their memory.
    cluster.each(|host| {
        let line = "for f in /usr/bin/beemesh /usr/libexec/beemesh/*; do cp $f $f.own && mv $f.own $f; done";
        let _ = host.sh(line).ok();
    });
    cluster.form();
}

pub(super) fn state(cluster: &Cluster) -> Result<(usize, Option<u64>), String> {
    let statuses = cluster.hosts.iter().map(|host| host.status());
    let newest = statuses
        .filter(|status| status["quorum"] == true)
        .max_by_key(|status| status["term"].as_u64());
    let status = newest.ok_or("no host knows of a quorum")?;
    let leader = status["leader"]["name"].as_str().unwrap_or_default();
    let at = cluster.hosts.iter().position(|host| host.name == leader);
    let at = at.ok_or_else(|| format!("no leader: {status}"))?;
    Ok((at, status["term"].as_u64()))
}
