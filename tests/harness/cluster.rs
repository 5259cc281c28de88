//! Several hosts: power, network faults, and the formation of a cluster.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use serde_json::Value;

use crate::{
    Host,
    wait::{secs, wait_for},
};

/// Booted hosts with Beemesh installed. Dropping it powers them off and removes them.
#[derive(Debug)]
pub struct Cluster {
    /// `h1`, `h2`, … in order.
    pub hosts: Vec<Host>,
    testbed: PathBuf,
    logs: PathBuf,
}

impl Cluster {
    /// Boots `count` hosts, installs Beemesh on each, and joins them into one cluster.
    ///
    /// # Panics
    /// If that does not succeed in time.
    #[must_use]
    #[track_caller]
    pub fn formed(test: &str, count: usize) -> Self {
        let cluster = Self::booted(test, count);
        cluster.form();
        cluster
    }

    /// Starts Beemesh on every host and joins them into one cluster.
    ///
    /// # Panics
    /// If that does not succeed in time.
    #[track_caller]
    pub fn form(&self) {
        self.form_of(self.hosts.len());
    }

    /// Starts Beemesh on the first `count` hosts and joins them into one cluster.
    ///
    /// # Panics
    /// If that does not succeed in time.
    #[track_caller]
    pub fn form_of(&self, count: usize) {
        let members: Vec<&Host> = self.hosts[..count].iter().collect();
        self.together(&members, start_agent);
        for host in &members[1..] {
            let token = members[0].beemesh(&["token", "create"]).ok();
            let _ = host.beemesh(&["join", token.trim()]).ok();
        }
        self.agree_on(&members, count, count);
    }

    /// Boots `count` hosts with Beemesh installed and not started.
    ///
    /// # Panics
    /// If a host does not boot.
    #[must_use]
    #[track_caller]
    pub fn booted(test: &str, count: usize) -> Self {
        let layer = std::env::var("BEEMESH_LAYER");
        let layer =
            layer.expect("BEEMESH_LAYER names an install tree: run the tests by `make test`");
        let cluster = Self::boot_all(test, count, &layer);
        cluster.each(prepare);
        cluster
    }

    /// Boots `count` hosts without Beemesh. dnf finds this release in the repository `repo` and the previous one in
    /// `previous`.
    ///
    /// # Panics
    /// If a host does not boot.
    #[must_use]
    #[track_caller]
    pub fn bare(test: &str, count: usize) -> Self {
        let cluster = Self::boot_all(test, count, "");
        cluster.offer();
        cluster.each(|host| host.dnf(&["install", "debian-root"]));
        cluster.each(load_image);
        cluster
    }

    /// Puts Beemesh's packages into dnf's repositories, on all hosts.
    ///
    /// # Panics
    /// If there are no packages.
    #[track_caller]
    pub fn offer(&self) {
        let offer = std::env::var("BEEMESH_OFFER");
        let offer =
            offer.expect("BEEMESH_OFFER puts packages on hosts: run the tests by `make test`");
        self.each(|host| {
            let offered = Command::new("sh")
                .arg("-c")
                .arg(&offer)
                .arg("sh")
                .arg(host.root())
                .output();
            let offered = offered.expect("a shell runs");
            let said = String::from_utf8_lossy(&offered.stderr);
            assert!(offered.status.success(), "{offer}: {said}");
        });
    }

    /// Boots `count` hosts with `layer` over their root: folders separated by colons, the upper ones first.
    ///
    /// # Panics
    /// If a host does not boot.
    #[must_use]
    #[track_caller]
    pub fn layered(test: &str, count: usize, layer: &str) -> Self {
        Self::boot_all(test, count, layer)
    }

    #[track_caller]
    fn boot_all(test: &str, count: usize, layer: &str) -> Self {
        let testbed = testbed();
        let suite = std::env::var("SUITE").unwrap_or_else(|_| "trixie".into());
        let names = (1..=count).map(|n| Host::new(format!("h{n}"), testbed.clone()));
        let logs = path("BEEMESH_FAILED", "target/e2e").join(test);
        let cluster = Self {
            hosts: names.collect(),
            testbed,
            logs,
        };
        cluster.testbed(&["down"]);
        cluster.testbed(&["up", &count.to_string(), &suite, layer]);
        cluster
    }

    /// The host called `h{n}`.
    #[must_use]
    pub fn host(&self, n: usize) -> &Host {
        &self.hosts[n - 1]
    }

    /// All hosts.
    #[must_use]
    pub fn all(&self) -> Vec<&Host> {
        self.hosts.iter().collect()
    }

    /// Waits until every host reaches all others, knows one leader, and is a voter.
    #[track_caller]
    pub fn ready(&self) {
        self.agree(&self.all(), self.hosts.len());
    }

    /// Waits until these hosts know one leader among them and reach `reachable` hosts of the whole cluster.
    #[track_caller]
    pub fn agree(&self, hosts: &[&Host], reachable: usize) {
        self.agree_on(hosts, reachable, self.hosts.len());
    }

    /// Waits for the same in a cluster of `members` hosts.
    #[track_caller]
    pub fn agree_on(&self, hosts: &[&Host], reachable: usize, members: usize) {
        for host in hosts {
            wait_for(
                &format!("{} to see {reachable} hosts and a leader", host.name),
                secs(60),
                || {
                    let status = host.status();
                    let fine = status["leader"]["name"].is_string()
                        && status["quorum"] == true
                        && status["hosts"]["reachable"] == reachable
                        && status["voters"].as_array().map(Vec::len) == Some(members.min(5));
                    if fine { Ok(()) } else { Err(status) }
                },
            );
        }
    }

