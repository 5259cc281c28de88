//! Keeps this host's [`Life`] in a file, and notifies its watchers.
//!
//! Shell. Owns the file `life` in the gateway's folder, which is written durably: a power cut leaves either the old
//! state or the new one. [`Life::after`] decides on each event, one at a time.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::watch;

use super::{Event, Forbidden, Life, markers};
use crate::local::files::{Home, HomeError};

const FILE: &str = "life";

/// Why the state was not changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LifeError {
    /// The event is not allowed in this state.
    #[error(transparent)]
    Forbidden(#[from] Forbidden),
    /// The state cannot be written.
    #[error("write the state of this host")]
    Home(#[from] HomeError),
}

/// A handle on the life of this host.
#[derive(Debug, Clone)]
pub(crate) struct Lifecycle {
    home: Home,
    life: Arc<watch::Sender<Life>>,
    /// Held from reading a state until the next one is durable.
    changing: Arc<Mutex<()>>,
}

impl Lifecycle {
    /// Reads the state from the gateway's folder.
    pub(crate) fn open(home: &Home) -> Result<Self, HomeError> {
        let path = home.file(FILE);
        let life = match (markers::read(home)?, home.read(&path)?) {
            (Some((life, names)), _) => {
                write(home, &path, &life)?;
                markers::remove(home, names)?;
                life
            }
            (None, Some(bytes)) => {
                serde_json::from_slice(&bytes).map_err(|error| home.damaged(&path, &error))?
            }
            (None, None) => {
                write(home, &path, &Life::Alone)?;
                Life::Alone
            }
        };
        Ok(Self {
            home: home.clone(),
            life: Arc::new(watch::Sender::new(life)),
            changing: Arc::default(),
        })
    }

    /// Returns the current state.
    pub(crate) fn now(&self) -> Life {
        self.life.borrow().clone()
    }

    /// Returns a watch of the state.
    pub(crate) fn watch(&self) -> watch::Receiver<Life> {
        self.life.subscribe()
    }

    /// Applies an event. On success the returned state is durable; on failure nothing has changed.
    pub(crate) fn happens(&self, event: Event) -> Result<Life, LifeError> {
        let _one_at_a_time = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.now();
        let after = before.after(event)?;
        if after != before {
            write(&self.home, &self.home.file(FILE), &after)?;
            tracing::debug!(%before, %after, "this host's state");
            self.life.send_replace(after.clone());
        }
        Ok(after)
    }

    /// Waits until the gateway must restart.
    pub(crate) async fn begins_again(&self) {
        // The sender lives as long as this handle.
        drop(self.watch().wait_for(Life::begins_again).await);
    }
}

fn write(home: &Home, path: &Path, life: &Life) -> Result<(), HomeError> {
    let bytes = serde_json::to_vec(life).map_err(|error| home.damaged(path, &error))?;
    home.replace(path, &bytes)
}

#[cfg(test)]
mod tests;
