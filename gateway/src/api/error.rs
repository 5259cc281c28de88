//! The responses to failed requests.
//!
//! Pure: typed failures in, a status and JSON out.

use std::{collections::BTreeSet, time::Duration};

use axum::{
    http::StatusCode,
    response::{IntoResponse, Response},
};
use beemesh_protocol::{
    HostId,
    api::{Code, ErrorAnswer, Failure, Problem},
    peer::Refusal,
};
use beemesh_quadlet::manifest::{self, Place};

use crate::{
    cluster::{
        releases::TooOld,
        view::{Scene, names_of, sentence},
    },
    local::lifecycle::store::LifeError,
    raft::{ProposeError, ReadError},
};

/// The response to a failed request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ApiError {
    status: StatusCode,
    failure: Failure,
}

impl ApiError {
    fn new(status: StatusCode, code: Code, message: impl Into<String>) -> Self {
        Self {
            status,
            failure: Failure {
                code,
                message: message.into(),
                hint: String::new(),
                problems: Vec::new(),
                pulling: false,
            },
        }
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, Code::Invalid, message)
    }

    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, Code::NotFound, message)
    }

    pub(super) fn method(message: impl Into<String>) -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, Code::Invalid, message)
    }

    pub(super) fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, Code::Forbidden, message)
    }

    pub(super) fn conflict(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, Code::Conflict, message)
    }

    pub(super) fn too_large(message: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, Code::TooLarge, message)
    }

    pub(super) fn too_slow(message: impl Into<String>) -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, Code::Invalid, message)
    }

    pub(super) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable, message)
    }

    /// Hosts pull images first.
    pub(super) fn pulling(message: impl Into<String>) -> Self {
        let mut error = Self::unavailable(message);
        error.failure.pulling = true;
        error
    }

    pub(super) fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, Code::Internal, message)
    }

    /// A lifecycle event that this host's state forbids, or a failure to write the state.
    pub(super) fn life(error: LifeError) -> Self {
        match error {
            LifeError::Forbidden(forbidden) => Self::conflict(forbidden.to_string()),
            LifeError::Home(source) => Self::internal(format!(
                "{:#}",
                anyhow::Error::from(LifeError::Home(source))
            )),
        }
    }

    /// Sets the hint, which says what the user can do.
    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.failure.hint = hint.into();
        self
    }

    /// A manifest with problems of its own, found without the cluster.
    pub(super) fn manifest(problems: Vec<Problem>) -> Self {
        let message = match problems.len() {
            1 => "the manifest has a problem; nothing was applied".to_owned(),
            count => format!("the manifest has {count} problems; nothing was applied"),
        };
        let mut error = Self::new(StatusCode::UNPROCESSABLE_ENTITY, Code::Invalid, message);
        error.failure.problems = problems;
        error
    }

    /// A manifest that conflicts with workloads of the cluster.
    pub(super) fn held(problems: Vec<Problem>) -> Self {
        let mut error = Self::manifest(problems);
        (error.status, error.failure.code) = (StatusCode::CONFLICT, Code::Conflict);
        error
    }

    /// A change of a workload, without a file, that hosts cannot carry out.
    pub(super) fn unable(problems: Vec<Problem>) -> Self {
        let mut error = Self::held(problems);
        "hosts cannot run the workload as requested; nothing was changed"
            .clone_into(&mut error.failure.message);
        error
    }

    /// A policy with problems, found without the cluster.
    pub(super) fn policy(problems: Vec<Problem>) -> Self {
        let mut error = Self::manifest(problems);
        let count = match error.failure.problems.len() {
            1 => "a problem".to_owned(),
            count => format!("{count} problems"),
        };
        error.failure.message = format!("the policy has {count}; the one in force stays");
        error
    }

    /// A command that the state machine refused. `places` has the position of each object of an apply in its file.
    pub(super) fn refused(refusals: Vec<Refusal>, places: &[Place]) -> Self {
        if !refusals.is_empty() && refusals.iter().all(|refusal| refusal.object.is_some()) {
            return Self::manifest(problems_of(refusals, places));
        }
        let missing = refusals.iter().any(|refusal| refusal.missing);
        let reasons: Vec<_> = refusals
            .iter()
            .filter(|refusal| refusal.object.is_none())
            .map(|refusal| refusal.message.as_str())
            .collect();
        let message = reasons.join("; ");
        let mut error = if missing {
            Self::not_found(message)
        } else {
            Self::conflict(message)
        };
        let about_objects = refusals
            .into_iter()
            .filter(|refusal| refusal.object.is_some())
            .collect();
        error.failure.problems = problems_of(about_objects, places);
        error
    }

    /// A change that was not committed.
    pub(super) fn propose(error: &ProposeError, scene: &Scene, waited: Duration) -> Self {
        match error {
            ProposeError::NoQuorum { silent, .. } => no_quorum(scene, silent),
            ProposeError::Deadline { silent } => {
                let missing = missing_voters(scene);
                let quiet = quiet_words(scene, silent, &missing);
                let maybe = format!(
                    "the change was not confirmed within {} s and may still be committed",
                    waited.as_secs()
                );
                let heard = quorum_words(scene, &missing);
                let message = match quiet {
                    Some(quiet) => format!("{heard}, {quiet}; {maybe}"),
                    None if missing.is_empty() => maybe,
                    None => format!("{heard}; {maybe}"),
                };
                Self::new(StatusCode::GATEWAY_TIMEOUT, Code::Unavailable, message)
                    .hint("send the change again later: a change that was committed before changes nothing")
            }
            ProposeError::TooLarge { size, limit } => Self::too_large(format!(
                "the change takes {size} bytes in the log, at most {limit} fit into one entry"
            )),
            ProposeError::Stopped(reason) => stopped(reason),
        }
    }

    /// A linearizable read that failed.
    pub(super) fn read(error: &ReadError, scene: &Scene) -> Self {
        match error {
            ReadError::NoQuorum { silent, .. } => no_quorum(scene, silent),
            ReadError::Behind { applied, wanted } => Self::unavailable(format!(
                "this host has caught up to log index {applied} of {wanted}"
            ))
            .hint("try again in a moment, or add `stale=true` for the view of this host, which may be stale"),
            ReadError::Stopped(reason) => stopped(reason),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        if self.status == StatusCode::INTERNAL_SERVER_ERROR {
            tracing::error!(message = %self.failure.message, "request failed");
        }
        let answer = ErrorAnswer {
            error: self.failure,
        };
        (self.status, axum::Json(answer)).into_response()
    }
}

