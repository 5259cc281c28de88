//! One work on one workload, step by step.
//!
//! Shell: carries out [`Step`]s and stops at the first one that fails. Every call has a timeout. If the gateway cannot
//! play a pod, it hands the pod to its unit, whose supervisor tries once more and then shows the reason in
//! `systemctl status`.

mod capacity;
mod images;
mod ports;
mod turn;

use std::{io, path::PathBuf, pin::pin, sync::Arc, time::Duration};

use beemesh_protocol::{
    HostId,
    ipc::{Request, UnitFiles},
    state::{Object, Place},
    workload::{kube_file, split_pod_name, yaml_file},
};
use beemesh_quadlet::{
    belongings::{self, belongs_to},
    manifest::Beyond,
    play_lock,
    podman::{LABEL_WORKLOAD, Pod, Podman, PodmanError},
    render::{self, Image, Pull, RenderError, Rendered, render, uninstalled},
    supervisor::{last_output, report_file, stop},
};
use futures::future::try_join_all;
use tokio::{
    sync::{Mutex, Semaphore, mpsc, oneshot},
    time::sleep,
};

use self::turn::{Turn, permit};
use super::{IMAGES_PAUSE, Progress, stopped};
use crate::{
    agent_link::{Link, LinkError},
    cluster::{placement, ports::Held},
    raft::View,
    workloads::{
        on_disk::read,
        plan::{Ending, Played, Step, Work, replacement, unnamed},
    },
};

/// How long taking down a pod may keep the turn to play. A pod that stops when it is told to is gone by then, and the
/// next pod is not taken down before its turn. A pod that uses its grace period lets the others go first.
const DOWN_TURN_MAX: Duration = Duration::from_secs(1);
/// How long a pull may keep its turn: a registry that does not answer delays the others for no longer than this.
const PULL_TURN_MAX: Duration = Duration::from_secs(30);

/// The limits that all works share.
#[derive(Debug)]
pub(super) struct Bounds {
    /// Turns to pull, each for at most [`PULL_TURN_MAX`].
    pub(super) pulls: Semaphore,
    /// Pulls in progress, including those that have given up their turn.
    pub(super) all_pulls: Semaphore,
    pub(super) plays: Semaphore,
    /// Held from checking the ports until the Quadlet that uses them is written.
    pub(super) ports: Mutex<()>,
}

/// A work in progress.
pub(super) struct Flight {
    pub(super) host: HostId,
    /// The name of the pod.
    pub(super) workload: String,
    pub(super) work: Work,
    pub(super) view: Arc<View>,
    pub(super) link: Link,
    pub(super) podman: Podman,
    pub(super) units: PathBuf,
    pub(super) run: PathBuf,
    pub(super) bounds: Arc<Bounds>,
    pub(super) progress: mpsc::Sender<Progress>,
}

/// The files of the revision that a work handles.
struct Files {
    /// Only for a revision that is to be written.
    kube: Option<String>,
    yaml: Vec<u8>,
    images: Vec<Image>,
    /// What differs from what the manifest says, as a message; empty if nothing does.
    note: String,
}

/// Why a step failed. The message is shown to the user unchanged.
#[derive(Debug, thiserror::Error)]
enum StepError {
    #[error("{0}")]
    Podman(#[from] PodmanError),
    #[error("{0}")]
    Agent(#[from] LinkError),
    #[error("{0}")]
    Render(#[from] RenderError),
    #[error("the workload has been deleted")]
    Unwanted,
    #[error("image {0} is not on this host, and its pull policy is Never")]
    Absent(String),
    #[error(
        "the image that this revision ran as {0} is gone from this host, and no registry had it"
    )]
    Gone(String),
    #[error("{error}")]
    NotPulled { image: String, error: PodmanError },
    #[error("pod {0} exists and does not belong to Beemesh")]
    Taken(String),
    #[error("pod {0} is still there")]
    Remains(String),
    #[error("read {path}: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error("lock below {path}: {source}")]
    Lock { path: PathBuf, source: io::Error },
    #[error("waits for {0}")]
    Held(Held),
    #[error("waits: {0}")]
    Lacks(RenderError),
    #[error("waits: {0}")]
    Beyond(Beyond),
    #[error("mark the unit below {path}: {source}")]
    Mark { path: PathBuf, source: io::Error },
}

/// The outcome of a work.
pub(super) struct Landing {
    pub(super) ending: Ending,
    /// The missing image without which the work could not continue.
    pub(super) lacks: Option<String>,
    /// The pod that it has left, if it has left one.
    pub(super) played: Option<Played>,
}

impl StepError {
    fn lacks(&self) -> Option<String> {
        match self {
            Self::Absent(image) | Self::NotPulled { image, .. } => Some(image.clone()),
            _ => None,
        }
    }

