//! Docker Swarm on booted hosts, all of them managers, with the settings of its package.
//!
//! Configs need no container network; managers use TLS between each other by default.

use anyhow::{Result, ensure};
use harness::{Cluster, Host, secs, wait_for};
use serde_json::{Value, json};

/// Makes the hosts one swarm.
pub(super) fn form(cluster: &Cluster) -> Result<()> {
    cluster.each(|host| {
        let _ = host.run(&["systemctl", "start", "docker"]).ok();
    });
    let first = &cluster.hosts[0];
    let own = |host: &Host| format!("{}:2377", host.address());
    let begin = json!({ "ListenAddr": own(first), "AdvertiseAddr": own(first) });
    let _ = post(first, "/swarm/init", &begin)?;
    let token = ask(first, "GET", "/swarm", "")?["JoinTokens"]["Manager"].clone();
    for host in &cluster.hosts[1..] {
        let join = json!({ "ListenAddr": own(host), "AdvertiseAddr": own(host),
            "RemoteAddrs": [own(first)], "JoinToken": token });
        let _ = post(host, "/swarm/join", &join)?;
        let what = format!("{} to be a manager", host.name);
        wait_for(&what, secs(60), || managers(first, &host.name));
    }
    Ok(())
}

/// Starts a service with one replica of this command.
pub(crate) fn replica(cluster: &Cluster, command: &[&str]) -> Result<()> {
    // The program is on every host, as the image of Beemesh's tests is.
    cluster.each(|host| {
        let line = "mkdir -p /tmp/image/bin && cp /bin/busybox /tmp/image/bin && cd /tmp/image && ln -sf busybox bin/sleep \
                    && tar -c . | docker import - localhost/bench:1";
        let _ = host.sh(line).ok();
    });
    let service = json!({
        "Name": "moves",
        "TaskTemplate": { "ContainerSpec": { "Image": "localhost/bench:1", "Command": command } },
        "Mode": { "Replicated": { "Replicas": 1 } },
    });
    let _ = post(&cluster.hosts[0], "/services/create", &service)?;
    Ok(())
}

fn managers(of: &Host, name: &str) -> Result<(), String> {
    let nodes = ask(of, "GET", "/nodes", "").map_err(|error| error.to_string())?;
    let found = nodes.as_array().into_iter().flatten().any(|node| {
        node["Description"]["Hostname"] == name
            && node["ManagerStatus"]["Reachability"] == "reachable"
    });
    found.then_some(()).ok_or_else(|| nodes.to_string())
}

/// The leader's index. Swarm does not report its term.
pub(super) fn state(cluster: &Cluster) -> Result<(usize, Option<u64>), String> {
    let mut leaders = Vec::new();
    for host in &cluster.hosts {
        let nodes = ask(host, "GET", "/nodes", "").map_err(|error| error.to_string())?;
        let nodes = nodes.as_array().cloned().unwrap_or_default();
        let reachable = |node: &&Value| node["ManagerStatus"]["Reachability"] == "reachable";
        let leads = nodes
            .iter()
            .find(|node| node["ManagerStatus"]["Leader"] == true);
        let name = leads.and_then(|node| node["Description"]["Hostname"].as_str());
        if nodes.iter().filter(reachable).count() < cluster.hosts.len() {
            return Err(format!("{} does not reach all managers", host.name));
        }
        leaders.push(
            cluster
                .hosts
                .iter()
                .position(|host| Some(host.name.as_str()) == name),
        );
    }
    match leaders[0] {
        Some(at) if leaders.iter().all(|leader| *leader == Some(at)) => Ok((at, None)),
        _ => Err(format!("leaders {leaders:?}")),
    }
}

fn post(host: &Host, path: &str, body: &Value) -> Result<Value> {
    ask(host, "POST", path, &body.to_string())
}

fn ask(host: &Host, method: &str, path: &str, body: &str) -> Result<Value> {
    let url = format!("http://docker/v1.45{path}");
    let socket = [
        "curl",
        "-sS",
        "-m",
        "60",
        "--unix-socket",
        "/run/docker.sock",
    ];
    let how = [
        "-X",
        method,
        "-H",
        "Content-Type: application/json",
        "-d",
        body,
        &url,
    ];
    let answer = host.run(&[&socket[..], &how[..]].concat());
    ensure!(answer.code == 0, "{method} {path}: {answer}");
    let found: Value = serde_json::from_str(&answer.out).unwrap_or_default();
    ensure!(
        found["message"].is_null(),
        "{method} {path}: {}",
        found["message"]
    );
    Ok(found)
}
