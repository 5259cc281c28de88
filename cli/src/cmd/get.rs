//! `beemesh get` and `beemesh status`.

use std::time::{Duration, SystemTime};

use beemesh_protocol::{
    api::{Audit, Host, Hosts, Manifests, Role, Status, Workload, Workloads},
    percent,
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::{print, print_json};
use crate::{
    args::{Get, Output, What},
    client::{Ask, Client},
    render,
    trouble::Trouble,
};

/// The longest time of an election that has a majority.
const ELECTION_TIME_MAX: Duration = Duration::from_secs(2);
/// Pause between two queries of the status.
const LOOK: Duration = Duration::from_millis(100);

pub(super) async fn run(client: &Client, args: Get) -> Result<(), Trouble> {
    let (what, list) = names(args.what);
    let doing = match &args.name {
        Some(name) => format!("get {what} {name}"),
        None => format!("get {list}"),
    };
    shown(client, &args, &doing).await
}

/// Runs `get` under the name of another command.
pub(super) async fn shown(client: &Client, args: &Get, doing: &str) -> Result<(), Trouble> {
    let (what, list) = names(args.what);
    // `show` filters one manifest, and the changes of one object, from the list of all.
    let path = match (args.what, &args.name) {
        (What::Workloads | What::Hosts, Some(name)) => {
            format!("/v1/{list}/{}", percent::encode(name))
        }
        (What::Workloads | What::Hosts | What::Manifests | What::Audit, _) => format!("/v1/{list}"),
    };
    let answer = read(client, &path, args.stale, args.output).await;
    let shown = answer.and_then(|answer| show(args, what, list, answer));
    shown.map_err(|trouble| trouble.during(doing))
}

/// Reads the committed state. Without a quorum, a table shows this host's view at once, with a note. JSON output has no
/// place for a note, so it fails instead.
async fn read(client: &Client, path: &str, stale: bool, output: Output) -> Result<Value, Trouble> {
    let ask = |stale: bool| {
        Ask::get(path)
            .with("stale", stale.then(|| "true".to_owned()))
            .timed()
    };
    if stale || output.json() {
        return client.json(&ask(stale)).await;
    }
    if has_quorum(client).await {
        match client.json(&ask(false)).await {
            Err(trouble) if trouble.is_unavailable() => {}
            answer => return answer,
        }
    }
    let answer = client.json(&ask(true)).await?;
    eprintln!(
        "note: no quorum; this is the view of one host and may be stale (see `beemesh status`)"
    );
    Ok(answer)
}

/// Returns true if this host has a leader or finds one within the time of an election. Also returns true if the status
/// cannot be read, because the response to the request itself then has the reason.
async fn has_quorum(client: &Client) -> bool {
    let begun = Instant::now();
    loop {
        let status = client.json::<Status>(&Ask::get("/v1/status")).await;
        if status.map_or(true, |status| status.quorum || status.role == Role::Removed) {
            return true;
        }
        if begun.elapsed() >= ELECTION_TIME_MAX {
            return false;
        }
        sleep(LOOK).await;
    }
}

/// The singular and the plural of a resource type.
fn names(what: What) -> (&'static str, &'static str) {
    match what {
        What::Workloads => ("workload", "workloads"),
        What::Hosts => ("host", "hosts"),
        What::Manifests => ("manifest", "manifests"),
        What::Audit => ("audit", "audit"),
    }
}

/// The time since 1970.
fn now() -> Duration {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.unwrap_or_default()
}

fn show(args: &Get, what: &str, list: &str, mut answer: Value) -> Result<(), Trouble> {
    if let (What::Manifests, Some(name)) = (args.what, &args.name) {
        let mut all = answer[list].as_array().cloned().unwrap_or_default();
        all.retain(|one| one["name"] == name.as_str());
        if all.is_empty() {
            return Err(Trouble::failed(format!("{what} `{name}` not found"))
                .hint(format!("`beemesh get {list}` lists all")));
        }
        answer[list] = Value::Array(all);
    }
    if let (What::Audit, Some(name), Some(changes)) =
        (args.what, &args.name, answer["changes"].as_array_mut())
    {
        changes.retain(|one| one["name"] == name.as_str());
    }
    if args.output.json() {
        return print_json(&match &args.name {
            Some(_) if args.what == What::Manifests => answer[list][0].take(),
            _ => answer,
        });
    }
    let text = match (args.what, &args.name) {
        (What::Workloads, Some(_)) => render::workload(&typed::<Workload>(answer)?),
        (What::Workloads, None) => render::workloads(&typed::<Workloads>(answer)?.workloads),
        (What::Hosts, Some(_)) => render::host(&typed::<Host>(answer)?, now()),
        (What::Hosts, None) => render::hosts(&typed::<Hosts>(answer)?.hosts, now()),
        (What::Manifests, _) => render::manifests(&typed::<Manifests>(answer)?.manifests),
        (What::Audit, _) => render::audit(&typed::<Audit>(answer)?.changes, now()),
    };
    print(text)
}

pub(super) async fn status(client: &Client, output: Output) -> Result<(), Trouble> {
    let answer = client.json::<Value>(&Ask::get("/v1/status")).await;
    let answer = answer.map_err(|trouble| trouble.during("status"))?;
    if output.json() {
        return print_json(&answer);
    }
    print(render::status(&typed::<Status>(answer)?))
}

fn typed<T: DeserializeOwned>(answer: Value) -> Result<T, Trouble> {
    serde_json::from_value(answer)
        .map_err(|error| Trouble::failed(format!("invalid answer from the gateway: {error}")))
}
