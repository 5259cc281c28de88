//! Routes and fields of libpod's API that podman-api's client lacks, over the same socket.
//!
//! These are: `serviceContainer` on play, a body on down, errors inside a 200, the restart count of a container, a
//! bound on an answer's size, and inspections that still work when Podman adds or changes a field that Beemesh does not
//! use.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use beemesh_protocol::percent;
use hyper014::body::HttpBody as _;
use hyper014::client::Client;
use hyper014::{Body, Method, Request, Response};
use hyperlocal::UnixConnector;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::inspect::PodContainer;
use super::{PodmanError, error};
use crate::health::{Probe, Role, Run, is_holder};

/// The largest answer in bytes. A list of a thousand containers with fifty labels each is smaller.
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// The longest message of Podman about a failure, in bytes. People do not read more.
const MESSAGE_BYTES_MAX: usize = 4096;
/// The prefix of every route. Podman 5 and 6 answer it in the same way.
const VERSION: &str = "/v5.0.0";

/// The transport. It opens a connection for each call: Podman's service ends when it is idle, and a kept connection
/// would be stale.
#[derive(Debug, Clone)]
pub(super) struct Wire {
    client: Client<UnixConnector, Body>,
    socket: PathBuf,
}

/// One call and its limits.
#[derive(Debug)]
pub(super) struct Call<'a> {
    operation: String,
    method: Method,
    path: String,
    /// The body and its type.
    body: Option<(&'static str, Cow<'a, [u8]>)>,
    within: Duration,
}

impl<'a> Call<'a> {
    pub(super) fn get(operation: impl Into<String>, path: String) -> Self {
        Self::new(Method::GET, operation.into(), path)
    }

    pub(super) fn post(operation: impl Into<String>, path: String) -> Self {
        Self::new(Method::POST, operation.into(), path)
    }

    pub(super) fn head(operation: impl Into<String>, path: String) -> Self {
        Self::new(Method::HEAD, operation.into(), path)
    }

    pub(super) fn put(operation: impl Into<String>, path: String) -> Self {
        Self::new(Method::PUT, operation.into(), path)
    }

    pub(super) fn delete(operation: impl Into<String>, path: String) -> Self {
        Self::new(Method::DELETE, operation.into(), path)
    }

    fn new(method: Method, operation: String, path: String) -> Self {
        Self {
            operation,
            method,
            path,
            body: None,
            within: super::LOOK_TIME_MAX,
        }
    }

    pub(super) fn yaml(self, yaml: &'a [u8]) -> Self {
        Self {
            // Podman compares this as an exact string.
            body: Some(("application/yaml", Cow::Borrowed(yaml))),
            ..self
        }
    }

    pub(super) fn archive(self, archive: Vec<u8>) -> Self {
        Self {
            body: Some(("application/x-tar", Cow::Owned(archive))),
            ..self
        }
    }

    pub(super) fn body(self, value: &serde_json::Value) -> Self {
        Self {
            body: Some((
                "application/json",
                Cow::Owned(value.to_string().into_bytes()),
            )),
            ..self
        }
    }

    pub(super) fn within(self, within: Duration) -> Self {
        Self { within, ..self }
    }
}

/// The part of Podman's information on its host that Beemesh uses.
#[derive(Debug, Deserialize)]
pub(super) struct Info {
    pub(super) store: Store,
}

/// The file system of the storage.
#[derive(Debug, Deserialize)]
pub(super) struct Store {
    #[serde(rename = "graphRootAllocated", default)]
    pub(super) allocated: u64,
    #[serde(rename = "graphRootUsed", default)]
    pub(super) used: u64,
}