impl From<TooOld> for ApiError {
    fn from(error: TooOld) -> Self {
        Self::conflict(error.to_string()).hint("upgrade these hosts first")
    }
}

/// The problems of a manifest in the form of the API.
pub(super) fn problems(found: Vec<manifest::Problem>) -> Vec<Problem> {
    let told = |one: manifest::Problem| Problem {
        document: one.document,
        line: one.line,
        field: one.field,
        message: one.message,
    };
    found.into_iter().map(told).collect()
}

fn problems_of(refusals: Vec<Refusal>, places: &[Place]) -> Vec<Problem> {
    let told = |refusal: Refusal| {
        let at = refusal.object.and_then(|at| usize::try_from(at).ok());
        let place = at.and_then(|at| places.get(at));
        Problem {
            document: place.map_or(0, |place| place.document),
            line: place.map_or(0, |place| place.line),
            field: String::new(),
            message: refusal.message,
        }
    };
    refusals.into_iter().map(told).collect()
}

fn stopped(reason: &str) -> ApiError {
    ApiError::unavailable(format!("consensus has stopped on this host: {reason}"))
        .hint("see `journalctl -u beemesh-gateway`; another host may still accept the request")
}

fn no_quorum(scene: &Scene, silent: &[HostId]) -> ApiError {
    if scene.removed {
        return ApiError::conflict("this host was removed from its cluster")
            .hint("ask a member, or join again: `beemesh join TOKEN`");
    }
    if let Some(others) = &scene.joining {
        return still_joins(scene, others);
    }
    if let Some(leader) = scene.heard_elsewhere() {
        let (own, leader) = (scene.name(scene.host), scene.name(leader));
        return ApiError::unavailable(format!(
            "{own} hears no leader, and other members do: {leader} leads the cluster"
        ))
        .hint(format!(
            "ask another host, and restore the connection between {own} and {leader}"
        ));
    }
    let missing = missing_voters(scene);
    let reached = quorum_words(scene, &missing);
    if !has_quorum(scene, &missing) {
        return ApiError::unavailable(reached).hint(
            "running workloads keep running; `beemesh get hosts --stale` shows which hosts are unreachable",
        );
    }
    let quiet = quiet_words(scene, silent, &missing);
    let quiet = quiet.unwrap_or_else(|| "no voter leads".to_owned());
    ApiError::unavailable(format!("no leader: {reached}, {quiet}"))
        .hint("an election may be under way: try again in a moment")
}

