//! `beemesh host`.

use std::{collections::BTreeMap, time::Duration};

use beemesh_protocol::{
    api::{HostChanged, KeyChanged, LabelsPatch, Status},
    percent,
};
use bytes::Bytes;
use tokio::time::{Instant, sleep};

use super::{Check, get, join::VOTERS_MAX, print, print_json, spin, wait_for};
use crate::{
    args::{Get, Host, Output, What},
    client::{Ask, Client},
    live::Live,
    render,
    trouble::Trouble,
};

/// From a new key to its vote: agent and gateway restart, and the gateway fetches the log or a snapshot of it.
const SETTLED_MAX: Duration = Duration::from_secs(120);
/// Pause between two queries of the status.
const LOOK: Duration = Duration::from_millis(200);

pub(super) async fn run(client: &Client, args: Host) -> Result<(), Trouble> {
    match args {
        Host::List { stale, output } => show(client, None, stale, output).await,
        Host::Show {
            name,
            stale,
            output,
        } => show(client, Some(name), stale, output).await,
        Host::Label {
            name,
            labels,
            output,
        } => {
            let doing = format!("host label {name}");
            let patch = patch(&labels).map_err(|trouble| trouble.during(&doing))?;
            let ask = Ask::patch_json(&path(&name, "/labels"), &patch)?;
            let did = |changed: &HostChanged| render::host_changed(changed, "labelled");
            change(client, ask, &doing, output, did).await.map(drop)
        }
        Host::Drain {
            name,
            wait,
            move_without_data,
            output,
        } => drain(client, &name, wait, move_without_data, output).await,
        Host::Undrain { name, output } => {
            let ask = Ask::delete(path(&name, "/drained"));
            let did = |changed: &HostChanged| render::host_changed(changed, "undrained");
            let doing = format!("host undrain {name}");
            change(client, ask, &doing, output, did).await.map(drop)
        }
        Host::Lost { name, output } => {
            let ask = Ask::put(path(&name, "/lost"));
            let did = |changed: &HostChanged| render::host_changed(changed, "lost");
            let doing = format!("host lost {name}");
            change(client, ask, &doing, output, did).await.map(drop)
        }
        Host::RotateKey { output } => rotate_key(client, output).await,
        Host::Remove { name, output } => remove(client, &name, output).await,
    }
}

async fn show(
    client: &Client,
    name: Option<String>,
    stale: bool,
    output: Output,
) -> Result<(), Trouble> {
    let doing = match &name {
        Some(name) => format!("host show {name}"),
        None => "host list".to_owned(),
    };
    let what = What::Hosts;
    let get = Get {
        what,
        name,
        stale,
        output,
    };
    get::shown(client, &get, &doing).await
}

async fn drain(
    client: &Client,
    name: &str,
    wait: Duration,
    move_without_data: bool,
    output: Output,
) -> Result<(), Trouble> {
    let doing = format!("host drain {name}");
    let ask = Ask::put(path(name, "/drained"))
        .with("wait", wait.as_secs().to_string())
        .with(
            "moveWithoutData",
            move_without_data.then(|| "true".to_owned()),
        )
        .extra(wait);
    let check = Check {
        ask: Ask::get(path(name, "")),
        committed: Box::new(|found| found.is_ok_and(|host| host["drained"] == true)),
    };
    let answer = wait_for::<HostChanged>(client, &ask.timed(), &doing, check).await;
    let did = |changed: &HostChanged| render::host_drained(changed);
    let changed = done(answer, &doing, output, did)?;
    if changed.settled == Some(false) {
        let waiting = changed.waiting_for.join(", ");
        return Err(Trouble::failed(format!(
            "{doing}: not drained after {} s: waiting for {waiting}",
            wait.as_secs()
        ))
        .hint("the change is committed and goes on; `beemesh get workloads` shows the progress"));
    }
    Ok(())
}

