//! Podman's API over its socket: what Beemesh asks of it, each call bounded, each answer checked.
//!
//! Owner of the connection: [`Podman`], cheap to clone. Input: names, ids and the bytes that are played. Output: owned
//! values and [`PodmanError`]s that a person can read. Does I/O and decides nothing.
//!
//! podman-api's client carries the calls it can; [`wire`] has those it lacks. A status of 200 is never taken as success
//! where Podman reports failures in the body: play, down and pull.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use beemesh_protocol::{hex::Hex, percent};
use podman_api::opts::{PodListFilter, PodListOpts};
use podman_api::{ApiVersion, Podman as Client};
use sha2::{Digest as _, Sha256};

use crate::health::{Container, Restart, Run};
use crate::render;

mod debris;
mod end;
mod error;
mod events;
mod inspect;
mod logs;
mod restarts;
mod wire;

pub use error::PodmanError;
pub use events::{Change, Event, Events};
use inspect::{InspectedContainer, InspectedPod, PodContainer};
pub use restarts::{Probing, Session};
use wire::{Call, Wire};

/// Where Podman's API listens on a host.
pub const SOCKET: &str = "/run/podman/podman.sock";
/// The pod label that names the workload.
pub const LABEL_WORKLOAD: &str = "beemesh.io/workload";
/// The pod label with the workload's revision.
pub const LABEL_REVISION: &str = "beemesh.io/revision";
/// The pod label with the log index of the revision.
pub const LABEL_INDEX: &str = "beemesh.io/index";

/// A look at something. Podman answers in milliseconds; behind a storage lock held by a pull it can take seconds.
const LOOK_TIME_MAX: Duration = Duration::from_secs(20);
/// Playing a pod whose images are there takes under a second on a quiet host; a loaded one with fifty containers more.
const PLAY_TIME_MAX: Duration = Duration::from_secs(180);
/// Taking a pod down waits for its containers' grace periods, which may be an hour.
const DOWN_TIME_MAX: Duration = Duration::from_secs(3660);
/// A large image over a slow line.
const PULL_TIME_MAX: Duration = Duration::from_secs(1800);

/// A client of one Podman.
#[derive(Debug, Clone)]
pub struct Podman {
    client: Client,
    wire: Wire,
}

/// A pod and its containers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its containers, the infra container included.
    pub containers: Vec<Container>,
}

impl Pod {
    /// The workload it runs, if it is one of Beemesh's pods.
    pub fn workload(&self) -> Option<&str> {
        self.labels.get(LABEL_WORKLOAD).map(String::as_str)
    }

    /// The revision it runs.
    pub fn revision(&self) -> Option<u64> {
        self.labels.get(LABEL_REVISION)?.parse().ok()
    }

    /// The log index of the revision it runs.
    pub fn index(&self) -> Option<u64> {
        self.labels.get(LABEL_INDEX)?.parse().ok()
    }
}

/// What an inspection of a container tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Details {
    /// What a list tells too.
    pub container: Container,
    /// The process that watches it, and writes its log.
    pub conmon: Option<u32>,
    /// What Podman does when it ends.
    pub restart: Restart,
    /// What Podman does when its probe has failed too often, like `restart`.
    pub on_unhealthy: String,
    /// Whether its output is a terminal's.
    pub terminal: bool,
    /// The id of its image.
    pub image: String,
    /// The probe that Podman runs in it now.
    pub schedule: Option<Schedule>,
}

/// How Podman runs a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    /// From the end of one run to the start of the next.
    pub interval: Duration,
    /// What one run may take.
    pub timeout: Duration,
}

/// A pod that was played and whose containers were all started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Played {
    /// The pod's id.
    pub pod: String,
    /// The service container's id.
    pub service: String,
}

