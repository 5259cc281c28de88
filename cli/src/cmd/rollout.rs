//! `beemesh rollout`, `scale`, `restart`, `stop` and `start`.

use std::time::{Duration, SystemTime};

use beemesh_protocol::{
    api::{
        Action, Applied, AppliedObject, Revisions, RolloutAction, RolloutChange, RolloutChanged,
        Workload,
    },
    percent,
    rollout::Verdict,
};
use tokio::{signal::ctrl_c, time::Instant};

use super::{apply, print, print_json, spin};
use crate::{
    args::{Forced, Named, Output, Rollout, Scale},
    client::{Ask, Client},
    render,
    trouble::Trouble,
};

/// Kinds that may stand before a name, as in `deployment/web`.
const KINDS: [&str; 10] = [
    "deployment",
    "deployments",
    "deploy",
    "daemonset",
    "daemonsets",
    "ds",
    "pod",
    "pods",
    "po",
    "workload",
];

pub(super) async fn run(client: &Client, rollout: Rollout) -> Result<(), Trouble> {
    match rollout {
        Rollout::Status {
            workload,
            wait,
            watch,
            output,
        } => status(client, named(&workload), watch.then_some(wait), output).await,
        Rollout::History {
            workload,
            revision,
            output,
        } => history(client, named(&workload), revision, output).await,
        Rollout::Undo {
            workload,
            to_revision,
            force,
            output,
        } => {
            let asked = RolloutChange {
                to_revision: Some(to_revision).filter(|number| *number > 0),
                force,
                ..of(RolloutAction::Undo)
            };
            changed(client, named(&workload), &asked, "rolled back", output).await
        }
        Rollout::Pause { workload, output } => {
            let asked = of(RolloutAction::Pause);
            changed(client, named(&workload), &asked, "paused", output).await
        }
        Rollout::Resume { workload, output } => {
            let asked = of(RolloutAction::Resume);
            changed(client, named(&workload), &asked, "resumed", output).await
        }
        Rollout::Restart(args) => restart(client, args).await,
    }
}

pub(super) async fn restart(client: &Client, args: Forced) -> Result<(), Trouble> {
    act(client, args, RolloutAction::Restart, "restarted").await
}

pub(super) async fn stop(client: &Client, args: Named) -> Result<(), Trouble> {
    let asked = of(RolloutAction::Stop);
    changed(
        client,
        named(&args.workload),
        &asked,
        "stopped",
        args.output,
    )
    .await
}

pub(super) async fn start(client: &Client, args: Forced) -> Result<(), Trouble> {
    act(client, args, RolloutAction::Start, "started").await
}

async fn act(
    client: &Client,
    args: Forced,
    action: RolloutAction,
    did: &str,
) -> Result<(), Trouble> {
    let Forced { force, named: args } = args;
    let asked = RolloutChange {
        force,
        ..of(action)
    };
    changed(client, named(&args.workload), &asked, did, args.output).await
}

pub(super) async fn scale(client: &Client, args: Scale) -> Result<(), Trouble> {
    let asked = RolloutChange {
        replicas: Some(args.replicas),
        force: args.force,
        ..of(RolloutAction::Scale)
    };
    changed(client, named(&args.workload), &asked, "scaled", args.output).await
}

fn of(action: RolloutAction) -> RolloutChange {
    RolloutChange {
        action,
        to_revision: None,
        replicas: None,
        force: false,
    }
}

/// The name without the kind before it.
fn named(workload: &str) -> &str {
    match workload.split_once('/') {
        Some((kind, name)) if KINDS.contains(&kind.to_ascii_lowercase().as_str()) => name,
        _ => workload,
    }
}

