//! Podman's part in restarts: restart policies, the holder that keeps a pod while all its containers are down, running
//! probes, and signals.
//!
//! Observed on Podman 5.4 and 5.8:
//!
//! - A change of the restart policy of a running container takes effect at once and touches nothing else.
//! - The container's setting `health_on_failure` alone decides whether Podman ends the container for a failed probe and
//!   restarts it then; the restart policy does not.
//! - A start over the API sets Podman's own count of restarts to 0.
//! - A pod keeps its sandbox when its last running container ends, if it has a container that was only created.
//!
//! Podman 5.4 lets a probe run without a time limit.

use beemesh_protocol::percent;
use serde::Deserialize;
use serde_json::json;

use super::wire::{self, Call, null_is_empty};
use super::{DOWN_TIME_MAX, Details, LOOK_TIME_MAX, Podman, PodmanError, absent_is_gone};
use crate::health::{Restart, holder_name};

/// A running probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Its id.
    pub id: String,
    /// The PID of its first process on the host.
    pub pid: i32,
}

/// The state of a container's probes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Probing {
    /// The container's name.
    pub name: String,
    /// The running probes.
    pub sessions: Vec<Session>,
}

/// Answer of `GET /libpod/containers/NAME/json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Inspected {
    #[serde(default)]
    name: String,
    #[serde(default, rename = "ExecIDs", deserialize_with = "null_is_empty")]
    sessions: Vec<String>,
    config: Config,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Config {
    #[serde(default)]
    healthcheck: Option<Check>,
    #[serde(default)]
    startup_health_check: Option<Check>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Check {
    #[serde(default, deserialize_with = "null_is_empty")]
    test: Vec<String>,
}

/// Answer of `GET /libpod/exec/ID/json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct InspectedSession {
    #[serde(default)]
    running: bool,
    #[serde(default)]
    pid: i32,
    process_config: Process,
}

#[derive(Deserialize)]
struct Process {
    #[serde(default)]
    entrypoint: String,
    #[serde(default, deserialize_with = "null_is_empty")]
    arguments: Vec<String>,
}

impl Check {
    /// Whether Podman would run the check with this command line. For `CMD-SHELL` the command line begins with a shell.
    fn is_run_by(&self, process: &Process) -> bool {
        let words: Vec<&str> = [process.entrypoint.as_str()]
            .into_iter()
            .chain(process.arguments.iter().map(String::as_str))
            .collect();
        match self.test.split_first() {
            Some((kind, line)) if kind == "CMD-SHELL" => {
                words.first() == Some(&"sh")
                    && words.last() == line.last().map(String::as_str).as_ref()
            }
            Some((kind, command)) if kind == "CMD" => words == *command,
            _ => false,
        }
    }
}

impl Podman {
    /// Makes Podman stop restarting a container. When the container's probe has failed too often, Podman then ends the
    /// container and leaves the restart to the supervisor. With `Restart::OnFailure` Podman would restart it, because
    /// such a container may end with code 0.
    pub async fn hold(&self, container: &str, restart: Restart) -> Result<(), PodmanError> {
        if restart == Restart::Always {
            self.change_on_unhealthy(container, "restart", "stop")
                .await?;
        }
        self.set_restart(container, Restart::Never).await
    }

    /// Makes Podman restart a container again as its manifest says.
    pub async fn release(&self, container: &str, restart: Restart) -> Result<(), PodmanError> {
        self.change_on_unhealthy(container, "stop", "restart")
            .await?;
        // The policy is set last: a container with the policy of its manifest counts as released.
        self.set_restart(container, restart).await
    }

    /// Changes what Podman does when a container's probe has failed too often, if the current action is `from`.
    async fn change_on_unhealthy(
        &self,
        container: &str,
        from: &str,
        to: &str,
    ) -> Result<(), PodmanError> {
        let details = self.inspect(container).await?;
        // Podman refuses to change a probe that is disabled.
        let is_as_wanted =
            |details: Details| details.on_unhealthy != from || details.schedule.is_none();
        if details.is_none_or(is_as_wanted) {
            return Ok(());
        }
        let path = format!("/libpod/containers/{}/update", percent::encode(container));
        let operation = format!("set what a failed probe of container {container} does");
        let body = json!({ "health_on_failure": to });
        let call = Call::post(operation, path).body(&body);
        self.wire.empty(call.within(LOOK_TIME_MAX)).await
    }

    /// Sets what Podman does when a container ends. The container keeps running.
    pub(super) async fn set_restart(
        &self,
        container: &str,
        restart: Restart,
    ) -> Result<(), PodmanError> {
        // Podman 5.4 refuses any change of a container whose probe is disabled, unless the change disables it again.
        let details = self.inspect(container).await?;
        let body = match details.is_some_and(|details| details.is_unprobed) {
            true => json!({ "no_healthcheck": true }),
            false => json!({}),
        };
        let policy = match restart {
            Restart::Always => "always",
            Restart::OnFailure => "on-failure",
            Restart::Never => "no",
        };
        let path = format!(
            "/libpod/containers/{}/update?restartPolicy={policy}",
            percent::encode(container)
        );
        let call = Call::post(
            format!("set the restart policy of container {container}"),
            path,
        );
        self.wire
            .empty(call.body(&body).within(LOOK_TIME_MAX))
            .await
    }

