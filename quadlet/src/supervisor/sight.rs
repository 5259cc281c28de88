//! Reads the state of one workload on this host: its Quadlet on disk and its pod in Podman. Does I/O, decides nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use beemesh_protocol::workload::{kube_file, unit_name};

use super::burst::{self, Burst};
use super::guard::cgroups;
use super::probes::spec::{self, ContainerSpec};
use super::shell::Settings;
use super::{Persisted, SeenPod, Sight, release};
use crate::health::{Container, Role, Run};
use crate::journal_backfill::Source;
use crate::podman::{Details, Pod, Podman, PodmanError, service_container};
use crate::render::{self, Rules};
use crate::{lease, play_lock};

/// Reads the state, and caches data that cannot change while the pod exists.
#[derive(Debug)]
pub(super) struct Eye {
    podman: Podman,
    folder: PathBuf,
    /// The path of the mark that exists while Beemesh is being removed.
    released: PathBuf,
    /// The folder of the locks that are held while a pod is played.
    run: PathBuf,
    workload: String,
    service: Option<(String, u32)>,
    /// The ids of the workload's containers at the last look, without init containers.
    members: Vec<String>,
    /// The processes that monitor them.
    conmons: Vec<u32>,
    burst: Burst,
    /// The probes and hooks of the pod with this id.
    specs: (String, Arc<Vec<ContainerSpec>>),
    /// The address of the pod at the last look.
    address: Option<IpAddr>,
    /// True if the workload was a singleton when its Quadlet was last read.
    needs_lease: bool,
    /// The control groups of the pod at the last look.
    groups: BTreeSet<String>,
}

