//! A client of Podman's API over its socket, with a time limit for each call and a check of each answer.
//!
//! Owner of the connection: [`Podman`], cheap to clone. Input: names, ids and the bytes to play. Output: owned values,
//! and [`PodmanError`]s that a person can read. Does I/O and decides nothing.
//!
//! podman-api's client sends the calls that it supports; [`wire`] sends the others. Podman answers play, down and pull
//! with status 200 and reports their failures in the body, so for them the status alone never counts as success.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use beemesh_protocol::{hex::Hex, percent, pod::FailedProbe};
use podman_api::opts::{PodListFilter, PodListOpts};
use podman_api::{ApiVersion, Podman as Client};
use sha2::{Digest as _, Sha256};

use crate::health::{Container, Restart, Run};
use crate::render;

mod address;
mod create;
mod debris;
mod down;
mod end;
mod error;
mod events;
mod exec;
mod images;
mod inspect;
mod logs;
mod prepare;
mod restarts;
pub mod served_events;
mod volumes;
mod wire;

pub use error::PodmanError;
pub use events::{Change, Event, Events};
pub use exec::ExecState;
pub use images::StoredImage;
use inspect::{InspectedContainer, InspectedPod, PodContainer};
pub use restarts::{Probing, Session};
use wire::{Call, Wire};

/// The socket of Podman's API on a host.
pub const SOCKET: &str = "/run/podman/podman.sock";
/// The pod label that names the workload.
pub const LABEL_WORKLOAD: &str = "beemesh.io/workload";
/// The pod label with the workload's revision.
pub const LABEL_REVISION: &str = "beemesh.io/revision";
/// The pod label with the log index of the revision.
pub const LABEL_INDEX: &str = "beemesh.io/index";

/// The time limit of a query. Podman answers in milliseconds; it can take seconds while a pull holds a storage lock.
const LOOK_TIME_MAX: Duration = Duration::from_secs(20);
/// The time limit of a play. It takes under a second on a quiet host if all images are in the storage; a loaded host
/// with fifty containers needs more.
const PLAY_TIME_MAX: Duration = Duration::from_secs(180);
/// The time limit of taking a pod down. It waits for the containers' grace periods, which may be an hour.
const DOWN_TIME_MAX: Duration = Duration::from_secs(3660);
/// The time limit of a pull: a large image over a slow line.
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

    /// Whether the supervisor of its workload starts its containers.
    pub fn is_started_by_supervisor(&self) -> bool {
        self.labels.contains_key(render::START)
    }

    /// Returns true if it is the pod of a singleton.
    pub fn needs_lease(&self) -> bool {
        self.labels.contains_key(render::LEASE)
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

/// The result of an inspection of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Details {
    /// The part that a list has, too.
    pub container: Container,
    /// The PID of conmon, which monitors the container and writes its log.
    pub conmon: Option<u32>,
    /// The path of its control group; empty if it does not run.
    pub cgroup: String,
    /// What Podman does when the container ends.
    pub restart: Restart,
    /// What Podman does when the container's probe has failed too often. The words are those of Podman.
    pub on_unhealthy: String,
    /// Whether the container has a terminal.
    pub terminal: bool,
    /// The id of its image.
    pub image: String,
    /// The schedule of the probe that Podman runs in it now.
    pub schedule: Option<Schedule>,
    /// Whether it has a probe that Podman does not run.
    pub is_unprobed: bool,
    /// That probe, if it has failed in this run of the container, and has not succeeded since.
    pub failing: Option<FailedProbe>,
    /// The last run of its probe, if that failed, whenever it was.
    pub failed: Option<FailedProbe>,
    /// Whether it last ended because it had no memory left.
    pub out_of_memory: bool,
}

/// The file system of Podman's storage, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Storage {
    /// Its size.
    pub size: u64,
    /// How much of it is used.
    pub used: u64,
}

