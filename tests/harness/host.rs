//! One booted host: commands, files, the API over `curl`, and the state of Podman and systemd.

use std::{
    collections::BTreeMap,
    fmt, fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::wait::{secs, wait_for};

/// A host of a [`crate::Cluster`].
#[derive(Debug, Clone)]
pub struct Host {
    /// `h1`, `h2`, …
    pub name: String,
    testbed: PathBuf,
}

/// The result of a command on a host.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The exit code; 128 + signal if a signal killed it.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Answer {
    /// Standard output of a command that must have succeeded.
    ///
    /// # Panics
    /// If it did not.
    #[track_caller]
    #[must_use]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self}");
        self.out
    }

    /// Standard output, as JSON, of a command that must have succeeded.
    ///
    /// # Panics
    /// If it did not, or printed something else.
    #[track_caller]
    #[must_use]
    pub fn json(self) -> Value {
        let out = self.ok();
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("not JSON ({error}): {out}"))
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "exit code {}\n{}{}", self.code, self.out, self.err)
    }
}

/// A container of a workload as Podman knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// Its id.
    pub id: String,
    /// When it was last started.
    pub started_at: String,
    /// Its conmon's PID on the host.
    pub conmon: u64,
    /// Its main process's PID on the host.
    pub pid: u64,
}

impl Host {
    /// A host that something else has booted and takes down: `name` of the set of hosts that `TESTBED_NAME` names.
    #[must_use]
    pub fn booted(name: &str) -> Self {
        Self::new(name.to_owned(), crate::cluster::testbed())
    }

    pub(crate) fn new(name: String, testbed: PathBuf) -> Self {
        Self { name, testbed }
    }

    /// Runs a command on the host.
    #[must_use]
    pub fn run(&self, command: &[&str]) -> Answer {
        self.run_with(command, b"")
    }

    /// Runs a command on the host with bytes on its standard input.
    ///
    /// # Panics
    /// If the host cannot be entered at all.
    #[must_use]
    pub fn run_with(&self, command: &[&str], input: &[u8]) -> Answer {
        self.enter("exec", command, input)
    }

    /// Runs a command in the root of the host while the host is off: without systemd and network, as in the build of an
    /// image.
    #[must_use]
    pub fn run_unbooted(&self, command: &[&str]) -> Answer {
        self.enter("chroot", command, b"")
    }