impl Eye {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            podman: Podman::new(&settings.socket),
            folder: settings.folder.clone(),
            released: release::mark(&settings.run),
            run: settings.run.clone(),
            workload: settings.workload.clone(),
            service: None,
            members: Vec::new(),
            conmons: Vec::new(),
            burst: Burst::default(),
            specs: Default::default(),
            address: None,
            needs_lease: false,
            groups: BTreeSet::new(),
        }
    }

    /// The content of the Quadlet, and the bytes that are played; `None` if either file is missing or damaged.
    pub(super) fn persisted(&self) -> Option<(Persisted, Vec<u8>)> {
        let kube = std::fs::read_to_string(self.folder.join(kube_file(&self.workload))).ok()?;
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

    /// The sources of output for the unit's journal: the workload's containers at the last look.
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
        let lost = self.members.first().map(|container| Source::Lost {
            unit: unit_name(&self.workload),
            container: container.clone(),
        });
        init.chain(members).chain(lost).collect()
    }

    /// The address of the pod at the last look, to which its probes and hooks connect.
    pub(super) fn address(&self) -> Option<IpAddr> {
        self.address
    }

    /// Reads the probes and hooks of a pod that the supervisor starts, and finds the pod's address.
    async fn specs(
        &mut self,
        pod: &Pod,
        yaml: Option<&[u8]>,
    ) -> Result<Arc<Vec<ContainerSpec>>, PodmanError> {
        if self.specs.0 != pod.id {
            let specs = yaml.map(spec::read).unwrap_or_default();
            self.specs = (pod.id.clone(), Arc::new(specs));
        }
        let specs = Arc::clone(&self.specs.1);
        let connects = specs
            .iter()
            .any(|one| one.has_probes() || one.post_start.is_some());
        self.address = None;
        let infra = pod.containers.iter().find(|one| one.role == Role::Infra);
        if let Some(infra) = infra.filter(|infra| connects && infra.run == Run::Running) {
            self.address = self.podman.pod_address(&infra.id).await?;
        }
        Ok(specs)
    }

    /// Returns true for a singleton, and the control groups of its pod, at the last look. Before the first look the
    /// Quadlet alone says it.
    pub(super) fn leased(&mut self) -> (bool, &BTreeSet<String>) {
        if self.groups.is_empty()
            && let Some((_, yaml)) = self.persisted()
        {
            self.needs_lease |= render::needs_lease(&yaml);
        }
        (self.needs_lease, &self.groups)
    }

    /// Whether journald may have logged that it dropped lines.
    pub(super) fn may_have_lost_lines(&mut self) -> bool {
        let stat = |pid: &u32| std::fs::read_to_string(format!("/proc/{pid}/stat")).ok();
        let ticks = |pid: &u32| Some((*pid, burst::ticks(&stat(pid)?)?));
        let ticks = self.conmons.iter().filter_map(ticks).collect();
        self.burst.seen(ticks, Instant::now())
    }

    pub(super) async fn look(&mut self) -> Result<Sight, PodmanError> {
        // The pod is read first. A process that takes the pod down has persisted the next revision before.
        let pod = match self.podman.inspect_pod(&self.workload).await? {
            None => self.list().await?,
            inspected => inspected,
        };
        let persisted = self.persisted();
        self.note_lease(persisted.as_ref().map(|(_, yaml)| yaml.as_slice()), &pod);
        let pod = match pod {
            Some((pod, details)) => {
                let yaml = persisted.as_ref().map(|(_, yaml)| yaml.as_slice());
                Some(self.seen(pod, details, yaml).await?)
            }
            None => {
                self.members.clear();
                self.service = None;
                None
            }
        };
        let clock = SystemTime::now().duration_since(UNIX_EPOCH);
        Ok(Sight {
            persisted: persisted.map(|(persisted, _)| persisted),
            pod,
            clock: clock.unwrap_or_default(),
            released: self.released.exists(),
            lease: (self.needs_lease).then(|| lease::left(&self.run, &self.workload)),
        })
    }

    /// Notes whether the workload is a singleton. The pod of an earlier workload of this name may be one, too. While the
    /// Quadlet cannot be read, the last answer holds.
    fn note_lease(&mut self, yaml: Option<&[u8]>, pod: &Option<(Pod, Vec<Details>)>) {
        let pod = pod.as_ref();
        let ours = pod.filter(|(pod, _)| pod.workload() == Some(&self.workload));
        let says = yaml.map_or(self.needs_lease, render::needs_lease);
        self.needs_lease = says || ours.is_some_and(|(pod, _)| pod.needs_lease());
        self.groups.clear();
        if let Some((pod, details)) = ours {
            let found = details.iter().map(|details| details.cgroup.as_str());
            self.groups = cgroups::of_pod(&pod.id, found);
        }
    }

    /// The pod as listed, and the details of those of its containers that can be inspected.
    async fn list(&self) -> Result<Option<(Pod, Vec<Details>)>, PodmanError> {
        let Some(pod) = self.podman.pod(&self.workload).await? else {
            return Ok(None);
        };
        let mut details = Vec::with_capacity(pod.containers.len());
        for container in &pod.containers {
            match self.podman.inspect(&container.id).await {
                Ok(Some(found)) => details.push(found),
                // The container was removed meanwhile. The next look will not list it either.
                Ok(None) => {}
                // After a power cut a layer may be incomplete. The list still shows that the container does not run.
                Err(PodmanError::Refused { .. }) if container.run != Run::Running => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Some((pod, details)))
    }

    async fn seen(
        &mut self,
        mut pod: Pod,
        mut details: Vec<Details>,
        yaml: Option<&[u8]>,
    ) -> Result<SeenPod, PodmanError> {
        let ours = pod.workload() == Some(&self.workload);
        let staged = yaml.and_then(render::staged);
        if let Some(staged) = &staged {
            staged.give_roles(&self.workload, &mut pod.containers);
            for details in &mut details {
                let container = std::slice::from_mut(&mut details.container);
                staged.give_roles(&self.workload, container);
            }
        }
        let specs = match staged {
            Some(_) => self.specs(&pod, yaml).await?,
            None => Arc::default(),
        };
        let details = details.as_slice();
        let is_member = |container: &Container| container.role.is_in_manifest();
        // The journal knows an init container by its name: it is removed when it has ended.
        let is_source = |one: &Container| is_member(one) && one.role != Role::Init;
        let members = pod.containers.iter();
        let members = members.filter(|container| ours && is_source(container));
        self.members = members.map(|container| container.id.clone()).collect();
        let runs = |run| matches!(run, Run::Running | Run::Paused);
        // A holder that keeps volumes in memory has such a process, too.
        let has_process =
            |container: &Container| runs(container.run) || container.role == Role::Holder;
        let running = details
            .iter()
            .filter(|details| has_process(&details.container));
        let mut conmons: Vec<u32> = running.filter_map(|details| details.conmon).collect();
        if !conmons.is_empty() {
            conmons.extend(self.service_conmon(&pod, yaml).await?);
        }
        self.conmons.clone_from(&conmons);
        let members = || {
            let all = details.iter();
            all.filter(|details| is_member(&details.container))
        };
        let Rules {
            restart,
            failures_max,
        } = yaml.map(render::rules).unwrap_or_default();
        // Podman restarts no container of a singleton, so only its holder tells that the pod is kept.
        let is_kept = pod.containers.iter().any(|one| one.role == Role::Holder);
        let needs_lease = self.needs_lease;
        let is_held = |details: &&Details| {
            let differs = details.restart != details.container.role.restart(restart);
            differs && (is_kept || !needs_lease)
        };
        let held = members().filter(is_held);
        let held = held.map(|details| details.container.id.clone()).collect();
        let image = members().next().map(|details| details.image.clone());
        let schedules = members().filter(|details| details.container.run == Run::Running);
        let schedules = schedules
            .filter_map(|details| Some((details.container.id.clone(), details.schedule?)))
            .collect();
        let failing = members()
            .filter_map(|details| Some((details.container.id.clone(), details.failing.clone()?)));
        let failing = failing.collect();
        let out_of_memory = members().filter(|details| details.out_of_memory);
        let out_of_memory = out_of_memory.map(|details| details.container.id.clone());
        let out_of_memory = out_of_memory.collect();
        let messages = self.messages(&pod, yaml);
        let has_init = yaml.is_some_and(|yaml| contains(yaml, b"\"initContainers\""));
        let wanted = yaml.map(render::member_names).unwrap_or_default();
        let is_there = |name: &String| pod.containers.iter().any(|one| one.name == *name);
        let missing = wanted.into_iter().find(|name| !is_there(name));
        let labels = match (ours, pod.revision(), pod.index()) {
            (true, Some(revision), Some(index)) => Some(Persisted { revision, index }),
            _ => None,
        };
        Ok(SeenPod {
            id: pod.id,
            labels,
            containers: pod.containers,
            restart,
            held,
            failures_max,
            image: image.unwrap_or_default(),
            schedules,
            failing,
            out_of_memory,
            messages,
            has_init,
            missing,
            conmons,
            specs,
            needs_lease,
            interrupted: play_lock::was_interrupted(&self.run, &self.workload),
            staged,
        })
    }

    /// The volumes with the termination messages of a pod's containers, by the containers' ids.
    fn messages(&self, pod: &Pod, yaml: Option<&[u8]>) -> BTreeMap<String, String> {
        let volumes = yaml.map(render::termination_messages).unwrap_or_default();
        let of = |(name, volume): (String, String)| {
            let name = format!("{}-{name}", self.workload);
            let container = pod.containers.iter().find(|one| one.name == name)?;
            Some((container.id.clone(), volume))
        };
        volumes.into_iter().filter_map(of).collect()
    }

    /// The process that monitors the service container, which is outside the pod and lives as long as the pod.
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
