//! A booted host on which cases run, with Beemesh or with bare Podman.

use std::{
    collections::BTreeSet,
    fs, thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{
    case::{Case, on_one_line},
    manifest::Manifest,
    outcome::{COMMITTED, Seen},
};
use crate::{Answer, Host, secs};

/// What a check may use.
const FUNCTIONS: &str = include_str!("../../conformance/functions.sh");
/// Where the files of cases are on a host.
const FOLDER: &str = "root/conformance";
/// From an apply to the check: what a container prints first is in its log by then.
const REST: Duration = Duration::from_secs(1);
/// The longest wait for the first container of a case.
const STARTED: Duration = Duration::from_secs(20);
/// The longest check, such as one that waits for the end of a back-off.
const CHECK_SECS: u32 = 240;

/// Makes the images of cases, from the busybox of the host: one with links, one with ENTRYPOINT and CMD, one with a USER.
const IMAGES: &str = r#"set -e
folder=$(mktemp -d); mkdir -p "$folder"/bin "$folder"/etc "$folder"/root "$folder"/tmp; chmod 1777 "$folder"/tmp
cp /bin/busybox "$folder"/bin/
for tool in $(busybox --list); do [ "$tool" = busybox ] || ln -s busybox "$folder/bin/$tool"; done
printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n' >"$folder"/etc/passwd
printf 'root:x:0:\nnobody:x:65534:\n' >"$folder"/etc/group
import() { tar -C "$folder" --owner=0 --group=0 -c . | podman import -q "$@"; }
import - localhost/busybox:1
import --change 'ENTRYPOINT ["/bin/busybox", "echo", "entry"]' --change 'CMD ["image-cmd"]' - localhost/bbentry:1
import --change 'USER 1234' - localhost/bbuser:1
rm -r "$folder""#;

/// Everything on a host that may be of a workload, one on each line. Over Podman's socket: its command line takes longer to
/// start than all of this.
const ALL: &str = r#"podman() { curl -sS -m 60 --unix-socket /run/podman/podman.sock "http://podman/v5.0.0/libpod/$1"; echo; }
podman pods/json; podman 'containers/json?all=true'; podman volumes/json; podman secrets/json
ls /etc/containers/systemd/beemesh
systemctl list-units --all --plain --no-legend 'beemesh-pod-*' | cut -d' ' -f1"#;

/// By what the cases of a host are applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Side {
    /// `beemesh apply`, on a cluster of one host.
    Beemesh,
    /// `podman kube play`.
    Podman,
}

impl Side {
    /// `beemesh` or `podman`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Beemesh => "beemesh",
            Self::Podman => "podman",
        }
    }
}

/// A booted host on which cases run.
#[derive(Debug, Clone)]
pub struct Bed {
    host: Host,
    side: Side,
    patience: u64,
    /// The cgroup controllers of the host.
    controllers: BTreeSet<String>,
}

impl Bed {
    /// Makes the images and puts the functions of checks on the host. An apply waits `patience` times as long as its case says.
    ///
    /// # Panics
    /// If that does not succeed.
    #[must_use]
    #[track_caller]
    pub fn prepared(host: &Host, side: Side, patience: u64) -> Self {
        let folder = host.root().join(FOLDER);
        fs::create_dir_all(&folder).expect("a folder on the host");
        fs::write(folder.join("functions.sh"), FUNCTIONS).expect("a file on the host");
        let has = host.sh("podman image exists localhost/bbuser:1");
        if has.code != 0 {
            let _ = host.run(&["bash", "-c", IMAGES]).ok();
        }
        let controllers = host.sh("cat /sys/fs/cgroup/cgroup.controllers").out;
        Self {
            host: host.clone(),
            side,
            patience,
            controllers: controllers.split_whitespace().map(str::to_owned).collect(),
        }
    }

    /// By what its cases are applied.
    #[must_use]
    pub fn side(&self) -> Side {
        self.side
    }

    /// Whether the host has a cgroup controller.
    #[must_use]
    pub fn has(&self, controller: &str) -> bool {
        self.controllers.contains(controller)
    }

    /// What two cases of this host must not share at the same time.
    #[must_use]
    pub fn holds(&self, case: &Case) -> BTreeSet<String> {
        let bare = self.side == Side::Podman;
        let all = manifests(case).flat_map(|manifest| manifest.holds(bare));
        all.collect()
    }

    /// The version of Podman.
    #[must_use]
    #[track_caller]
    pub fn podman(&self) -> String {
        let version = self.host.run(&["podman", "version", "-f", "{{.Version}}"]);
        version.ok().trim().to_owned()
    }

