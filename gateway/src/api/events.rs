//! Server-sent events: what changes in the cluster, as this host sees it.
//!
//! Shell over [`super::render`]. A stream begins with everything there is, then sends what became different. It holds no
//! queue: what it would say is computed when the caller is ready to read, so that a slow caller misses steps in between
//! but never the last one, and costs what one state costs.

use std::{collections::BTreeMap, time::Duration};

use axum::{
    body::{Body, Bytes},
    extract::State,
    http::header::{CACHE_CONTROL, CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use beemesh_protocol::api::{GoneEvent, Host, StateEvent, Workload};
use serde::Serialize;

use super::{
    Gateway, Shared,
    render::Scene,
    request::{Asked, NoQuery},
};

/// Without news the caller hears this often that the stream is alive.
const QUIET_MAX: Duration = Duration::from_secs(15);
/// Changes within this time travel together: a host that starts ten workloads reports some hundred times a second.
const GATHER: Duration = Duration::from_millis(10);

pub(super) async fn events(State(shared): State<Shared>, _: Asked<NoQuery>) -> Response {
    let headers = [
        (CONTENT_TYPE, "text/event-stream"),
        (CACHE_CONTROL, "no-store"),
    ];
    let follower = Follower {
        told: Told::default(),
        gateway: shared.gateway,
        begun: false,
    };
    let stream = futures::stream::try_unfold(follower, |mut follower| async move {
        let piece = follower.next().await?;
        Ok::<_, std::convert::Infallible>(Some((piece, follower)))
    });
    (headers, Body::from_stream(stream)).into_response()
}

struct Follower {
    gateway: Gateway,
    told: Told,
    begun: bool,
}

impl Follower {
    async fn next(&mut self) -> Result<Bytes, std::convert::Infallible> {
        let mut views = self.gateway.node.state();
        let mut metrics = self.gateway.node.metrics();
        let mut reports = self.gateway.reports.clone();
        let mut connected = self.gateway.link.connected();
        loop {
            // These receivers are new, so everything up to here counts as seen and is looked at now.
            views.mark_unchanged();
            metrics.mark_unchanged();
            reports.mark_unchanged();
            connected.mark_unchanged();
            let news = self.told.news(&self.gateway.scene());
            if !news.is_empty() || !self.begun {
                self.begun = true;
                return Ok(news.into());
            }
            let change = async {
                tokio::select! {
                    Ok(()) = views.changed() => {}
                    Ok(()) = metrics.changed() => {}
                    Ok(()) = reports.changed() => {}
                    Ok(()) = connected.changed() => {}
                }
                tokio::time::sleep(GATHER).await;
            };
            if tokio::time::timeout(QUIET_MAX, change).await.is_err() {
                return Ok(Bytes::from_static(b": still here\n\n"));
            }
        }
    }
}

/// What the caller was told last.
#[derive(Default)]
struct Told {
    index: Option<u64>,
    workloads: BTreeMap<String, Workload>,
    hosts: BTreeMap<String, Host>,
}

impl Told {
    /// The events that lead from what was told to `scene`, which is told from now on.
    fn news(&mut self, scene: &Scene) -> String {
        let mut news = String::new();
        let workloads = keyed(scene.workloads(), |workload| &workload.name);
        for (name, workload) in &workloads {
            if self.workloads.get(name) != Some(workload) {
                push(&mut news, "workload", workload);
            }
        }
        for name in self.workloads.keys() {
            if !workloads.contains_key(name) {
                push(&mut news, "gone", &GoneEvent { name: name.clone() });
            }
        }
        self.workloads = workloads;
        let hosts = keyed(scene.hosts(), |host| &host.name);
        for (name, host) in &hosts {
            // That a host keeps up is no news.
            let told = self.hosts.get(name).map(|told| Host {
                applied: host.applied,
                ..told.clone()
            });
            if told.as_ref() != Some(host) {
                push(&mut news, "host", host);
            }
        }
        self.hosts = hosts;
        if self.index != Some(scene.applied) {
            self.index = Some(scene.applied);
            let index = scene.applied;
            push(&mut news, "state", &StateEvent { index });
        }
        news
    }
}

fn keyed<T>(all: Vec<T>, key: impl Fn(&T) -> &String) -> BTreeMap<String, T> {
    all.into_iter()
        .map(|one| (key(&one).clone(), one))
        .collect()
}

fn push<T: Serialize>(news: &mut String, event: &str, data: &T) {
    match serde_json::to_string(data) {
        Ok(data) => news.push_str(&format!("event: {event}\ndata: {data}\n\n")),
        Err(error) => tracing::error!(event, %error, "an event cannot be told"),
    }
}
