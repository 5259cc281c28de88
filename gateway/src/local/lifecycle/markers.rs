//! What releases before 0.3 kept of a host's life: a file for each thing that was under way.
//!
//! Shell. Reads them in the order in which such a release took them, and removes them when their meaning is in the file that
//! [`super::store`] keeps. Where they are there, they are newer than that file: a host may go back to such a release, and come again.

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

/// What the files say. A key that is a member's comes first, for the old one opens nothing any more; then a join whose old log is
/// still to be removed; then a recovery, which was the last decision of an administrator.
///
/// Nothing when there are none. The last of the names is the file that decided.
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

/// Their meaning is kept elsewhere. They go in this order, so that a power cut leaves the one that decided.
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