    /// The leader as `host` knows it.
    #[track_caller]
    #[must_use]
    pub fn leader(&self, host: &Host) -> &Host {
        let name = wait_for("a leader", secs(30), || {
            let status = host.status();
            status["leader"]["name"]
                .as_str()
                .map(str::to_owned)
                .ok_or(status)
        });
        self.hosts
            .iter()
            .find(|host| host.name == name)
            .expect("the leader is one of the hosts")
    }

    /// Cuts the power of some hosts at once: data that they did not fsync is lost.
    pub fn crash(&self, hosts: &[&Host]) {
        self.together(hosts, |host| self.testbed(&["crash", &host.name]));
    }

    /// Boots hosts that are off.
    pub fn boot(&self, hosts: &[&Host]) {
        self.together(hosts, |host| self.testbed(&["boot", &host.name]));
    }

    /// Drops every packet between two hosts.
    pub fn cut(&self, one: &Host, other: &Host) {
        self.testbed(&["cut", &one.name, &other.name]);
    }

    /// Drops every packet that one host sends to another.
    pub fn mute(&self, from: &Host, to: &Host) {
        self.testbed(&["mute", &from.name, &to.name]);
    }

    /// Drops every packet that a host sends or is sent.
    pub fn isolate(&self, host: &Host) {
        self.testbed(&["cut", &host.name]);
    }

    /// Undoes every cut.
    pub fn heal(&self) {
        self.testbed(&["heal"]);
    }

    /// Runs `act` on all hosts at the same time.
    pub fn each(&self, act: impl Fn(&Host) + Sync) {
        self.together(&self.all(), act);
    }

    /// Waits until a workload runs healthily on these hosts in the view of both Beemesh and Podman.
    #[track_caller]
    pub fn running(&self, workload: &str, revision: u64, hosts: &[&Host]) {
        for host in hosts {
            let what = format!("{workload} revision {revision} on {}", host.name);
            wait_for(&what, secs(60), || is_running(host, workload, revision));
        }
    }

    fn together(&self, hosts: &[&Host], act: impl Fn(&Host) + Sync) {
        thread::scope(|scope| {
            for host in hosts {
                scope.spawn(|| act(host));
            }
        });
    }

    #[track_caller]
    fn testbed(&self, args: &[&str]) {
        let output = Command::new(&self.testbed)
            .args(args)
            .output()
            .expect("the testbed script runs");
        assert!(
            output.status.success(),
            "testbed {args:?}: {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if thread::panicking() {
            let _ = fs::create_dir_all(&self.logs);
            for host in &self.hosts {
                host.collect(&self.logs);
            }
            eprintln!("state of every host: {}", self.logs.display());
        }
        let _ = Command::new(&self.testbed).arg("down").output();
    }
}

/// The script that boots hosts.
pub(crate) fn testbed() -> PathBuf {
    path("BEEMESH_TESTBED", "tests/testbed")
}

/// A path of the project, or the one in the environment: an installed suite has its paths there.
fn path(variable: &str, otherwise: &str) -> PathBuf {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests/ lies in the project");
    std::env::var_os(variable).map_or_else(|| top.join(otherwise), PathBuf::from)
}

/// Completes a layer that was copied as files instead of installed by dnf, and loads the test image.
fn prepare(host: &Host) {
    let line = "systemd-sysusers && systemd-tmpfiles --create beemesh.conf \
                && /usr/lib/systemd/systemd-sysctl 10-beemesh.conf && systemctl daemon-reload";
    let _ = host.sh(line).ok();
    load_image(host);
}

fn load_image(host: &Host) {
    let line = "mkdir -p /tmp/image/bin && cp /bin/busybox /tmp/image/bin && cd /tmp/image \
                && for tool in sh echo sleep httpd cat ls wget nc date trap true false test; do ln -sf busybox bin/$tool; done \
                && tar -c . | podman import -q - localhost/beemesh-demo:1 && sync";
    let _ = host.sh(line).ok();
}

/// Starts Beemesh on a host, which is a cluster of its own until it joins another.
///
/// # Panics
/// If it does not answer in time.
#[track_caller]
pub fn start_agent(host: &Host) {
    let _ = host
        .run(&["systemctl", "enable", "--now", "beemesh-agent"])
        .ok();
    wait_for(&format!("the gateway of {}", host.name), secs(60), || {
        let status = host.status();
        if status["leader"]["name"] == host.name.as_str() {
            Ok(())
        } else {
            Err(status)
        }
    });
}

fn is_running(host: &Host, workload: &str, revision: u64) -> Result<(), String> {
    let (_, found) = host.api("GET", &format!("/v1/workloads/{workload}?stale=true"), b"");
    let mine = found["hosts"].as_array().and_then(|hosts| {
        hosts
            .iter()
            .find(|report| report["host"] == host.name.as_str())
            .cloned()
    });
    let mine = mine.unwrap_or(Value::Null);
    let healthy = mine["phase"] == "running"
        && mine["revision"] == revision
        && mine["healthy"] == mine["total"]
        && mine["total"].as_u64() == Some(host.containers(workload).len() as u64);
    if healthy {
        Ok(())
    } else {
        Err(format!("{mine} {found}"))
    }
}
