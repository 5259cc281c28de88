//! Shows, labels, drains and removes hosts.
//!
//! Shell: [`crate::cluster::view`] decides whether a host can be removed, and what a drain waits for.

use std::time::Duration;

use axum::{
    Extension, Json,
    body::Body,
    extract::{Path, State},
    http::{Request, StatusCode},
};
use beemesh_protocol::{
    HostId,
    api::{Host, HostChanged, KeyChanged, LabelsPatch},
    peer::Outcome,
    state::Change,
};
use tokio::time::Instant;

use super::read::no_host;
use crate::{
    api::{
        ApiError, Shared,
        request::{self, Asked, Caller, DrainQuery, ReadQuery, TimeoutQuery, small_body},
        submit::{confirm, look, propose, settle, unapplied},
    },
    cluster::{
        labels::is_automatic,
        placement::{LABEL_HOSTNAME, choose::There, seats},
        view::Scene,
    },
    context::Gateway,
    membership::{
        give_up_vote::{DemoteError, give_up_vote},
        rotate_key::{self, RotateError},
    },
};

/// How long a request without `wait` waits until this host has applied the change.
const KNOWN_MAX: Duration = Duration::from_secs(2);
/// How long a removal waits for the mesh to reach the voters that would be left: a host that has just joined is connected within a second.
const MEETING_MAX: Duration = Duration::from_secs(2);

pub(in crate::api) async fn show(
    State(shared): State<Shared>,
    Path(name): Path<String>,
    Asked(query): Asked<ReadQuery>,
) -> Result<Json<Host>, ApiError> {
    let scene = look(&shared.gateway, &query).await?;
    let host = find(&scene, &name)?;
    let shown = scene.hosts().into_iter().find(|one| one.id == host);
    shown.map(Json).ok_or_else(|| no_host(&name))
}

pub(in crate::api) async fn label(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    Asked(query): Asked<TimeoutQuery>,
    request: Request<Body>,
) -> Result<Json<HostChanged>, ApiError> {
    let labels: LabelsPatch = small_body(request).await?;
    for (key, value) in &labels {
        check_label(key, value.as_deref())?;
    }
    let (set, remove): (Vec<_>, Vec<_>) =
        labels.into_iter().partition(|(_, value)| value.is_some());
    let set = set.into_iter();
    let change = |host| Change::LabelHost {
        host,
        set: set.filter_map(|(key, value)| Some((key, value?))).collect(),
        remove: remove.into_iter().map(|(key, _)| key).collect(),
    };
    let asked = Asking::new(name, query.timeout, caller);
    let (_, answer) = asked.make(&shared, change, |_, _| Ok(())).await?;
    Ok(Json(answer))
}

/// Drains a host: evicts the workloads that other hosts can run. Workloads with data on the host stay, unless the
/// caller wants to move them without their data.
pub(in crate::api) async fn drain(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    Asked(query): Asked<DrainQuery>,
) -> Result<Json<HostChanged>, ApiError> {
    let wait = request::wait(query.wait)?;
    let asked = Asking::new(name, query.timeout, caller.clone());
    let change = |host| Change::DrainHost {
        host,
        drained: true,
    };
    let (host, mut answer) = asked.make(&shared, change, |_, _| Ok(())).await?;
    if query.move_without_data {
        move_without_data(&shared, &caller, host, request::timeout(query.timeout)?).await?;
    }
    let index = answer.index;
    let wait_for = wait.unwrap_or(KNOWN_MAX);
    let there = |scene: &Scene| {
        let gone = || wait.is_none() || scene.leaving(host, index).is_empty();
        scene.applied >= index && gone()
    };
    let (settled, scene) = settle(&shared.gateway, wait_for, there).await;
    answer.leaves = scene.leaves(host);
    answer.leaves_data = scene.leaves_data(host);
    if wait.is_some() {
        answer.settled = Some(settled);
        answer.waiting_for = scene.leaving(host, index);
    }
    Ok(Json(answer))
}