    /// Returns true if the agent or Podman was not there.
    fn is_interruption(&self) -> bool {
        match self {
            Self::Agent(error) => matches!(
                error,
                LinkError::Down(_) | LinkError::Lost(_) | LinkError::Late { .. }
            ),
            Self::Podman(error) => error.is_passing(),
            _ => false,
        }
    }
}

impl Flight {
    /// Carries out all steps, and reports each before it starts. It can be cancelled while it pulls images.
    pub(super) async fn run(self, cancelled: oneshot::Receiver<()>) -> Landing {
        let mut played = None;
        let (ending, lacks) = match self.go(cancelled, &mut played).await {
            Ok(ending) => (ending, None),
            Err(error @ (StepError::Held(_) | StepError::Lacks(_) | StepError::Beyond(_))) => {
                (Ending::Waits(error.to_string()), None)
            }
            Err(error) if error.is_interruption() => (Ending::Interrupted(error.to_string()), None),
            Err(error) => (Ending::Failed(error.to_string()), error.lacks()),
        };
        Landing {
            ending,
            lacks,
            played,
        }
    }

    async fn go(
        &self,
        mut cancelled: oneshot::Receiver<()>,
        played: &mut Option<Played>,
    ) -> Result<Ending, StepError> {
        let files = self.files().await?;
        if let Work::Bring(_) = self.work {
            self.capacity(&files.yaml)?;
        }
        if files.kube.is_some() {
            // The ports are checked first, so that a revision without free ports does not pull its images on every
            // retry.
            self.room(&render::ports(&files.yaml)).await?;
        }
        for step in self.work.steps() {
            self.tell(*step).await;
            match step {
                Step::Pull => tokio::select! {
                    pulled = self.pull(&files.images) => pulled?,
                    Ok(()) = &mut cancelled => return Ok(Ending::Cancelled),
                },
                Step::Put => self.put(&files).await?,
                Step::Replace => self.bring_up(&files.yaml).await?,
                Step::Start => self.start().await?,
                Step::Stop => self.stop().await?,
                Step::Down => self.down(&files.yaml).await?,
                Step::Sync => self.ask(Request::SyncStorage).await?,
                Step::Tidy => {
                    self.ask(Request::TidyUnit {
                        workload: self.workload.clone(),
                    })
                    .await?
                }
                // A failure is harmless: the next work on this workload collects again.
                Step::Collect => {
                    *played = Some(Played {
                        index: self.work.index(),
                        images: self.resolved_images(&files.yaml).await,
                        note: files.note.clone(),
                    });
                    if let Err(error) = self.collect(&files.yaml).await {
                        tracing::warn!(workload = self.workload, %error, "old volumes or secrets not removed");
                    }
                }
                Step::Clear => self.collect(&[]).await?,
                Step::Forget => {
                    last_output::forget(&self.run, &self.workload);
                    report_file::forget(&self.run, &self.workload);
                    self.ask(Request::RemoveUnit {
                        workload: self.workload.clone(),
                    })
                    .await?
                }
            }
        }
        Ok(Ending::Done)
    }

    /// The workload of the pod, and its place.
    fn place(&self) -> (&str, Place) {
        let (workload, number) = split_pod_name(&self.workload).unwrap_or((&self.workload, 0));
        let host = self.host;
        (workload, Place { host, number })
    }

