//! Pure: what Podman's API tells of one pod or container, as far as Beemesh asks.

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;
use serde::Deserialize;

use super::Details;
use super::wire::{ListedContainer, null_is_empty, probe, role, run};
use crate::health::{Container, Restart};

/// Of `GET /libpod/pods/NAME/json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct InspectedPod {
    pub(super) id: String,
    pub(super) name: String,
    #[serde(default)]
    pub(super) labels: Option<BTreeMap<String, String>>,
    #[serde(default, deserialize_with = "null_is_empty")]
    pub(super) containers: Vec<PodContainer>,
}

/// What a pod tells of its containers.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct PodContainer {
    pub(super) id: String,
    #[serde(default)]
    pub(super) name: String,
    #[serde(default)]
    pub(super) state: String,
}

impl From<ListedContainer> for PodContainer {
    fn from(listed: ListedContainer) -> Self {
        Self {
            id: listed.id,
            name: listed.names.into_iter().next().unwrap_or_default(),
            state: listed.state,
        }
    }
}

/// Of `GET /libpod/containers/NAME/json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct InspectedContainer {
    id: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    is_infra: bool,
    #[serde(default)]
    restart_count: u32,
    state: InspectedState,
    #[serde(default)]
    config: InspectedConfig,
    #[serde(default)]
    host_config: InspectedHostConfig,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct InspectedState {
    #[serde(default)]
    status: String,
    #[serde(default)]
    exit_code: i32,
    #[serde(default)]
    started_at: Option<Timestamp>,
    #[serde(default)]
    finished_at: Option<Timestamp>,
    #[serde(default)]
    conmon_pid: u32,
    #[serde(default)]
    health: Option<InspectedHealth>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct InspectedHealth {
    #[serde(default)]
    status: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct InspectedConfig {
    #[serde(default)]
    tty: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct InspectedHostConfig {
    #[serde(default)]
    restart_policy: RestartPolicy,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RestartPolicy {
    #[serde(default)]
    name: String,
}

impl From<InspectedContainer> for Details {
    fn from(inspected: InspectedContainer) -> Self {
        let InspectedState {
            status,
            exit_code,
            started_at,
            finished_at,
            conmon_pid,
            health,
        } = inspected.state;
        let container = Container {
            id: inspected.id,
            name: inspected.name,
            role: role(inspected.is_infra),
            run: run(&status),
            probe: probe(&health.unwrap_or_default().status),
            restarts: inspected.restart_count,
            exit_code,
            started_at: seconds(started_at),
            exited_at: seconds(finished_at),
        };
        Self {
            container,
            conmon: Some(conmon_pid).filter(|pid| *pid != 0),
            restart: match inspected.host_config.restart_policy.name.as_str() {
                "always" | "unless-stopped" => Restart::Always,
                "on-failure" => Restart::OnFailure,
                _ => Restart::Never,
            },
            terminal: inspected.config.tty,
        }
    }
}

/// As [`Container`] has them: Podman writes the year 1 for never.
fn seconds(time: Option<Timestamp>) -> i64 {
    time.map_or(-1, Timestamp::as_second)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::Probe;

    #[test]
    fn an_inspected_container_says_what_a_listed_one_does() {
        let listed: ListedContainer = serde_json::from_str(
            r#"{"Id":"07c1","Names":["web-app"],"Pod":"p","IsInfra":false,"State":"exited","Status":"unhealthy",
                "Restarts":2,"ExitCode":3,"StartedAt":1764040000,"ExitedAt":1764040007}"#,
        )
        .unwrap();
        let inspected: InspectedContainer = serde_json::from_str(
            r#"{"Id":"07c1","Name":"web-app","IsInfra":false,"RestartCount":2,"Config":{"Tty":true},
                "HostConfig":{"RestartPolicy":{"Name":"on-failure","MaximumRetryCount":0}},
                "State":{"Status":"exited","ExitCode":3,"ConmonPid":0,"StartedAt":"2025-11-25T04:06:40.5+01:00",
                "FinishedAt":"2025-11-25T03:06:47Z","Health":{"Status":"unhealthy","FailingStreak":4}}}"#,
        )
        .unwrap();
        let details = Details::from(inspected);
        assert_eq!(details.container, Container::from(listed));
        assert_eq!((details.conmon, details.terminal), (None, true));
        assert_eq!(details.restart, Restart::OnFailure);
    }

    #[test]
    fn a_container_that_never_ended_has_no_end() {
        let inspected: InspectedContainer = serde_json::from_str(
            r#"{"Id":"a","Name":"web-app","State":{"Status":"running","ConmonPid":7,
                "StartedAt":"2025-11-25T03:06:40Z","FinishedAt":"0001-01-01T00:00:00Z"}}"#,
        )
        .unwrap();
        let details = Details::from(inspected);
        assert_eq!(details.conmon, Some(7));
        assert_eq!(details.container.probe, Probe::Absent);
        assert!(details.container.exited_at < 0, "{details:?}");
    }
}