/// Assigns pods that are stopped on a drained host because of their data to other hosts. A pod that no other host can
/// run stays, and the answer lists it.
async fn move_without_data(
    shared: &Shared,
    caller: &Caller,
    host: HostId,
    timeout: Duration,
) -> Result<(), ApiError> {
    let gateway = &shared.gateway;
    confirm(gateway, Instant::now() + timeout).await?;
    let changes = {
        let scene = gateway.scene();
        let there = There::new(&scene.state, &scene.reachable, &scene.reports);
        seats::move_without_data(&there, host)
    };
    for change in changes {
        let committed = propose(shared, caller.clone(), change, timeout).await?;
        if let Outcome::Refused(_) = committed.outcome {
            return Err(unapplied(committed.outcome, &[]));
        }
    }
    Ok(())
}

pub(in crate::api) async fn undrain(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    Asked(query): Asked<TimeoutQuery>,
) -> Result<Json<HostChanged>, ApiError> {
    let asked = Asking::new(name, query.timeout, caller);
    let change = |host| Change::DrainHost {
        host,
        drained: false,
    };
    let (_, answer) = asked.make(&shared, change, |_, _| Ok(())).await?;
    Ok(Json(answer))
}

/// Gives up a host that is unreachable, before the cluster does so by itself. Its pods start on other hosts.
pub(in crate::api) async fn lose(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    Asked(query): Asked<TimeoutQuery>,
) -> Result<Json<HostChanged>, ApiError> {
    let asked = Asking::new(name, query.timeout, caller);
    let change = |host| Change::LoseHost {
        host,
        declared: true,
    };
    let can_be_lost = |scene: &Scene, host| {
        let refused = |reason| {
            ApiError::conflict(reason)
                .hint("`beemesh host drain` moves the workloads of a host that is reachable")
        };
        scene.can_be_lost(host).map_err(refused)
    };
    let (_, answer) = asked.make(&shared, change, can_be_lost).await?;
    Ok(Json(answer))
}

/// Removes a host from the members, and waits until Raft has removed it, too. If the removal needs its vote, the host
/// first gives up its vote.
pub(in crate::api) async fn remove(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    Asked(query): Asked<TimeoutQuery>,
) -> Result<Json<HostChanged>, ApiError> {
    let timeout = request::timeout(query.timeout)?;
    let deadline = Instant::now() + timeout;
    let gateway = &shared.gateway;
    let can_go = |scene: &Scene, host| {
        let refused =
            |reason| ApiError::conflict(reason).hint("`beemesh get hosts` lists the members");
        scene.can_go(host).map_err(refused)
    };
    confirm(gateway, deadline).await?;
    let host = find(&gateway.scene(), &name)?;
    // The log knows a host that has just joined before the mesh is connected to it.
    let (_, scene) = settle(gateway, MEETING_MAX, |scene| scene.has_quorum_without(host)).await;
    can_go(&scene, host)?;
    let demoted = give_up_vote(gateway, host, deadline).await;
    demoted.map_err(|error| not_demoted(error, gateway, timeout))?;
    let change = |host| Change::RemoveHost { host };
    let asked = Asking::new(name, query.timeout, caller);
    let (host, mut answer) = asked.make(&shared, change, can_go).await?;
    let there = |scene: &Scene| !scene.consensus.counts(host);
    let left = deadline.saturating_duration_since(Instant::now());
    let (settled, _) = settle(gateway, left, there).await;
    answer.settled = Some(settled);
    Ok(Json(answer))
}

/// Rotates this host's key.
pub(in crate::api) async fn rotate(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    Asked(query): Asked<TimeoutQuery>,
) -> Result<(StatusCode, Json<KeyChanged>), ApiError> {
    let timeout = request::timeout(query.timeout)?;
    let gateway = &shared.gateway;
    confirm(gateway, Instant::now() + timeout).await?;
    let old = gateway.host;
    let origin = caller.origin(old);
    match rotate_key::rotate(gateway, origin, Instant::now() + timeout).await {
        Ok(id) => {
            tracing::warn!(%old, new = %id, %caller, "key changed");
            Ok((StatusCode::ACCEPTED, Json(KeyChanged { id, old })))
        }
        Err(RotateError::Refused(words)) => Err(ApiError::conflict(words)),
        Err(RotateError::Demote(error)) => Err(not_demoted(error, gateway, timeout)),
        Err(RotateError::Propose(error)) => {
            Err(ApiError::propose(&error, &gateway.scene(), timeout))
        }
        Err(RotateError::Life(error)) => Err(ApiError::life(error)),
        Err(error @ RotateError::Key(_)) => Err(ApiError::internal(format!(
            "{:#}",
            anyhow::Error::from(error)
        ))),
    }
}

