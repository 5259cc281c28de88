//! Pure: the fields of Podman's answers about one pod or container that Beemesh uses.

use std::collections::BTreeMap;
use std::time::Duration;

use beemesh_protocol::pod::{FailedProbe, ProbeKind, TEXT_CHARS_MAX, last_line};
use k8s_openapi::jiff::Timestamp;
use serde::Deserialize;

use super::wire::{ListedContainer, null_is_empty, probe, role, run};
use super::{Details, Schedule};
use crate::health::{Container, Probe, Restart};

/// Answer of `GET /libpod/pods/NAME/json`.
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

/// A container in the answer about a pod.
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

/// Answer of `GET /libpod/containers/NAME/json`.
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
    #[serde(default)]
    image: String,
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
    cgroup_path: String,
    #[serde(default, rename = "OOMKilled")]
    out_of_memory: bool,
    #[serde(default)]
    health: Option<InspectedHealth>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct InspectedHealth {
    #[serde(default)]
    status: String,
    #[serde(default)]
    failing_streak: i64,
    #[serde(default, deserialize_with = "null_is_empty")]
    log: Vec<ProbeRun>,
}

/// One run of a probe.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ProbeRun {
    #[serde(default)]
    start: Option<Timestamp>,
    #[serde(default)]
    end: Option<Timestamp>,
    #[serde(default)]
    exit_code: i32,
    #[serde(default)]
    output: String,
}

impl ProbeRun {
    /// Whether the run reached its time limit, which is in nanoseconds. Podman's exit code for that differs between
    /// versions.
    fn is_late(&self, timeout: u64) -> bool {
        let took = self.start.zip(self.end);
        let took = took.map(|(start, end)| end.as_nanosecond() - start.as_nanosecond());
        timeout > 0 && took.is_some_and(|took| took >= i128::from(timeout))
    }
}

impl InspectedHealth {
    /// Whether its last run was in a container that has not been started since. Podman keeps the runs over a restart.
    fn is_since(&self, started_at: Option<Timestamp>) -> bool {
        let last = self.log.last().and_then(|run| run.start);
        last.zip(started_at)
            .is_none_or(|(last, started_at)| last >= started_at)
    }

    /// The probe, if its last run failed.
    fn failed(&self, kind: ProbeKind, check: &Healthcheck) -> Option<FailedProbe> {
        let last = self.log.last().filter(|run| run.exit_code != 0)?;
        let timed_out = last.is_late(check.timeout);
        let exit = u32::try_from(last.exit_code).ok();
        let failures = u32::try_from(self.failing_streak).unwrap_or_default();
        let threshold = check.retries;
        Some(FailedProbe {
            kind,
            failures: if threshold > 0 {
                failures.min(threshold)
            } else {
                failures
            },
            threshold,
            exit: exit.filter(|_| !timed_out),
            timed_out,
            output: last_line(&last.output, TEXT_CHARS_MAX),
        })
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct InspectedConfig {
    #[serde(default)]
    tty: bool,
    #[serde(default)]
    healthcheck_on_failure_action: String,
    #[serde(default)]
    healthcheck: Option<Healthcheck>,
    #[serde(default)]
    startup_health_check: Option<Healthcheck>,
}

/// Times are in nanoseconds; the `Test` `NONE` means that there is no check.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Healthcheck {
    #[serde(default)]
    test: Vec<String>,
    #[serde(default)]
    interval: u64,
    #[serde(default)]
    timeout: u64,
    #[serde(default)]
    retries: u32,
}

impl Healthcheck {
    fn schedule(&self) -> Option<Schedule> {
        let is_run = self.interval > 0 && self.test.first().is_some_and(|word| word != "NONE");
        is_run.then(|| Schedule {
            interval: Duration::from_nanos(self.interval),
            timeout: Duration::from_nanos(self.timeout),
        })
    }
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
            cgroup_path,
            out_of_memory,
            health,
        } = inspected.state;
        let InspectedConfig {
            tty,
            healthcheck_on_failure_action: on_unhealthy,
            healthcheck,
            startup_health_check: startup,
        } = inspected.config;
        let health = health.unwrap_or_default();
        let probe = match (probe(&health.status), &startup) {
            (Probe::Starting, None) => Probe::Silent,
            (probe, _) => probe,
        };
        let (kind, runs) = match (probe, startup) {
            (Probe::Starting, startup @ Some(_)) => (ProbeKind::Startup, startup),
            _ => (ProbeKind::Liveness, healthcheck),
        };
        let is_unprobed = runs
            .as_ref()
            .is_some_and(|check| check.test.first().is_some_and(|word| word == "NONE"));
        let failed = runs.as_ref().and_then(|check| health.failed(kind, check));
        let is_of_this_run = health.is_since(started_at);
        let failing = failed
            .clone()
            .filter(|probe| is_of_this_run && probe.failures > 0);
        let container = Container {
            id: inspected.id,
            role: role(inspected.is_infra, &inspected.name),
            name: inspected.name,
            run: run(&status),
            probe,
            restarts: inspected.restart_count,
            exit_code,
            started_at: seconds(started_at),
            exited_at: seconds(finished_at),
        };
        Self {
            container,
            conmon: Some(conmon_pid).filter(|pid| *pid != 0),
            cgroup: cgroup_path,
            restart: match inspected.host_config.restart_policy.name.as_str() {
                "always" | "unless-stopped" => Restart::Always,
                "on-failure" => Restart::OnFailure,
                _ => Restart::Never,
            },
            on_unhealthy,
            terminal: tty,
            image: inspected.image,
            schedule: runs.and_then(|check| check.schedule()),
            is_unprobed,
            failing,
            failed,
            out_of_memory,
        }
    }
}

