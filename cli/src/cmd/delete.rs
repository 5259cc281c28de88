//! `beemesh delete`.

use std::time::Duration;

use beemesh_protocol::{
    api::{Applied, Deleted},
    percent,
};
use tokio::time::Instant;

use super::{
    Check, print, print_json,
    series::{ask, stopped, warn},
    spin, wait_for,
};
use crate::{
    args::Delete,
    client::{Ask, Client},
    render,
    source::{File, Places},
    trouble::Trouble,
};

pub(super) async fn run(client: &Client, args: Delete) -> Result<(), Trouble> {
    let target = match (&args.name, &args.manifest) {
        (Some(workload), _) => Target::workload(workload),
        (None, Some(manifest)) => Target::manifest(manifest),
        (None, None) if args.file.is_empty() => {
            return Err(Trouble::usage(
                "delete: specify a workload, `--manifest NAME` or `-f FILE`",
            ));
        }
        (None, None) => return files(client, &args).await,
    };
    let what = target.what.clone();
    let deleted = delete(client, target, args.wait).await;
    let deleted = deleted.map_err(|trouble| match &args.name {
        Some(name) if trouble.is_not_found() => trouble.hint(format!(
            "`beemesh get workloads` lists workloads; `beemesh delete --manifest {name}` deletes a manifest"
        )),
        _ => trouble,
    })?;
    if args.output.json() {
        print_json(&deleted)?;
    } else {
        print(render::deleted(&what, &deleted))?;
    }
    removed(&what, &deleted)
}

/// Deletes the manifests of files, the last first: what one file refers to is in one before it.
async fn files(client: &Client, args: &Delete) -> Result<(), Trouble> {
    let places = Places::find(&args.file, args.recursive)?;
    let mut files = places.read(client.timeout()).await?;
    files.reverse();
    let deadline = args.wait.map(|wait| Instant::now() + wait);
    let mut done = Vec::new();
    let mut missing = Vec::new();
    let mut ended = Ok(());
    for (at, file) in files.iter().enumerate() {
        let wait = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        match one_file(client, file, wait).await {
            Ok(Some((what, deleted))) => {
                if !args.output.json() {
                    print(render::deleted(&what, &deleted))?;
                }
                let removed = removed(&what, &deleted);
                done.push(deleted);
                ended = removed.map_err(|trouble| stopped(trouble, &files, at, WORDS));
            }
            Ok(None) => {}
            // Some of the manifests may be deleted already, by an attempt that did not end.
            Err(trouble) if trouble.is_not_found() && files.len() > 1 => {
                missing.push(trouble.message().to_owned());
            }
            Err(trouble) => ended = Err(stopped(trouble, &files, at, WORDS)),
        }
        if ended.is_err() {
            break;
        }
    }
    match done.as_slice() {
        all if args.output.json() && places.many => print_json(&all)?,
        [one] if args.output.json() => print_json(one)?,
        _ => {}
    }
    ended?;
    match missing.as_slice() {
        [] => Ok(()),
        missing => Err(Trouble::failed(missing.join("; ")).note(format!(
            "{} of {} manifests were deleted",
            done.len(),
            files.len()
        ))),
    }
}

/// For messages about a series of files.
const WORDS: (&str, &str) = ("delete -f", "deleted");

/// Deletes the manifest that a file applies; `None` if its objects have no effect, so that the cluster keeps none of them.
async fn one_file(
    client: &Client,
    file: &File,
    wait: Option<Duration>,
) -> Result<Option<(String, Deleted)>, Trouble> {
    // The objects that it refers to need not exist.
    let lenient = Some("true".to_owned());
    let ask = ask(file, None, true).with("waitForReferences", lenient);
    let applied: Applied = client.json(&ask).await?;
    if applied.manifest.is_empty() {
        warn(file, &applied.warnings);
        return Ok(None);
    }
    let target = Target::manifest(&applied.manifest);
    let what = target.what.clone();
    let deleted = delete(client, target, wait).await?;
    Ok(Some((what, deleted)))
}

/// Deletes a workload or a manifest.
async fn delete(
    client: &Client,
    target: Target,
    wait: Option<Duration>,
) -> Result<Deleted, Trouble> {
    let Target { what, path, check } = target;
    let doing = format!("delete {what}");
    let ask = Ask::delete(path)
        .with("wait", wait.map(|wait| wait.as_secs().to_string()))
        .extra(wait.unwrap_or_default())
        .timed();
    let deleted = match wait {
        Some(_) => wait_for::<Deleted>(client, &ask, &doing, check).await,
        None => spin::<Deleted>(client, &ask, &doing).await,
    };
    deleted.map_err(|trouble| trouble.during(&doing))
}

/// An error if hosts still have a part of what was deleted.
fn removed(what: &str, deleted: &Deleted) -> Result<(), Trouble> {
    if deleted.settled != Some(false) {
        return Ok(());
    }
    let message = format!(
        "delete {what}: not yet removed from {}",
        deleted.waiting_for.join(", ")
    );
    Err(Trouble::failed(message).hint(
        "the change is committed; a host that is unreachable removes it when it returns: check with `beemesh host list`",
    ))
}

/// What to delete.
struct Target {
    /// Its name in messages.
    what: String,
    path: String,
    check: Check,
}

impl Target {
    fn workload(name: &str) -> Self {
        let path = format!("/v1/workloads/{}", percent::encode(name));
        Self {
            what: format!("workload {name}"),
            check: Check {
                ask: Ask::get(path.clone()),
                committed: Box::new(|found| found.is_err_and(|trouble| trouble.is_not_found())),
            },
            path,
        }
    }

    fn manifest(name: &str) -> Self {
        let manifest = name.to_owned();
        let committed = move |found: Result<serde_json::Value, Trouble>| {
            let manifests = found
                .ok()
                .and_then(|found| found["manifests"].as_array().cloned());
            manifests.is_some_and(|all| all.iter().all(|one| one["name"] != manifest.as_str()))
        };
        Self {
            what: format!("manifest {name}"),
            path: format!("/v1/manifests/{}", percent::encode(name)),
            check: Check {
                ask: Ask::get("/v1/manifests"),
                committed: Box::new(committed),
            },
        }
    }
}