impl Podman {
    /// A client of the Podman that listens on `socket`. Connects with each call, so the socket may come later.
    pub fn new(socket: &Path) -> Self {
        Self {
            client: Client::unix_versioned(socket, ApiVersion::new(5, Some(0), Some(0))),
            wire: Wire::new(socket.to_path_buf()),
        }
    }

    /// The socket this client talks to.
    pub fn socket(&self) -> &Path {
        self.wire.socket()
    }

    /// Podman's version, like `5.4.2`.
    pub async fn version(&self) -> Result<String, PodmanError> {
        let answer = self
            .bounded("ask for the version", self.client.version())
            .await?;
        Ok(answer.version.unwrap_or_default())
    }

    /// The pods that have every one of `labels` (`key` or `key=value`), with their containers.
    pub async fn pods(&self, labels: &[&str]) -> Result<Vec<Pod>, PodmanError> {
        let filters = labels.iter().map(|label| match label.split_once('=') {
            Some((key, value)) => PodListFilter::LabelKeyVal(key.to_owned(), value.to_owned()),
            None => PodListFilter::LabelKey((*label).to_owned()),
        });
        let options = PodListOpts::builder().filter(filters).build();
        self.with_containers(
            "list pods",
            self.bounded("list pods", self.client.pods().list(&options))
                .await?,
        )
        .await
    }

    /// The names of the pods that have a container with the label `key`, each with the label's value.
    ///
    /// To list the pods themselves, Podman waits for each that is being stopped, up to its grace period; for this it waits for none.
    pub async fn pods_labelled(&self, key: &str) -> Result<BTreeMap<String, String>, PodmanError> {
        let filters = wire::filters(&[("label", &[key])]);
        let query = wire::query(&[("all", "true"), ("pod", "true"), ("filters", &filters)]);
        let call = Call::get("list containers", format!("/libpod/containers/json{query}"));
        let listed: Vec<wire::ListedContainer> = self.wire.json(call.within(LOOK_TIME_MAX)).await?;
        let pod = |mut container: wire::ListedContainer| {
            let value = container.labels.as_mut()?.remove(key)?;
            (!container.pod_name.is_empty()).then_some((container.pod_name, value))
        };
        Ok(listed.into_iter().filter_map(pod).collect())
    }

    /// The pod of that name, whoever made it.
    pub async fn pod(&self, name: &str) -> Result<Option<Pod>, PodmanError> {
        let operation = format!("look for pod {name}");
        // Podman takes the name as a pattern.
        let options = PodListOpts::builder()
            .filter([PodListFilter::Name(format!("^{name}$"))])
            .build();
        let listed = self
            .bounded(&operation, self.client.pods().list(&options))
            .await?;
        let pods = self.with_containers(&operation, listed).await?;
        Ok(pods.into_iter().find(|pod| pod.name == name))
    }

    async fn with_containers(
        &self,
        operation: &str,
        listed: Vec<podman_api::models::ListPodsReport>,
    ) -> Result<Vec<Pod>, PodmanError> {
        let mut pods: BTreeMap<String, Pod> = BTreeMap::new();
        for pod in listed {
            let Some(id) = pod.id else { continue };
            let name = pod.name.unwrap_or_default();
            let labels = pod.labels.unwrap_or_default().into_iter().collect();
            pods.insert(
                id.clone(),
                Pod {
                    id,
                    name,
                    labels,
                    containers: Vec::new(),
                },
            );
        }
        if pods.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<&str> = pods.keys().map(String::as_str).collect();
        for container in self.listed(operation, &ids).await? {
            if let Some(pod) = pods.get_mut(&container.pod) {
                pod.containers.push(container.into());
            }
        }
        Ok(pods.into_values().collect())
    }