    /// Applies a case, runs its check, and deletes it.
    ///
    /// # Panics
    /// If the host cannot be written to.
    #[must_use]
    pub fn run(&self, case: &Case) -> (Seen, Duration) {
        let begun = Instant::now();
        let folder = self.host.root().join(FOLDER).join(&case.slug);
        fs::create_dir_all(&folder).expect("a folder on the host");
        let write = |name: &str, text: &str| {
            fs::write(folder.join(name), text).expect("a file on the host");
        };
        write("first.yaml", &case.first.text);
        if let Some(second) = &case.second {
            write("second.yaml", &second.text);
        }
        let applied = self.apply(case);
        write("said", &format!("{}{}", applied.out, applied.err));
        let mut seen = Seen {
            code: applied.code,
            out: applied.out,
            err: applied.err,
            ..Seen::default()
        };
        let refused = case.refused.as_ref().or(case.rejected.as_ref());
        let is_refused =
            seen.code != 0 && refused.is_some_and(|words| words.is_match(&on_one_line(&seen.err)));
        if let Some(check) = case.check.as_ref().filter(|_| !is_refused) {
            write(
                "check.sh",
                &format!(". /{FOLDER}/functions.sh\n{}\n", check.script),
            );
            if self.side == Side::Beemesh && seen.err.contains(COMMITTED) {
                self.until_started(case);
            }
            thread::sleep(REST);
            seen.printed = self.check(case);
            // What the second apply warned about.
            let again = fs::read_to_string(folder.join("said.again")).unwrap_or_default();
            for warning in again.lines().filter(|line| line.starts_with("warning:")) {
                seen.err.push_str(&format!("{warning}\n"));
            }
        }
        (seen.healthy, seen.state) = self.state(case);
        seen.left = self.delete(case);
        let _ = fs::remove_dir_all(folder);
        (seen, begun.elapsed())
    }

    fn apply(&self, case: &Case) -> Answer {
        let wait = case.wait * self.patience;
        let file = format!("/{FOLDER}/{}/first.yaml", case.slug);
        let line = match self.side {
            Side::Beemesh => format!("timeout 180 beemesh apply -f - --wait={wait}s <{file}"),
            // As long as pods must have been ready for Beemesh.
            Side::Podman => {
                format!("timeout 180 podman kube play --replace {file} >&2 && sleep 2")
            }
        };
        self.host.sh(&line)
    }

    /// Waits until a container of the case has been started: on a busy machine, not even that happens within the wait of an
    /// apply. Some cases never start one, so that this has no end but a bound.
    fn until_started(&self, case: &Case) {
        let begun = Instant::now();
        let line = r#"curl -sS -m 60 --unix-socket /run/podman/podman.sock "http://podman/v5.0.0/libpod/containers/json?all=true""#;
        while begun.elapsed() < STARTED {
            let listed: Vec<Value> =
                serde_json::from_str(&self.host.sh(line).out).unwrap_or_default();
            let is_started = |one: &Value| {
                let workload = one["Labels"]["beemesh.io/workload"].as_str();
                let is_mine = workload
                    .is_some_and(|name| case.first.workloads().iter().any(|mine| mine == name));
                let is_own = one["IsInfra"] != true;
                is_mine && is_own && (one["State"] == "running" || one["State"] == "exited")
            };
            if listed.iter().any(is_started) {
                return;
            }
            thread::sleep(REST / 4);
        }
    }

    fn check(&self, case: &Case) -> String {
        let folder = format!("/{FOLDER}/{}", case.slug);
        let names = |of: fn(&Manifest) -> Vec<String>, between: &str| {
            let all: BTreeSet<String> = manifests(case).flat_map(of).collect();
            all.into_iter().collect::<Vec<_>>().join(between)
        };
        let line = format!(
            "cd {folder}; export SIDE={} FIRST={folder}/first.yaml SECOND={folder}/second.yaml SAID={folder}/said WAIT={} \
             WORKLOADS='{}' PODS='{}'; exec timeout -k 5 {CHECK_SECS} bash check.sh 2>&1",
            self.side.word(),
            case.wait * self.patience,
            names(Manifest::workloads, " "),
            names(Manifest::pods, "|"),
        );
        self.host.sh(&line).out
    }

    /// Whether the state claims that all is well, and the state in words.
    fn state(&self, case: &Case) -> (bool, String) {
        if self.side == Side::Podman {
            return (false, String::new());
        }
        let (mut healthy, mut words) = (false, String::new());
        for workload in case.first.workloads() {
            let (_, found) = self
                .host
                .api("GET", &format!("/v1/workloads/{workload}"), b"");
            let report = found["hosts"].get(0).unwrap_or(&Value::Null);
            healthy |= report["phase"] == "running" && report["healthy"] == report["total"];
            words += &format!("{workload}: {report}\n");
        }
        (healthy, words)
    }

