//! Real gateways without hosts: a process and a folder for each, with the mesh between them.
//!
//! Shell. Dropping them kills them and removes their folders.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use beemesh_protocol::{HostId, api::Status};
use harness::http::Client;
use hyper::Method;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tempfile::TempDir;
use tokio::{runtime::Runtime, time::sleep};

use super::mesh::Mesh;
use crate::place::Place;

/// The parent of the folders: on a disk, not in memory.
const DISK: &str = "/var/tmp";
/// The pause between two looks at an awaited state.
const LOOK: Duration = Duration::from_millis(10);
/// The time limit of a join.
const JOIN_MAX: Duration = Duration::from_secs(60);
/// The time limit for agreement. A cluster that needs longer does not work at this size.
const AGREE_MAX: Duration = Duration::from_secs(180);

pub(crate) struct Gateway {
    pub(crate) id: HostId,
    pub(crate) name: String,
    /// The folder that serves as its host's root folder.
    root: PathBuf,
    child: Option<Child>,
}

impl Gateway {
    /// The place of its clients.
    pub(crate) fn place(&self) -> Place {
        Place::at(&self.root)
    }

    /// Its PID.
    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    /// Its last log lines.
    fn last_words(&self) -> String {
        let said = fs::read_to_string(self.root.join("log")).unwrap_or_default();
        let lines: Vec<_> = said.lines().rev().take(5).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join(" / ")
    }

