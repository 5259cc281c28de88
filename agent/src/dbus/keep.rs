//! Keeps the agent's face on the system bus.
//!
//! Shell: a task of its own, so that a slow bus holds nothing up. In comes what to show; out go words about what is
//! wrong with the bus, empty when nothing is.

use std::time::Duration;

use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use super::{Face, Shown};

const PAUSE_MIN: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// How long the bus may take for one thing.
const BUS_MAX: Duration = Duration::from_secs(10);

/// Publishes, shows, and publishes again when the bus was lost; ends with the sender of `shown`.
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

/// Shows every change until something is wrong; says what.
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
