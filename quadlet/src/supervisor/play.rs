//! Plays the pod of a workload: pulls its images, takes down the remains of an earlier pod, and keeps the output of the
//! containers of a failed play. Shell: decides nothing.

use beemesh_protocol::pod::{self, ContainerReport, ContainerState, LastExit};
use beemesh_protocol::workload::unit_name;

use super::down::down;
use super::failure::{Failure, classify, classify_play};
use super::last_output;
use super::ledger::short_name;
use super::shell::{Settings, say};
use super::sight::Eye;
use crate::health::{Container, Status, failed_init};
use crate::journal_backfill::Backfill;
use crate::play_lock;
use crate::podman::Podman;
use crate::render::{self, Pull};

/// A failed play, and the container that failed it, if it was one.
pub(super) type Unplayed = (Failure, Option<Box<ContainerReport>>);

pub(super) async fn play(
    podman: &Podman,
    eye: &mut Eye,
    backfill: &mut Backfill,
    settings: &Settings,
    revision: u64,
) -> Result<(), Unplayed> {
    let missing = || {
        let workload = &settings.workload;
        Failure::Refused(format!("the Quadlet of workload {workload} is missing"))
    };
    let (_, yaml) = eye.persisted().ok_or_else(|| (missing(), None))?;
    let pulled = pull(podman, settings, revision, &yaml).await;
    pulled.map_err(|failure| (failure, None))?;
    let lock = play_lock::hold(&settings.run, &settings.workload).await;
    let lock = lock.map_err(|error| {
        let words = "the pod is being played by the gateway, or cannot be locked";
        (Failure::Passing(format!("{words}: {error}")), None)
    })?;
    let played = match lock.has_waited() {
        // The gateway has played the pod in the meantime.
        true => Ok(()),
        false => play_alone(podman, eye, backfill, settings, &yaml).await,
    };
    lock.end();
    played
}

/// Plays the pod while no other process does.
async fn play_alone(
    podman: &Podman,
    eye: &mut Eye,
    backfill: &mut Backfill,
    settings: &Settings,
    yaml: &[u8],
) -> Result<(), Unplayed> {
    let down_first = down(eye, settings).await;
    down_first.map_err(|error| (classify(&error), None))?;
    let Err(error) = podman.play(yaml).await else {
        last_output::forget(&settings.run, &settings.workload);
        return Ok(());
    };
    // The output of a container that failed the play helps its administrator, and no supervisor has adopted the
    // container.
    let mut containers = Vec::new();
    if let Ok(sight) = eye.look().await {
        let unit = unit_name(&settings.workload);
        backfill.finish(&unit, &eye.sources()).await;
        containers = sight.pod.map_or(containers, |pod| pod.containers);
        last_output::keep(podman, settings, &containers).await;
    }
    let init = render::init_containers(yaml);
    let error = error.explained(&settings.workload, &containers, &init);
    let blamed = match failed_init(&settings.workload, &containers, &init) {
        Some(container) => {
            let output = last_output::last_line(podman, &container.id).await;
            Some(Box::new(blame(container, &settings.workload, output)))
        }
        None => None,
    };
    // Podman does not roll back a failed play, and the remains use damaged layers.
    let clear = async {
        down(eye, settings).await?;
        podman.remove_strays(yaml).await
    };
    if let Err(error) = clear.await {
        tracing::warn!(%error, "the rest of a failed play was not removed");
    }
    Err((classify_play(&error, render::rules(yaml).restart), blamed))
}

/// Pulls the images that the host lacks.
async fn pull(
    podman: &Podman,
    settings: &Settings,
    revision: u64,
    yaml: &[u8],
) -> Result<(), Failure> {
    for image in render::images(yaml) {
        let reference = &image.reference;
        let is_there = podman
            .image_exists(reference)
            .await
            .map_err(|error| classify(&error))?;
        let pull = match image.pull {
            Pull::Never if !is_there => {
                let reason =
                    format!("image {reference} is not on this host and its pull policy is Never");
                return Err(Failure::Hopeless(reason));
            }
            Pull::Never => false,
            Pull::IfNotPresent => !is_there,
            Pull::Always => true,
        };
        if !pull {
            continue;
        }
        let doing = format!("pulling image {reference}");
        say(settings, &Status::Starting { revision, doing }.into());
        match podman.pull(reference).await {
            // The image exists, and the pull is for a newer one. If the pull fails, the existing image is played.
            Err(error) if is_there => {
                tracing::warn!(%error, "using the image that is on this host")
            }
            outcome => outcome.map_err(|error| classify(&error))?,
        }
    }
    Ok(())
}

/// The report of an init container that failed the play of its pod.
fn blame(container: &Container, workload: &str, output: String) -> ContainerReport {
    ContainerReport {
        name: pod::clean(short_name(&container.name, workload), pod::TEXT_CHARS_MAX),
        state: ContainerState::Exited,
        ends: 1,
        exit: Some(LastExit {
            code: u32::try_from(container.exit_code).ok(),
            at: u64::try_from(container.exited_at).unwrap_or_default(),
            output,
            ..LastExit::default()
        }),
        ..ContainerReport::default()
    }
}
