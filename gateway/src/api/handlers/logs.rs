//! The logs of a workload's containers, on this host or another.
//!
//! Shell: the logs of this host come from Podman, and those of another host from its gateway over the mesh. The handler
//! passes Podman's bytes on unchanged for a single container. For several containers it collects lines and adds the
//! container's name.

mod follow;

use std::{
    collections::{BTreeSet, VecDeque},
    time::Duration,
};

use axum::{
    Extension,
    body::{Body, Bytes},
    extract::{Path, State},
    http::{Request, header},
    response::{IntoResponse, Response},
};
use beemesh_protocol::{
    HostId,
    peer::WorkloadReport,
    percent,
    workload::{pod_name, split_pod_name},
};
use beemesh_quadlet::{
    health::{Container, Role},
    podman::{LABEL_WORKLOAD, Pod, PodmanError},
    supervisor::last_output,
};
use bytes::{BufMut, BytesMut};
use futures::{
    Stream, StreamExt,
    stream::{self, BoxStream},
};

use super::read::{no_host, no_workload};
use crate::{
    api::{
        ApiError, Shared, peers,
        request::{Asked, Caller, LogsQuery},
    },
    context::Gateway,
};

/// Time limit for another host to begin its response.
const PEER_TIME_MAX: Duration = Duration::from_secs(10);
/// Longer lines are cut, because they would be held in memory.
const LINE_MAX: usize = 64 << 10;

/// The logs of a workload on the host that the caller named, or on one that runs it.
pub(in crate::api) async fn logs(
    State(shared): State<Shared>,
    Path(workload): Path<String>,
    Asked(query): Asked<LogsQuery>,
) -> Result<Response, ApiError> {
    let gateway = &shared.gateway;
    let scene = gateway.scene();
    let host = match &query.host {
        Some(name) => scene.host_named(name).ok_or_else(|| no_host(name))?,
        None => {
            if scene.state.workload(&workload).is_none() {
                return Err(no_workload(&workload));
            }
            let number = query.pod.as_deref().and_then(split_pod_name);
            let number = number.map(|(_, number)| number);
            let what = match &query.pod {
                Some(pod) => format!("pod `{pod}` of workload `{workload}`"),
                None => format!("workload `{workload}`"),
            };
            scene
                .host_with(&workload, number)
                .ok_or_else(|| ApiError::not_found(format!("no host runs {what}")))?
        }
    };
    if host == gateway.host {
        return local(gateway, &workload, &query).await;
    }
    let name = scene.name(host);
    if !scene.reachable.contains(&host) {
        return Err(unreachable(&name, &"the mesh has no connection to it"));
    }
    let asked = ask(gateway, host, &workload, &query);
    match tokio::time::timeout(PEER_TIME_MAX, asked).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(reason)) => Err(unreachable(&name, &reason)),
        Err(_) => Err(unreachable(
            &name,
            &format_args!("no answer within {} s", PEER_TIME_MAX.as_secs()),
        )),
    }
}

/// The logs of a workload on this host, for another member.
pub(in crate::api) async fn own_logs(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    Path(workload): Path<String>,
    Asked(query): Asked<LogsQuery>,
) -> Result<Response, ApiError> {
    tracing::debug!(%workload, %caller, "output asked for");
    local(&shared.gateway, &workload, &query).await
}

fn unreachable(host: &str, reason: &dyn std::fmt::Display) -> ApiError {
    ApiError::unavailable(format!("host {host} does not answer: {reason}"))
        .hint("`beemesh get hosts --stale` shows which hosts are unreachable")
}

async fn ask(
    gateway: &Gateway,
    host: HostId,
    workload: &str,
    query: &LogsQuery,
) -> Result<Response, String> {
    let tail = query.tail.map(|tail| format!("&tail={tail}"));
    let pod = query.pod.as_ref();
    let pod = pod.map(|pod| format!("&pod={}", percent::encode(pod)));
    let uri = format!(
        "/v1/workloads/{workload}/logs?follow={}{}{}",
        query.follow,
        tail.unwrap_or_default(),
        pod.unwrap_or_default()
    );
    let request = Request::get(uri).body(Body::empty());
    let request = request.map_err(|error| error.to_string())?;
    let answer = peers::send(gateway, host, request).await?;
    let (parts, body) = answer.into_parts();
    let kind = parts.headers.get(header::CONTENT_TYPE).cloned();
    let mut answer = Response::new(Body::new(body));
    *answer.status_mut() = parts.status;
    if let Some(kind) = kind {
        answer.headers_mut().insert(header::CONTENT_TYPE, kind);
    }
    Ok(answer)
}

