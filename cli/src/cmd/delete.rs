//! `beemesh delete`.

use beemesh_protocol::{
    api::{Applied, Deleted},
    percent,
};

use super::{Check, print, print_json, read, spin, wait_for};
use crate::{
    args::Delete,
    client::{Ask, Client},
    render,
    trouble::{Trouble, problem},
};

pub(super) async fn run(client: &Client, args: Delete) -> Result<(), Trouble> {
    let (what, path, check) = match (&args.name, &args.manifest, &args.file) {
        (Some(workload), _, _) => (
            format!("workload {workload}"),
            format!("/v1/workloads/{}", percent::encode(workload)),
            Check {
                ask: Ask::get(format!("/v1/workloads/{}", percent::encode(workload))),
                committed: Box::new(|found| found.is_err_and(|trouble| trouble.is_not_found())),
            },
        ),
        (None, Some(manifest), _) => of_manifest(manifest),
        (None, None, Some(file)) => {
            let file = read(file)?;
            let ask = Ask::post("/v1/apply", file.bytes)
                .with("dryRun", "true".to_owned())
                .file(&file.name)
                .repeatable()
                .timed();
            let doing = format!("delete -f {}", file.name);
            let answer = client.json::<Applied>(&ask).await;
            let applied = answer.map_err(|trouble| trouble.during(&doing))?;
            if applied.manifest.is_empty() {
                // Its objects have no effect, so the cluster keeps none of them.
                for warning in &applied.warnings {
                    eprintln!("warning: {}", problem(&file.name, warning));
                }
                return Ok(());
            }
            of_manifest(&applied.manifest)
        }
        (None, None, None) => {
            return Err(Trouble::usage(
                "delete: specify a workload, `--manifest NAME` or `-f FILE`",
            ));
        }
    };
    let doing = format!("delete {what}");
    let wait = args.wait.map(|wait| wait.as_secs().to_string());
    let ask = Ask::delete(path)
        .with("wait", wait)
        .extra(args.wait.unwrap_or_default())
        .timed();
    let deleted = match args.wait {
        Some(_) => wait_for::<Deleted>(client, &ask, &doing, check).await,
        None => spin::<Deleted>(client, &ask, &doing).await,
    };
    let deleted = deleted.map_err(|trouble| {
        let trouble = trouble.during(&doing);
        match &args.name {
            Some(name) if trouble.is_not_found() => trouble.hint(format!(
                "`beemesh get workloads` lists workloads; `beemesh delete --manifest {name}` deletes a manifest"
            )),
            _ => trouble,
        }
    })?;
    if args.output.json() {
        print_json(&deleted)?;
    } else {
        print(render::deleted(&what, &deleted))?;
    }
    if deleted.settled == Some(false) {
        let message = format!(
            "{doing}: not yet removed from {}",
            deleted.waiting_for.join(", ")
        );
        return Err(Trouble::failed(message).hint(
            "the change is committed; a host that is unreachable removes it when it returns: check with `beemesh host list`",
        ));
    }
    Ok(())
}

fn of_manifest(name: &str) -> (String, String, Check) {
    let manifest = name.to_owned();
    let check = Check {
        ask: Ask::get("/v1/manifests"),
        committed: Box::new(move |found| {
            let manifests = found
                .ok()
                .and_then(|found| found["manifests"].as_array().cloned());
            manifests.is_some_and(|all| all.iter().all(|one| one["name"] != manifest.as_str()))
        }),
    };
    (
        format!("manifest {name}"),
        format!("/v1/manifests/{}", percent::encode(name)),
        check,
    )
}
