//! The steps of a purge, in order.
//!
//! Pure: the objects found in, steps out.

use std::{fmt::Write as _, path::PathBuf};

use beemesh_protocol::workload::{GATEWAY_UNIT, UNIT_PATTERN};

/// Podman's filter for the pods of workloads.
pub(super) const WORKLOADS: &str = "label=beemesh.io/workload";
/// The prefix of the names of workloads' volumes and secrets, including the volumes of claims.
const OURS: &str = "beemesh__";
/// Podman's filter for the images of the gateway, of this version and of earlier ones.
const IMAGES: &str = "label=io.beemesh.image=gateway";

/// The objects found on the host. The lists of volumes and secrets include those of other programs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) pods: Vec<String>,
    pub(super) volumes: Vec<String>,
    pub(super) secrets: Vec<String>,
}

/// The folders of Beemesh. The package owns them and removes them; purge removes their contents.
#[derive(Debug, Clone)]
pub(super) struct Places {
    pub(super) units: PathBuf,
    pub(super) state: PathBuf,
    pub(super) run: PathBuf,
    pub(super) configuration: PathBuf,
}

impl Places {
    fn folders(&self) -> [PathBuf; 5] {
        [
            self.units.clone(),
            self.state.join("agent"),
            self.state.join("gateway"),
            self.run.clone(),
            self.configuration.clone(),
        ]
    }
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Run a command that succeeds if there is nothing to do.
    Run(Vec<String>),
    /// Remove the contents of a folder.
    Empty(PathBuf),
}

fn ours(names: &[String]) -> impl Iterator<Item = &String> {
    names.iter().filter(|name| name.starts_with(OURS))
}

/// Returns the list of what a purge removes, for the administrator to decide.
pub(super) fn announcement(found: &Found, places: &Places) -> String {
    let mut text = String::new();
    let mut list = |what: &str, names: &mut dyn Iterator<Item = String>| {
        for name in names {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{what} {name}");
        }
    };
    list("workload", &mut found.pods.iter().cloned());
    list("volume", &mut ours(&found.volumes).cloned());
    list("secret", &mut ours(&found.secrets).cloned());
    let folders = places.folders();
    let mut folders = folders
        .iter()
        .map(|folder| format!("{}/*", folder.display()));
    list("files", &mut folders);
    list(
        "image",
        &mut ["localhost/beemesh-gateway".to_owned()].into_iter(),
    );
    text
}

/// Returns the steps: first stop the services that would create objects again, then remove the pods, then what the pods
/// used.
pub(super) fn steps(found: &Found, places: &Places) -> Vec<Step> {
    let run = |words: &str, more: &mut dyn Iterator<Item = &String>| {
        let words = words.split_whitespace().map(str::to_owned);
        Step::Run(words.chain(more.cloned()).collect())
    };
    let none = &mut std::iter::empty();
    let mut steps = vec![
        run(
            "systemctl disable --now beemesh-agent.service beemesh-agent.socket",
            none,
        ),
        run(&format!("systemctl stop {GATEWAY_UNIT}"), none),
        run("systemctl stop beemesh-gateway-image.service", none),
        // The pattern matches loaded units; each supervisor takes its pod down.
        run(&format!("systemctl stop {UNIT_PATTERN}"), none),
        run("podman pod rm --force --ignore beemesh-gateway", none),
    ];
    if !found.pods.is_empty() {
        let words = "podman pod rm --force --ignore";
        steps.push(run(words, &mut found.pods.iter()));
    }
    steps.extend(places.folders().map(Step::Empty));
    steps.push(run("systemctl daemon-reload", none));
    steps.push(run("systemctl reset-failed beemesh-*", none));
    for (words, names) in [
        ("podman volume rm --force", &found.volumes),
        ("podman secret rm --ignore", &found.secrets),
    ] {
        if ours(names).next().is_some() {
            steps.push(run(words, &mut ours(names)));
        }
    }
    let words = format!("podman image prune --all --force --filter {IMAGES}");
    steps.push(run(&words, none));
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places() -> Places {
        Places {
            units: "/units".into(),
            state: "/state".into(),
            run: "/run".into(),
            configuration: "/conf".into(),
        }
    }

    fn words(step: &Step) -> String {
        match step {
            Step::Run(words) => words.join(" "),
            Step::Empty(folder) => format!("empty {}", folder.display()),
        }
    }

    #[test]
    fn only_what_is_ours_goes_and_its_makers_go_first() {
        let strings = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let found = Found {
            pods: strings(&["web", "db"]),
            volumes: strings(&[
                "beemesh__web__e__cache",
                "mine",
                "beemesh__pvc__default__data",
            ]),
            secrets: strings(&["other"]),
        };
        let listed: Vec<_> = steps(&found, &places()).iter().map(words).collect();
        assert_eq!(
            listed,
            [
                "systemctl disable --now beemesh-agent.service beemesh-agent.socket",
                "systemctl stop beemesh-gateway.service",
                "systemctl stop beemesh-gateway-image.service",
                "systemctl stop beemesh-pod-*.service",
                "podman pod rm --force --ignore beemesh-gateway",
                "podman pod rm --force --ignore web db",
                "empty /units",
                "empty /state/agent",
                "empty /state/gateway",
                "empty /run",
                "empty /conf",
                "systemctl daemon-reload",
                "systemctl reset-failed beemesh-*",
                "podman volume rm --force beemesh__web__e__cache beemesh__pvc__default__data",
                "podman image prune --all --force --filter label=io.beemesh.image=gateway",
            ]
        );
        let said = announcement(&found, &places());
        assert_eq!(
            said,
            "workload web\nworkload db\nvolume beemesh__web__e__cache\nvolume beemesh__pvc__default__data\n\
             files /units/*\nfiles /state/agent/*\nfiles /state/gateway/*\nfiles /run/*\nfiles /conf/*\n\
             image localhost/beemesh-gateway\n"
        );
    }
}