async fn local(gateway: &Gateway, workload: &str, query: &LogsQuery) -> Result<Response, ApiError> {
    let asked = Pods::of(gateway, workload, query.pod.as_deref())?;
    let pods = asked.there().await.map_err(podman)?;
    let here = gateway.scene().name(gateway.host);
    if pods.is_empty() {
        // A failed start leaves no pod; its output explains the failure.
        let said = asked.names().into_iter();
        if let Some(said) = said
            .filter_map(|pod| last_output::read(&gateway.run, &pod))
            .next()
        {
            return Ok(text(Body::from(last_lines(said, query.tail))));
        }
        let error = ApiError::not_found(format!("workload `{workload}` has no pod on host {here}")).hint(
            format!("`beemesh get workloads {workload}` shows where it runs, `journalctl -u beemesh-pod-{workload}` on {here} what it said"),
        );
        return Err(error);
    }
    let body = if query.follow {
        follow::open(asked, &pods, query.tail)
            .await
            .map_err(podman)?
    } else {
        let mut outputs = Vec::new();
        for (container, name) in members(&pods) {
            let output = gateway.podman.logs(&container.id, false, query.tail, None);
            outputs.push(told(name, output.await.map_err(podman)?));
        }
        Body::from_stream(stream::select_all(outputs))
    };
    Ok(text(body))
}

fn text(body: Body) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (headers, body).into_response()
}

/// The last `tail` lines, or all lines.
fn last_lines(mut said: Vec<u8>, tail: Option<u32>) -> Vec<u8> {
    let Some(tail) = tail else {
        return said;
    };
    let tail = usize::try_from(tail).unwrap_or(usize::MAX);
    let ends = said.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
    let ends: Vec<usize> = ends.map(|(at, _)| at + 1).collect();
    let before = ends.len().saturating_sub(tail);
    let begin = before.checked_sub(1).and_then(|end| ends.get(end));
    said.split_off(begin.copied().unwrap_or(0))
}

/// The logs of a container in the form for the caller.
fn told(
    name: Option<String>,
    output: impl Stream<Item = Result<Bytes, PodmanError>> + Send + 'static,
) -> BoxStream<'static, Result<Bytes, PodmanError>> {
    match name {
        Some(name) => named(name, output).boxed(),
        None => output.boxed(),
    }
}

/// The pods on this host whose logs a caller wants.
#[derive(Clone)]
struct Pods {
    gateway: Gateway,
    workload: String,
    /// Only the pod of this name.
    only: Option<String>,
}

impl Pods {
    /// The pods of a workload, or one of them.
    fn of(gateway: &Gateway, workload: &str, only: Option<&str>) -> Result<Self, ApiError> {
        let is_of = |pod: &&str| split_pod_name(pod).is_some_and(|(of, _)| of == workload);
        if let Some(pod) = only.filter(|pod| !is_of(pod)) {
            let message = format!("workload `{workload}` has no pod `{pod}`");
            let hint = format!("`beemesh get workloads {workload}` shows its pods");
            return Err(ApiError::not_found(message).hint(hint));
        }
        Ok(Self {
            gateway: gateway.clone(),
            workload: workload.to_owned(),
            only: only.map(str::to_owned),
        })
    }

    /// Their names: those in the report of this host, and that of the first pod, which may be gone.
    fn names(&self) -> BTreeSet<String> {
        if let Some(pod) = &self.only {
            return BTreeSet::from([pod.clone()]);
        }
        let reports = self.reports().into_iter();
        let told = reports.map(|report| pod_name(&self.workload, report.number));
        told.chain([self.workload.clone()]).collect()
    }

    /// The reports of this host on them.
    fn reports(&self) -> Vec<WorkloadReport> {
        let reports = self.gateway.reports.borrow();
        let own = reports.get(&self.gateway.host);
        let all = own.into_iter().flat_map(|own| &own.workloads);
        let is_wanted = |one: &&WorkloadReport| {
            let only = self.only.as_ref();
            one.workload == self.workload
                && only.is_none_or(|only| *only == pod_name(&one.workload, one.number))
        };
        all.filter(is_wanted).cloned().collect()
    }