    async fn tell(&self, step: Step) {
        // The loop outlives every work, except when the gateway exits; then the message is not needed.
        let _ = self
            .progress
            .send(Progress {
                workload: self.workload.clone(),
                step,
            })
            .await;
    }

    async fn ask(&self, request: Request) -> Result<(), StepError> {
        self.link.request(request).await?;
        Ok(())
    }

    /// Renders a revision that is to be written, or reads one that has been written.
    async fn files(&self) -> Result<Files, StepError> {
        if let Work::Bring(index) | Work::Persist(index) = self.work {
            let state = &self.view.state;
            let (name, place) = self.place();
            let wanted = state.workload(name).filter(|workload| {
                // Each attempt of a Job has a different index.
                placement::runs(state, workload, place).is_some_and(|runs| runs.index == index)
            });
            let (workload, cluster) = wanted.zip(state.cluster()).ok_or(StepError::Unwanted)?;
            let (number, object, uses) = state.contents(workload, index);
            let (pinned, note) = self.with_pinned_images(workload, index, &object).await?;
            let uses: Vec<&Object> = uses.iter().map(AsRef::as_ref).collect();
            let revision = render::Revision {
                cluster,
                revision: number,
                index,
                object: pinned.as_ref().unwrap_or(&object),
                number: place.number,
                uses: &uses,
            };
            let Rendered {
                kube, yaml, images, ..
            } = render(&revision).map_err(|error| match error {
                RenderError::Missing { .. } | RenderError::MissingKey { .. } => {
                    StepError::Lacks(error)
                }
                RenderError::Malformed { .. } => error.into(),
            })?;
            return Ok(Files {
                kube: Some(kube),
                yaml,
                images,
                note,
            });
        }
        let yaml = self.read(self.work.index()).await?.unwrap_or_default();
        let kube = match self.work {
            Work::Disarm(_) => Some(self.disarmed().await?),
            _ => None,
        };
        Ok(Files {
            kube,
            images: render::images(&yaml),
            yaml,
            note: String::new(),
        })
    }

    /// Reads the YAML of a revision that has been written; `None` if it does not exist.
    async fn read(&self, index: u64) -> Result<Option<Vec<u8>>, StepError> {
        let path = self.units.join(yaml_file(&self.workload, index));
        match read(&path).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(StepError::Read { path, source }),
        }
    }

    /// Returns the existing `.kube` file without its `[Install]` section, so that systemd does not start the unit at
    /// boot.
    async fn disarmed(&self) -> Result<String, StepError> {
        let path = self.units.join(kube_file(&self.workload));
        match read(&path).await {
            Ok(bytes) => Ok(uninstalled(&String::from_utf8_lossy(&bytes))),
            Err(source) => Err(StepError::Read { path, source }),
        }
    }

    async fn pull(&self, images: &[Image]) -> Result<(), StepError> {
        try_join_all(images.iter().map(|image| self.pull_one(image))).await?;
        Ok(())
    }

    async fn pull_one(&self, Image { reference, pull }: &Image) -> Result<(), StepError> {
        if *pull != Pull::Always {
            if self.podman.image_exists(reference).await? {
                return Ok(());
            }
            if *pull == Pull::Never {
                return Err(StepError::Absent(reference.clone()));
            }
        }
        let _pull = permit(&self.bounds.all_pulls).await;
        let mut turn = Turn::take(&self.bounds.pulls).await;
        let pulled = self.podman.pull(reference);
        let pulled = turn.lend(PULL_TURN_MAX, pulled, async || ());
        let pulled = tokio::select! {
            pulled = pulled => pulled,
            // A registry that is down may take minutes to fail.
            () = self.arrival(reference), if *pull != Pull::Always => return Ok(()),
        };
        pulled.map_err(|error| match pull {
            // With `imagePullPolicy: Always`, an existing image does not replace a failed pull.
            Pull::Always => error.into(),
            Pull::IfNotPresent | Pull::Never => StepError::NotPulled {
                image: reference.clone(),
                error,
            },
        })
    }

    /// Waits until the image is on this host, by whatever means.
    async fn arrival(&self, reference: &str) {
        loop {
            sleep(IMAGES_PAUSE).await;
            if self.podman.image_exists(reference).await.unwrap_or(false) {
                return;
            }
        }
    }

