//! Podman's event stream, which reconnects without end.
//!
//! Shell. A supervisor takes the events from the gateway while that serves them ([`super::served_events`]), and follows
//! Podman otherwise.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hyper014::body::HttpBody as _;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::served_events::Served;
use super::wire::{self, Call, Wire};
use super::{PodmanError, error};

/// The length of the queue. An event is a hint to look: a reader that is this far behind loses nothing if the stream
/// waits for it.
const QUEUE_MAX: usize = 16;
/// The longest event in bytes. A container with fifty labels of the largest size needs far less.
pub(super) const LINE_BYTES_MAX: usize = 256 << 10;
/// The first pause before a reconnection. When systemd starts Podman's service by its socket, the service answers
/// within a tenth of a second.
const PAUSE_MIN: Duration = Duration::from_millis(200);
/// The longest pause before a reconnection: long enough not to load a host whose Podman is broken, short enough to
/// reconnect soon after a repair.
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// How long a supervisor follows Podman itself before it asks the gateway again. A part of it depends on the process, so
/// that not all ask at once.
const GATEWAY_PAUSE: Duration = Duration::from_secs(15);

/// An item of the stream.
#[derive(Debug)]
pub enum Change {
    /// The stream is connected. Look now, because it does not report what happened before.
    Connected,
    /// An event of a container.
    Event(Event),
    /// The stream ended and is reconnecting.
    Lost(PodmanError),
}

/// An event of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// `start`, `died`, `restart`, `remove`, `health_status`, …
    pub action: String,
    /// The container's id.
    pub container: String,
    /// The container's labels, and `name`, `image`.
    pub attributes: BTreeMap<String, String>,
    /// The result of a `health_status` event: `healthy`, `unhealthy`, …
    pub health: String,
    /// The time by the host's clock; `None` if Podman does not report it.
    pub at: Option<SystemTime>,
}

/// A subscription, which ends when it is dropped.
#[derive(Debug)]
pub struct Events {
    changes: mpsc::Receiver<Change>,
}

impl Events {
    /// Follows the events of containers with this label. With `gateway`, the socket on which the gateway may serve them,
    /// the label must have a value.
    pub(super) fn follow(wire: Wire, label: &str, gateway: Option<PathBuf>) -> Self {
        let (sender, changes) = mpsc::channel(QUEUE_MAX);
        let source = Source {
            wire,
            label: label.to_owned(),
            gateway,
        };
        tokio::spawn(async move {
            tokio::select! {
                () = sender.closed() => {}
                () = run(&source, &sender) => {}
            }
        });
        Self { changes }
    }

    /// The next change, if it has arrived already.
    pub fn waiting(&mut self) -> Option<Change> {
        self.changes.try_recv().ok()
    }

    /// Waits for the next change. The stream never ends, and the future may be dropped.
    pub async fn next(&mut self) -> Change {
        match self.changes.recv().await {
            Some(change) => change,
            // The task only ends with its receiver, or with the runtime.
            None => std::future::pending().await,
        }
    }
}

/// Where events come from.
struct Source {
    wire: Wire,
    label: String,
    gateway: Option<PathBuf>,
}

impl Source {
    /// A subscription to the gateway, if it serves the events now.
    async fn served(&self) -> Option<Served> {
        let (_, value) = self.label.split_once('=')?;
        Served::open(self.gateway.as_deref()?, value).await.ok()
    }

    /// Waits until the gateway serves the events.
    async fn served_again(&self) -> Served {
        if self.gateway.is_none() {
            return std::future::pending().await;
        }
        let share = u64::from(std::process::id()) % GATEWAY_PAUSE.as_secs();
        let mut pause = GATEWAY_PAUSE + Duration::from_secs(share);
        loop {
            tokio::time::sleep(pause).await;
            if let Some(served) = self.served().await {
                return served;
            }
            pause = (pause * 2).min(GATEWAY_PAUSE * 4);
        }
    }
}