    fn start(&mut self, program: &Path) -> Result<()> {
        let path = |below: &str| self.root.join(below);
        let log = File::options()
            .create(true)
            .append(true)
            .open(path("log"))?;
        let child = Command::new(program)
            .arg("--dir")
            .arg(path("var/lib/beemesh/gateway"))
            .arg("--agent")
            .arg(path("run/beemesh/agent.sock"))
            .arg("--api")
            .arg(path("run/beemesh/gateway.sock"))
            .arg("--podman")
            .arg(path("run/podman.sock"))
            .arg("--quadlets")
            .arg(path("etc"))
            .stdin(Stdio::null())
            .stdout(log)
            .spawn()
            .with_context(|| program.display().to_string())?;
        self.child = Some(child);
        Ok(())
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    async fn ask(&self, method: Method, uri: &str, body: String) -> Result<bytes::Bytes> {
        let socket = self.root.join("run/beemesh/gateway.sock");
        Client::connect(&socket).await?.ask(method, uri, body).await
    }

    async fn status(&self) -> Result<Status> {
        let answer = self.ask(Method::GET, "/v1/status", String::new()).await?;
        Ok(serde_json::from_slice(&answer)?)
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A cluster of gateways.
pub(crate) struct Gateways {
    /// In the order they joined.
    pub(crate) all: Vec<Gateway>,
    /// The mesh between them.
    pub(crate) mesh: Mesh,
    program: PathBuf,
    runtime: Runtime,
    folder: TempDir,
}

impl Gateways {
    /// An empty cluster.
    pub(crate) fn new() -> Result<Self> {
        // Each stream between two gateways needs two descriptors.
        let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
        setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
        let program = std::env::var_os("BEEMESH_GATEWAY");
        let program =
            program.context("BEEMESH_GATEWAY names no program: run it by `make bench`")?;
        Ok(Self {
            all: Vec::new(),
            mesh: Mesh::default(),
            program: program.into(),
            runtime: tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()?,
            folder: tempfile::tempdir_in(DISK)?,
        })
    }

    /// Adds a host. Returns the time from the request to join until the host had applied the committed entries. The
    /// first host founds the cluster.
    pub(crate) fn add(&mut self) -> Result<Duration> {
        let number = u8::try_from(self.all.len() + 1).context("no more than 255 gateways")?;
        let name = format!("h{number}");
        let root = self.folder.path().join(&name);
        for folder in ["run/beemesh", "var/lib/beemesh", "etc"] {
            fs::create_dir_all(root.join(folder))?;
        }
        let mut gateway = Gateway {
            id: HostId([number; 32]),
            name,
            root,
            child: None,
        };
        let _guard = self.runtime.enter();
        let socket = gateway.root.join("run/beemesh/agent.sock");
        self.mesh.add(gateway.id, &gateway.name, &socket)?;
        gateway.start(&self.program)?;
        let founded = |status: &Status| status.quorum && status.cluster.is_some();
        self.until(&gateway, JOIN_MAX, founded)?;
        let took = match self.all.first() {
            None => Duration::ZERO,
            Some(first) => self.join(first, &gateway)?,
        };
        self.all.push(gateway);
        Ok(took)
    }

    fn join(&self, first: &Gateway, gateway: &Gateway) -> Result<Duration> {
        let hosts = self.all.len() + 1;
        let ttl = r#"{"ttlSeconds":600}"#.to_owned();
        let token = first.ask(Method::POST, "/v1/tokens", ttl);
        let token: serde_json::Value = serde_json::from_slice(&self.runtime.block_on(token)?)?;
        let body = serde_json::json!({ "token": token["token"] }).to_string();
        let begun = Instant::now();
        self.runtime
            .block_on(gateway.ask(Method::POST, "/v1/join", body))?;
        self.until(gateway, JOIN_MAX, |status| {
            status.quorum && status.hosts.total == hosts
        })?;
        Ok(begun.elapsed())
    }

    /// Waits until all gateways know the same leader and all hosts, reach them, and have applied the same entries.
    /// Returns the leader's index among them and the time that this took.
    pub(crate) fn agree(&self) -> Result<(usize, Duration)> {
        let begun = Instant::now();
        loop {
            let differs = match self.agreed() {
                Ok(leader) => return Ok((leader, begun.elapsed())),
                Err(differs) => differs,
            };
            if begun.elapsed() > AGREE_MAX {
                bail!("no agreement within {AGREE_MAX:?}: {differs:#}");
            }
            std::thread::sleep(LOOK);
        }
    }

    fn agreed(&self) -> Result<usize> {
        let first = self.runtime.block_on(self.all[0].status())?;
        let leader = first.leader.as_ref().map(|leader| leader.id);
        for gateway in &self.all {
            let status = self
                .runtime
                .block_on(gateway.status())
                .with_context(|| format!("{}: {}", gateway.name, gateway.last_words()))?;
            let known = status.quorum && status.leader.map(|leader| leader.id) == leader;
            ensure!(known, "{} follows another leader or none", gateway.name);
            let there = status.hosts.total == self.all.len() && status.hosts.missing.is_empty();
            let missing = status.hosts.missing;
            ensure!(there, "{} does not reach {missing:?}", gateway.name);
            let members = status.voters.len() + status.learners.len();
            ensure!(
                members == self.all.len(),
                "{} counts {members} members",
                gateway.name
            );
            ensure!(
                status.applied == first.applied,
                "{} has applied {} and not {}",
                gateway.name,
                status.applied,
                first.applied
            );
        }
        let found = self.all.iter().position(|one| Some(one.id) == leader);
        found.context("no leader")
    }

    /// Kills a gateway with SIGKILL, as the kernel does when memory is short.
    pub(crate) fn kill(&mut self, at: usize) {
        self.all[at].kill();
    }

    /// Starts a killed gateway.
    pub(crate) fn start(&mut self, at: usize) -> Result<()> {
        self.all[at].start(&self.program)
    }

    /// Runs `act` in the runtime of the mesh, which can start tasks there.
    pub(crate) fn on_mesh<T>(&self, act: impl FnOnce(&Mesh) -> T) -> T {
        let _guard = self.runtime.enter();
        act(&self.mesh)
    }

    fn until(
        &self,
        gateway: &Gateway,
        bound: Duration,
        there: impl Fn(&Status) -> bool,
    ) -> Result<()> {
        self.runtime.block_on(async {
            let begun = Instant::now();
            loop {
                // A gateway does not answer while it restarts itself.
                let status = gateway.status().await;
                if status.as_ref().is_ok_and(&there) {
                    return Ok(());
                }
                if begun.elapsed() > bound {
                    let said = gateway.last_words();
                    bail!(
                        "{}: not there within {bound:?}: {status:?}; {said}",
                        gateway.name
                    );
                }
                sleep(LOOK).await;
            }
        })
    }
}
