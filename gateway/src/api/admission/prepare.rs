//! Asks the hosts that would run a manifest or an earlier revision whether they can, before it is proposed.
//!
//! Shell over [`verdict`]. All hosts are asked at once, this one included, about the workloads that the change adds or
//! changes. A host that is not reachable is not asked: it follows when it returns. A host of an earlier release has no
//! answer, and is not waited for.

mod verdict;

use std::{collections::BTreeMap, time::Duration};

use axum::{
    body::Body,
    http::{Method, Request, StatusCode},
};
use beemesh_protocol::{
    ClusterId, HostId,
    prepare::{
        Answer, BYTES_MAX, ITEMS_MAX, PortProtocol, PullPolicy, Question, ROUTE, Wanted,
        WantedImage, WantedPort,
    },
    state::{Change, Command, Kind, Object, UserRole},
};
use beemesh_quadlet::{
    manifest::{Place, Port, Problem, Protocol, is_workload, workload_name},
    render::{self, Pull, Rendered, Revision, render},
};
use futures::{StreamExt as _, stream};
use http_body_util::{BodyExt as _, Limited};
use tokio::time::{Instant, sleep, timeout_at};

use self::verdict::{Mode, Said, verdict};
use crate::{
    api::{ApiError, Shared, error::problems, peers, request::Caller},
    clock::{backoff::Backoff, now_ms},
    cluster::{placement::expected, state::State, view::Scene},
};

/// Maximum number of hosts that are asked at the same time.
const ASKED_MAX: usize = 64;
/// Initial and maximum pause before a host that did not answer is asked again.
const PAUSE: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// The share of the time until an answer is due that a host may use for pulls, in percent. The rest is for the way.
const PULL_PERCENT: u32 = 80;
/// The place of a workload without a file.
const NO_PLACE: Place = Place {
    document: 0,
    line: 0,
};

/// The change about which the hosts are asked.
pub(in crate::api) struct Prepared<'a> {
    pub(in crate::api) caller: &'a Caller,
    pub(in crate::api) change: &'a Change,
    /// The positions of the file's objects, which are the first objects of the change; empty without a file.
    pub(in crate::api) places: &'a [Place],
    /// The command that the user gave, such as `apply`.
    pub(in crate::api) command: &'a str,
    pub(in crate::api) dry_run: bool,
    /// Goes on where the doubt is an image, or a host that does not answer.
    pub(in crate::api) force: bool,
}

/// Asks all hosts. Returns warnings, or the reasons why the manifest is not applied.
pub(in crate::api) async fn prepare(
    shared: &Shared,
    asked: &Prepared<'_>,
    deadline: Instant,
) -> Result<Vec<Problem>, ApiError> {
    let gateway = &shared.gateway;
    let scene = gateway.scene();
    let (wanted, places) = wanted(&scene.state, asked);
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let after = after(&scene, asked.change);
    let mut questions: BTreeMap<HostId, Vec<Wanted>> = BTreeMap::new();
    for one in &wanted {
        let workload = after.workload(&one.workload);
        let hosts =
            workload.map(|workload| expected(&after, workload, &scene.reachable, &scene.reports));
        for host in hosts.into_iter().flatten() {
            questions.entry(host).or_default().push(one.clone());
        }
    }
    let left = deadline.saturating_duration_since(Instant::now()) / 2;
    let until = Instant::now() + left;
    let question = |workloads| Question {
        who: asked.caller.to_string().trim_end().to_owned(),
        pulls: !asked.dry_run && !asked.force,
        wait_ms: milliseconds(left * PULL_PERCENT / 100),
        workloads,
    };
    let said = stream::iter(questions)
        .map(|(host, workloads)| {
            let question = question(workloads);
            let name = scene.name(host);
            let is_reachable = scene.reachable.contains(&host);
            async move {
                let said = match is_reachable {
                    true => ask(shared, host, &question, until).await,
                    false => Said::Away,
                };
                (name, said)
            }
        })
        .buffer_unordered(ASKED_MAX);
    let said: BTreeMap<String, Said> = said.collect().await;
    let mode = Mode {
        force: asked.force,
        dry_run: asked.dry_run,
        is_admin: is_admin(&scene, asked.caller),
    };
    let verdict = verdict(&said, &places, mode);
    if !verdict.refused.is_empty() {
        let refused = problems(verdict.refused);
        let error = match asked.places.is_empty() {
            true => ApiError::unable(refused),
            false => ApiError::held(refused),
        };
        return Err(match verdict.can_force {
            true => error.hint(format!(
                "`beemesh {} --force` does it nevertheless",
                asked.command
            )),
            false => error,
        });
    }
    if !verdict.silent.is_empty() {
        let words = format!(
            "{} did not answer within {:.1} s; nothing was changed",
            verdict.silent,
            left.as_secs_f64()
        );
        let hint = format!(
            "try again, or go on without their answer with `beemesh {} --force`",
            asked.command
        );
        return Err(ApiError::unavailable(words).hint(hint));
    }
    if !verdict.pulling.is_empty() {
        return Err(
            ApiError::pulling(format!("{}; nothing was changed yet", verdict.pulling)).hint(
                "send the same request again: it waits for the pull, and the change follows it",
            ),
        );
    }
    Ok(verdict.warnings)
}