/// The timing of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    /// The pause between the end of one run and the start of the next.
    pub interval: Duration,
    /// The time limit of one run.
    pub timeout: Duration,
}

/// A pod whose play succeeded: all its containers were started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Played {
    /// The pod's id.
    pub pod: String,
    /// The service container's id.
    pub service: String,
}

impl Podman {
    /// A client of the Podman that listens on `socket`. It connects for each call, so the socket may appear later.
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
    /// The call lists containers: a list of pods would wait for each pod that is being stopped, up to its grace period.
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

    /// The pod of that name, no matter who made it.
    pub async fn pod(&self, name: &str) -> Result<Option<Pod>, PodmanError> {
        let operation = format!("look for pod {name}");
        // Podman treats the name as a pattern.
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

    /// The pod of that name, no matter who made it, and the details of its containers. Unlike [`Podman::pod`], it takes
    /// no longer on a host with more pods and containers. `None` if a part of the pod is missing or damaged, or is
    /// being created or removed: then only a list is reliable.
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
        // Podman also accepts the beginning of an id in place of a name.
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

    /// The details of a container; `None` if there is no such container.
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

    /// The size of the file system of Podman's storage, and how much of it is used, in bytes.
    pub async fn storage(&self) -> Result<Storage, PodmanError> {
        let call = Call::get("ask for the storage", "/libpod/info".to_owned());
        let info: wire::Info = self.wire.json(call.within(LOOK_TIME_MAX)).await?;
        Ok(Storage {
            size: info.store.allocated,
            used: info.store.used,
        })
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

    /// Plays one workload's YAML. Success means that every container was started, or, if the supervisor starts the
    /// containers, that they were created. Podman's own starts come with a service container.
    ///
    /// Podman does not roll back a failed play: after an error call [`Podman::down`] and [`Podman::remove_strays`] with
    /// the same bytes.
    pub async fn play(&self, yaml: &[u8]) -> Result<Played, PodmanError> {
        self.check_users(yaml).await?;
        if let Some(staged) = render::staged(yaml) {
            return self.create(yaml, &staged).await;
        }
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
        let mut errors = wire::start_errors(&pod.container_errors, &containers, &pod.id);
        if errors.is_empty() {
            let unstarted = containers
                .iter()
                .filter(|container| wire::run(&container.state) == Run::Created);
            errors.extend(
                unstarted.map(|container| format!("container {} was not started", container.name)),
            );
        }
        if !errors.is_empty() {
            return Err(PodmanError::Start { errors });
        }
        self.ignore_health_of_images(yaml).await;
        Ok(Played {
            pod: pod.id,
            service: report.service,
        })
    }

    /// The containers of a pod by its id. If Podman cannot inspect the pod because a part of it is being created or
    /// removed, they come from a list.
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

    /// The containers of some pods by the pods' ids. Podman reads all containers of the host for this list.
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

    /// Removes a volume that no container uses. If there is no such volume, the call succeeds.
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

    /// Removes a secret. If there is no such secret, the call succeeds.
    pub async fn remove_secret(&self, name: &str) -> Result<(), PodmanError> {
        let operation = format!("remove secret {name}");
        absent_is_gone(
            self.bounded(&operation, self.client.secrets().get(name).delete())
                .await,
        )
    }

    /// Events of containers that have `label` (`key` or `key=value`), from now on. The stream reconnects without end.
    ///
    /// Events are hints: look at the pods again at every [`Change::Connected`], and from time to time.
    pub fn events(&self, label: &str) -> Events {
        Events::follow(self.wire.clone(), label, None)
    }

    /// The same for a label with a value, from the gateway with its sockets below `run` while it serves them.
    pub fn events_by_gateway(&self, label: &str, run: &Path) -> Events {
        let gateway = served_events::socket(run);
        Events::follow(self.wire.clone(), label, Some(gateway))
    }

    /// A container's output since `since`, in seconds since 1970, limited to the last `tail` lines. With `follow` the
    /// stream continues until the container ends.
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