/// The error while this host joins: it names the members that the host reaches.
fn still_joins(scene: &Scene, others: &[(HostId, String)]) -> ApiError {
    let (reached, missing): (Vec<_>, Vec<_>) = others
        .iter()
        .partition(|(host, _)| scene.reachable.contains(host));
    let names = |hosts: Vec<&(HostId, String)>| {
        let names: Vec<String> = hosts.into_iter().map(|(_, name)| name.clone()).collect();
        sentence(&names)
    };
    let begun = "this host is joining a cluster and has not received the log from its leader yet";
    if reached.is_empty() {
        return ApiError::unavailable(format!("{begun}: it reaches none of {}", names(missing))).hint(
            "port 4701 (UDP or TCP) of a member must be reachable from this host; if the cluster has removed this host, join again with a new token",
        );
    }
    let unreached = match missing.is_empty() {
        true => String::new(),
        false => format!(", and not {}", names(missing)),
    };
    ApiError::unavailable(format!("{begun}: it reaches {}{unreached}", names(reached)))
        .hint("the join continues as soon as a majority of the members has a leader: try again in a moment")
}

/// Names the voters that are not in `missing` and yet do not answer. The mesh may take some seconds to notice that a
/// host has lost power.
fn quiet_words(scene: &Scene, silent: &[HostId], missing: &BTreeSet<HostId>) -> Option<String> {
    let quiet = silent.iter().filter(|host| !missing.contains(host));
    match names_of(&scene.state, quiet) {
        names if names.is_empty() => None,
        names if names.len() == 1 => Some(format!("{} does not answer", sentence(&names))),
        names => Some(format!("{} do not answer", sentence(&names))),
    }
}

/// The voters that the mesh does not reach. On the leader, also those that do not acknowledge its appends.
fn missing_voters(scene: &Scene) -> BTreeSet<HostId> {
    let leads = scene.consensus.leader == Some(scene.host);
    let unheard = |host: &&HostId| {
        **host != scene.host
            && (!scene.reachable.contains(host)
                || (leads && !scene.consensus.acknowledging.contains(host)))
    };
    scene
        .consensus
        .voters
        .iter()
        .filter(unheard)
        .copied()
        .collect()
}

/// Whether the voters that are not missing are a majority.
fn has_quorum(scene: &Scene, missing: &BTreeSet<HostId>) -> bool {
    let voters = scene.consensus.voters.len();
    voters - missing.len() > voters / 2
}

