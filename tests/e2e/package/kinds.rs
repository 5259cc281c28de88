//! Workloads of each kind that the previous release has started, and their state after an upgrade.

use std::collections::BTreeMap;

use harness::{Cluster, Host, IMAGE, secs, wait_for};

/// Workloads that run without end.
const RUN: [&str; 5] = ["keeper", "scaled", "single", "each", "host-net"];
const STAYS: &str = "trap \"exit 0\" TERM; while :; do sleep 1 & wait $!; done";

/// For each host, the containers of each workload, and the lines in all volumes except that of the failing Job.
type Left = Vec<(BTreeMap<&'static str, Vec<String>>, String)>;

/// The workloads on each host.
pub(crate) struct Kinds<'a> {
    cluster: &'a Cluster,
    left: Left,
}

/// A container with the command that it runs at its start, and further fields.
fn container(begins: &str, more: &str) -> String {
    format!("{{name: main, image: {IMAGE}, command: [sh, -c, '{begins}; {STAYS}']{more}}}")
}

fn templated(kind: &str, name: &str, more: &str, spec: &str) -> String {
    format!(
        "apiVersion: apps/v1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec:\n{more}  selector: {{matchLabels: {{app: {name}}}}}\n  \
         template:\n    metadata: {{labels: {{app: {name}}}}}\n    spec:\n      terminationGracePeriodSeconds: 2\n{spec}---\n"
    )
}

fn claim(name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {{name: {name}}}\n\
         spec: {{accessModes: [ReadWriteOnce], resources: {{requests: {{storage: 1Mi}}}}}}\n---\n"
    )
}

fn job(name: &str, command: &str) -> String {
    format!(
        "{}apiVersion: batch/v1\nkind: Job\nmetadata: {{name: {name}}}\nspec:\n  backoffLimit: 0\n  template:\n    spec:\n      \
         restartPolicy: Never\n      containers:\n      - {{name: main, image: {IMAGE}, command: [sh, -c, '{command}'], \
         volumeMounts: [{{name: data, mountPath: /data}}]}}\n      \
         volumes: [{{name: data, persistentVolumeClaim: {{claimName: {name}}}}}]\n---\n",
        claim(name)
    )
}

/// The manifest. Each start of a container adds a line to the workload's volume.
fn manifest() -> String {
    let began = "cat /proc/sys/kernel/random/uuid >>/data/began";
    let mount = ", volumeMounts: [{name: data, mountPath: /data}]";
    let of = |name: &str| {
        format!("volumes: [{{name: data, persistentVolumeClaim: {{claimName: {name}}}}}]\n")
    };
    let keeper = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: keeper}}\nspec:\n  terminationGracePeriodSeconds: 2\n  containers:\n  - {}\n  {}---\n",
        container(began, mount),
        of("keeper")
    );
    let shown = ", volumeMounts: [{name: data, mountPath: /data}, {name: conf, mountPath: /conf}, {name: key, mountPath: /key}]";
    let scaled = templated(
        "Deployment",
        "scaled",
        "  replicas: 2\n",
        &format!(
            "      containers:\n      - {}\n      volumes: [{{name: data, emptyDir: {{}}}}, {{name: conf, configMap: {{name: conf}}}}, \
             {{name: key, secret: {{secretName: key}}}}]\n",
            container("cat /conf/marker /key/word >>/data/began", shown)
        ),
    );
    let single = templated(
        "Deployment",
        "single",
        "  replicas: 1\n",
        &format!(
            "      containers:\n      - {}\n      {}",
            container(began, mount),
            of("single")
        ),
    );
    let each = templated(
        "DaemonSet",
        "each",
        "",
        &format!(
            "      containers:\n      - {}\n",
            container(
                "busybox mkdir /www; echo hostPort >/www/who; httpd -p 80 -h /www",
                ", ports: [{containerPort: 80, hostPort: 8081}]"
            )
        ),
    );
    let host_net = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: host-net}}\nspec:\n  hostNetwork: true\n  terminationGracePeriodSeconds: 2\n  \
         containers:\n  - {}\n---\n",
        container(
            "busybox mkdir /www; echo hostNetwork >/www/who; httpd -p 8082 -h /www",
            ""
        )
    );
    let data = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: conf}\ndata: {marker: \"of the map\\n\"}\n---\n\
                apiVersion: v1\nkind: Secret\nmetadata: {name: key}\nstringData: {word: \"of the secret\\n\"}\n---\n";
    [
        data,
        &claim("keeper"),
        &claim("single"),
        &keeper,
        &scaled,
        &single,
        &each,
        &host_net,
        &job("done", "echo ran >>/data/began"),
    ]
    .concat()
    .trim_end_matches("---\n")
    .to_owned()
}