    fn enter(&self, verb: &str, command: &[&str], input: &[u8]) -> Answer {
        let mut child = Command::new(&self.testbed)
            .args([verb, &self.name])
            .args(command)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the testbed script runs");
        let mut stdin = child.stdin.take().expect("stdin is piped");
        let input = input.to_vec();
        // If a command ends without reading its input, the test does not fail.
        let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
        let output = child.wait_with_output().expect("the command ends");
        writer.join().expect("the writer does not panic");
        Answer {
            code: output.status.code().unwrap_or(255),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Runs a shell line on the host.
    #[must_use]
    pub fn sh(&self, line: &str) -> Answer {
        self.run(&["sh", "-c", line])
    }

    /// Runs dnf on the host.
    ///
    /// # Panics
    /// If a package or a scriptlet failed.
    #[track_caller]
    pub fn dnf(&self, args: &[&str]) {
        dnf_did(args, &self.run(&[&["dnf", "-y"], args].concat()));
    }

    /// Runs dnf in the root of the host while the host is off.
    ///
    /// # Panics
    /// If a package or a scriptlet failed.
    #[track_caller]
    pub fn dnf_unbooted(&self, args: &[&str]) {
        dnf_did(args, &self.run_unbooted(&[&["dnf", "-y"], args].concat()));
    }

    /// Runs `beemesh` on the host.
    #[must_use]
    pub fn beemesh(&self, args: &[&str]) -> Answer {
        self.run(&[&["beemesh"], args].concat())
    }

    /// Applies a manifest on the host, waits until all of it is ready everywhere, and returns the answer as JSON. It
    /// does not check that the state is stable: the next steps of a test show that.
    #[track_caller]
    #[must_use]
    pub fn apply(&self, yaml: &str) -> Value {
        let args = [
            "env",
            "BEEMESH_STABLE=0",
            "beemesh",
            "apply",
            "-f",
            "-",
            "--wait=60",
            "-o",
            "json",
        ];
        self.run_with(&args, yaml.as_bytes()).json()
    }

    /// Applies a manifest on the host without waiting and returns any answer.
    #[must_use]
    pub fn try_apply(&self, yaml: &str, more: &[&str]) -> Answer {
        let args = [&["beemesh", "apply", "-f", "-"], more].concat();
        self.run_with(&args, yaml.as_bytes())
    }

    /// Sends a request to the host's API; returns the HTTP status and the body.
    #[must_use]
    pub fn api(&self, method: &str, path: &str, body: &[u8]) -> (u16, Value) {
        let url = format!("http://beemesh{path}");
        let socket = "/run/beemesh/gateway.sock";
        let answer = self.run_with(
            &[
                "curl",
                "-sS",
                "-m",
                "60",
                "-X",
                method,
                "--unix-socket",
                socket,
                "-w",
                "\n%{http_code}",
                "--data-binary",
                "@-",
                &url,
            ],
            body,
        );
        let (body, status) = answer.out.rsplit_once('\n').unwrap_or(("", "0"));
        let body = serde_json::from_str(body).unwrap_or_else(|_| Value::String(body.to_owned()));
        (status.parse().unwrap_or(0), body)
    }

    /// The host's own view of the cluster.
    #[must_use]
    pub fn status(&self) -> Value {
        self.api("GET", "/v1/status", b"").1
    }

    /// One property of a unit.
    #[must_use]
    pub fn unit(&self, unit: &str, property: &str) -> String {
        let out = self
            .run(&["systemctl", "show", "--value", "-p", property, unit])
            .out;
        out.trim_end().to_owned()
    }

    /// Replaces the program in the gateway's image by an empty file, as if the content never reached the disk.
    pub fn empty_gateway_image(&self) {
        let _ = self.sh(
            "for file in $(find /var/lib/containers/storage/overlay -maxdepth 4 -path '*/diff/*' -name beemesh-gateway -type f); do \
             : >$file.empty && chmod 755 $file.empty && mv $file.empty $file; done; sync",
        );
    }

    /// The running containers of a workload without its infra container, by name.
    #[must_use]
    pub fn containers(&self, workload: &str) -> BTreeMap<String, Container> {
        let filter = format!("label=beemesh.io/workload={workload}");
        let ids = self
            .run(&["podman", "ps", "-aq", "--no-trunc", "--filter", &filter])
            .out;
        let ids: Vec<&str> = ids.split_whitespace().collect();
        if ids.is_empty() {
            return BTreeMap::new();
        }
        let inspected = self.run(&[&["podman", "inspect"], &ids[..]].concat()).out;
        let inspected: Vec<Value> = serde_json::from_str(&inspected).unwrap_or_default();
        inspected
            .iter()
            .filter(|one| one["IsInfra"] != true && one["State"]["Running"] == true)
            .map(|one| {
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                let state = &one["State"];
                let container = Container {
                    id: text(&one["Id"]),
                    started_at: text(&state["StartedAt"]),
                    conmon: state["ConmonPid"].as_u64().unwrap_or_default(),
                    pid: state["Pid"].as_u64().unwrap_or_default(),
                };
                (text(&one["Name"]), container)
            })
            .collect()
    }

    /// All objects on the host with the workload's name: pods, containers, volumes, secrets, files, units.
    #[must_use]
    pub fn leftovers(&self, workload: &str) -> String {
        self.sh(&format!(
            "podman pod ps -q --filter label=beemesh.io/workload={workload}; \
             podman ps -aq --filter label=beemesh.io/workload={workload}; \
             podman volume ls -q | grep -E '^beemesh__(OWN__)?{workload}__'; \
             podman secret ls --format '{{{{.Name}}}}' | grep -E '^beemesh__(OWN__)?{workload}__'; \
             ls /etc/containers/systemd/beemesh | grep '^beemesh-pod-{workload}\\.'; \
             systemctl list-units --all --plain --no-legend 'beemesh-pod-{workload}.service'"
        ))
        .out
    }

    /// The host's root folder as seen from outside. It also exists while the host is off, if its disk is attached.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        PathBuf::from(self.testbed("path"))
    }

    /// The folder of this machine that is `/run/outside` on the host. What is in it outlives a loss of the host's power.
    #[must_use]
    pub fn outside(&self) -> PathBuf {
        self.root().with_file_name("outside")
    }

    /// The PID of the host's init on this machine: `/proc/PID/root` is the host's root folder while the host is on.
    ///
    /// # Panics
    /// If the host is off.
    #[must_use]
    pub fn init(&self) -> u32 {
        self.init_if_on().expect("the host is on")
    }

    /// The PID of the host's init; `None` while the host is off.
    #[must_use]
    pub fn init_if_on(&self) -> Option<u32> {
        self.testbed("pid").parse().ok()
    }

    /// The host's IP address on the network that the hosts share.
    #[must_use]
    pub fn address(&self) -> String {
        self.testbed("address")
    }

    /// The cgroup that holds every process of the host, as seen from outside.
    #[must_use]
    pub fn cgroup(&self) -> PathBuf {
        PathBuf::from(self.testbed("cgroup"))
    }

    /// The PIDs of all processes of the host, as seen from outside.
    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        let mut pids = Vec::new();
        let mut folders = vec![self.cgroup()];
        while let Some(folder) = folders.pop() {
            let listed = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
            pids.extend(listed.lines().filter_map(|line| line.parse::<u32>().ok()));
            let inside = fs::read_dir(&folder).into_iter().flatten().flatten();
            let inside = inside.map(|entry| entry.path());
            folders.extend(inside.filter(|path| path.is_dir()));
        }
        pids
    }