async fn rotate_key(client: &Client, output: Output) -> Result<(), Trouble> {
    let doing = "host rotate-key";
    let ask = Ask::post("/v1/key", Bytes::new()).timed();
    let changed = spin::<KeyChanged>(client, &ask, doing).await;
    let changed = changed.map_err(|trouble| trouble.during(doing))?;
    let status = Ask::get("/v1/status");
    let begun = Instant::now();
    let mut live = Live::new();
    let votes = |status: &Status| {
        status.id == changed.id && status.quorum && status.voters.contains(&status.host)
    };
    let follows = |status: &Status| status.voters.len() >= VOTERS_MAX && status.leader.is_some();
    loop {
        let seen = match client.json::<Status>(&status).await {
            Ok(status) if votes(&status) || status.id == changed.id && follows(&status) => break,
            Ok(_) => "the host is catching up with the log".to_owned(),
            Err(trouble) if trouble.is_unreachable() => "the gateway is starting".to_owned(),
            Err(trouble) => return Err(trouble.during(doing)),
        };
        if begun.elapsed() >= SETTLED_MAX {
            let message = format!(
                "{doing}: the key is rotated, but after {} s {seen}",
                SETTLED_MAX.as_secs()
            );
            return Err(Trouble::failed(message)
                .hint("the host continues by itself; `beemesh status` shows the progress"));
        }
        live.spin(&seen);
        sleep(LOOK).await;
    }
    drop(live);
    if output.json() {
        return print_json(&changed);
    }
    print(format!(
        "key rotated: this host is now {}; {} is no longer valid\n",
        changed.id, changed.old
    ))
}

async fn remove(client: &Client, name: &str, output: Output) -> Result<(), Trouble> {
    let doing = format!("host remove {name}");
    let ask = Ask::delete(path(name, ""));
    let did = |changed: &HostChanged| render::host_removed(changed);
    let changed = change(client, ask, &doing, output, did).await?;
    if changed.settled == Some(false) {
        let message = format!("{doing}: the host is no longer a member, but Raft still counts it");
        return Err(Trouble::failed(message)
            .hint("the leader keeps retrying; `beemesh status` shows the voters"));
    }
    Ok(())
}

/// Requests a change, and prints what it did.
async fn change(
    client: &Client,
    ask: Ask,
    doing: &str,
    output: Output,
    did: impl FnOnce(&HostChanged) -> String,
) -> Result<HostChanged, Trouble> {
    let answer = spin::<HostChanged>(client, &ask.timed(), doing).await;
    done(answer, doing, output, did)
}

/// Prints what a change did.
fn done(
    answer: Result<HostChanged, Trouble>,
    doing: &str,
    output: Output,
    did: impl FnOnce(&HostChanged) -> String,
) -> Result<HostChanged, Trouble> {
    let changed = answer.map_err(|trouble| trouble.during(doing))?;
    if output.json() {
        print_json(&changed)?;
    } else {
        print(did(&changed))?;
    }
    Ok(changed)
}

fn path(name: &str, rest: &str) -> String {
    format!("/v1/hosts/{}{rest}", percent::encode(name))
}

/// Parses labels: `KEY=VALUE` sets one, `KEY-` removes one.
fn patch(labels: &[String]) -> Result<LabelsPatch, Trouble> {
    let mut patch = BTreeMap::new();
    for text in labels {
        let (key, value) = match (text.split_once('='), text.strip_suffix('-')) {
            (Some((key, value)), _) => (key, Some(value.to_owned())),
            (None, Some(key)) => (key, None),
            (None, None) => {
                return Err(Trouble::usage(format!(
                    "invalid label `{text}`: use KEY=VALUE to set a label, KEY- to remove it"
                )));
            }
        };
        if patch.insert(key.to_owned(), value).is_some() {
            return Err(Trouble::usage(format!("label `{key}` is given twice")));
        }
    }
    Ok(patch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_set_and_taken_away() {
        let read = |labels: &[&str]| {
            let labels: Vec<_> = labels.iter().map(|label| (*label).to_owned()).collect();
            patch(&labels).ok().map(|patch| {
                let told = |(key, value): (String, Option<String>)| {
                    format!("{key} {}", value.unwrap_or_else(|| "gone".into()))
                };
                patch.into_iter().map(told).collect::<Vec<_>>().join(", ")
            })
        };
        for (labels, expected) in [
            (&["disk=ssd"][..], Some("disk ssd")),
            (&["zone-", "disk=a=b-"], Some("disk a=b-, zone gone")),
            (&["disk"], None),
            (&["disk=a", "disk-"], None),
        ] {
            assert_eq!(read(labels).as_deref(), expected, "{labels:?}");
        }
    }
}
