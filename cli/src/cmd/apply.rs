//! `beemesh apply`.

use std::time::Duration;

use beemesh_protocol::{
    api::{Action, Applied, Workload},
    rollout::{Rollout, Verdict},
};
use http_body_util::BodyExt;
use hyper::{Response, body::Incoming};
use tokio::{
    signal::ctrl_c,
    time::{Instant, sleep, sleep_until, timeout_at},
};

use super::{TURN, interrupted, print, print_json, read};
use crate::{
    args::Apply,
    client::{Ask, Client},
    follow::Followed,
    live::Live,
    render,
    trouble::{Trouble, problem},
};

/// Pause between two streams of events: the gateway is restarting.
const AGAIN: Duration = Duration::from_millis(200);

pub(super) async fn run(client: &Client, args: Apply) -> Result<(), Trouble> {
    let begun = Instant::now();
    let file = read(&args.file)?;
    let doing = format!("apply {}", file.name);
    let ask = Ask::post("/v1/apply", file.bytes)
        .with("name", args.name)
        .with("dryRun", args.dry_run.then(|| "true".to_owned()))
        .with("strict", args.strict.then(|| "true".to_owned()))
        .with(
            "waitForReferences",
            args.wait_for_references.then(|| "true".to_owned()),
        )
        .file(&file.name)
        // A repeated apply of the same file changes nothing.
        .repeatable()
        .timed();
    let answer = client.json::<Applied>(&ask).await;
    let mut applied = answer.map_err(|trouble| trouble.during(&doing))?;
    for warning in &applied.warnings {
        eprintln!("warning: {}", problem(&file.name, warning));
    }
    // A file with nothing but objects without effect has no manifest.
    let has_effect = !applied.manifest.is_empty();
    let wait = args.wait.filter(|_| !args.dry_run && has_effect);
    let stable = args.stable.map(Duration::from_secs);
    let outcome = match wait {
        Some(wait) => Some(tokio::select! {
            ended = follow(client, &mut applied, begun, wait, stable) => ended,
            Ok(()) = ctrl_c() => Err(interrupted()),
        }),
        None => None,
    };
    let waited = wait.map(|_| begun.elapsed());
    if args.output.json() {
        print_json(&applied)?;
    } else {
        print(render::applied(&applied, waited))?;
    }
    let ended = match (outcome, waited) {
        (Some(Err(trouble)), _) => Err(trouble),
        (Some(Ok(ended)), Some(waited)) => verdict(&applied, waited, ended),
        _ => Ok(()),
    };
    ended.map_err(|trouble| trouble.during(&doing))
}

/// The result of the wait: an error unless the applied workloads run.
fn verdict(applied: &Applied, waited: Duration, verdict: Verdict) -> Result<(), Trouble> {
    let workloads = applied.workloads.as_deref().unwrap_or_default();
    let reasons = render::not_running(workloads);
    let look = match workloads {
        [one] => format!("`beemesh get workloads {}`", one.name),
        _ => "`beemesh get workloads`".to_owned(),
    };
    match (verdict, reasons.as_str()) {
        (Verdict::Done, "") => Ok(()),
        (Verdict::Done | Verdict::Stuck, reasons) => Err(Trouble::failed(reasons).hint(format!(
            "the change is committed; {look} shows every host, `beemesh logs WORKLOAD` the output of the containers"
        ))),
        (Verdict::Wait(_), reasons) => {
            let after = format!("not rolled out after {:.0} s", waited.as_secs_f64());
            let reasons = match reasons {
                "" => render::not_for_long(workloads),
                reasons => reasons.to_owned(),
            };
            let message = match reasons.as_str() {
                "" => after,
                reasons => format!("{after}: {reasons}"),
            };
            Err(Trouble::failed(message).hint(format!(
                "the change is committed and goes on; {look} shows the progress"
            )))
        }
    }
}

/// Follows the gateway's events and records the state of the applied workloads. It ends when they have rolled out, when
/// they cannot without help, or when the time is over.
async fn follow(
    client: &Client,
    applied: &mut Applied,
    begun: Instant,
    wait: Duration,
    stable: Option<Duration>,
) -> Result<Verdict, Trouble> {
    let deadline = begun + wait;
    let names: Vec<String> = applied
        .objects
        .iter()
        .filter(|object| object.revision > 0 && object.action != Action::Removed)
        .map(|object| object.name.clone())
        .collect();
    applied.settled = Some(names.is_empty());
    applied.workloads = Some(Vec::new());
    if names.is_empty() {
        return Ok(Verdict::Done);
    }
    let mut live = Live::new();
    while Instant::now() < deadline {
        let events = timeout_at(deadline, client.open(&Ask::get("/v1/events"))).await;
        let events = match events {
            Ok(events) => events?,
            Err(_) => break,
        };
        // The state between two streams is unknown, so the time of stable running starts again.
        let rollout = Rollout::new(stable);
        let times = (begun, deadline);
        let verdict = until_done(events, applied, &names, rollout, &mut live, times).await?;
        applied.settled = Some(verdict == Verdict::Done);
        if !matches!(verdict, Verdict::Wait(_)) {
            return Ok(verdict);
        }
        sleep_until(deadline.min(Instant::now() + AGAIN)).await;
    }
    Ok(Verdict::Wait(None))
}

/// Reads one stream of events until it ends or the wait is over.
async fn until_done(
    events: Response<Incoming>,
    applied: &mut Applied,
    names: &[String],
    mut rollout: Rollout,
    live: &mut Live,
    (begun, deadline): (Instant, Instant),
) -> Result<Verdict, Trouble> {
    let mut body = events.into_body();
    let mut followed = Followed::default();
    let mut due = deadline;
    loop {
        tokio::select! {
            frame = body.frame() => match frame {
                Some(Ok(frame)) => {
                    let bytes = frame.data_ref().map_or(&[][..], |bytes| bytes);
                    let pushed = followed.push(bytes);
                    pushed.map_err(|error| Trouble::failed(error.to_string()))?;
                }
                // The gateway is restarting. A new stream begins with the whole state.
                Some(Err(_)) | None => return Ok(Verdict::Wait(None)),
            },
            () = sleep(TURN) => {}
            () = sleep_until(due), if due < deadline => {}
            () = sleep_until(deadline) => return Ok(Verdict::Wait(None)),
        }
        due = deadline;
        if let Some(workloads) = followed.workloads(names, applied.index) {
            let verdict = rollout.look(begun.elapsed(), workloads.iter().copied());
            applied.workloads = Some(workloads.into_iter().cloned().collect());
            match verdict {
                Verdict::Wait(again) => {
                    due = again.map_or(deadline, |again| deadline.min(begun + again));
                }
                Verdict::Done | Verdict::Stuck => return Ok(verdict),
            }
        }
        live.spin(&progress(applied, begun.elapsed()));
    }
}

/// The progress to draw during the wait.
fn progress(applied: &Applied, elapsed: Duration) -> String {
    let workloads = applied.workloads.as_deref().unwrap_or_default();
    let shown = |workload: &Workload| {
        format!(
            "{}   revision {}   {} ready   {:.1} s\n{}",
            workload.name,
            workload.revision,
            render::counts(workload),
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
    workloads.iter().map(shown).collect()
}