    /// The processes of the host by the name of their program's file; PIDs as seen from outside.
    #[must_use]
    pub fn processes(&self) -> BTreeMap<String, Vec<u32>> {
        let mut found: BTreeMap<String, Vec<u32>> = BTreeMap::new();
        for pid in self.pids() {
            // Not the kernel's name of the process: a gateway that has joined a cluster has executed itself under
            // another name. A process may end during the look.
            let file = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
            if let Some(name) = file.file_name().and_then(|name| name.to_str()) {
                found.entry(name.to_owned()).or_default().push(pid);
            }
        }
        found
    }

    /// The block device of the host's disk, such as `/dev/loop0`.
    #[must_use]
    pub fn device(&self) -> PathBuf {
        PathBuf::from(self.testbed("device"))
    }

    /// Shuts the host down as its administrator would, and waits until it is off.
    #[track_caller]
    pub fn power_off(&self) {
        // The connection to the host may end before the command does.
        let _ = self.run(&["systemctl", "poweroff"]);
        wait_for(&format!("{} to be off", self.name), secs(60), || match self
            .testbed("pid")
            .as_str()
        {
            "" => Ok(()),
            pid => Err(format!("its init has PID {pid}")),
        });
        // On a real machine systemd syncs as its last step; in a namespace it leaves that to the machine.
        let synced = Command::new("sync").arg("-f").arg(self.root()).status();
        assert!(
            synced.is_ok_and(|status| status.success()),
            "its disk is written"
        );
    }

    fn testbed(&self, verb: &str) -> String {
        let out = Command::new(&self.testbed)
            .args([verb, &self.name])
            .output();
        let out = out.expect("the testbed script runs").stdout;
        String::from_utf8_lossy(&out).trim().to_owned()
    }

    /// Writes the host's journal and state to a folder.
    pub(crate) fn collect(&self, folder: &Path) {
        // Each command has a time limit: the failure may be a program that does not answer.
        let state = self.sh(
            "journalctl -b --no-pager -o short-precise | tail -n 3000; echo; for line in \"systemctl list-units --all --no-pager 'beemesh*'\" \
             \"systemctl status --no-pager -n 0 'beemesh*'\" 'podman pod ps' 'podman ps -a' 'podman images' 'podman volume ls' \
             'ls -lR /etc/containers/systemd /run/beemesh /var/lib/beemesh' 'beemesh status' 'beemesh get workloads --stale' 'df -h /' \
             'ps -e -o pid,ppid,stat,wchan:20,lstart,args'; do timeout -k 5 20 sh -c \"$line\"; done",
        );
        let text = format!("{}{}", state.out, state.err);
        if let Err(error) = fs::write(folder.join(format!("{}.log", self.name)), text) {
            eprintln!("{}: state not collected: {error}", self.name);
        }
    }
}

/// Whether dnf succeeded. Its exit code ignores failed scriptlets, so its output is checked, too.
#[track_caller]
fn dnf_did(args: &[&str], answer: &Answer) {
    let said = answer.to_string();
    let bad = |line: &&str| {
        let line = line.to_lowercase();
        line.contains("scriptlet failed") || line.contains("error") || line.contains("failed to")
    };
    let failed: Vec<_> = said.lines().filter(bad).collect();
    assert!(
        answer.code == 0 && failed.is_empty(),
        "dnf {args:?}: {said}\n{failed:?}"
    );
}
