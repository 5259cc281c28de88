//! Pure: what the containers of a workload say together, and the one line in which a unit says it.
//!
//! Input: the containers of one pod as [`crate::podman`] lists them. Output: a [`Verdict`] for the supervisor and a
//! [`Report`] for the gateway, of which one line is shown to people (`STATUS=`).

mod status;

pub use status::{LINE_BYTES_MAX, Report, Status, heard, parse};

/// A container as Podman lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// Its id.
    pub id: String,
    /// Its name on the host, `POD-CONTAINER`.
    pub name: String,
    /// What it is in its pod.
    pub role: Role,
    /// What its process does.
    pub run: Run,
    /// What its healthcheck says.
    pub probe: Probe,
    /// How often its restart policy restarted it.
    pub restarts: u32,
    /// Its last exit code; 0 until it has exited.
    pub exit_code: i32,
    /// When its process started, in seconds since 1970; negative if it never did.
    pub started_at: i64,
    /// When its process last exited, in seconds since 1970; negative if it never did.
    pub exited_at: i64,
}

/// What a container is in its pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Holds the pod's namespaces.
    Infra,
    /// One of `containers` or `initContainers`.
    Member,
    /// Keeps the pod's addresses while every member is down. It is never started.
    Holder,
}

/// What the name of a pod's holder ends with. No container of a manifest has an underscore in its name.
const HOLDER: &str = "-_holder";

/// The name of the holder of a pod.
#[must_use]
pub fn holder_name(pod: &str) -> String {
    format!("{pod}{HOLDER}")
}

/// Whether a container of this name is the holder of its pod.
#[must_use]
pub fn is_holder(name: &str) -> bool {
    name.ends_with(HOLDER)
}

/// What a container's process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Run {
    /// It was never started since the host booted.
    Created,
    /// It runs.
    Running,
    /// It is frozen.
    Paused,
    /// It is being stopped or removed.
    Stopping,
    /// It ended, or was stopped.
    Exited,
}

/// What a container's healthcheck says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probe {
    /// It has none.
    Absent,
    /// Its startup probe has not succeeded yet, nor failed too often.
    Starting,
    /// It has a liveness probe alone, which has not said anything yet.
    Silent,
    /// It succeeds.
    Healthy,
    /// It failed too often.
    Unhealthy,
}

/// `spec.restartPolicy` as Podman carries it out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restart {
    /// Podman starts a container again whenever it ends.
    Always,
    /// Podman starts a container again when it ends with a code other than 0.
    OnFailure,
    /// Podman leaves an ended container alone.
    Never,
}

/// How many containers do what they should. Infra containers do not count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Health {
    /// Containers that run with a probe that does not object, or that are done.
    pub healthy: u32,
    /// All of them.
    pub total: u32,
    /// Restarts by policy, summed.
    pub restarts: u32,
}

/// What a pod's containers amount to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// At least one container runs, or will be started again by its policy.
    Running(Health),
    /// Every container ended with code 0 and none will be started again.
    Completed(Health),
    /// Every container ended, one of them in failure, and its policy does not start it again.
    Broken,
    /// Nothing runs that should: the pod was stopped, or the host booted since.
    Stopped,
}

/// Counts containers.
pub fn health(containers: &[Container], restart: Restart) -> Health {
    let members = || {
        containers
            .iter()
            .filter(|container| container.role == Role::Member)
    };
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Health {
        healthy: count(
            members()
                .filter(|container| is_well(container, restart))
                .count(),
        ),
        total: count(members().count()),
        restarts: members().fold(0, |sum, container| sum.saturating_add(container.restarts)),
    }
}

/// What a pod's containers amount to under its restart policy.
pub fn judge(containers: &[Container], restart: Restart) -> Verdict {
    let health = health(containers, restart);
    let members = || {
        containers
            .iter()
            .filter(|container| container.role == Role::Member)
    };
    if restart == Restart::Never
        && members().all(has_ended)
        && members().any(|container| container.exit_code != 0)
    {
        return Verdict::Broken;
    }
    if health.total > 0 && members().all(|container| is_done(container, restart)) {
        return Verdict::Completed(health);
    }
    let runs = |container: &Container| matches!(container.run, Run::Running | Run::Paused);
    if members().any(runs) {
        return Verdict::Running(health);
    }
    // Between two runs of a container that its policy restarts, only the infra container is up.
    if health.total > 0 && containers.iter().any(runs) {
        return Verdict::Running(health);
    }
    Verdict::Stopped
}

/// Whether a container does what it should, or has done so.
#[must_use]
pub fn is_well(container: &Container, restart: Restart) -> bool {
    match container.run {
        Run::Running => matches!(
            container.probe,
            Probe::Absent | Probe::Silent | Probe::Healthy
        ),
        Run::Exited => is_done(container, restart),
        Run::Created | Run::Paused | Run::Stopping => false,
    }
}