    async fn put(&self, files: &Files) -> Result<(), StepError> {
        // If two revisions want the same port, the second check runs after the first Quadlet is written.
        let wanted = render::ports(&files.yaml);
        let _turn = match wanted.is_empty() {
            true => None,
            false => Some(self.bounds.ports.lock().await),
        };
        self.room(&wanted).await?;
        let files = UnitFiles {
            workload: self.workload.clone(),
            index: self.work.index(),
            kube: files.kube.clone().ok_or(StepError::Unwanted)?,
            yaml: files.yaml.clone(),
        };
        self.ask(Request::PutUnit(files)).await
    }

    async fn start(&self) -> Result<(), StepError> {
        self.ask(Request::StartUnit {
            workload: self.workload.clone(),
        })
        .await
    }

    /// Stops the unit. A failure here does not end the work, because the pod must then be taken down all the more.
    async fn stop(&self) -> Result<(), StepError> {
        stopped::mark(&self.run, &self.workload).map_err(|source| StepError::Mark {
            path: self.run.clone(),
            source,
        })?;
        match self
            .ask(Request::StopUnit {
                workload: self.workload.clone(),
            })
            .await
        {
            Err(StepError::Agent(LinkError::Refused(reason))) => {
                tracing::warn!(workload = self.workload, reason, "unit not stopped");
                Ok(())
            }
            outcome => outcome,
        }
    }

    /// Plays the pod and starts its unit in parallel, because systemd, the supervisor and Podman each take some time.
    /// The supervisor waits for the lock before it looks for the pod, also while this work waits for its turn.
    async fn bring_up(&self, yaml: &[u8]) -> Result<(), StepError> {
        let lock = play_lock::hold(&self.run, &self.workload).await;
        let lock = lock.map_err(|source| StepError::Lock {
            path: self.run.clone(),
            source,
        })?;
        let turn = Turn::take(&self.bounds.plays).await;
        let mut play = pin!(async {
            let played = self.replace(yaml, turn).await;
            lock.end();
            played
        });
        let mut start = pin!(self.start());
        let mut started = None;
        let played = loop {
            tokio::select! {
                played = &mut play => break played,
                outcome = &mut start, if started.is_none() => started = Some(outcome),
            }
        };
        match (played, started) {
            (Ok(()), Some(started)) => started,
            (Ok(()), None) => start.await,
            (Err(StepError::Podman(error)), None) if !error.is_passing() => {
                tracing::warn!(workload = self.workload, %error, "the gateway cannot play the pod, its unit will retry");
                own_words(error, start.await)
            }
            // The unit was active already, and would otherwise keep waiting for the pod.
            (Err(StepError::Podman(error)), Some(Ok(()))) if !error.is_passing() => {
                self.hand_over(error).await
            }
            (Err(error), _) => Err(error),
        }
    }

    /// Makes the pod of this YAML the only one of the workload. The turn is meant for playing: taking down a pod, which
    /// may last its grace period, gives the turn up.
    async fn replace(&self, yaml: &[u8], mut turn: Turn<'_>) -> Result<(), StepError> {
        let told = async || self.tell(Step::Down).await;
        if !turn.lend(DOWN_TURN_MAX, self.make_way(), told).await? {
            return Ok(());
        }
        if turn.is_given_up() {
            turn.take_again().await;
            self.tell(Step::Replace).await;
        }
        let Err(error) = self.podman.play(yaml).await else {
            last_output::forget(&self.run, &self.workload);
            return Ok(());
        };
        let error = self.explained(error, yaml).await;
        let undone = turn.lend(DOWN_TURN_MAX, self.undo(yaml), told).await;
        undone.and(Err(error.into()))
    }

    /// Names the containers that a play failed for.
    async fn explained(&self, error: PodmanError, yaml: &[u8]) -> PodmanError {
        match self.podman.pod(&self.workload).await {
            Ok(Some(pod)) if pod.workload() == Some(&self.workload) => {
                let init = render::init_containers(yaml);
                error.explained(&self.workload, &pod.containers, &init)
            }
            _ => error,
        }
    }

