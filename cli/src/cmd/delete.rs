//! `beemesh delete`.

use beemesh_protocol::api::{Applied, Deleted};

use super::{print, print_json, read, spin};
use crate::{
    args::Delete,
    client::{Ask, Client, escape},
    render,
    trouble::Trouble,
};

pub(super) async fn run(client: &Client, args: Delete) -> Result<(), Trouble> {
    let (what, path) = match (&args.name, &args.manifest, &args.file) {
        (Some(workload), _, _) => (
            format!("workload {workload}"),
            format!("/v1/workloads/{}", escape(workload)),
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
            of_manifest(&answer.map_err(|trouble| trouble.during(&doing))?.manifest)
        }
        (None, None, None) => {
            return Err(Trouble::usage("delete what? Name a workload or a file"));
        }
    };
    let doing = format!("delete {what}");
    let wait = args.wait.map(|wait| wait.as_secs().to_string());
    let ask = Ask::delete(path)
        .with("wait", wait)
        .extra(args.wait.unwrap_or_default())
        .timed();
    let deleted = spin::<Deleted>(client, &ask, &doing).await;
    let deleted = deleted.map_err(|trouble| {
        let trouble = trouble.during(&doing);
        match &args.name {
            Some(name) => trouble.hint(format!(
                "`beemesh get workloads` lists workloads; `beemesh delete --manifest {name}` removes a manifest"
            )),
            None => trouble,
        }
    })?;
    if args.output.json() {
        print_json(&deleted)?;
    } else {
        print(render::deleted(&what, &deleted))?;
    }
    if deleted.settled == Some(false) {
        let message = format!(
            "{doing}: not gone yet from {}",
            deleted.waiting_for.join(", ")
        );
        return Err(Trouble::failed(message).hint(
            "it is committed: a host that is missing removes it when it is back; `beemesh host list` shows them",
        ));
    }
    Ok(())
}

fn of_manifest(name: &str) -> (String, String) {
    (
        format!("manifest {name}"),
        format!("/v1/manifests/{}", escape(name)),
    )
}