/// Whether a container ended well and is not started again.
#[must_use]
pub fn is_done(container: &Container, restart: Restart) -> bool {
    restart != Restart::Always && has_ended(container) && container.exit_code == 0
}

/// Whether a container ended since the host booted. After a boot Podman shows what ran at the power cut as exited with code 0
/// as well, but without a time of exit after its start.
#[must_use]
pub fn has_ended(container: &Container) -> bool {
    container.run == Run::Exited
        && container.exited_at >= container.started_at
        && container.exited_at >= 0
}

/// The init container for which the play of a workload's pod failed; `init` are the names that they have in the manifest.
#[must_use]
pub fn failed_init<'a>(
    workload: &str,
    containers: &'a [Container],
    init: &[String],
) -> Option<&'a Container> {
    let is_init = |container: &Container| {
        let mut names = init.iter().map(|name| format!("{workload}-{name}"));
        names.any(|name| name == container.name)
    };
    let mut containers = containers.iter();
    containers.find(|one| is_init(one) && has_ended(one) && one.exit_code != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(run: Run, probe: Probe, restarts: u32, exit_code: i32) -> Container {
        Container {
            id: "id".into(),
            name: "web-app".into(),
            role: Role::Member,
            run,
            probe,
            restarts,
            exit_code,
            started_at: 100,
            exited_at: if run == Run::Exited { 200 } else { -1 },
        }
    }

    fn infra(run: Run) -> Container {
        Container {
            role: Role::Infra,
            ..member(run, Probe::Absent, 0, 0)
        }
    }

    fn holder() -> Container {
        Container {
            name: holder_name("web"),
            role: Role::Holder,
            ..member(Run::Created, Probe::Absent, 0, 0)
        }
    }

    #[test]
    fn containers_amount_to_a_verdict() {
        use Probe::{Absent, Healthy, Silent, Starting, Unhealthy};
        use Restart::{Always, Never, OnFailure};
        use Run::{Created, Exited, Running};
        let health = |healthy, total, restarts| Health {
            healthy,
            total,
            restarts,
        };
        let cut = Container {
            exited_at: -62_135_596_800,
            ..member(Exited, Absent, 0, 0)
        };
        for (containers, restart, expected) in [
            (
                vec![infra(Running), member(Running, Absent, 0, 0)],
                Always,
                Verdict::Running(health(1, 1, 0)),
            ),
            (
                vec![
                    infra(Running),
                    member(Running, Healthy, 2, 0),
                    member(Running, Unhealthy, 1, 0),
                ],
                Always,
                Verdict::Running(health(1, 2, 3)),
            ),
            (
                vec![infra(Running), member(Running, Starting, 0, 0)],
                Always,
                Verdict::Running(health(0, 1, 0)),
            ),
            (
                vec![infra(Running), member(Running, Silent, 0, 0)],
                Always,
                Verdict::Running(health(1, 1, 0)),
            ),
            (
                vec![infra(Running), holder(), member(Exited, Absent, 0, 1)],
                Always,
                Verdict::Running(health(0, 1, 0)),
            ),
            (
                vec![
                    infra(Running),
                    member(Running, Absent, 0, 0),
                    member(Exited, Absent, 0, 1),
                ],
                Never,
                Verdict::Running(health(1, 2, 0)),
            ),
            (
                vec![
                    infra(Exited),
                    member(Exited, Absent, 0, 0),
                    member(Exited, Absent, 0, 137),
                ],
                Never,
                Verdict::Broken,
            ),
            (
                vec![infra(Running), member(Exited, Absent, 4, 137)],
                Always,
                Verdict::Running(health(0, 1, 4)),
            ),
            (
                vec![
                    infra(Running),
                    member(Running, Absent, 0, 0),
                    member(Exited, Absent, 0, 0),
                ],
                OnFailure,
                Verdict::Running(health(2, 2, 0)),
            ),
            (
                vec![infra(Exited), member(Exited, Absent, 1, 0)],
                OnFailure,
                Verdict::Completed(health(1, 1, 1)),
            ),
            (
                vec![infra(Exited), member(Exited, Absent, 0, 0)],
                Always,
                Verdict::Stopped,
            ),
            (vec![infra(Exited), cut], Never, Verdict::Stopped),
            (
                vec![infra(Exited), member(Exited, Absent, 0, 3)],
                Never,
                Verdict::Broken,
            ),
            (
                vec![infra(Created), member(Created, Absent, 0, 0)],
                Always,
                Verdict::Stopped,
            ),
            (vec![infra(Running)], Always, Verdict::Stopped),
            (vec![], Always, Verdict::Stopped),
        ] {
            assert_eq!(
                judge(&containers, restart),
                expected,
                "{containers:?} under {restart:?}"
            );
        }
    }
}