impl Wire {
    pub(super) fn new(socket: PathBuf) -> Self {
        Self {
            client: Client::builder()
                .pool_max_idle_per_host(0)
                .build(UnixConnector),
            socket,
        }
    }

    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }

    pub(super) async fn json<T: DeserializeOwned>(&self, call: Call<'_>) -> Result<T, PodmanError> {
        let operation = call.operation.clone();
        let answer = self.bytes(call).await?;
        serde_json::from_slice(&answer).map_err(|error| PodmanError::Unreadable {
            operation,
            reason: error.to_string(),
        })
    }

    pub(super) async fn empty(&self, call: Call<'_>) -> Result<(), PodmanError> {
        self.bytes(call).await.map(|_| ())
    }

    /// Reads the whole answer.
    pub(super) async fn bytes(&self, call: Call<'_>) -> Result<Vec<u8>, PodmanError> {
        let (operation, within) = (call.operation.clone(), call.within);
        let answer = async {
            let response = self.send(call).await?;
            self.collect(&operation, response, ANSWER_BYTES_MAX).await
        };
        match tokio::time::timeout(within, answer).await {
            Ok(answer) => answer,
            Err(_) => Err(PodmanError::Late {
                operation,
                after: within,
            }),
        }
    }

    /// Sends the call and returns the head of the answer, with the body unread. The time limit ends here.
    pub(super) async fn open(&self, call: Call<'_>) -> Result<Body, PodmanError> {
        let (operation, within) = (call.operation.clone(), call.within);
        match tokio::time::timeout(within, self.send(call)).await {
            Ok(response) => Ok(response?.into_body()),
            Err(_) => Err(PodmanError::Late {
                operation,
                after: within,
            }),
        }
    }

    async fn send(&self, call: Call<'_>) -> Result<Response<Body>, PodmanError> {
        let uri: hyper014::Uri =
            hyperlocal::Uri::new(&self.socket, &format!("{VERSION}{}", call.path)).into();
        let mut request = Request::builder()
            .method(call.method)
            .uri(uri)
            .header("Host", "podman");
        if let Some((kind, _)) = &call.body {
            request = request.header("Content-Type", *kind);
        }
        let body = call
            .body
            .map_or_else(Body::empty, |(_, body)| Body::from(body.into_owned()));
        let request = request
            .body(body)
            .map_err(|error| PodmanError::Unreadable {
                operation: call.operation.clone(),
                reason: error.to_string(),
            })?;
        let response = self.client.request(request).await;
        let response =
            response.map_err(|error| error::from_hyper(&call.operation, &self.socket, &error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let words = self
            .collect(&call.operation, response, ANSWER_BYTES_MAX)
            .await?;
        let message = refusal(&words);
        Err(PodmanError::Refused {
            operation: call.operation,
            status: status.as_u16(),
            message,
        })
    }

    async fn collect(
        &self,
        operation: &str,
        response: Response<Body>,
        bytes_max: usize,
    ) -> Result<Vec<u8>, PodmanError> {
        let mut body = response.into_body();
        let mut bytes = Vec::new();
        while let Some(chunk) = body.data().await {
            let chunk =
                chunk.map_err(|error| error::from_hyper(operation, &self.socket, &error))?;
            if bytes.len() + chunk.len() > bytes_max {
                let reason = format!("more than {bytes_max} bytes");
                return Err(PodmanError::Unreadable {
                    operation: operation.to_owned(),
                    reason,
                });
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }
}

/// Podman's message in an error answer.
fn refusal(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Words {
        message: String,
    }
    let mut words = serde_json::from_slice::<Words>(body).map_or_else(
        |_| String::from_utf8_lossy(body).trim().to_owned(),
        |words| words.message,
    );
    cut(&mut words);
    words
}

fn cut(words: &mut String) {
    if let Some((end, _)) = words
        .char_indices()
        .find(|(at, _)| *at >= MESSAGE_BYTES_MAX)
    {
        words.truncate(end);
    }
}

/// `?a=b&c=d`.
pub(super) fn query(pairs: &[(&str, &str)]) -> String {
    let pairs: Vec<String> = pairs
        .iter()
        .map(|(key, value)| format!("{key}={}", percent::encode(value)))
        .collect();
    format!("?{}", pairs.join("&"))
}

/// The value of `filters=`. Values of one key are alternatives; all keys must match.
pub(super) fn filters(filters: &[(&str, &[&str])]) -> String {
    let map: BTreeMap<_, _> = filters.iter().copied().collect();
    serde_json::to_string(&map).expect("a map of strings is always JSON")
}

/// The result of a pull: the stream of a failed pull holds an `error` object.
pub(super) fn pull_outcome(answer: &[u8]) -> Result<(), String> {
    #[derive(Deserialize)]
    struct Report {
        #[serde(default)]
        error: String,
    }
    let mut pulled = false;
    for report in serde_json::Deserializer::from_slice(answer).into_iter::<Report>() {
        let Report { error } =
            report.map_err(|error| format!("unexpected answer from Podman: {error}"))?;
        if !error.is_empty() {
            let mut error = error;
            cut(&mut error);
            return Err(error);
        }
        pulled = true;
    }
    if pulled {
        Ok(())
    } else {
        Err("Podman gave no answer".to_owned())
    }
}

/// The reasons for which containers could not be started, each `starting container ID: WORDS`, with the containers'
/// names. If the infra container is among them, only its reason is returned, because the other failures follow from it.
pub(super) fn start_errors(all: &[String], containers: &[PodContainer], pod: &str) -> Vec<String> {
    let infra = format!("{}-infra", pod.get(..12).unwrap_or(pod));
    let told = all
        .iter()
        .map(|words| start_error(words, containers, &infra));
    let (of_pod, of_containers): (Vec<_>, Vec<_>) = told.partition(|(is_infra, _)| *is_infra);
    let told = if of_pod.is_empty() {
        of_containers
    } else {
        of_pod
    };
    told.into_iter().map(|(_, words)| words).collect()
}

fn start_error(words: &str, containers: &[PodContainer], infra: &str) -> (bool, String) {
    let Some((id, words)) = words
        .strip_prefix("starting container ")
        .and_then(|rest| rest.split_once(": "))
    else {
        return (false, words.to_owned());
    };
    let name = containers
        .iter()
        .find(|container| container.id == id)
        .map_or(id, |container| container.name.as_str());
    // The last part repeats the part before it as a name of Podman's own error type.
    let words = words
        .strip_suffix(": OCI runtime attempted to invoke a command that was not found")
        .unwrap_or(words);
    match name == infra {
        true => (true, format!("the pod cannot start: {words}")),
        false => (false, format!("container {name} cannot start: {words}")),
    }
}

pub(super) fn run(state: &str) -> Run {
    match state {
        "running" => Run::Running,
        "paused" => Run::Paused,
        "stopping" | "removing" => Run::Stopping,
        "exited" | "stopped" => Run::Exited,
        // `created`, `initialized`, `configured`; a container in an unknown state of a later Podman counts as not run.
        _ => Run::Created,
    }
}

pub(super) fn probe(status: &str) -> Probe {
    match status {
        "starting" => Probe::Starting,
        "healthy" => Probe::Healthy,
        "unhealthy" => Probe::Unhealthy,
        // Empty without a healthcheck; `stopped` while the container does not run.
        _ => Probe::Absent,
    }
}

pub(super) fn role(is_infra: bool, name: &str) -> Role {
    match is_infra {
        true => Role::Infra,
        false if is_holder(name) => Role::Holder,
        false => Role::Member,
    }
}

/// Answer of `GET /libpod/containers/json`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ListedContainer {
    pub(super) id: String,
    #[serde(default)]
    pub(super) names: Vec<String>,
    #[serde(default)]
    pub(super) pod: String,
    #[serde(default)]
    pub(super) pod_name: String,
    #[serde(default)]
    pub(super) labels: Option<BTreeMap<String, String>>,
    #[serde(default)]
    pub(super) is_infra: bool,
    #[serde(default)]
    pub(super) state: String,
    #[serde(default)]
    pub(super) status: String,
    #[serde(default)]
    pub(super) restarts: u32,
    #[serde(default)]
    pub(super) exit_code: i32,
    #[serde(default)]
    pub(super) started_at: i64,
    #[serde(default)]
    pub(super) exited_at: i64,
}

/// Answer of play and down. An empty list is `null`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct PlayReport {
    #[serde(default, deserialize_with = "null_is_empty")]
    pub(super) pods: Vec<PlayedPod>,
    #[serde(default, rename = "ServiceContainerID")]
    pub(super) service: String,
    #[serde(default, deserialize_with = "null_is_empty")]
    stop_report: Vec<Removal>,
    #[serde(default, deserialize_with = "null_is_empty")]
    rm_report: Vec<Removal>,
    #[serde(default, deserialize_with = "null_is_empty")]
    secret_rm_report: Vec<Removal>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct PlayedPod {
    #[serde(rename = "ID")]
    pub(super) id: String,
    #[serde(default, deserialize_with = "null_is_empty")]
    pub(super) container_errors: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Removal {
    #[serde(default)]
    id: String,
    #[serde(default, deserialize_with = "null_is_empty")]
    errs: Vec<serde_json::Value>,
    #[serde(default)]
    err: serde_json::Value,
}

impl PlayReport {
    pub(super) fn removed_pods(&self) -> impl Iterator<Item = &str> {
        self.stop_report
            .iter()
            .chain(&self.rm_report)
            .map(|removal| removal.id.as_str())
            .filter(|id| !id.is_empty())
    }

    pub(super) fn down_errors(&self) -> Vec<String> {
        let reports = self
            .stop_report
            .iter()
            .chain(&self.rm_report)
            .chain(&self.secret_rm_report);
        let errors = reports.flat_map(|removal| removal.errs.iter().chain([&removal.err]));
        errors
            .filter_map(|error| match error {
                serde_json::Value::Null => None,
                serde_json::Value::String(words) => Some(words.clone()),
                other => Some(other.to_string()),
            })
            .collect()
    }
}

pub(super) fn null_is_empty<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de>,
{
    Ok(Option::<Vec<T>>::deserialize(deserializer)?.unwrap_or_default())
}

/// An entry of a list of volumes.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Named {
    pub(super) name: String,
}

/// An entry of a list of secrets.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ListedSecret {
    pub(super) spec: Named,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pull_is_judged_by_its_body() {
        for (answer, expected) in [
            (&br#"{"images":["abc"],"id":"abc"}"#[..], Ok(())),
            (
                b"{\"stream\":\"Trying\"}\n{\"images\":[\"abc\"],\"id\":\"abc\"}\n",
                Ok(()),
            ),
            (
                b"{\"stream\":\"Trying\"}\n{\"error\":\"no such host\"}\n",
                Err("no such host".to_owned()),
            ),
            (b"", Err("Podman gave no answer".to_owned())),
        ] {
            assert_eq!(
                pull_outcome(answer),
                expected,
                "{}",
                String::from_utf8_lossy(answer)
            );
        }
    }

    #[test]
    fn a_down_is_judged_by_its_body() {
        let report: PlayReport = serde_json::from_str(
            r#"{"Pods":null,"StopReport":[{"Id":"p","RawInput":"web","Errs":["timed out"]}],
                "RmReport":[{"Id":"p","Err":null,"RemovedCtrs":null}],"SecretRmReport":[{"ID":"s","Err":"in use"}]}"#,
        )
        .unwrap();
        assert_eq!(report.down_errors(), ["timed out", "in use"]);
        assert_eq!(report.removed_pods().collect::<Vec<_>>(), ["p", "p"]);
    }

    #[test]
    fn a_container_that_cannot_start_is_named() {
        let inside: PodContainer =
            serde_json::from_str(r#"{"Id":"07c1","Name":"web-app","State":"created"}"#).unwrap();
        for (words, expected) in [
            (
                "starting container 07c1: crun: executable file `/nope` not found in $PATH: No such file or directory: \
                 OCI runtime attempted to invoke a command that was not found",
                "container web-app cannot start: crun: executable file `/nope` not found in $PATH: \
                 No such file or directory",
            ),
            ("some other words", "some other words"),
        ] {
            let all = [words.to_owned()];
            assert_eq!(
                start_errors(&all, std::slice::from_ref(&inside), "p"),
                [expected]
            );
        }
    }

    #[test]
    fn where_the_pod_has_no_addresses_that_is_told_and_not_what_follows() {
        let containers = r#"[{"Id":"742c","Name":"c59e33d7806b-infra","State":"created"},
            {"Id":"07c1","Name":"ports-app","State":"created"}]"#;
        let containers: Vec<PodContainer> = serde_json::from_str(containers).unwrap();
        let taken =
            "cannot listen on the TCP port: listen tcp4 :8099: bind: address already in use";
        let all = [
            format!("starting container 742c: {taken}"),
            "starting container 07c1: a dependency of container 07c1 failed to start".to_owned(),
        ];
        let told = start_errors(&all, &containers, "c59e33d7806bffff");
        assert_eq!(told, [format!("the pod cannot start: {taken}")]);
    }

    #[test]
    fn queries_are_escaped() {
        let filters = filters(&[("label", &["beemesh.io/workload=web"])]);
        assert_eq!(
            query(&[("all", "true"), ("filters", &filters)]),
            "?all=true&filters=%7B%22label%22%3A%5B%22beemesh.io%2Fworkload%3Dweb%22%5D%7D"
        );
    }
}
