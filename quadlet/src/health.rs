//! Pure: the health of a workload's containers together.
//!
//! Input: the containers of one pod as [`crate::podman`] lists them. Output: a [`Verdict`] for the supervisor and a
//! [`Report`] for the gateway, of which one line is shown to users (`STATUS=`).

mod status;

pub use status::{LINE_BYTES_MAX, Report, Status, heard, parse};

/// A container as Podman lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// Its id.
    pub id: String,
    /// Its name on the host, `POD-CONTAINER`.
    pub name: String,
    /// Its role in its pod.
    pub role: Role,
    /// The state of its process.
    pub run: Run,
    /// The state of its healthcheck.
    pub probe: Probe,
    /// Number of restarts by its restart policy.
    pub restarts: u32,
    /// Its last exit code; 0 until it has exited.
    pub exit_code: i32,
    /// When its process started, in seconds since 1970; negative if it never did.
    pub started_at: i64,
    /// When its process last exited, in seconds since 1970; negative if it never did.
    pub exited_at: i64,
}

/// The role of a container in its pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Holds the pod's namespaces.
    Infra,
    /// One of `containers`. In a pod that Podman starts as a whole, `initContainers` are such, too.
    Member,
    /// One of `initContainers` in a pod whose supervisor starts the containers. It is removed when it has done its work.
    Init,
    /// An init container with the restart policy `Always`, in a pod whose supervisor starts the containers: it runs
    /// beside the others, and the pod does not wait for its end.
    Sidecar,
    /// Keeps the pod and its addresses while no member runs. It is never started.
    Holder,
}

impl Role {
    /// `true` for a container of the manifest.
    #[must_use]
    pub fn is_in_manifest(self) -> bool {
        match self {
            Self::Member | Self::Init | Self::Sidecar => true,
            Self::Infra | Self::Holder => false,
        }
    }

    /// The restart policy of a container with this role in a pod with this policy.
    #[must_use]
    pub fn restart(self, of_pod: Restart) -> Restart {
        match (self, of_pod) {
            (Self::Sidecar, _) => Restart::Always,
            (Self::Init, Restart::Always) => Restart::OnFailure,
            _ => of_pod,
        }
    }
}

/// The suffix of the name of a pod's holder. No container of a manifest has an underscore in its name.
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

/// The state of a container's process.
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

/// The state of a container's healthcheck.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probe {
    /// It has no healthcheck.
    Absent,
    /// Its startup probe has neither succeeded nor failed too often yet.
    Starting,
    /// It has only a liveness probe, which has not run yet.
    Silent,
    /// The probe succeeds.
    Healthy,
    /// The probe has failed too often.
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

/// The number of healthy containers. Infra containers do not count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Health {
    /// Containers that run without a failing probe, or that are done.
    pub healthy: u32,
    /// All containers.
    pub total: u32,
    /// Restarts by the restart policy, of all containers.
    pub restarts: u32,
}

/// The state of a pod, derived from its containers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// At least one container runs, or its policy will restart it.
    Running(Health),
    /// Every container ended with code 0, and none will be restarted.
    Completed(Health),
    /// Every container ended, one of them with a failure, and its policy does not restart it.
    Broken,
    /// No container runs although one should: the pod was stopped, or the host has booted since.
    Stopped,
}

/// Counts the containers and the healthy ones.
pub fn health(containers: &[Container], restart: Restart) -> Health {
    let members = || {
        containers
            .iter()
            .filter(|container| matches!(container.role, Role::Member | Role::Sidecar))
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

/// Derives the state of a pod from its containers and its restart policy.
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
    // While a container waits for its restart by policy, only the infra container is up.
    if health.total > 0 && containers.iter().any(runs) {
        return Verdict::Running(health);
    }
    Verdict::Stopped
}

/// `true` for a container that runs and is healthy, or is done. `restart` is the policy of its pod.
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

/// `true` for a container that ended with code 0 and is not restarted. `restart` is the policy of its pod.
#[must_use]
pub fn is_done(container: &Container, restart: Restart) -> bool {
    let restart = container.role.restart(restart);
    restart != Restart::Always && has_ended(container) && container.exit_code == 0
}

/// Whether a container ended since the host booted. After a boot, Podman also lists a container that ran at a power cut
/// as exited with code 0, but its time of exit is not later than its start.
#[must_use]
pub fn has_ended(container: &Container) -> bool {
    container.run == Run::Exited
        && container.exited_at >= container.started_at
        && container.exited_at >= 0
}

/// The init container that failed the play of a workload's pod; `init` are the names of the init containers in the
/// manifest.
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