/// The workloads that the change adds or changes, with their places in the file.
fn wanted(state: &State, asked: &Prepared<'_>) -> (Vec<Wanted>, BTreeMap<String, Place>) {
    let (mut all, mut places) = (Vec::new(), BTreeMap::new());
    match asked.change {
        Change::Apply { objects, .. } => {
            let has_file = !asked.places.is_empty();
            let of_file = if has_file {
                asked.places.len()
            } else {
                objects.len()
            };
            for (at, object) in objects[..of_file.min(objects.len())]
                .iter()
                .enumerate()
                .take(ITEMS_MAX)
            {
                let known = state.object(object.kind, &object.namespace, &object.name);
                let is_same = known.is_some_and(|(_, known)| known.hash == object.hash);
                if !is_workload(object.kind) || is_same || object.replicas == Some(0) {
                    continue;
                }
                if let Some(one) = wanted_by(state, objects, object) {
                    let place = asked.places.get(at).copied().unwrap_or(NO_PLACE);
                    places.insert(one.workload.clone(), place);
                    all.push(one);
                }
            }
        }
        Change::Undo {
            workload, revision, ..
        } => {
            let one = wanted_again(state, workload, *revision);
            places.extend(one.iter().map(|one| (one.workload.clone(), NO_PLACE)));
            all.extend(one);
        }
        _ => {}
    }
    (all, places)
}

/// What an earlier revision needs. Its images may have other names on each host, so each host looks for them before it
/// replaces its pod.
fn wanted_again(state: &State, workload: &str, revision: u64) -> Option<Wanted> {
    let mut kept = state.revisions(workload).iter();
    let kept = kept.find(|one| one.number == revision)?;
    let object = kept.object().filter(|object| object.replicas != Some(0))?;
    let uses: Vec<&Object> = kept.uses().map(AsRef::as_ref).collect();
    let wanted = needs(state, object, &uses)?;
    Some(match kept.images.0.is_empty() {
        true => wanted,
        false => Wanted {
            images: Vec::new(),
            ..wanted
        },
    })
}

fn wanted_by(state: &State, objects: &[Object], object: &Object) -> Option<Wanted> {
    let uses = object.references.iter().filter_map(|one| {
        let is_it = |other: &&Object| {
            other.kind == one.kind && other.namespace == object.namespace && other.name == one.name
        };
        let known = || state.object(one.kind, &object.namespace, &one.name);
        objects
            .iter()
            .find(is_it)
            .or_else(|| known().map(|(_, known)| known))
    });
    let uses: Vec<&Object> = uses.collect();
    needs(state, object, &uses)
}

