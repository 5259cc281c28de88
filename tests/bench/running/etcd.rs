//! etcd on booted hosts, with the settings of its package except addresses and the quota of its data.
//!
//! The hosts use plain HTTP between each other.

use harness::{Cluster, Host};
use serde_json::Value;

/// The quota of the data in bytes. A full run writes more than the default of 2 GB, after which etcd refuses writes.
const QUOTA_BYTES: u64 = 6 << 30;

/// Configures and starts every host's etcd.
pub(super) fn form(cluster: &Cluster) {
    let peers = cluster
        .hosts
        .iter()
        .map(|host| format!("{}=http://{}:2380", host.name, host.address()));
    let peers = peers.collect::<Vec<_>>().join(",");
    cluster.each(|host| {
        let _ = host
            .run_with(
                &["tee", "/etc/default/etcd"],
                settings(host, &peers).as_bytes(),
            )
            .ok();
        // A host that loses power must keep its settings, as it keeps those of an administrator, which are older.
        let _ = host.sh("sync -f /etc && systemctl start etcd").ok();
    });
}

fn settings(host: &Host, peers: &str) -> String {
    let (name, address) = (&host.name, host.address());
    format!(
        "ETCD_NAME={name}\n\
         ETCD_LISTEN_PEER_URLS=http://{address}:2380\n\
         ETCD_INITIAL_ADVERTISE_PEER_URLS=http://{address}:2380\n\
         ETCD_LISTEN_CLIENT_URLS=http://127.0.0.1:2379\n\
         ETCD_ADVERTISE_CLIENT_URLS=http://127.0.0.1:2379\n\
         ETCD_INITIAL_CLUSTER={peers}\n\
         ETCD_INITIAL_CLUSTER_STATE=new\n\
         ETCD_QUOTA_BACKEND_BYTES={QUOTA_BYTES}\n"
    )
}

pub(super) fn state(cluster: &Cluster) -> Result<(usize, Option<u64>), String> {
    let mut leader = None;
    let mut terms = Vec::new();
    for (at, host) in cluster.hosts.iter().enumerate() {
        let status = status(host)?;
        terms.push(status["raftTerm"].as_u64());
        if status["leader"].is_u64() && status["leader"] == status["header"]["member_id"] {
            leader = Some(at);
        }
    }
    let same = terms.iter().all(|term| *term == terms[0]);
    match leader {
        Some(at) if same => Ok((at, terms[0])),
        _ => Err(format!("leader {leader:?}, terms {terms:?}")),
    }
}

pub(super) fn applied(host: &Host) -> Option<u64> {
    status(host).ok()?["raftAppliedIndex"].as_u64()
}

fn status(host: &Host) -> Result<Value, String> {
    let answer = host.run(&["etcdctl", "endpoint", "status", "-w", "json"]);
    let mut found: Value = serde_json::from_str(&answer.out).map_err(|_| answer.to_string())?;
    // While etcd starts, the list is empty.
    let status = found.pointer_mut("/0/Status").map(Value::take);
    status.ok_or_else(|| answer.to_string())
}
