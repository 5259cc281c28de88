//! `beemesh get` and `beemesh status`.

use std::time::SystemTime;

use beemesh_protocol::api::{Audit, Host, Hosts, Manifests, Status, Workload, Workloads};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{print, print_json};
use crate::{
    args::{Get, Output, What},
    client::{Ask, Client, escape},
    render,
    trouble::Trouble,
};

pub(super) async fn run(client: &Client, args: Get) -> Result<(), Trouble> {
    let (what, list) = names(args.what);
    let doing = match &args.name {
        Some(name) => format!("get {what} {name}"),
        None => format!("get {list}"),
    };
    shown(client, &args, &doing).await
}

/// The same under the name of another command.
pub(super) async fn shown(client: &Client, args: &Get, doing: &str) -> Result<(), Trouble> {
    let (what, list) = names(args.what);
    // A manifest is found in the list of all, and so are the changes of one thing.
    let path = match (args.what, &args.name) {
        (What::Workloads | What::Hosts, Some(name)) => format!("/v1/{list}/{}", escape(name)),
        (What::Workloads | What::Hosts | What::Manifests | What::Audit, _) => format!("/v1/{list}"),
    };
    let ask = Ask::get(path)
        .with("stale", args.stale.then(|| "true".to_owned()))
        .timed();
    let answer = client.json::<Value>(&ask).await;
    let shown = answer.and_then(|answer| show(args, what, list, answer));
    shown.map_err(|trouble| trouble.during(doing))
}

/// One of them and all of them.
fn names(what: What) -> (&'static str, &'static str) {
    match what {
        What::Workloads => ("workload", "workloads"),
        What::Hosts => ("host", "hosts"),
        What::Manifests => ("manifest", "manifests"),
        What::Audit => ("audit", "audit"),
    }
}

fn show(args: &Get, what: &str, list: &str, mut answer: Value) -> Result<(), Trouble> {
    if let (What::Manifests, Some(name)) = (args.what, &args.name) {
        let mut all = answer[list].as_array().cloned().unwrap_or_default();
        all.retain(|one| one["name"] == name.as_str());
        if all.is_empty() {
            return Err(Trouble::failed(format!("there is no {what} `{name}`"))
                .hint(format!("`beemesh get {list}` shows all")));
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
        (What::Hosts, Some(_)) => render::host(&typed::<Host>(answer)?),
        (What::Hosts, None) => render::hosts(&typed::<Hosts>(answer)?.hosts),
        (What::Manifests, _) => render::manifests(&typed::<Manifests>(answer)?.manifests),
        (What::Audit, _) => {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            render::audit(&typed::<Audit>(answer)?.changes, now.unwrap_or_default())
        }
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
        .map_err(|error| Trouble::failed(format!("the gateway's answer makes no sense: {error}")))
}