    /// Takes down what must go before the pod can be played; whether it must be played.
    async fn make_way(&self) -> Result<bool, StepError> {
        let pods = self.pods().await?;
        let replacement = replacement(&pods, self.work.index());
        for pod in replacement.down {
            self.down_one(pod).await?;
        }
        Ok(replacement.play)
    }

    /// Removes what a failed play has left behind.
    async fn undo(&self, yaml: &[u8]) -> Result<(), StepError> {
        // Podman does not undo a failed play. Taking down by this YAML goes by the pod's name, and another workload may
        // own that pod.
        if let Some(pod) = self.podman.pod(&self.workload).await?
            && pod.workload() != Some(&self.workload)
        {
            return Err(StepError::Taken(pod.name));
        }
        self.podman.down(yaml).await?;
        self.podman.remove_strays(yaml).await?;
        Ok(())
    }

    /// Lets the unit play a pod that the gateway could not play, so that the unit fails with a reason. Succeeds if the
    /// unit does.
    async fn hand_over(&self, error: PodmanError) -> Result<(), StepError> {
        tracing::warn!(workload = self.workload, %error, "the gateway cannot play the pod, its unit will retry");
        self.tell(Step::Stop).await;
        self.stop().await?;
        self.tell(Step::Start).await;
        own_words(error, self.start().await)
    }

    /// Takes down all pods of the workload, of any revision, and checks that none is left. Usually the unit's
    /// supervisor has already taken them down.
    async fn down(&self, yaml: &[u8]) -> Result<(), StepError> {
        let pods = self.pods().await?;
        for pod in &pods {
            self.down_one(pod).await?;
        }
        if !yaml.is_empty() {
            self.podman.remove_service_container(yaml).await?;
        }
        if pods.is_empty() {
            return Ok(());
        }
        match self.pods().await?.pop() {
            Some(pod) => Err(StepError::Remains(pod.name)),
            None => Ok(()),
        }
    }

    /// Takes a pod down with the YAML that created it, which also removes its service container. A supervisor may be
    /// playing the pod, or Podman may be, for a gateway that has exited.
    async fn down_one(&self, pod: &Pod) -> Result<(), StepError> {
        play_lock::settle(&self.podman, pod).await;
        let yaml = match pod.index() {
            Some(index) => self.read(index).await?,
            None => None,
        };
        let Some(yaml) = yaml else {
            return Ok(self.podman.remove_pod(&pod.name).await?);
        };
        if stop::needs_supervisor(&yaml) {
            // The gateway has no network. The supervisor ends the containers and takes the pod down.
            self.stop().await?;
        }
        stop::end_pod(&self.podman, pod, &yaml).await?;
        Ok(self.podman.down(&yaml).await?)
    }

    async fn pods(&self) -> Result<Vec<Pod>, StepError> {
        let label = format!("{LABEL_WORKLOAD}={}", self.workload);
        Ok(self.podman.pods(&[&label]).await?)
    }

    /// Removes the volumes and secrets that belong to this workload alone and are not named in `yaml`.
    async fn collect(&self, yaml: &[u8]) -> Result<(), StepError> {
        let (mut volumes, mut secrets) = tokio::try_join!(
            self.podman.volumes(belongings::OURS),
            self.podman.secrets(belongings::OURS)
        )?;
        for names in [&mut volumes, &mut secrets] {
            names.retain(|name| belongs_to(name, &self.workload));
        }
        for volume in unnamed(volumes, yaml) {
            self.podman.remove_volume(&volume).await?;
        }
        for secret in unnamed(secrets, yaml) {
            self.podman.remove_secret(&secret).await?;
        }
        Ok(())
    }
}

/// Returns the more useful error after the unit has retried a failed play. If the unit failed, too, the gateway's own
/// error says more than that the unit's job failed.
fn own_words(error: PodmanError, started: Result<(), StepError>) -> Result<(), StepError> {
    match started {
        Err(StepError::Agent(LinkError::Refused(_))) => Err(error.into()),
        outcome => outcome,
    }
}