/// Changes a rollout, and says what was done.
async fn changed(
    client: &Client,
    name: &str,
    asked: &RolloutChange,
    did: &str,
    output: Output,
) -> Result<(), Trouble> {
    let doing = match asked.action {
        RolloutAction::Pause => format!("rollout pause {name}"),
        RolloutAction::Resume => format!("rollout resume {name}"),
        RolloutAction::Restart => format!("restart {name}"),
        RolloutAction::Undo => format!("rollout undo {name}"),
        RolloutAction::Scale => format!("scale {name}"),
        RolloutAction::Stop => format!("stop {name}"),
        RolloutAction::Start => format!("start {name}"),
    };
    let path = format!("/v1/workloads/{}/rollout", percent::encode(name));
    let ask = Ask::post_json(&path, asked)?.timed();
    let answer = spin::<RolloutChanged>(client, &ask, &doing).await;
    let answer = answer.map_err(|trouble| trouble.during(&doing))?;
    if output.json() {
        return print_json(&answer);
    }
    print(render::rollout_changed(name, asked.action, did, &answer))
}

async fn history(
    client: &Client,
    name: &str,
    revision: Option<u64>,
    output: Output,
) -> Result<(), Trouble> {
    let doing = format!("rollout history {name}");
    let path = format!("/v1/workloads/{}/revisions", percent::encode(name));
    let answer = client.json::<Revisions>(&Ask::get(path).timed()).await;
    let mut answer = answer.map_err(|trouble| trouble.during(&doing))?;
    if let Some(revision) = revision {
        answer.revisions.retain(|one| one.revision == revision);
        if answer.revisions.is_empty() {
            return Err(
                Trouble::failed(format!("{name} has no revision {revision}")).hint(format!(
                    "`beemesh rollout history {name}` lists the kept revisions"
                )),
            );
        }
    }
    if output.json() {
        return print_json(&answer);
    }
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = now.unwrap_or_default();
    match (revision, answer.revisions.as_slice()) {
        (Some(_), [one]) => print(render::revision(one, now)),
        (_, all) => print(render::revisions(all, now)),
    }
}

/// Shows the rollout, and with `wait` waits for its end.
async fn status(
    client: &Client,
    name: &str,
    wait: Option<Duration>,
    output: Output,
) -> Result<(), Trouble> {
    let doing = format!("rollout status {name}");
    let path = format!("/v1/workloads/{}", percent::encode(name));
    let workload = client.json::<Workload>(&Ask::get(path).timed()).await;
    let workload = workload.map_err(|trouble| trouble.during(&doing))?;
    let begun = Instant::now();
    let mut applied = Applied {
        manifest: workload.manifest.clone(),
        index: workload.index,
        dry_run: false,
        settled: Some(workload.settled),
        objects: vec![AppliedObject {
            kind: workload.kind.clone(),
            name: workload.name.clone(),
            action: Action::Unchanged,
            revision: workload.revision,
        }],
        warnings: Vec::new(),
        workloads: None,
    };
    let ended = match wait {
        None => {
            applied.workloads = Some(vec![workload]);
            Ok(Verdict::Done)
        }
        Some(wait) => tokio::select! {
            ended = apply::follow(client, std::slice::from_mut(&mut applied), (begun, wait), None, !output.json()) => ended,
            Ok(()) = ctrl_c() => Err(Trouble::interrupted("interrupted; the rollout goes on")),
        },
    };
    let shown = applied.workloads.iter().flatten().next();
    if let Some(shown) = shown {
        match output.json() {
            true => print_json(shown)?,
            false => print(render::rollout(shown))?,
        }
    }
    let verdict = match (ended?, wait) {
        (_, None) => return Ok(()),
        (verdict, Some(_)) => verdict,
    };
    apply::verdict(std::slice::from_ref(&applied), begun.elapsed(), verdict)
        .map_err(|trouble| trouble.during(&doing))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_before_the_name_is_taken_as_in_kubectl() {
        for (written, name) in [
            ("web", "web"),
            ("deployment/web", "web"),
            ("DS/web", "web"),
            ("shop_web", "shop_web"),
            ("widget/web", "widget/web"),
        ] {
            assert_eq!(named(written), name);
        }
    }
}