    /// Those that exist in Podman.
    async fn there(&self) -> Result<Vec<Pod>, PodmanError> {
        let mut there = Vec::new();
        for name in self.names() {
            let label = format!("{LABEL_WORKLOAD}={name}");
            there.extend(self.gateway.podman.pods(&[&label]).await?);
        }
        Ok(there)
    }
}

/// The containers of the manifest. If there are several, each has its name in the manifest; if there are several pods,
/// the name of the pod stands before it.
fn members(pods: &[Pod]) -> Vec<(&Container, Option<String>)> {
    let mut members = Vec::new();
    for pod in pods {
        let prefix = format!("{}-", pod.name);
        let wanted = pod.containers.iter().filter(|one| one.role == Role::Member);
        let several = wanted.clone().count() > 1;
        members.extend(wanted.map(|container| {
            let name = container.name.strip_prefix(&prefix);
            let name = name.unwrap_or(&container.name);
            let told = match (pods.len() > 1, several) {
                (true, true) => Some(format!("{} {name}", pod.name)),
                (true, false) => Some(pod.name.clone()),
                (false, true) => Some(name.to_owned()),
                (false, false) => None,
            };
            (container, told)
        }));
    }
    members
}

fn podman(error: PodmanError) -> ApiError {
    if error.is_not_found() {
        return ApiError::not_found(error.to_string());
    }
    ApiError::unavailable(error.to_string()).hint("see `systemctl status podman.socket`")
}

/// The logs in whole lines, each with the name of its container.
fn named(
    name: String,
    output: impl Stream<Item = Result<Bytes, PodmanError>> + Send + 'static,
) -> impl Stream<Item = Result<Bytes, PodmanError>> + Send {
    let state = (Box::pin(output), Lines::new(name), VecDeque::new());
    stream::try_unfold(state, |(mut output, mut lines, mut ready)| async move {
        loop {
            if let Some(piece) = ready.pop_front() {
                return Ok(Some((piece, (output, lines, ready))));
            }
            match output.next().await.transpose()? {
                Some(bytes) => ready.extend(lines.push(&bytes)),
                None => match lines.end() {
                    Some(piece) => ready.push_back(piece),
                    None => return Ok(None),
                },
            }
        }
    })
}

/// Splits the logs of one container into lines and adds its name.
struct Lines {
    prefix: String,
    /// The start of an incomplete line.
    partial: BytesMut,
}

impl Lines {
    fn new(name: String) -> Self {
        Self {
            prefix: format!("{name} | "),
            partial: BytesMut::new(),
        }
    }

    /// The lines that `bytes` completes, in one piece.
    fn push(&mut self, bytes: &[u8]) -> Option<Bytes> {
        let mut piece = BytesMut::new();
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.partial.put_slice(part);
            if part.ends_with(b"\n") || self.partial.len() >= LINE_MAX {
                self.take(&mut piece);
            }
        }
        (!piece.is_empty()).then(|| piece.freeze())
    }

    /// The last line, if it has no line end.
    fn end(&mut self) -> Option<Bytes> {
        let mut piece = BytesMut::new();
        if !self.partial.is_empty() {
            self.take(&mut piece);
        }
        (!piece.is_empty()).then(|| piece.freeze())
    }

    fn take(&mut self, piece: &mut BytesMut) {
        piece.put_slice(self.prefix.as_bytes());
        piece.put(self.partial.split());
        if !piece.ends_with(b"\n") {
            piece.put_u8(b'\n');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_named_whole_however_they_arrive() {
        let mut lines = Lines::new("web".into());
        let long = vec![b'x'; LINE_MAX];
        let mut told = Vec::new();
        for bytes in [&b"one\ntw"[..], b"o", b"\n\nthree"] {
            told.extend(lines.push(bytes));
        }
        told.extend(lines.end());
        assert_eq!(
            told.concat(),
            b"web | one\nweb | two\nweb | \nweb | three\n"
        );
        assert_eq!(
            lines.push(&long).map(|piece| piece.len()),
            Some(LINE_MAX + 7)
        );
        assert_eq!(lines.end(), None);
    }

    #[test]
    fn so_many_of_the_last_lines_are_told() {
        let last = |tail| last_lines(b"a\nb\nc\n".to_vec(), tail);
        assert_eq!(last(None), b"a\nb\nc\n");
        assert_eq!(last(Some(9)), b"a\nb\nc\n");
        assert_eq!(last(Some(2)), b"b\nc\n");
        assert_eq!(last(Some(0)), b"");
    }
}
