//! A watch on this host's Podman: whether it responds, its version, and pods of Beemesh without a unit.
//!
//! Shell. The health of workloads comes from their units. The pods are listed only to find those that no unit shows. An
//! open event stream also keeps Podman's service running, so that the next play need not start it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use beemesh_protocol::ipc::UnitState;
use beemesh_quadlet::podman::{Change, LABEL_WORKLOAD, Podman, PodmanError};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

/// Interval of the listing without events. Events are hints, and some are lost.
const RESYNC: Duration = Duration::from_secs(60);
/// Delay of the listing after an event. Podman sends many events for a new pod, and the listing must not slow down its
/// play.
const SETTLE: Duration = Duration::from_secs(2);

/// The state of Podman.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Pods {
    /// Podman's version; empty while unknown.
    pub(super) version: String,
    /// Why Podman does not respond, as a message; empty if it does.
    pub(super) trouble: String,
    /// Pods without a unit, as messages.
    pub(super) stray: Vec<String>,
}

/// Watches Podman until all receivers are dropped.
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
                // Healthchecks and restarts neither create nor remove pods.
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
        // Podman may have another version when it responds again.
        Err(error) => Pods {
            version: String::new(),
            trouble: error.to_string(),
            stray: Vec::new(),
        },
    }
}

/// Pods with the labels of Beemesh whose workload has no Quadlet on this host.
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
