//! Looks at one workload on this host: its Quadlet on disk and its pod in Podman. Does I/O, decides nothing.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::{Persisted, SeenPod, Sight};
use crate::early::Source;
use crate::health::{Container, Restart, Role, Run};
use crate::podman::{Details, Pod, Podman, PodmanError, service_container};
use crate::render;

/// Looks, and remembers what cannot have changed since the last look.
#[derive(Debug)]
pub(super) struct Eye {
    podman: Podman,
    folder: PathBuf,
    workload: String,
    known: BTreeMap<String, (Run, i64, Details)>,
    service: Option<(String, u32)>,
    /// The ids of the workload's containers at the last look.
    members: Vec<String>,
}

impl Eye {
    pub(super) fn new(podman: Podman, folder: PathBuf, workload: &str) -> Self {
        Self {
            podman,
            folder,
            workload: workload.to_owned(),
            known: BTreeMap::new(),
            service: None,
            members: Vec::new(),
        }
    }

    /// What the Quadlet says, and the bytes that are played; `None` if either file is missing or damaged.
    pub(super) fn persisted(&self) -> Option<(Persisted, Vec<u8>)> {
        let kube =
            std::fs::read_to_string(self.folder.join(render::kube_file(&self.workload))).ok()?;
        let quadlet = render::read_quadlet(&kube)?;
        let yaml = std::fs::read(self.folder.join(&quadlet.yaml)).ok()?;
        Some((
            Persisted {
                revision: quadlet.revision,
                index: quadlet.index,
            },
            yaml,
        ))
    }

    /// Whose output the unit's journal should have: the workload's containers that were there at the last look.
    pub(super) fn sources(&self) -> Vec<Source> {
        if self.members.is_empty() {
            return Vec::new();
        }
        let init = self
            .persisted()
            .map(|(_, yaml)| render::init_containers(&yaml));
        let init = init.unwrap_or_default().into_iter();
        let init = init.map(|name| Source::Init(format!("{}-{name}", self.workload)));
        let members = self.members.iter().cloned().map(Source::Container);
        init.chain(members).collect()
    }

    pub(super) async fn look(&mut self) -> Result<Sight, PodmanError> {
        // The pod first: whoever takes it down has persisted the next revision before.
        let pod = self.podman.pod(&self.workload).await?;
        let persisted = self.persisted();
        let pod = match pod {
            Some(pod) => Some(
                self.inspect(pod, persisted.as_ref().map(|(_, yaml)| yaml.as_slice()))
                    .await?,
            ),
            None => {
                self.known.clear();
                self.members.clear();
                self.service = None;
                None
            }
        };
        Ok(Sight {
            persisted: persisted.map(|(persisted, _)| persisted),
            pod,
        })
    }

    async fn inspect(&mut self, pod: Pod, yaml: Option<&[u8]>) -> Result<SeenPod, PodmanError> {
        let ours = pod.workload() == Some(&self.workload);
        let is_member = |container: &&Container| ours && container.role == Role::Member;
        let members = pod.containers.iter().filter(is_member);
        self.members = members.map(|container| container.id.clone()).collect();
        self.known
            .retain(|id, _| pod.containers.iter().any(|container| container.id == *id));
        for container in &pod.containers {
            let known = self.known.get(&container.id);
            if known.is_some_and(|(run, started_at, _)| {
                (*run, *started_at) == (container.run, container.started_at)
            }) {
                continue;
            }
            match self.podman.inspect(&container.id).await {
                Ok(Some(details)) => {
                    self.known.insert(
                        container.id.clone(),
                        (container.run, container.started_at, details),
                    );
                }
                // It may be gone again; then it is not there at the next look either.
                Ok(None) => {}
                // After a power cut a layer may be half written. That it does not run is known all the same.
                Err(PodmanError::Refused { .. }) if container.run != Run::Running => {}
                Err(error) => return Err(error),
            }
        }
        let mut conmons: Vec<u32> = pod
            .containers
            .iter()
            .filter(|container| matches!(container.run, Run::Running | Run::Paused))
            .filter_map(|container| self.details(container)?.conmon)
            .collect();
        if !conmons.is_empty() {
            conmons.extend(self.service_conmon(&pod, yaml).await?);
        }
        let members = || {
            pod.containers
                .iter()
                .filter(|container| container.role == Role::Member)
        };
        let restart = members()
            .find_map(|container| self.details(container))
            .map(|details| details.restart);
        let has_init = yaml.is_some_and(|yaml| contains(yaml, b"\"initContainers\""));
        let labels = match (ours, pod.revision(), pod.index()) {
            (true, Some(revision), Some(index)) => Some(Persisted { revision, index }),
            _ => None,
        };
        Ok(SeenPod {
            labels,
            containers: pod.containers,
            restart: restart.unwrap_or(Restart::Always),
            has_init,
            conmons,
        })
    }

    fn details(&self, container: &Container) -> Option<&Details> {
        self.known.get(&container.id).map(|(_, _, details)| details)
    }

    /// The service container is outside the pod, and lives as long as it.
    async fn service_conmon(
        &mut self,
        pod: &Pod,
        yaml: Option<&[u8]>,
    ) -> Result<Option<u32>, PodmanError> {
        if let Some((of, pid)) = &self.service
            && *of == pod.id
        {
            return Ok(Some(*pid));
        }
        let Some(yaml) = yaml else { return Ok(None) };
        let Some(details) = self.podman.inspect(&service_container(yaml)).await? else {
            return Ok(None);
        };
        self.service = details.conmon.map(|pid| (pod.id.clone(), pid));
        Ok(details.conmon)
    }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}