/// What the workload needs of a host. `None` if it waits for an object, and is not rendered yet.
fn needs(state: &State, object: &Object, uses: &[&Object]) -> Option<Wanted> {
    let revision = Revision {
        cluster: state.cluster().unwrap_or(ClusterId([0; 16])),
        revision: u64::MAX,
        index: u64::MAX,
        object,
        number: 0,
        uses,
    };
    let Rendered {
        yaml,
        images,
        grace_seconds,
        ..
    } = render(&revision).ok()?;
    let images = images.into_iter().map(|image| WantedImage {
        reference: image.reference,
        pull: match image.pull {
            Pull::Always => PullPolicy::Always,
            Pull::IfNotPresent => PullPolicy::IfNotPresent,
            Pull::Never => PullPolicy::Never,
        },
    });
    Some(Wanted {
        workload: workload_name(&object.namespace, &object.name),
        job: object.kind == Kind::Job,
        grace_seconds,
        images: images.take(ITEMS_MAX).collect(),
        ports: render::ports(&yaml)
            .into_iter()
            .take(ITEMS_MAX)
            .map(port)
            .collect(),
    })
}

fn port(port: Port) -> WantedPort {
    WantedPort {
        address: port.address,
        protocol: match port.protocol {
            Protocol::Tcp => PortProtocol::Tcp,
            Protocol::Udp => PortProtocol::Udp,
            Protocol::Sctp => PortProtocol::Sctp,
        },
        port: port.port,
    }
}

/// The state as the apply will leave it. If the cluster would refuse it, the state as it is.
fn after(scene: &Scene, change: &Change) -> State {
    let mut after = State::clone(&scene.state);
    let command = Command::unasked(now_ms(), change.clone());
    let _ = after.apply(scene.applied + 1, &command);
    after
}

/// Asks one host, as long as the mesh reaches it.
async fn ask(shared: &Shared, host: HostId, question: &Question, until: Instant) -> Said {
    let gateway = &shared.gateway;
    if host == gateway.host {
        let answer = timeout_at(until, shared.prepare.answer(question)).await;
        return answer.map_or(Said::Nothing, Said::Answer);
    }
    let mut connected = gateway.link.connected();
    let gone = connected.wait_for(|hosts| !hosts.contains(&host));
    tokio::select! {
        said = timeout_at(until, keep_asking(shared, host, question)) => said.unwrap_or(Said::Nothing),
        _ = gone => Said::Away,
    }
}

/// Asks until the host answers: its gateway may be restarting.
async fn keep_asking(shared: &Shared, host: HostId, question: &Question) -> Said {
    let mut backoff = Backoff::new(PAUSE, PAUSE_MAX);
    loop {
        match send(shared, host, question).await {
            Ok(said) => return said,
            Err(reason) => tracing::debug!(%host, reason, "asking again before an apply"),
        }
        sleep(backoff.tried(Instant::now())).await;
    }
}

async fn send(shared: &Shared, host: HostId, question: &Question) -> Result<Said, String> {
    let body = serde_json::to_vec(question).map_err(|error| error.to_string())?;
    let request = Request::builder()
        .method(Method::POST)
        .uri(ROUTE)
        .body(Body::from(body))
        .map_err(|error| error.to_string())?;
    let answer = peers::send(&shared.gateway, host, request).await?;
    match answer.status() {
        StatusCode::OK => {}
        StatusCode::NOT_FOUND => return Ok(Said::Older),
        status => return Err(format!("status {status}")),
    }
    let body = Limited::new(answer.into_body(), BYTES_MAX).collect().await;
    let body = body.map_err(|error| error.to_string())?.to_bytes();
    let answer: Answer = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
    Ok(Said::Answer(answer))
}

fn is_admin(scene: &Scene, caller: &Caller) -> bool {
    match caller {
        Caller::Local { .. } | Caller::Host(_) => true,
        Caller::User { name, .. } => {
            let mut users = scene.state.users();
            users.any(|user| user.name == *name && user.role == UserRole::Admin)
        }
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