    /// The pod of that name, whoever made it, and the details of its containers. How long that takes does not grow with what else is
    /// on the host, as [`Podman::pod`] does. `None` when anything that belongs to it is missing, damaged, or just coming or
    /// going: then only a list says what there is.
    pub async fn inspect_pod(
        &self,
        name: &str,
    ) -> Result<Option<(Pod, Vec<Details>)>, PodmanError> {
        let path = format!("/libpod/pods/{}/json", percent::encode(name));
        let call = Call::get(format!("inspect pod {name}"), path).within(LOOK_TIME_MAX);
        let inspected: InspectedPod = match self.wire.json(call).await {
            Err(PodmanError::Refused { .. }) => return Ok(None),
            inspected => inspected?,
        };
        // Podman also takes the beginning of an id for a name.
        if inspected.name != name {
            return Ok(None);
        }
        let mut details = Vec::with_capacity(inspected.containers.len());
        for container in &inspected.containers {
            match self.inspect(&container.id).await {
                Ok(Some(found)) => details.push(found),
                Ok(None) | Err(PodmanError::Refused { .. }) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        let containers = details.iter().map(|details| details.container.clone());
        let pod = Pod {
            id: inspected.id,
            name: inspected.name,
            labels: inspected.labels.unwrap_or_default(),
            containers: containers.collect(),
        };
        Ok(Some((pod, details)))
    }

    /// What an inspection tells of a container; `None` if there is no such container.
    pub async fn inspect(&self, container: &str) -> Result<Option<Details>, PodmanError> {
        let path = format!("/libpod/containers/{}/json", percent::encode(container));
        let call = Call::get(format!("inspect container {container}"), path).within(LOOK_TIME_MAX);
        match self.wire.json::<InspectedContainer>(call).await {
            Ok(inspected) => Ok(Some(inspected.into())),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Starts a container that has ended.
    pub async fn start(&self, container: &str) -> Result<(), PodmanError> {
        let path = format!("/libpod/containers/{}/start", percent::encode(container));
        let call = Call::post(format!("start container {container}"), path).within(PLAY_TIME_MAX);
        match self.wire.empty(call).await {
            // It runs already.
            Err(PodmanError::Refused { status: 304, .. }) | Ok(()) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Whether the image is in local storage.
    pub async fn image_exists(&self, reference: &str) -> Result<bool, PodmanError> {
        let operation = format!("look for image {reference}");
        self.bounded(&operation, self.client.images().get(reference).exists())
            .await
    }

    /// Pulls an image from its registry. Podman answers 200 to a pull that fails, with the error in the body.
    pub async fn pull(&self, reference: &str) -> Result<(), PodmanError> {
        let query = wire::query(&[
            ("reference", reference),
            ("policy", "always"),
            ("quiet", "true"),
        ]);
        let call = Call::post(
            format!("pull image {reference}"),
            format!("/libpod/images/pull{query}"),
        );
        let answer = match self.wire.bytes(call.within(PULL_TIME_MAX)).await {
            Err(PodmanError::Refused { message, .. }) => {
                return Err(PodmanError::Pull {
                    image: reference.to_owned(),
                    reason: message,
                });
            }
            other => other?,
        };
        match wire::pull_outcome(&answer) {
            Ok(()) => Ok(()),
            Err(reason) => Err(PodmanError::Pull {
                image: reference.to_owned(),
                reason,
            }),
        }
    }

    /// Plays one workload's YAML with a service container. Success: every container was started.
    ///
    /// Podman rolls nothing back: after an error call [`Podman::down`] and
    /// [`Podman::remove_strays`] with the same bytes.
    pub async fn play(&self, yaml: &[u8]) -> Result<Played, PodmanError> {
        let query = wire::query(&[("serviceContainer", "true")]);
        let call = Call::post("play the pod", format!("/libpod/play/kube{query}"));
        let report: wire::PlayReport = self
            .wire
            .json(call.yaml(yaml).within(PLAY_TIME_MAX))
            .await?;
        let Some(pod) = report.pods.into_iter().next() else {
            return Err(PodmanError::Unplayed);
        };
        let containers = self.inside("look at the played pod", &pod.id).await?;
        let mut errors: Vec<String> = pod
            .container_errors
            .iter()
            .map(|words| wire::start_error(words, &containers))
            .collect();
        if errors.is_empty() {
            let unstarted = containers
                .iter()
                .filter(|container| wire::run(&container.state) == Run::Created);
            errors.extend(
                unstarted.map(|container| format!("container {} was not started", container.name)),
            );
        }
        if errors.is_empty() {
            Ok(Played {
                pod: pod.id,
                service: report.service,
            })
        } else {
            Err(PodmanError::Start { errors })
        }
    }

    /// The containers of a pod by its id. What cannot be inspected, for a part of it is just coming or going, is listed.
    async fn inside(&self, operation: &str, pod: &str) -> Result<Vec<PodContainer>, PodmanError> {
        let call = Call::get(operation, format!("/libpod/pods/{pod}/json")).within(LOOK_TIME_MAX);
        match self.wire.json::<InspectedPod>(call).await {
            Err(PodmanError::Refused { .. }) => {
                let listed = self.listed(operation, &[pod]).await?;
                Ok(listed.into_iter().map(PodContainer::from).collect())
            }
            inspected => Ok(inspected?.containers),
        }
    }

    /// The containers of some pods by their ids. Podman reads all containers of the host for that.
    async fn listed(
        &self,
        operation: &str,
        pods: &[&str],
    ) -> Result<Vec<wire::ListedContainer>, PodmanError> {
        let query = wire::query(&[
            ("all", "true"),
            ("filters", &wire::filters(&[("pod", pods)])),
        ]);
        let call = Call::get(operation, format!("/libpod/containers/json{query}"));
        self.wire.json(call.within(LOOK_TIME_MAX)).await
    }

    /// Takes down what `yaml` describes: its pod, service container and secrets, not its volumes. What is not there is
    /// down already.
    pub async fn down(&self, yaml: &[u8]) -> Result<(), PodmanError> {
        let signals = render::stop_signals(yaml);
        for pod in render::pod_names(yaml) {
            self.end(&pod, &signals).await?;
        }
        let call = Call::delete("take the pod down", "/libpod/play/kube".to_owned());
        let report: wire::PlayReport = self
            .wire
            .json(call.yaml(yaml).within(DOWN_TIME_MAX))
            .await?;
        let errors: Vec<String> = report.down_errors();
        for pod in report.removed_pods() {
            let operation = format!("look for pod {pod}");
            if self
                .bounded(&operation, self.client.pods().get(pod).exists())
                .await?
            {
                let errors = if errors.is_empty() {
                    vec![format!("pod {pod} is still there")]
                } else {
                    errors.clone()
                };
                return Err(PodmanError::Down { errors });
            }
        }
        Ok(())
    }

    /// Removes a pod with its containers, running or not, whatever YAML made it. No such pod is a success.
    pub async fn remove_pod(&self, name: &str) -> Result<(), PodmanError> {
        self.end(name, &BTreeMap::new()).await?;
        let path = format!("/libpod/pods/{}?force=true", percent::encode(name));
        let call = Call::delete(format!("remove pod {name}"), path).within(DOWN_TIME_MAX);
        absent_is_gone(self.wire.empty(call).await)
    }

    /// Volumes whose name starts with `prefix`.
    pub async fn volumes(&self, prefix: &str) -> Result<Vec<String>, PodmanError> {
        let call =
            Call::get("list volumes", "/libpod/volumes/json".to_owned()).within(LOOK_TIME_MAX);
        let listed: Option<Vec<wire::Named>> = self.wire.json(call).await?;
        let names = listed
            .unwrap_or_default()
            .into_iter()
            .map(|volume| volume.name);
        Ok(names.filter(|name| name.starts_with(prefix)).collect())
    }

    /// Removes a volume that no container uses. No such volume is a success.
    pub async fn remove_volume(&self, name: &str) -> Result<(), PodmanError> {
        let operation = format!("remove volume {name}");
        absent_is_gone(
            self.bounded(&operation, self.client.volumes().get(name).delete())
                .await,
        )
    }

    /// Secrets whose name starts with `prefix`.
    pub async fn secrets(&self, prefix: &str) -> Result<Vec<String>, PodmanError> {
        let call =
            Call::get("list secrets", "/libpod/secrets/json".to_owned()).within(LOOK_TIME_MAX);
        let listed: Option<Vec<wire::ListedSecret>> = self.wire.json(call).await?;
        let names = listed
            .unwrap_or_default()
            .into_iter()
            .map(|secret| secret.spec.name);
        Ok(names.filter(|name| name.starts_with(prefix)).collect())
    }

    /// Removes a secret. No such secret is a success.
    pub async fn remove_secret(&self, name: &str) -> Result<(), PodmanError> {
        let operation = format!("remove secret {name}");
        absent_is_gone(
            self.bounded(&operation, self.client.secrets().get(name).delete())
                .await,
        )
    }

    /// Events of containers that have `label` (`key` or `key=value`), from now on, reconnecting for ever.
    ///
    /// Events are hints: look again at every [`Change::Connected`], and now and then.
    pub fn events(&self, label: &str) -> Events {
        Events::follow(self.wire.clone(), label)
    }

    /// A container's output: what is there since `since`, in seconds since 1970, at most the last `tail` lines of it, and with `follow`
    /// what comes until the container ends.
    pub async fn logs(
        &self,
        container: &str,
        follow: bool,
        tail: Option<u32>,
        since: Option<i64>,
    ) -> Result<
        impl futures::Stream<Item = Result<bytes::Bytes, PodmanError>> + Send + use<>,
        PodmanError,
    > {
        let operation = format!("read the output of container {container}");
        let Some(details) = self.inspect(container).await? else {
            return Err(PodmanError::Refused {
                operation,
                status: 404,
                message: "no such container".to_owned(),
            });
        };
        let wanted = logs::Wanted {
            follow,
            tail,
            since,
        };
        logs::open(&self.wire, operation, &details, wanted).await
    }

    async fn bounded<T>(
        &self,
        operation: &str,
        call: impl Future<Output = podman_api::Result<T>>,
    ) -> Result<T, PodmanError> {
        match tokio::time::timeout(LOOK_TIME_MAX, call).await {
            Ok(answer) => {
                answer.map_err(|error| error::from_client(operation, self.socket(), error))
            }
            Err(_) => Err(PodmanError::Late {
                operation: operation.to_owned(),
                after: LOOK_TIME_MAX,
            }),
        }
    }
}

fn absent_is_gone(outcome: Result<(), PodmanError>) -> Result<(), PodmanError> {
    match outcome {
        Err(error) if error.is_not_found() => Ok(()),
        other => other,
    }
}

/// The name of the service container that Podman makes for exactly these bytes.
pub fn service_container(yaml: &[u8]) -> String {
    format!("{}-service", Hex(&Sha256::digest(yaml)[..6]))
}

/// The socket of a host's Podman.
pub fn socket() -> PathBuf {
    PathBuf::from(SOCKET)
}

impl From<wire::ListedContainer> for Container {
    fn from(listed: wire::ListedContainer) -> Self {
        let name = listed.names.into_iter().next().unwrap_or_default();
        Self {
            id: listed.id,
            role: wire::role(listed.is_infra, &name),
            name,
            run: wire::run(&listed.state),
            probe: wire::probe(&listed.status),
            restarts: listed.restarts,
            exit_code: listed.exit_code,
            started_at: listed.started_at,
            exited_at: listed.exited_at,
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn service_container_is_named_as_podman_names_it() {
        // sha256sum of "abc" begins with ba7816bf8f01.
        assert_eq!(super::service_container(b"abc"), "ba7816bf8f01-service");
    }
}