/// The number of reachable voters and the names of the others. It begins with `no quorum` if the reachable voters are
/// no majority.
fn quorum_words(scene: &Scene, missing: &BTreeSet<HostId>) -> String {
    let voters = scene.consensus.voters.len();
    if voters == 0 {
        return "no quorum: this host is not a member of a cluster yet".to_owned();
    }
    let heard = voters - missing.len();
    let verdict = match has_quorum(scene, missing) {
        true => "",
        false => "no quorum: ",
    };
    let names = names_of(&scene.state, missing.iter());
    let who = match names.len() {
        0 => String::new(),
        1 => format!(", {} is missing", sentence(&names)),
        _ => format!(", {} are missing", sentence(&names)),
    };
    format!("{verdict}{heard} of {voters} voters reachable{who}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::view::tests::scene;

    fn refusal(missing: bool, object: Option<u32>, message: &str) -> Refusal {
        Refusal {
            missing,
            object,
            message: message.into(),
        }
    }

    #[test]
    fn refusals_become_statuses_with_their_places() {
        let places = [(1, 1), (2, 9)].map(|(document, line)| Place { document, line });
        for (refusals, status, message, problems) in [
            (
                vec![refusal(true, None, "workload `web` not found")],
                404,
                "workload `web` not found",
                vec![],
            ),
            (
                vec![refusal(false, None, "too many manifests")],
                409,
                "too many manifests",
                vec![],
            ),
            (
                vec![
                    refusal(false, Some(1), "ConfigMap a is missing"),
                    refusal(false, Some(7), "gone"),
                ],
                422,
                "the manifest has 2 problems; nothing was applied",
                vec![(2, 9, "ConfigMap a is missing"), (0, 0, "gone")],
            ),
        ] {
            let error = ApiError::refused(refusals, &places);
            let found: Vec<_> = error
                .failure
                .problems
                .iter()
                .map(|one| (one.document, one.line, one.message.as_str()))
                .collect();
            assert_eq!(
                (error.status.as_u16(), error.failure.message.as_str(), found),
                (status, message, problems)
            );
        }
    }

    #[test]
    fn a_join_that_does_not_go_on_says_whom_it_reaches() {
        let h = |n| HostId([n; 32]);
        let words = |reachable: &[u8]| {
            let mut scene = scene();
            scene.joining = Some(vec![(h(2), "h2".into()), (h(3), "h3".into())]);
            scene.reachable = reachable.iter().copied().map(h).collect();
            let silent = Vec::new();
            let error = ProposeError::NoQuorum { voters: 0, silent };
            let told = ApiError::propose(&error, &scene, Duration::from_secs(5));
            (told.failure.message, told.failure.hint)
        };
        let (told, hint) = words(&[1]);
        assert!(
            told.ends_with("yet: it reaches none of h2 and h3"),
            "{told}"
        );
        assert!(
            hint.contains("port 4701") && hint.contains("new token"),
            "{hint}"
        );
        let (told, hint) = words(&[1, 2]);
        assert!(told.ends_with("it reaches h2, and not h3"), "{told}");
        assert!(hint.contains("the join continues"), "{hint}");
        let (told, _) = words(&[1, 2, 3]);
        assert!(told.ends_with("it reaches h2 and h3"), "{told}");
    }

    #[test]
    fn a_lost_quorum_names_the_hosts_that_are_missing() {
        let h = |n| HostId([n; 32]);
        let error = |reachable: &[u8], acknowledging: &[u8], silent: &[u8]| {
            let mut scene = scene();
            scene.reachable = reachable.iter().copied().map(h).collect();
            scene.consensus.acknowledging = acknowledging.iter().copied().map(h).collect();
            let silent = silent.iter().copied().map(h).collect();
            let error = ProposeError::NoQuorum { voters: 3, silent };
            ApiError::propose(&error, &scene, Duration::from_secs(5))
                .failure
                .message
        };
        let lost = "no quorum: 1 of 3 voters reachable, h2 and h3 are missing";
        assert_eq!(error(&[1], &[1, 2, 3], &[]), lost);
        assert_eq!(error(&[1, 2, 3], &[1], &[]), lost);
        assert_eq!(
            error(&[1, 2, 3], &[1, 2, 3], &[2, 3]),
            "no leader: 3 of 3 voters reachable, h2 and h3 do not answer"
        );
        assert_eq!(
            error(&[1, 2, 3], &[1, 2, 3], &[]),
            "no leader: 3 of 3 voters reachable, no voter leads"
        );
        let late = |reachable: &[u8], silent: &[u8]| {
            let mut scene = scene();
            scene.reachable = reachable.iter().copied().map(h).collect();
            scene.consensus.acknowledging = [1, 2, 3].map(h).into();
            let silent = silent.iter().copied().map(h).collect();
            let error = ProposeError::Deadline { silent };
            let told = ApiError::propose(&error, &scene, Duration::from_secs(5));
            told.failure.message
        };
        let maybe = "the change was not confirmed within 5 s and may still be committed";
        for (reachable, silent, who) in [
            (&[1, 2, 3][..], &[][..], ""),
            (&[1, 2], &[3], "2 of 3 voters reachable, h3 is missing; "),
            (
                &[1, 2, 3],
                &[3],
                "3 of 3 voters reachable, h3 does not answer; ",
            ),
            (
                &[1, 2],
                &[2, 3],
                "2 of 3 voters reachable, h3 is missing, h2 does not answer; ",
            ),
            (
                &[1],
                &[2, 3],
                "no quorum: 1 of 3 voters reachable, h2 and h3 are missing; ",
            ),
        ] {
            assert_eq!(late(reachable, silent), format!("{who}{maybe}"));
        }
    }
}
