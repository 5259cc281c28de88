//! A watch on this host's Podman: whether it answers, its version, and pods of Beemesh that no unit stands for.
//!
//! Shell. The health of workloads comes from their units; pods are looked at only to notice what the units cannot
//! show. Holding Podman's event stream also keeps its service running, which spares the next play its start.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use beemesh_protocol::ipc::UnitState;
use beemesh_quadlet::podman::{Change, LABEL_WORKLOAD, Podman, PodmanError};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

/// Events are hints, and some get lost: look this often without any.
const RESYNC: Duration = Duration::from_secs(60);
/// Making a pod sends many events; look when the dust has settled, and out of the way of the play.
const SETTLE: Duration = Duration::from_secs(2);

/// What Podman says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Pods {
    /// Podman's version; empty while unknown.
    pub(super) version: String,
    /// Why Podman does not answer; empty when it does.
    pub(super) trouble: String,
    /// Pods without a unit, in words for a person.
    pub(super) stray: Vec<String>,
}

/// Watches Podman for as long as somebody receives.
pub(super) fn watch(
    podman: Podman,
    units: watch::Receiver<Arc<BTreeMap<String, UnitState>>>,
) -> watch::Receiver<Pods> {
    let (sender, receiver) = watch::channel(Pods::default());
    tokio::spawn(follow(podman, units, sender));
    receiver
}

async fn follow(
    podman: Podman,
    units: watch::Receiver<Arc<BTreeMap<String, UnitState>>>,
    pods: watch::Sender<Pods>,
) {
    let mut events = podman.events(LABEL_WORKLOAD);
    let mut next = Instant::now();
    loop {
        tokio::select! {
            () = pods.closed() => return,
            () = sleep_until(next) => {
                let before = pods.borrow().version.clone();
                let now = look(&podman, &units, before).await;
                pods.send_if_modified(|present| {
                    let changed = *present != now;
                    *present = now;
                    changed
                });
                next = Instant::now() + RESYNC;
            }
            change = events.next() => match change {
                // Health checks and restarts make and remove no pod.
                Change::Event(event) if !matches!(event.action.as_str(), "create" | "remove") => {}
                Change::Connected | Change::Event(_) => next = next.min(Instant::now() + SETTLE),
                Change::Lost(error) => {
                    tracing::debug!(%error, "event stream of Podman lost, will reconnect");
                    next = next.min(Instant::now() + SETTLE);
                }
            },
        }
    }
}

async fn look(
    podman: &Podman,
    units: &watch::Receiver<Arc<BTreeMap<String, UnitState>>>,
    version: String,
) -> Pods {
    let asked = async {
        let version = if version.is_empty() {
            podman.version().await?
        } else {
            version.clone()
        };
        Ok::<_, PodmanError>((version, podman.pods_labelled(LABEL_WORKLOAD).await?))
    };
    match asked.await {
        Ok((version, pods)) => Pods {
            version,
            trouble: String::new(),
            stray: stray(&pods, &units.borrow()),
        },
        // It may come back as another version.
        Err(error) => Pods {
            version: String::new(),
            trouble: error.to_string(),
            stray: Vec::new(),
        },
    }
}

/// Pods that carry our labels although their workload has no Quadlet here.
fn stray(pods: &BTreeMap<String, String>, units: &BTreeMap<String, UnitState>) -> Vec<String> {
    pods.iter()
        .filter(|(_, workload)| {
            let unit = units.get(*workload);
            unit.is_none_or(|unit| unit.kube.is_empty())
        })
        .map(|(pod, _)| {
            format!("pod {pod} carries Beemesh's labels but has no unit: `podman pod rm -f {pod}` removes it")
        })
        .collect()
}
