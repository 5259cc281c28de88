//! `beemesh apply`.

use std::time::Duration;

use beemesh_protocol::api::{Action, Applied, Phase, Workload};
use http_body_util::BodyExt;
use hyper::{Response, body::Incoming};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::{TURN, print, print_json, read};
use crate::{
    args::Apply,
    client::{Ask, Client},
    follow::Followed,
    live::Live,
    render,
    trouble::{Trouble, problem},
};

/// Between two streams of events: the gateway is restarting.
const AGAIN: Duration = Duration::from_millis(200);

pub(super) async fn run(client: &Client, args: Apply) -> Result<(), Trouble> {
    let begun = Instant::now();
    let file = read(&args.file)?;
    let doing = format!("apply {}", file.name);
    let ask = Ask::post("/v1/apply", file.bytes)
        .with("name", args.name)
        .with("dryRun", args.dry_run.then(|| "true".to_owned()))
        .with("strict", args.strict.then(|| "true".to_owned()))
        .file(&file.name)
        // The same file twice: the second time nothing changes.
        .repeatable()
        .timed();
    let answer = client.json::<Applied>(&ask).await;
    let mut applied = answer.map_err(|trouble| trouble.during(&doing))?;
    for warning in &applied.warnings {
        eprintln!("warning: {}", problem(&file.name, warning));
    }
    let wait = args.wait.filter(|_| !args.dry_run);
    let broken = match wait {
        Some(wait) => follow(client, &mut applied, begun, wait).await.err(),
        None => None,
    };
    let waited = wait.map(|_| begun.elapsed());
    if args.output.json() {
        print_json(&applied)?;
    } else {
        print(render::applied(&applied, waited))?;
    }
    match (broken, waited) {
        (Some(trouble), _) => Err(trouble.during(&doing)),
        (None, Some(waited)) => verdict(&applied, waited).map_err(|trouble| trouble.during(&doing)),
        (None, None) => Ok(()),
    }
}

/// Whether the applied workloads run, once the wait is over.
fn verdict(applied: &Applied, waited: Duration) -> Result<(), Trouble> {
    let workloads = applied.workloads.as_deref().unwrap_or_default();
    let reasons = render::not_running(workloads);
    let look = match workloads {
        [one] => format!("`beemesh get workloads {}`", one.name),
        _ => "`beemesh get workloads`".to_owned(),
    };
    if applied.settled == Some(true) {
        return match reasons.as_str() {
            "" => Ok(()),
            reasons => Err(Trouble::failed(reasons)
                .hint("`beemesh logs WORKLOAD` shows what the containers said")),
        };
    }
    let after = format!("not done after {:.0} s", waited.as_secs_f64());
    let message = match reasons.as_str() {
        "" => after,
        reasons => format!("{after}: {reasons}"),
    };
    Err(Trouble::failed(message).hint(format!(
        "it is committed, and hosts carry it out as soon as they can; {look} shows how far they are"
    )))
}

/// Follows the gateway's events until the applied workloads are settled or the time is over, and notes how they are.
async fn follow(
    client: &Client,
    applied: &mut Applied,
    begun: Instant,
    wait: Duration,
) -> Result<(), Trouble> {
    let deadline = begun + wait;
    let names: Vec<String> = applied
        .objects
        .iter()
        .filter(|object| object.revision > 0 && object.action != Action::Removed)
        .map(|object| object.name.clone())
        .collect();
    applied.settled = Some(names.is_empty());
    applied.workloads = Some(Vec::new());
    let mut live = Live::new();
    while applied.settled != Some(true) && Instant::now() < deadline {
        let events = timeout_at(deadline, client.open(&Ask::get("/v1/events"))).await;
        let events = match events {
            Ok(events) => events?,
            Err(_) => break,
        };
        until_settled(events, applied, &names, &mut live, begun, deadline).await?;
        if applied.settled != Some(true) {
            sleep_until(deadline.min(Instant::now() + AGAIN)).await;
        }
    }
    Ok(())
}

/// Reads one stream of events to its end, or to the end of the wait.
async fn until_settled(
    events: Response<Incoming>,
    applied: &mut Applied,
    names: &[String],
    live: &mut Live,
    begun: Instant,
    deadline: Instant,
) -> Result<(), Trouble> {
    let mut body = events.into_body();
    let mut followed = Followed::default();
    loop {
        tokio::select! {
            frame = body.frame() => match frame {
                Some(Ok(frame)) => {
                    let bytes = frame.data_ref().map_or(&[][..], |bytes| bytes);
                    let pushed = followed.push(bytes);
                    pushed.map_err(|nonsense| Trouble::failed(nonsense.to_string()))?;
                }
                // The gateway is restarting; a new stream tells everything again.
                Some(Err(_)) | None => return Ok(()),
            },
            () = sleep(TURN) => {}
            () = sleep_until(deadline) => return Ok(()),
        }
        if let Some(workloads) = followed.workloads(names, applied.index) {
            let done = workloads.iter().all(|one| one.settled);
            applied.workloads = Some(workloads.into_iter().cloned().collect());
            applied.settled = Some(done);
            if done {
                return Ok(());
            }
        }
        live.spin(&progress(applied, begun.elapsed()));
    }
}

/// What is drawn while the user waits.
fn progress(applied: &Applied, elapsed: Duration) -> String {
    let workloads = applied.workloads.as_deref().unwrap_or_default();
    let fine = |workload: &Workload| {
        let hosts = &workload.hosts;
        let well = hosts
            .iter()
            .filter(|one| one.phase == Phase::Running && one.healthy == one.total);
        format!(
            "{}   revision {}   {}/{} hosts   {:.1} s\n{}",
            workload.name,
            workload.revision,
            well.count(),
            hosts.len(),
            elapsed.as_secs_f64(),
            render::on_hosts(workload, None)
        )
    };
    if workloads.is_empty() {
        return format!(
            "{}   committed at log index {}",
            applied.manifest, applied.index
        );
    }
    workloads.iter().map(fine).collect()
}
