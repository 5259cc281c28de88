//! Follows the logs of a workload on this host for as long as the workload is here.
//!
//! Shell; [`since`] and [`goes_on`] are pure. Podman ends a container's log stream with the container, but a workload
//! continues: its container is restarted, or another revision replaces its pod. Whenever a stream has ended, this
//! module looks for the next one.

use std::{collections::BTreeMap, time::Duration};

use axum::body::{Body, Bytes};
use beemesh_protocol::peer::Phase;
use beemesh_quadlet::{
    health::{Container, Run},
    podman::{Pod, PodmanError},
};
use futures::{StreamExt, stream};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep},
};

use super::{Pods, members, told};
use crate::clock::now_ms;

/// Maximum number of pieces that wait for the caller. Further output waits in the journal.
const PIECES_MAX: usize = 16;
/// Pause before the first look for another stream; it doubles with each further look.
const LOOK_PAUSE: Duration = Duration::from_millis(250);
/// The longest pause between two looks.
const LOOK_PAUSE_MAX: Duration = Duration::from_secs(2);
/// How long a workload without running containers may still continue, regardless of its report. The report of an ended
/// container arrives later than the end of its log.
const END_AFTER: Duration = Duration::from_secs(3);

type Piece = Result<Bytes, PodmanError>;

/// Follows the pods of a workload, of which these exist now, beginning with the last `tail` lines.
pub(super) async fn open(
    asked: Pods,
    there: &[Pod],
    tail: Option<u32>,
) -> Result<Body, PodmanError> {
    let (pieces, mut received) = mpsc::channel(PIECES_MAX);
    let mut following = Following {
        asked,
        pieces,
        begun: BTreeMap::new(),
        outputs: JoinSet::new(),
    };
    following.begin(there, tail).await?;
    tokio::spawn(following.run());
    let pieces = stream::poll_fn(move |context| received.poll_recv(context));
    Ok(Body::from_stream(pieces))
}

struct Following {
    asked: Pods,
    pieces: mpsc::Sender<Piece>,
    /// The stream that was opened last, by container.
    begun: BTreeMap<String, Begun>,
    outputs: JoinSet<Ended>,
}

/// An opened log stream.
#[derive(Debug)]
struct Begun {
    /// When its container was started, in seconds since 1970.
    started_at: i64,
    /// When the stream failed while the container existed, in seconds since 1970.
    broken: Option<i64>,
}

/// A log stream that has ended.
struct Ended {
    container: String,
    /// When it failed, in seconds since 1970: Podman's service was restarted, or the container was removed during the
    /// read.
    broken: Option<i64>,
}

impl Following {
    async fn run(mut self) {
        let pieces = self.pieces.clone();
        tokio::select! {
            // The caller has closed the connection.
            () = pieces.closed() => {}
            () = self.follow() => {}
        }
    }

    async fn follow(&mut self) {
        while let Some(ended) = self.outputs.join_next().await {
            self.note(ended);
            // Streams of other containers may continue. Look until a stream replaces the ended one.
            let (since, mut pause) = (Instant::now(), LOOK_PAUSE);
            loop {
                sleep(pause).await;
                pause = (pause * 2).min(LOOK_PAUSE_MAX);
                match self.look().await {
                    Ok(true) => break,
                    Ok(false) => {}
                    Err(error) => {
                        tracing::debug!(self.asked.workload, %error, "output cannot be followed now");
                    }
                }
                while let Some(ended) = self.outputs.try_join_next() {
                    self.note(ended);
                }
                let quiet = self.outputs.is_empty();
                if quiet && !self.goes_on() && since.elapsed() >= END_AFTER {
                    return;
                }
            }
        }
    }

    /// Records a stream that failed.
    fn note(&mut self, ended: Result<Ended, tokio::task::JoinError>) {
        if let Ok(Ended {
            container,
            broken: Some(at),
        }) = ended
            && let Some(begun) = self.begun.get_mut(&container)
        {
            begun.broken = Some(at);
        }
    }

    /// Opens new streams; returns whether there are any.
    async fn look(&mut self) -> Result<bool, PodmanError> {
        let pods = self.asked.there().await?;
        self.begin(&pods, None).await
    }

    async fn begin(&mut self, pods: &[Pod], tail: Option<u32>) -> Result<bool, PodmanError> {
        let mut any = false;
        for (container, name) in members(pods) {
            let before = self.begun.get(&container.id);
            let Some(since) = since(container, before) else {
                continue;
            };
            let podman = &self.asked.gateway.podman;
            let output = podman.logs(&container.id, true, tail, since).await?;
            let begun = Begun {
                started_at: container.started_at,
                broken: None,
            };
            self.begun.insert(container.id.clone(), begun);
            let (mut output, pieces) = (told(name, output), self.pieces.clone());
            let container = container.id.clone();
            self.outputs.spawn(async move {
                while let Some(piece) = output.next().await {
                    let Ok(piece) = piece else {
                        let broken = i64::try_from(now_ms() / 1000).ok();
                        return Ended { container, broken };
                    };
                    if pieces.send(Ok(piece)).await.is_err() {
                        break;
                    }
                }
                Ended {
                    container,
                    broken: None,
                }
            });
            any = true;
        }
        Ok(any)
    }

    /// Returns true if one of the pods may produce more output, even if none of its containers runs.
    fn goes_on(&self) -> bool {
        let reports = self.asked.reports();
        reports.iter().any(|report| goes_on(report.phase))
    }
}

/// The start of the output of this container that was not sent yet, in seconds since 1970. The inner `None` means all
/// output, the outer one no output.
fn since(container: &Container, begun: Option<&Begun>) -> Option<Option<i64>> {
    let Some(begun) = begun else {
        return Some(None);
    };
    let runs_again = container.run == Run::Running && container.started_at > begun.started_at;
    // The output of the earlier run was sent already.
    let again = runs_again.then_some(container.started_at);
    begun.broken.or(again).map(Some)
}

/// Returns true if a pod in this phase may produce more output, even if none of its containers runs.
fn goes_on(phase: Phase) -> bool {
    match phase {
        Phase::Pending | Phase::Starting | Phase::Running | Phase::Removing => true,
        Phase::Succeeded | Phase::Stopped | Phase::Failed => false,
    }
}

#[cfg(test)]
mod tests {
    use beemesh_quadlet::health::{Probe, Role};

    use super::*;

    #[test]
    fn each_run_of_a_container_is_told_once() {
        let container = |run, started_at| Container {
            id: "a".into(),
            name: "web-app".into(),
            role: Role::Member,
            run,
            probe: Probe::Absent,
            restarts: 0,
            exit_code: 0,
            started_at,
            exited_at: 0,
        };
        let all = Some(None);
        for (run, started_at, begun, expected) in [
            (Run::Running, 7, None, all),
            (Run::Exited, 7, None, all),
            (Run::Running, 7, Some((7, None)), None),
            (Run::Exited, 7, Some((7, None)), None),
            (Run::Running, 9, Some((7, None)), Some(Some(9))),
            (Run::Exited, 9, Some((7, None)), None),
            (Run::Running, 7, Some((7, Some(8))), Some(Some(8))),
        ] {
            let begun = begun.map(|(started_at, broken)| Begun { started_at, broken });
            let container = container(run, started_at);
            assert_eq!(
                since(&container, begun.as_ref()),
                expected,
                "{container:?} {begun:?}"
            );
        }
    }
}