async fn run(source: &Source, changes: &mpsc::Sender<Change>) {
    let mut pause = PAUSE_MIN;
    let mut served = source.served().await;
    loop {
        let lost = match served.take() {
            Some(served) => {
                pause = PAUSE_MIN;
                pass_on(served, changes).await
            }
            None => tokio::select! {
                lost = stream(&source.wire, &source.label, changes, &mut pause) => lost,
                again = source.served_again() => {
                    served = Some(again);
                    continue;
                }
            },
        };
        let Err(lost) = lost else {
            return;
        };
        if changes.send(Change::Lost(lost)).await.is_err() {
            return;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Passes on what the gateway serves, until it ends; returns `Ok` when the receiver is dropped.
async fn pass_on(mut served: Served, changes: &mpsc::Sender<Change>) -> Result<(), PodmanError> {
    if changes.send(Change::Connected).await.is_err() {
        return Ok(());
    }
    loop {
        match served.next().await {
            Ok(event) => {
                if changes.send(Change::Event(event)).await.is_err() {
                    return Ok(());
                }
            }
            Err(error) => {
                return Err(PodmanError::Broken {
                    operation: "follow events by the gateway".to_owned(),
                    reason: error.to_string(),
                });
            }
        }
    }
}

/// Runs until the connection breaks; returns `Ok` when the receiver is dropped.
async fn stream(
    wire: &Wire,
    label: &str,
    changes: &mpsc::Sender<Change>,
    pause: &mut Duration,
) -> Result<(), PodmanError> {
    let operation = "follow events";
    // Podman 5 cannot filter containers by a label's key alone, so this function does.
    let mut filters = vec![("type", &["container"][..])];
    let by_value = [label];
    if label.contains('=') {
        filters.push(("label", &by_value));
    }
    let query = wire::query(&[("stream", "true"), ("filters", &wire::filters(&filters))]);
    let mut body = wire
        .open(Call::get(operation, format!("/libpod/events{query}")))
        .await?;
    *pause = PAUSE_MIN;
    if changes.send(Change::Connected).await.is_err() {
        return Ok(());
    }
    let mut pending = Vec::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk.map_err(|error| error::from_hyper(operation, wire.socket(), &error))?;
        pending.extend_from_slice(&chunk);
        while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = pending.drain(..=end).collect();
            let Some(event) = read(&line) else { continue };
            if matches(&event, label)
                && !is_exec(&event)
                && changes.send(Change::Event(event)).await.is_err()
            {
                return Ok(());
            }
        }
        if pending.len() > LINE_BYTES_MAX {
            let reason = format!("an event of more than {LINE_BYTES_MAX} bytes");
            return Err(PodmanError::Unreadable {
                operation: operation.to_owned(),
                reason,
            });
        }
    }
    Err(PodmanError::Broken {
        operation: operation.to_owned(),
        reason: "the stream ended".to_owned(),
    })
}

/// Returns true for a command that was run in the container, such as a probe. It changes nothing of the container.
fn is_exec(event: &Event) -> bool {
    matches!(event.action.as_str(), "exec" | "exec_died")
}

fn matches(event: &Event, label: &str) -> bool {
    match label.split_once('=') {
        Some((key, value)) => event
            .attributes
            .get(key)
            .is_some_and(|found| found == value),
        None => event.attributes.contains_key(label),
    }
}

fn read(line: &[u8]) -> Option<Event> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Wired {
        action: String,
        actor: Actor,
        #[serde(default)]
        health_status: String,
        #[serde(rename = "timeNano")]
        at: Option<i64>,
    }
    #[derive(Deserialize)]
    struct Actor {
        #[serde(rename = "ID")]
        id: String,
        #[serde(rename = "Attributes", default)]
        attributes: BTreeMap<String, String>,
    }
    let Wired {
        action,
        actor,
        health_status: health,
        at,
    } = serde_json::from_slice(line).ok()?;
    let nanos = at.and_then(|at| u64::try_from(at).ok());
    Some(Event {
        action,
        container: actor.id,
        attributes: actor.attributes,
        health,
        at: nanos.map(|nanos| UNIX_EPOCH + Duration::from_nanos(nanos)),
    })
}
