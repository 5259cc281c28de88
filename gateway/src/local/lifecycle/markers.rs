//! Reads the marker files of releases before 0.3, which had one file for each operation in progress.
//!
//! Shell. It reads the files in the order in which those releases processed them, and removes them once the file of
//! [`super::store`] has their content. If marker files exist, they are newer than that file: the host was downgraded to
//! such a release and upgraded again.

use beemesh_protocol::{ClusterId, HostId};
use serde::Deserialize;

use super::{Joining, Life, Rotation};
use crate::local::files::{Home, HomeError};

const ROTATING: &str = "rotating";
const JOINING: &str = "joining";
const RECOVERING: &str = "recovering";
const REMOVED: &str = "removed";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rotating {
    host: HostId,
    admitted: Option<Joining>,
}

/// Returns the state that the files describe, and their names, the last of which is the file that decided; `None` if
/// there are no files.
///
/// The order of precedence is: an admitted new key, because the old key is no longer valid; a join whose old log has
/// not been removed yet; a recovery, because it was the administrator's last decision.
pub(super) fn read(home: &Home) -> Result<Option<(Life, [&'static str; 4])>, HomeError> {
    let rotating: Option<Rotating> = json(home, ROTATING)?;
    let joining: Option<Joining> = json(home, JOINING)?;
    let recovering = cluster(home, RECOVERING)?;
    let removed = cluster(home, REMOVED)?;
    Ok(Some(match (rotating, joining, recovering, removed) {
        (
            Some(Rotating {
                host,
                admitted: Some(joining),
            }),
            ..,
        ) => (
            Life::RotatingKey(Rotation::Admitted { host, joining }),
            [REMOVED, RECOVERING, JOINING, ROTATING],
        ),
        (_, Some(joining), recovering, _) if !joining.cleared || recovering.is_none() => (
            Life::Joining(joining),
            [REMOVED, RECOVERING, ROTATING, JOINING],
        ),
        (_, _, Some(cluster), _) => (
            Life::Recovering { cluster },
            [REMOVED, JOINING, ROTATING, RECOVERING],
        ),
        (Some(Rotating { host, .. }), ..) => (
            Life::RotatingKey(Rotation::Proposed { host }),
            [REMOVED, RECOVERING, JOINING, ROTATING],
        ),
        (.., Some(cluster)) => (
            Life::Removed { cluster, at: None },
            [ROTATING, RECOVERING, JOINING, REMOVED],
        ),
        (None, _, None, None) => return Ok(None),
    }))
}

/// Removes the marker files, after their content has been stored elsewhere. The file that decided is removed last, so
/// that a power cut leaves that one.
pub(super) fn remove(home: &Home, names: [&str; 4]) -> Result<(), HomeError> {
    for name in names {
        home.remove(&home.file(name))?;
    }
    Ok(())
}

fn json<T: for<'a> Deserialize<'a>>(home: &Home, name: &str) -> Result<Option<T>, HomeError> {
    let path = home.file(name);
    let Some(bytes) = home.read(&path)? else {
        return Ok(None);
    };
    let read = serde_json::from_slice(&bytes);
    read.map(Some).map_err(|error| home.damaged(&path, &error))
}

fn cluster(home: &Home, name: &str) -> Result<Option<ClusterId>, HomeError> {
    let path = home.file(name);
    let Some(bytes) = home.read(&path)? else {
        return Ok(None);
    };
    let text = String::from_utf8_lossy(&bytes);
    let read = text.trim().parse();
    read.map(Some).map_err(|error| home.damaged(&path, &error))
}