fn not_demoted(error: DemoteError, gateway: &Gateway, timeout: Duration) -> ApiError {
    match error {
        DemoteError::Unknown(words) => ApiError::conflict(words),
        DemoteError::Propose(error) => ApiError::propose(&error, &gateway.scene(), timeout),
        DemoteError::Votes => ApiError::unavailable(error.to_string())
            .hint("nothing was changed: try again in a moment; the clocks of the hosts must not be a minute apart (`timedatectl`)"),
    }
}

/// A request to change one host.
struct Asking {
    name: String,
    timeout: Option<u64>,
    caller: Caller,
}

impl Asking {
    fn new(name: String, timeout: Option<u64>, caller: Caller) -> Self {
        Self {
            name,
            timeout,
            caller,
        }
    }

    /// Checks and proposes the change.
    async fn make(
        self,
        shared: &Shared,
        change: impl FnOnce(HostId) -> Change,
        check: impl FnOnce(&Scene, HostId) -> Result<(), ApiError>,
    ) -> Result<(HostId, HostChanged), ApiError> {
        let gateway = &shared.gateway;
        let timeout = request::timeout(self.timeout)?;
        confirm(gateway, Instant::now() + timeout).await?;
        let scene = gateway.scene();
        let host = find(&scene, &self.name)?;
        check(&scene, host)?;
        let name = scene.name(host);
        let committed = propose(shared, self.caller, change(host), timeout).await?;
        if !matches!(committed.outcome, Outcome::Done) {
            return Err(unapplied(committed.outcome, &[]));
        }
        let answer = HostChanged {
            index: committed.index,
            host: name,
            settled: None,
            waiting_for: Vec::new(),
            leaves: Vec::new(),
            leaves_data: false,
        };
        Ok((host, answer))
    }
}

fn find(scene: &Scene, name: &str) -> Result<HostId, ApiError> {
    scene.host_named(name).ok_or_else(|| no_host(name))
}

/// Kubernetes' rule for label keys: a name, optionally after a DNS name and `/`.
/// <https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#syntax-and-character-set>
fn check_label(key: &str, value: Option<&str>) -> Result<(), ApiError> {
    if key == LABEL_HOSTNAME {
        return Err(ApiError::bad_request(format!(
            "`{key}` is the host's name, which /etc/beemesh/agent.toml.d sets"
        )));
    }
    if is_automatic(key) {
        return Err(ApiError::bad_request(format!(
            "each host sets `{key}` itself: use another label"
        )));
    }
    let plain = |text: &str| {
        let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
        let bytes = text.as_bytes();
        let inside = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
        bytes.len() <= 63 && edge(bytes.first()) && edge(bytes.last()) && bytes.iter().all(inside)
    };
    let (prefix, name) = key
        .split_once('/')
        .map_or((None, key), |(prefix, name)| (Some(prefix), name));
    if !plain(name) || !prefix.is_none_or(beemesh_quadlet::manifest::is_name) {
        return Err(ApiError::bad_request(format!(
            "label {key:?}: a key has 1 to 63 letters, digits, `-`, `_` and `.`, with a letter or digit at both ends, and \
             before it, if at all, a DNS name and `/`"
        )));
    }
    match value {
        Some(value) if !value.is_empty() && !plain(value) => Err(ApiError::bad_request(format!(
            "label {key}={value:?}: a value has up to 63 letters, digits, `-`, `_` and `.`, with a letter or digit at both \
             ends"
        ))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_those_of_kubernetes() {
        let long = "x".repeat(64);
        for (key, value, good) in [
            ("disk", Some("ssd"), true),
            ("disk", None, true),
            ("disk", Some(""), true),
            ("example.com/Zone_1", Some("A.b-c_d"), true),
            ("", None, false),
            ("/zone", None, false),
            ("a/b/c", None, false),
            ("Example.com/zone", None, false),
            ("-disk", None, false),
            (&long, None, false),
            ("disk", Some(&long), false),
            ("disk", Some("a b"), false),
            (LABEL_HOSTNAME, Some("h9"), false),
            ("kubernetes.io/os", Some("linux"), false),
            ("beta.kubernetes.io/arch", None, false),
            ("node.kubernetes.io/arch", Some("arm64"), true),
        ] {
            assert_eq!(check_label(key, value).is_ok(), good, "{key:?}={value:?}");
        }
    }
}
