//! Keeps the agent's object published on the system bus.
//!
//! Shell: a task, so that a slow bus does not block the agent. Input: the values to publish. Output: a message about
//! the trouble with the bus, empty if there is none.

use std::time::Duration;

use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use super::{Face, Shown};

const PAUSE_MIN: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// How long the bus may take for one operation.
const BUS_MAX: Duration = Duration::from_secs(10);

/// Publishes the object, updates it, and publishes it again if the bus connection is lost. Ends when the sender of
/// `shown` is dropped.
pub(crate) async fn keep(mut shown: watch::Receiver<Shown>, trouble: watch::Sender<String>) {
    let mut pause = PAUSE_MIN;
    while shown.has_changed().is_ok() {
        let now = shown.borrow_and_update().clone();
        let reason = match timeout(BUS_MAX, Face::publish(now)).await {
            Ok(Ok(face)) => {
                trouble.send_replace(String::new());
                pause = PAUSE_MIN;
                follow(&face, &mut shown).await
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "the bus does not answer".to_owned(),
        };
        trouble.send_if_modified(|words| {
            let changed = *words != reason;
            *words = reason;
            changed
        });
        sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Publishes every change until an operation fails, and returns the reason.
async fn follow(face: &Face, shown: &mut watch::Receiver<Shown>) -> String {
    loop {
        tokio::select! {
            () = face.closed() => return "the bus closed the connection".to_owned(),
            changed = shown.changed() => {
                if changed.is_err() {
                    return "the agent is stopping".to_owned();
                }
            }
        }
        let now = shown.borrow_and_update().clone();
        match timeout(BUS_MAX, face.show(now)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return error.to_string(),
            Err(_) => return "the bus does not answer".to_owned(),
        }
    }
}
