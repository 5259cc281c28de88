//! Pure: the order in which the supervisor starts the containers of a pod that was only created.
//!
//! As in Kubernetes: the init containers run one after the other, each until it ends with code 0; a sidecar among them
//! keeps running, and the next one waits until it has started. Then all other containers start. Everything is derived
//! from the containers themselves, so a supervisor that is killed in between continues where its predecessor was.
//!
//! Input: the containers at a look. Output: the next [`Stage`].

use crate::health::{Container, Role, Run, has_ended};
use crate::render::Staged;

/// The next step of a start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stage {
    /// Every container has been started.
    Up,
    /// Start these containers, by id.
    Start(Vec<String>),
    /// Remove the init container with this id, which has done its work. The next look continues.
    Remove(String),
    /// Wait for this container, by its name in the manifest.
    Wait(String),
    /// Wait for the `postStart` hook of this container, by its name in the manifest.
    WaitForHook(String),
}

/// The `postStart` hook of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hook {
    /// It has none.
    Absent,
    /// It has not ended in this run of the container.
    Due,
    /// It has ended.
    Ended,
}

/// The next step of the start of a pod. `has_started` says whether a sidecar that runs has passed its startup probe.
/// `hook` tells the `postStart` hook of a container: the containers after it start when it has ended.
pub(super) fn next(
    staged: &Staged,
    workload: &str,
    containers: &[Container],
    has_started: impl Fn(&Container) -> bool,
    hook: impl Fn(&Container) -> Hook,
) -> Stage {
    let named = |name: &String| -> Option<&Container> {
        let full = format!("{workload}-{name}");
        containers.iter().find(|one| one.name == full)
    };
    let begins = |container: &Container| Stage::Start(vec![container.id.clone()]);
    for name in &staged.init {
        // An init container that has done its work was removed.
        let Some(container) = named(name) else {
            continue;
        };
        match (container.run, container.role) {
            (Run::Created, _) => return begins(container),
            (Run::Running, Role::Sidecar) if has_started(container) => {}
            (Run::Exited, Role::Init) if has_ended(container) && container.exit_code == 0 => {
                return Stage::Remove(container.id.clone());
            }
            _ => return Stage::Wait(name.clone()),
        }
    }
    let members: Vec<&Container> = staged.containers.iter().filter_map(named).collect();
    let Some(first) = members.iter().position(|one| one.run == Run::Created) else {
        return Stage::Up;
    };
    let (before, rest) = members.split_at(first);
    let is_due = |one: &&&Container| one.run == Run::Running && hook(one) == Hook::Due;
    if let Some(one) = before.iter().find(is_due) {
        let name = one.name.strip_prefix(workload).unwrap_or(&one.name);
        return Stage::WaitForHook(name.trim_start_matches('-').to_owned());
    }
    let mut starts = Vec::new();
    for one in rest.iter().take_while(|one| one.run == Run::Created) {
        starts.push(one.id.clone());
        if hook(one) != Hook::Absent {
            break;
        }
    }
    Stage::Start(starts)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::health::Probe;

    fn container(name: &str, role: Role, run: Run, exit_code: i32) -> Container {
        Container {
            id: name.into(),
            name: format!("web-{name}"),
            role,
            run,
            probe: Probe::Absent,
            restarts: 0,
            exit_code,
            started_at: if run == Run::Created { -1 } else { 100 },
            exited_at: if run == Run::Exited { 200 } else { -1 },
        }
    }

    #[test]
    fn containers_start_in_the_order_of_kubernetes() {
        use Role::{Init, Member, Sidecar};
        use Run::{Created, Exited, Running};
        let staged = Staged {
            volumes: Vec::new(),
            init: ["one", "side", "two"].map(str::to_owned).to_vec(),
            sidecars: BTreeSet::from(["side".to_owned()]),
            containers: ["a", "b"].map(str::to_owned).to_vec(),
            ..Staged::default()
        };
        let start = |names: &[&str]| Stage::Start(names.iter().map(ToString::to_string).collect());
        let wait = |name: &str| Stage::Wait(name.to_owned());
        let gone = None;
        let is = |run, code| Some((run, code));
        for (one, side, two, apps, has_started, expected) in [
            (
                is(Created, 0),
                is(Created, 0),
                is(Created, 0),
                Created,
                true,
                start(&["one"]),
            ),
            (
                is(Running, 0),
                is(Created, 0),
                is(Created, 0),
                Created,
                true,
                wait("one"),
            ),
            (
                is(Exited, 3),
                is(Created, 0),
                is(Created, 0),
                Created,
                true,
                wait("one"),
            ),
            (
                is(Exited, 0),
                is(Created, 0),
                is(Created, 0),
                Created,
                true,
                Stage::Remove("one".to_owned()),
            ),
            (
                gone,
                is(Created, 0),
                is(Created, 0),
                Created,
                true,
                start(&["side"]),
            ),
            (
                gone,
                is(Running, 0),
                is(Created, 0),
                Created,
                false,
                wait("side"),
            ),
            (
                gone,
                is(Exited, 0),
                is(Created, 0),
                Created,
                true,
                wait("side"),
            ),
            (
                gone,
                is(Running, 0),
                is(Created, 0),
                Created,
                true,
                start(&["two"]),
            ),
            (
                gone,
                is(Running, 0),
                is(Running, 0),
                Created,
                true,
                wait("two"),
            ),
            (
                gone,
                is(Running, 0),
                gone,
                Created,
                true,
                start(&["a", "b"]),
            ),
            (gone, is(Running, 0), gone, Running, true, Stage::Up),
            (gone, is(Running, 0), gone, Exited, true, Stage::Up),
        ] {
            let made = |name, role, state: Option<(Run, i32)>| {
                state.map(|(run, code)| container(name, role, run, code))
            };
            let init = [
                made("one", Init, one),
                made("side", Sidecar, side),
                made("two", Init, two),
            ];
            let apps = ["a", "b"].map(|name| Some(container(name, Member, apps, 0)));
            let all: Vec<Container> = init.into_iter().chain(apps).flatten().collect();
            assert_eq!(
                next(&staged, "web", &all, |_| has_started, |_| Hook::Absent),
                expected,
                "{all:?}"
            );
        }
    }

    #[test]
    fn a_start_that_was_interrupted_continues_with_the_rest() {
        let staged = Staged {
            containers: ["a", "b"].map(str::to_owned).to_vec(),
            ..Staged::default()
        };
        let all = [
            container("a", Role::Member, Run::Exited, 1),
            container("b", Role::Member, Run::Created, 0),
        ];
        let expected = Stage::Start(vec!["b".to_owned()]);
        let found = next(&staged, "web", &all, |_| true, |_| Hook::Absent);
        assert_eq!(found, expected);
    }

    #[test]
    fn a_hook_delays_the_containers_after_it() {
        use Run::{Created, Exited, Running};
        let staged = Staged {
            containers: ["a", "b", "c"].map(str::to_owned).to_vec(),
            ..Staged::default()
        };
        let start = |names: &[&str]| Stage::Start(names.iter().map(ToString::to_string).collect());
        for (a, b, c, is_due, expected) in [
            (Created, Created, Created, true, start(&["a", "b"])),
            (
                Running,
                Running,
                Created,
                true,
                Stage::WaitForHook("b".to_owned()),
            ),
            (Running, Running, Created, false, start(&["c"])),
            // A container that ended meanwhile delays nobody: it starts again by its policy.
            (Running, Exited, Created, true, start(&["c"])),
            // All have been started: the hook runs beside them.
            (Running, Running, Running, true, Stage::Up),
        ] {
            let all = [("a", a), ("b", b), ("c", c)];
            let all = all.map(|(name, run)| container(name, Role::Member, run, 1));
            let hook = |one: &Container| match (one.name.as_str(), is_due) {
                ("web-b", true) => Hook::Due,
                ("web-b", false) => Hook::Ended,
                _ => Hook::Absent,
            };
            assert_eq!(next(&staged, "web", &all, |_| true, hook), expected);
        }
    }
}