    /// Creates the holder, which keeps a pod's sandbox while the pod's other containers are down. Beemesh never starts
    /// it; if a user starts it, it idles. If it exists already, the call succeeds.
    pub async fn make_holder(&self, pod: &str, image: &str) -> Result<(), PodmanError> {
        let made = self.create_holder(pod, &holder_name(pod), image, &[]).await;
        match made {
            Err(PodmanError::Refused { message, .. }) if message.contains("already in use") => {
                Ok(())
            }
            made => made,
        }
    }

    /// Sends a signal to a container's first process. Podman does not restart a container that ends by it.
    pub async fn signal(&self, container: &str, signal: &str) -> Result<(), PodmanError> {
        let query = wire::query(&[("signal", signal)]);
        let path = format!(
            "/libpod/containers/{}/kill{query}",
            percent::encode(container)
        );
        let call = Call::post(format!("send {signal} to container {container}"), path);
        self.wire.empty(call.within(LOOK_TIME_MAX)).await
    }

    /// Removes a pod's holder. If there is none, the call succeeds.
    pub async fn remove_holder(&self, pod: &str) -> Result<(), PodmanError> {
        let name = holder_name(pod);
        let path = format!("/libpod/containers/{}?force=true", percent::encode(&name));
        let call = Call::delete(format!("remove container {name}"), path).within(LOOK_TIME_MAX);
        absent_is_gone(self.wire.empty(call).await)
    }

    /// Stops a pod whose containers have ended: only the infra container still runs.
    pub async fn stop_pod(&self, pod: &str) -> Result<(), PodmanError> {
        let Some(id) = self.pod_id(pod).await? else {
            return Ok(());
        };
        let path = format!("/libpod/pods/{id}/stop");
        let call = Call::post(format!("stop pod {pod}"), path).within(DOWN_TIME_MAX);
        match self.wire.empty(call).await {
            // It is stopped already.
            Err(PodmanError::Refused { status: 304, .. }) => Ok(()),
            stopped => absent_is_gone(stopped),
        }
    }

    /// The state of a container's probes. A command of a user that equals the probe's command counts as a probe.
    pub async fn probing(&self, container: &str) -> Result<Probing, PodmanError> {
        let operation = format!("look at the probes of container {container}");
        let path = format!("/libpod/containers/{}/json", percent::encode(container));
        let call = Call::get(operation.clone(), path).within(LOOK_TIME_MAX);
        let inspected: Inspected = self.wire.json(call).await?;
        let Config {
            healthcheck,
            startup_health_check: startup,
        } = inspected.config;
        let checks: Vec<Check> = healthcheck.into_iter().chain(startup).collect();
        let mut sessions = Vec::new();
        for id in inspected.sessions {
            let path = format!("/libpod/exec/{}/json", percent::encode(&id));
            let call = Call::get(operation.clone(), path).within(LOOK_TIME_MAX);
            let session: InspectedSession = match self.wire.json(call).await {
                Ok(session) => session,
                // It has just ended.
                Err(PodmanError::Refused { .. }) => continue,
                Err(error) => return Err(error),
            };
            let is_probe = checks
                .iter()
                .any(|check| check.is_run_by(&session.process_config));
            if is_probe && session.running && session.pid > 0 {
                sessions.push(Session {
                    id,
                    pid: session.pid,
                });
            }
        }
        Ok(Probing {
            name: inspected.name,
            sessions,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_probes_own_command_is_a_probe() {
        let check =
            |test: &str| serde_json::from_str::<Check>(&format!(r#"{{"Test":{test}}}"#)).unwrap();
        let process = |text: &str| serde_json::from_str::<Process>(text).unwrap();
        let shell = process(
            r#"{"entrypoint":"sh","arguments":["-c","curl -f http://localhost:80/ || exit 1"]}"#,
        );
        let direct = process(r#"{"entrypoint":"/bin/busybox","arguments":["true"],"tty":false}"#);
        let bare = process(r#"{"entrypoint":"/bin/busybox","arguments":null}"#);
        for (test, process, expected) in [
            (r#"["CMD","/bin/busybox","true"]"#, &direct, true),
            (r#"["CMD","/bin/busybox"]"#, &bare, true),
            (r#"["CMD","/bin/busybox"]"#, &direct, false),
            (
                r#"["CMD-SHELL","curl -f http://localhost:80/ || exit 1"]"#,
                &shell,
                true,
            ),
            (r#"["CMD-SHELL","nc -z localhost 80"]"#, &shell, false),
            (r#"["NONE"]"#, &direct, false),
            ("null", &direct, false),
        ] {
            assert_eq!(check(test).is_run_by(process), expected, "{test}");
        }
    }
}