/// The time in the form of [`Container`]. Podman writes the year 1 for "never".
fn seconds(time: Option<Timestamp>) -> i64 {
    time.map_or(-1, Timestamp::as_second)
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_probe_fails_while_its_last_run_in_this_run_of_the_container_failed() {
        let failing = |started: &str, streak: u32, end: &str, code: i32| {
            let text = format!(
                r#"{{"Id":"a","Name":"web-app","Config":{{"Healthcheck":{{"Test":["CMD","wget"],"Interval":5000000000,
                    "Timeout":2000000000,"Retries":3}}}},"State":{{"Status":"running","OOMKilled":true,
                    "StartedAt":"2026-11-29T16:01:{started}Z","Health":{{"Status":"healthy","FailingStreak":{streak},
                    "Log":[{{"Start":"2026-11-29T16:01:28.1Z","End":"2026-11-29T16:01:{end}Z","ExitCode":{code},
                    "Output":"Connecting\nwget: server returned error: HTTP/1.1 404 Not Found\n"}}]}}}}}}"#
            );
            let details = Details::from(serde_json::from_str::<InspectedContainer>(&text).unwrap());
            assert!(details.out_of_memory);
            details.failing
        };
        let probe = FailedProbe {
            kind: ProbeKind::Liveness,
            failures: 2,
            threshold: 3,
            exit: Some(1),
            timed_out: false,
            output: "wget: server returned error: HTTP/1.1 404 Not Found".into(),
        };
        let late = FailedProbe {
            failures: 3,
            exit: None,
            timed_out: true,
            ..probe.clone()
        };
        for (started, streak, end, code, expected) in [
            ("20", 2, "29.1", 1, Some(probe)),
            // Podman 5.4 keeps counting.
            ("20", 4, "30.2", 125, Some(late)),
            ("20", 0, "29.1", 0, None),
            ("30", 2, "29.1", 1, None),
        ] {
            assert_eq!(
                failing(started, streak, end, code),
                expected,
                "{started} {streak}"
            );
        }
    }

    #[test]
    fn only_a_startup_probe_has_a_container_wait() {
        let check =
            r#"{"Test":["CMD","true"],"Interval":5000000000,"Timeout":2000000000,"Retries":3}"#;
        let none = r#"{"Test":["NONE"],"Interval":5000000000}"#;
        for (config, probe, seconds) in [
            (
                format!(r#"{{"Healthcheck":{check}}}"#),
                Probe::Silent,
                Some(5),
            ),
            (
                format!(r#"{{"Healthcheck":{none},"StartupHealthCheck":{check}}}"#),
                Probe::Starting,
                Some(5),
            ),
            (format!(r#"{{"Healthcheck":{none}}}"#), Probe::Silent, None),
        ] {
            let text = format!(
                r#"{{"Id":"a","Name":"web-app","Config":{config},"State":{{"Status":"running",
                    "Health":{{"Status":"starting"}}}}}}"#
            );
            let details = Details::from(serde_json::from_str::<InspectedContainer>(&text).unwrap());
            assert_eq!(details.container.probe, probe, "{config}");
            let interval = details.schedule.map(|schedule| schedule.interval.as_secs());
            assert_eq!(interval, seconds, "{config}");
        }
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
