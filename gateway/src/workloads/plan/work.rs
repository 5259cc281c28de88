//! The operations on a workload, and their steps.
//!
//! Pure: no I/O, no clock, no randomness. Order on a host is persist, then act, then report.

use beemesh_quadlet::{health, podman::Pod};

/// An operation on one workload, for the revision of this log index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// Replace the running revision by this one.
    Bring(u64),
    /// Finish an interrupted replacement: the revision is persisted, but the pod is, or was, that of another revision.
    Finish(u64),
    /// Persist this revision. It runs when the administrator starts the unit again.
    Persist(u64),
    /// Start the unit, which plays the pod itself.
    Start(u64),
    /// Make a running revision durable, and clean up.
    Settle(u64),
    /// Change the Quadlet of a Job so that a boot does not start it. Its pod is left as it is.
    Disarm(u64),
    /// Make the data of an ended attempt of a Job durable, before the end is reported.
    Conclude(u64),
    /// Remove everything of the workload, whose last revision here is this one.
    Remove(u64),
}

/// One step of an operation. Each may be repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Pull the missing images. Before the end of this step the revision leaves no trace on the host.
    Pull,
    /// Let the agent write the Quadlet and its YAML file.
    Put,
    /// Take down the pods of other revisions and play this one's, as [`replacement`] decides. At the same time, let the
    /// agent start the unit, whose supervisor adopts the pod.
    Replace,
    /// Let the agent start the unit, whose supervisor plays the pod.
    Start,
    /// Let the agent stop the unit.
    Stop,
    /// Take down every pod of the workload.
    Down,
    /// Make Podman's storage durable.
    Sync,
    /// Let the agent remove YAML files that the Quadlet does not name.
    Tidy,
    /// Remove the workload's private volumes and secrets that its YAML does not name.
    Collect,
    /// Remove all of the workload's private volumes and secrets.
    Clear,
    /// Let the agent remove the Quadlet and its YAML files. This step is the last, because until then the unit shows
    /// what is left to do.
    Forget,
}

impl Work {
    /// The log index of its revision.
    pub(crate) fn index(self) -> u64 {
        match self {
            Self::Bring(index)
            | Self::Finish(index)
            | Self::Persist(index)
            | Self::Start(index)
            | Self::Settle(index)
            | Self::Disarm(index)
            | Self::Conclude(index)
            | Self::Remove(index) => index,
        }
    }

    /// Its steps, in order; a failed step ends the operation.
    pub(crate) fn steps(self) -> &'static [Step] {
        use Step::{Clear, Collect, Down, Forget, Pull, Put, Replace, Start, Stop, Sync, Tidy};
        match self {
            Self::Bring(_) => &[Pull, Put, Replace, Sync, Tidy, Collect],
            Self::Finish(_) => &[Replace, Sync, Tidy, Collect],
            Self::Persist(_) => &[Put, Tidy, Collect],
            Self::Start(_) => &[Pull, Start, Sync, Tidy, Collect],
            Self::Settle(_) => &[Sync, Tidy, Collect],
            Self::Disarm(_) => &[Put],
            Self::Conclude(_) => &[Sync, Tidy, Collect],
            Self::Remove(_) => &[Stop, Down, Clear, Forget],
        }
    }

    /// Whether the revision counts as applied once its storage is durable.
    pub(crate) fn syncs(self) -> bool {
        self.steps().contains(&Step::Sync)
    }
}

impl Step {
    /// Whether only the clean-up is left.
    pub(crate) fn is_after_sync(self) -> bool {
        matches!(self, Self::Tidy | Self::Collect)
    }
}

/// The pods to take down before a revision's pod can be played, and whether it must be played.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Replacement<'a> {
    /// Pods to take down.
    pub(crate) down: Vec<&'a Pod>,
    /// Whether to play the pod; `false` if it exists already.
    pub(crate) play: bool,
}

/// Compares the workload's pods with the revision that should run.
pub(crate) fn replacement(pods: &[Pod], index: u64) -> Replacement<'_> {
    let (there, down): (Vec<_>, Vec<_>) = pods
        .iter()
        .partition(|pod| pod.index() == Some(index) && runs(pod));
    Replacement {
        down,
        play: there.is_empty(),
    }
}

/// Whether a pod runs. While all members of a pod wait for their restart, it has a holder, and its infra container is
/// up.
fn runs(pod: &Pod) -> bool {
    let has = |role, run| {
        let mut containers = pod.containers.iter();
        containers.any(|container| container.role == role && container.run == run)
    };
    let is_held = has(health::Role::Holder, health::Run::Created)
        && has(health::Role::Infra, health::Run::Running);
    has(health::Role::Member, health::Run::Running) || is_held
}

/// The names of the workload's private objects that its YAML does not mention.
pub(crate) fn unnamed(names: Vec<String>, yaml: &[u8]) -> Vec<String> {
    let named = |name: &String| {
        // The YAML is JSON, so a name stands in quotes and is never a part of another name.
        let quoted = format!("\"{name}\"");
        yaml.windows(quoted.len())
            .any(|window| window == quoted.as_bytes())
    };
    names.into_iter().filter(|name| !named(name)).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use beemesh_quadlet::podman::LABEL_INDEX;

    use super::*;

    #[test]
    fn only_pods_of_another_revision_or_dead_ones_are_replaced() {
        use beemesh_quadlet::health::{Container, Probe, Role, Run};
        let pod = |index: &str, run| Pod {
            id: index.into(),
            name: "web".into(),
            labels: BTreeMap::from([(LABEL_INDEX.to_owned(), index.to_owned())]),
            containers: [(Role::Infra, Run::Running), (Role::Member, run)]
                .into_iter()
                .map(|(role, run)| Container {
                    id: "id".into(),
                    name: "web-app".into(),
                    role,
                    run,
                    probe: Probe::Absent,
                    restarts: 0,
                    exit_code: 0,
                    started_at: 0,
                    exited_at: 0,
                })
                .collect(),
        };
        let held = |index: &str| {
            let mut pod = pod(index, Run::Exited);
            let mut holder = pod.containers[1].clone();
            (holder.role, holder.run) = (Role::Holder, Run::Created);
            pod.containers.push(holder);
            pod
        };
        for (pods, down, play) in [
            (vec![], vec![], true),
            (vec![held("12")], vec![], false),
            (vec![held("9")], vec!["9"], true),
            (vec![pod("9", Run::Running)], vec!["9"], true),
            (vec![pod("12", Run::Running)], vec![], false),
            (vec![pod("12", Run::Exited)], vec!["12"], true),
            (
                vec![pod("12", Run::Running), pod("9", Run::Created)],
                vec!["9"],
                false,
            ),
            (vec![pod("what", Run::Running)], vec!["what"], true),
        ] {
            let replacement = replacement(&pods, 12);
            let ids: Vec<&str> = replacement.down.iter().map(|pod| pod.id.as_str()).collect();
            assert_eq!((ids, replacement.play), (down, play), "{pods:?}");
        }
    }

    #[test]
    fn names_in_the_yaml_are_kept() {
        let yaml =
            br#"{"claimName":"beemesh__web__e__cache","name":"beemesh__web__c__conf__0123456789ab"}"#;
        let names = [
            "beemesh__web__e__cache",
            "beemesh__web__e__cach",
            "beemesh__web__c__conf__ba9876543210",
        ];
        let names = names.map(str::to_owned).to_vec();
        assert_eq!(unnamed(names.clone(), yaml), names[1..]);
        assert_eq!(unnamed(names.clone(), b""), names);
    }
}