    /// Deletes what a case has applied; returns what that left behind.
    fn delete(&self, case: &Case) -> String {
        match self.side {
            Side::Beemesh => self.delete_by_beemesh(case),
            Side::Podman => {
                self.delete_by_podman(case);
                String::new()
            }
        }
    }

    fn delete_by_beemesh(&self, case: &Case) -> String {
        let args = ["beemesh", "delete", "-f", "-", "--wait=90s"];
        for manifest in manifests(case).collect::<Vec<_>>().into_iter().rev() {
            let deleted = self.host.run_with(&args, manifest.text.as_bytes());
            if deleted.code != 0 {
                // A manifest that is refused has no name by itself.
                for name in manifest.names() {
                    let _ = self
                        .host
                        .beemesh(&["delete", "--manifest", &name, "--wait=90s"]);
                }
            }
        }
        let workloads: BTreeSet<String> = manifests(case).flat_map(Manifest::workloads).collect();
        let look = || left_of(&workloads, &self.host.sh(ALL).out);
        let bound = Instant::now() + secs(5);
        let mut left = look();
        while !left.is_empty() && Instant::now() < bound {
            thread::sleep(REST);
            left = look();
        }
        let claims: Vec<String> = manifests(case).flat_map(Manifest::claims).collect();
        for claim in claims {
            let _ = self.host.run(&["podman", "volume", "rm", "-f", &claim]);
        }
        left
    }

    fn delete_by_podman(&self, case: &Case) {
        for (file, manifest) in [
            ("first", Some(&case.first)),
            ("second", case.second.as_ref()),
        ] {
            let Some(manifest) = manifest else { continue };
            let kept = manifest.kept_by_podman().join(" ");
            let pods = manifest.pods().join(" ");
            let _ = self.host.sh(&format!(
                "timeout 90 podman kube down --force /{FOLDER}/{}/{file}.yaml; timeout 60 podman pod rm -f -i -t 1 {pods}; \
                 for name in {kept}; do podman volume rm -f $name; podman secret rm -i $name; done",
                case.slug
            ));
        }
    }
}

/// What of all is of one of the workloads, by its label or its name.
fn left_of(workloads: &BTreeSet<String>, all: &str) -> String {
    let mut left = Vec::new();
    for line in all.lines() {
        let listed: Option<Vec<Value>> = serde_json::from_str(line).ok();
        match listed {
            Some(listed) => left.extend(listed.iter().filter_map(|one| podmans(workloads, one))),
            None => {
                let is_of = |name: &&String| line.starts_with(&format!("beemesh-pod-{name}."));
                left.extend(workloads.iter().find(is_of).map(|_| line.to_owned()));
            }
        }
    }
    left.join(" ")
}

/// The name of a pod, container, volume or secret of Podman if it is of one of the workloads.
fn podmans(workloads: &BTreeSet<String>, one: &Value) -> Option<String> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let name = text(&one["Name"])
        .or_else(|| text(&one["Names"][0]))
        .or_else(|| text(&one["Spec"]["Name"]))?;
    let label = one["Labels"]["beemesh.io/workload"].as_str();
    let is_labelled = label.is_some_and(|workload| workloads.contains(workload));
    let is_named = workloads.iter().any(|workload| {
        ["", "OWN__"]
            .iter()
            .any(|own| name.starts_with(&format!("beemesh__{own}{workload}__")))
    });
    (is_labelled || is_named).then_some(name)
}

fn manifests(case: &Case) -> impl Iterator<Item = &Manifest> {
    [&case.first].into_iter().chain(&case.second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_of_a_workload_is_found_by_label_and_by_name() {
        let all = r#"[{"Name":"web-pod","Labels":{"beemesh.io/workload":"web"}},{"Name":"web-2","Labels":{"beemesh.io/workload":"web-2"}}]
[{"Names":["web-c"],"Labels":{"beemesh.io/workload":"web"}},{"Names":["web-c2"],"Labels":null}]
[{"Name":"beemesh__OWN__web__e__v"},{"Name":"beemesh__OWN__web-2__e__v"},{"Name":"beemesh__pvc__default__web"}]
[{"Spec":{"Name":"beemesh__web__s__key__0"}}]
beemesh-pod-web.kube
beemesh-pod-web-2.kube
beemesh-pod-web.service"#;
        assert_eq!(
            left_of(&["web".to_owned()].into(), all),
            "web-pod web-c beemesh__OWN__web__e__v beemesh__web__s__key__0 beemesh-pod-web.kube beemesh-pod-web.service"
        );
        assert_eq!(left_of(&["other".to_owned()].into(), all), "");
    }
}
