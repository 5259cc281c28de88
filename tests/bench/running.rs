//! One system on booted hosts: its setup, its leader, and the names of its processes.
//!
//! Shell. Dropping it powers the hosts off and removes them.

mod beemesh;
mod etcd;
pub(crate) mod swarm;

use anyhow::{Context as _, Result};
use harness::{Cluster, Host, secs, wait_for};

use crate::data::{System, Through};

/// A system that runs on its hosts and has a leader.
pub(crate) struct Running {
    pub(crate) system: System,
    /// Its hosts, all of which vote.
    pub(crate) cluster: Cluster,
}

impl Running {
    /// Boots `count` hosts and makes them one cluster of this system.
    pub(crate) fn boot(system: System, count: usize) -> Result<Self> {
        let cluster = match system {
            System::Beemesh => Cluster::booted("bench", count),
            System::Etcd | System::Swarm => {
                let peers = std::env::var("BEEMESH_PEERS");
                let peers =
                    peers.context("BEEMESH_PEERS names no folder: run it by `make bench`")?;
                Cluster::layered("bench", count, &peers)
            }
        };
        let running = Self { system, cluster };
        match system {
            System::Beemesh => beemesh::form(&running.cluster),
            System::Etcd => etcd::form(&running.cluster),
            System::Swarm => swarm::form(&running.cluster)?,
        }
        running.ready();
        Ok(running)
    }

    /// Waits until every host is a member and all know one leader.
    pub(crate) fn ready(&self) {
        if self.system == System::Beemesh {
            self.cluster.ready();
            return;
        }
        let what = format!("{} to have one leader on all hosts", self.system.name());
        let _ = wait_for(&what, secs(120), || self.state());
    }

    /// The leader's index among the hosts, and the term if the system reports it.
    fn state(&self) -> Result<(usize, Option<u64>), String> {
        match self.system {
            System::Beemesh => beemesh::state(&self.cluster),
            System::Etcd => etcd::state(&self.cluster),
            System::Swarm => swarm::state(&self.cluster),
        }
    }

    /// The host that is the leader.
    pub(crate) fn leader(&self) -> &Host {
        let (at, _) = wait_for("a leader", secs(60), || self.state());
        &self.cluster.hosts[at]
    }

    /// The term; `None` if the system does not report it.
    pub(crate) fn term(&self) -> Option<u64> {
        wait_for("a leader", secs(60), || self.state()).1
    }

    /// The host to write through.
    pub(crate) fn host(&self, through: Through) -> &Host {
        let leader = self.leader();
        match through {
            Through::Leader => leader,
            Through::Follower => self.other_than(leader),
        }
    }

    /// The first host other than this one.
    pub(crate) fn other_than(&self, host: &Host) -> &Host {
        let mut hosts = self.cluster.hosts.iter();
        hosts
            .find(|one| one.name != host.name)
            .expect("there is more than one host")
    }

    /// The index of the last entry that a host has applied; `None` while the host does not report it.
    pub(crate) fn progress(&self, host: &Host) -> Option<u64> {
        match self.system {
            System::Beemesh => host.status()["applied"].as_u64(),
            System::Etcd => etcd::applied(host),
            System::Swarm => None,
        }
    }

    /// The last log lines of the system on all hosts but one, to find out why it is stuck.
    pub(crate) fn last_words(&self, but: &Host) -> String {
        let journal = ["journalctl", "-q", "-n3", "-ocat", "-u", self.unit()];
        let others = self
            .cluster
            .hosts
            .iter()
            .filter(|host| host.name != but.name);
        let said = others.map(|host| format!("{}: {}", host.name, host.run(&journal).out.trim()));
        said.collect::<Vec<_>>().join("; ")
    }

    /// The name of the process that takes part in consensus, as the kernel has it.
    pub(crate) fn process(&self) -> &'static str {
        match self.system {
            System::Beemesh => "beemesh-gateway",
            System::Etcd => "etcd",
            System::Swarm => "dockerd",
        }
    }

    /// The names of all processes of the system.
    pub(crate) fn programs(&self) -> &'static [&'static str] {
        match self.system {
            System::Beemesh => &["beemesh-agent", "beemesh-gateway", "beemesh-pod"],
            System::Etcd => &["etcd"],
            System::Swarm => &["dockerd", "containerd"],
        }
    }

    /// The unit that starts the system on a host.
    pub(crate) fn unit(&self) -> &'static str {
        match self.system {
            System::Beemesh => "beemesh-agent",
            System::Etcd => "etcd",
            System::Swarm => "docker",
        }
    }

    /// The units to stop on a host.
    pub(crate) fn units(&self) -> &'static [&'static str] {
        match self.system {
            // A socket unit that stays active would start the service again.
            System::Beemesh => &["beemesh-agent.socket", "beemesh-agent", "beemesh-gateway"],
            System::Etcd => &["etcd"],
            System::Swarm => &["docker.socket", "docker"],
        }
    }
}
