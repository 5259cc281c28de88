//! etcd on booted hosts, with the settings of its package but for addresses and the room for its data.
//!
//! Hosts speak plain HTTP to each other.

use harness::{Cluster, Host};
use serde_json::Value;

/// A full run writes more than the two GB after which etcd refuses writes by default.
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
        // A host that loses power keeps its settings: those of an administrator are older than a minute.
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

/// See [`super::Running::state`].
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

/// See [`super::Running::progress`].
pub(super) fn applied(host: &Host) -> Option<u64> {
    status(host).ok()?["raftAppliedIndex"].as_u64()
}

fn status(host: &Host) -> Result<Value, String> {
    let answer = host.run(&["etcdctl", "endpoint", "status", "-w", "json"]);
    let mut found: Value = serde_json::from_str(&answer.out).map_err(|_| answer.to_string())?;
    // While it starts, the list is empty.
    let status = found.pointer_mut("/0/Status").map(Value::take);
    status.ok_or_else(|| answer.to_string())
}