impl<'a> Kinds<'a> {
    /// Applies the manifest and waits until all workloads run, one Job has succeeded and one has failed.
    #[track_caller]
    pub(crate) fn start(cluster: &'a Cluster) -> Self {
        let host = cluster.host(1);
        let args = ["beemesh", "policy", "set", "-f", "-"];
        let _ = host.run_with(&args, b"hostNetwork: true\n").ok();
        let answer = host.apply(&manifest());
        assert_eq!(answer["settled"], true, "{answer}");
        let fails = job("fails", "echo ran >>/data/began; exit 3");
        let fails = fails.trim_end_matches("---\n");
        let answer = host.try_apply(fails, &[]);
        assert_eq!(answer.code, 0, "{answer}");
        ended(cluster, "done", "succeeded");
        ended(cluster, "fails", "failed");
        let kinds = Self {
            cluster,
            left: look(cluster),
        };
        for (name, count) in RUN.into_iter().zip([3, 2, 1, 3, 3]) {
            let all = kinds.left.iter().map(|(containers, _)| &containers[name]);
            assert_eq!(all.flatten().count(), count, "{name}: {:?}", kinds.left);
        }
        kinds.serve();
        kinds
    }

    /// Asserts that the same containers of the running workloads run, and that the volumes are unchanged.
    #[track_caller]
    pub(crate) fn untouched(&self, when: &str) {
        for (host, (now, before)) in look(self.cluster).iter().zip(&self.left).enumerate() {
            assert_eq!(now, before, "h{} {when}", host + 1);
        }
        self.serve();
    }

    #[track_caller]
    fn serve(&self) {
        for (port, who) in [(8081, "hostPort\n"), (8082, "hostNetwork\n")] {
            for host in &self.cluster.hosts {
                let url = format!("http://{}:{port}/who", host.address());
                // A server starts a moment after its container.
                wait_for(&format!("{who} of {}", host.name), secs(30), || {
                    let said = host.run(&["curl", "-sS", "-m", "5", &url]);
                    if said.out == who { Ok(()) } else { Err(said) }
                });
            }
        }
    }

    /// Asserts that no attempt of a Job is repeated on this release, not even after a shutdown and a boot of a host.
    #[track_caller]
    pub(crate) fn jobs_are_over(self, host: &Host) {
        host.power_off();
        self.cluster.boot(&[host]);
        self.cluster.ready();
        let _ = self.started_again(host);
    }

    /// Asserts the state after a power cut or a boot of one host: its workloads start again, but no Job that has ended does.
    #[track_caller]
    pub(crate) fn started_again(self, host: &Host) -> Self {
        let left = self.back(host);
        ended(self.cluster, "done", "succeeded");
        ended(self.cluster, "fails", "failed");
        let ran = |left: &Left| -> usize {
            let lines = left
                .iter()
                .map(|(_, lines)| lines.matches(":ran\n").count());
            lines.sum()
        };
        assert_eq!(ran(&left), ran(&self.left), "a Job that was done ran again");
        let failed: usize = self.cluster.hosts.iter().map(failures).sum();
        assert_eq!(failed, 1, "a Job that failed ran again");
        Self { left, ..self }
    }

    /// Asserts that the workloads of a host that was off run again with their data, and that nothing has changed on the
    /// other hosts.
    #[track_caller]
    fn back(&self, host: &Host) -> Left {
        for name in RUN {
            let had = self.left[self.position(host)].0[name].len();
            if had > 0 {
                self.cluster.running(name, 1, &[host]);
            }
            assert_eq!(host.containers(name).len(), had, "{name}");
        }
        let left = look(self.cluster);
        for (one, (now, before)) in self.cluster.hosts.iter().zip(left.iter().zip(&self.left)) {
            if one.name == host.name {
                // Each start adds a line after the existing ones.
                let lost = before.1.lines().find(|line| !now.1.contains(line));
                assert_eq!(lost, None, "{now:?}");
            } else {
                assert_eq!(now, before, "{} while {} was off", one.name, host.name);
            }
        }
        self.serve();
        left
    }

    fn position(&self, host: &Host) -> usize {
        let mut all = self.cluster.hosts.iter();
        let found = all.position(|one| one.name == host.name);
        found.expect("it is one of them")
    }
}

/// Waits until the Job has ended, on the one host that ran it.
#[track_caller]
fn ended(cluster: &Cluster, job: &str, phase: &str) {
    wait_for(&format!("{job} to have {phase}"), secs(90), || {
        let path = format!("/v1/workloads/{job}");
        let (_, found) = cluster.host(1).api("GET", &path, b"");
        let hosts = found["hosts"].as_array().cloned().unwrap_or_default();
        if hosts.len() == 1 && hosts[0]["phase"] == phase {
            Ok(())
        } else {
            Err(found)
        }
    });
}

/// The number of starts of the failing Job on the host.
fn failures(host: &Host) -> usize {
    let line = "cat /var/lib/containers/storage/volumes/*fails*/_data/began";
    host.sh(line).out.lines().count()
}

fn look(cluster: &Cluster) -> Left {
    let of = |host: &Host| {
        let containers = |name| -> Vec<String> {
            let all = host.containers(name);
            all.values().map(|one| format!("{one:?}")).collect()
        };
        let volumes =
            "cd /var/lib/containers/storage/volumes && grep -r . $(ls | grep -v fails) | sort";
        let containers = RUN.into_iter().map(|name| (name, containers(name)));
        (containers.collect(), host.sh(volumes).out)
    };
    cluster.hosts.iter().map(of).collect()
}
