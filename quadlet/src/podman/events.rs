//! Podman's event stream, which reconnects without end.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hyper014::body::HttpBody as _;
use serde::Deserialize;
use tokio::sync::mpsc;

use super::wire::{self, Call, Wire};
use super::{PodmanError, error};

/// The length of the queue. An event is a hint to look: a reader that is this far behind loses nothing if the stream
/// waits for it.
const QUEUE_MAX: usize = 16;
/// The longest event in bytes. A container with fifty labels of the largest size needs far less.
const LINE_BYTES_MAX: usize = 256 << 10;
/// The first pause before a reconnection. When systemd starts Podman's service by its socket, the service answers
/// within a tenth of a second.
const PAUSE_MIN: Duration = Duration::from_millis(200);
/// The longest pause before a reconnection: long enough not to load a host whose Podman is broken, short enough to
/// reconnect soon after a repair.
const PAUSE_MAX: Duration = Duration::from_secs(10);

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
#[derive(Debug, Clone, PartialEq, Eq)]
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
    pub(super) fn follow(wire: Wire, label: &str) -> Self {
        let (sender, changes) = mpsc::channel(QUEUE_MAX);
        let label = label.to_owned();
        tokio::spawn(async move {
            tokio::select! {
                () = sender.closed() => {}
                () = run(&wire, &label, &sender) => {}
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

async fn run(wire: &Wire, label: &str, changes: &mpsc::Sender<Change>) {
    let mut pause = PAUSE_MIN;
    loop {
        let Err(lost) = stream(wire, label, changes, &mut pause).await else {
            return;
        };
        if changes.send(Change::Lost(lost)).await.is_err() {
            return;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
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
            if matches(&event, label) && changes.send(Change::Event(event)).await.is_err() {
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
