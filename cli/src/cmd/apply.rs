//! `beemesh apply`.

use std::time::Duration;

use beemesh_protocol::{
    api::{Action, Applied, AppliedObject, Workload},
    rollout::{Rollout, Verdict},
};
use http_body_util::BodyExt;
use hyper::{Response, body::Incoming};
use tokio::{
    signal::ctrl_c,
    time::{Instant, sleep, sleep_until, timeout_at},
};

use super::{
    TURN, interrupted, print, print_json,
    series::{self, check_once, stopped, warn},
};
use crate::{
    args::Apply,
    client::{Ask, Client},
    follow::Followed,
    live::Live,
    render::{self, Course},
    source::{File, Places},
    trouble::Trouble,
};

/// Pause between two streams of events: the gateway is restarting.
const AGAIN: Duration = Duration::from_millis(200);

pub(super) async fn run(client: &Client, args: Apply) -> Result<(), Trouble> {
    let begun = Instant::now();
    let places = Places::find(&args.sources.file, args.sources.recursive)?;
    places.check_name(args.name.as_ref())?;
    let files = places.read(client.timeout()).await?;
    let json = args.output.json();
    // After a wait, the result includes the state of the workloads.
    let at_once = !json && args.wait.is_none();
    let mut done: Vec<Applied> = Vec::new();
    let mut ended = Ok(());
    for (at, file) in files.iter().enumerate() {
        match apply(client, &args, &files, &done).await {
            Ok(applied) => {
                warn(file, &applied.warnings);
                if at_once {
                    print(render::applied(&applied, None))?;
                }
                done.push(applied);
            }
            Err(trouble) => {
                let words = match args.dry_run {
                    true => ("apply", "checked"),
                    false => ("apply", "applied"),
                };
                ended = Err(stopped(trouble, &files, at, words));
                break;
            }
        }
    }
    // A file with nothing but objects without effect has no manifest.
    let has_effect = done.iter().any(|applied| !applied.manifest.is_empty());
    let wait = args
        .wait
        .filter(|_| !args.dry_run && has_effect && ended.is_ok());
    let stable = args.stable.map(Duration::from_secs);
    let outcome = match wait {
        Some(wait) => Some(tokio::select! {
            ended = follow(client, &mut done, (begun, wait), stable, !json) => ended,
            Ok(()) = ctrl_c() => Err(interrupted()),
        }),
        None => None,
    };
    let waited = wait.map(|_| begun.elapsed());
    match done.as_slice() {
        [] => {}
        all if json && places.many => print_json(&all)?,
        [one] if json => print_json(one)?,
        all if !at_once => {
            let texts = all.iter().map(|applied| render::applied(applied, waited));
            print(texts.collect::<String>())?;
        }
        _ => {}
    }
    let waited = match (outcome, waited) {
        (Some(Err(trouble)), _) => Err(trouble),
        (Some(Ok(ended)), Some(waited)) => verdict(&done, waited, ended),
        _ => Ok(()),
    };
    let doing = match files.as_slice() {
        [one] => format!("apply {}", one.name),
        _ => "apply".to_owned(),
    };
    ended.and(waited.map_err(|trouble| trouble.during(&doing)))
}

/// Applies the file after those that are done.
async fn apply(
    client: &Client,
    args: &Apply,
    files: &[File],
    done: &[Applied],
) -> Result<Applied, Trouble> {
    let file = &files[done.len()];
    let names: Vec<_> = done.iter().map(|applied| &applied.manifest).collect();
    // Without `--prune`, a second file of one manifest only adds to it.
    if args.prune && !args.dry_run && !names.is_empty() {
        let preview: Applied = client.json(&ask(args, file, true, false)).await?;
        check_once(files, &names, &preview.manifest)?;
    }
    // The files before it may have what it refers to, and a dry run does not apply them.
    let lenient = args.dry_run && !names.is_empty();
    let applied: Applied = client.json(&ask(args, file, args.dry_run, lenient)).await?;
    if args.prune && args.dry_run {
        check_once(files, &names, &applied.manifest)?;
    }
    Ok(applied)
}

fn ask(args: &Apply, file: &File, dry_run: bool, lenient: bool) -> Ask {
    let truth = |set: bool| set.then(|| "true".to_owned());
    series::ask(file, args.name.clone(), dry_run)
        .with("prune", truth(args.prune))
        .with("force", truth(args.force))
        .with("strict", truth(args.strict))
        .with(
            "waitForReferences",
            truth(args.wait_for_references || lenient),
        )
}

/// The result of the wait: an error unless the applied workloads run.
pub(super) fn verdict(done: &[Applied], waited: Duration, verdict: Verdict) -> Result<(), Trouble> {
    let workloads: Vec<Workload> = done
        .iter()
        .filter_map(|applied| applied.workloads.clone())
        .flatten()
        .collect();
    let reasons = render::not_running(&workloads);
    let look = match workloads.as_slice() {
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
                "" => render::not_for_long(&workloads),
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

/// One manifest during the wait.
struct Part<'a> {
    applied: &'a mut Applied,
    /// Its workloads, and those that use its objects.
    names: Vec<String>,
    rollout: Rollout,
}

impl<'a> Part<'a> {
    fn new(applied: &'a mut Applied) -> Self {
        let objects = applied.objects.iter();
        let is_own = |one: &&AppliedObject| {
            one.revision > 0 && !matches!(one.action, Action::Removed | Action::Kept)
        };
        let runs = objects.filter(is_own);
        let names: Vec<_> = runs.map(|object| object.name.clone()).collect();
        applied.settled = Some(names.is_empty());
        applied.workloads = Some(Vec::new());
        Self {
            applied,
            names,
            rollout: Rollout::default(),
        }
    }

    /// Records the state of its workloads.
    fn look(&mut self, followed: &Followed, now: Duration) -> Verdict {
        let Some(workloads) = followed.workloads(&self.names, self.applied.index) else {
            return Verdict::Wait(None);
        };
        let verdict = self.rollout.look(now, workloads.iter().copied());
        self.applied.workloads = Some(workloads.into_iter().cloned().collect());
        self.applied.settled = Some(verdict == Verdict::Done);
        verdict
    }
}

/// The verdict on two manifests that are waited for together.
fn both(one: Verdict, other: Verdict) -> Verdict {
    match (one, other) {
        (Verdict::Wait(one), Verdict::Wait(other)) => {
            Verdict::Wait(one.into_iter().chain(other).min())
        }
        (wait @ Verdict::Wait(_), _) | (_, wait @ Verdict::Wait(_)) => wait,
        (Verdict::Stuck, _) | (_, Verdict::Stuck) => Verdict::Stuck,
        (Verdict::Done, Verdict::Done) => Verdict::Done,
    }
}

/// Follows the gateway's events and records the state of the applied workloads. It ends when all of them have rolled out,
/// when some cannot without help and the others have, or when the time is over.
///
/// The progress goes to the terminal or, if `tells`, to standard error line by line.
pub(super) async fn follow(
    client: &Client,
    done: &mut [Applied],
    (begun, wait): (Instant, Duration),
    stable: Option<Duration>,
    tells: bool,
) -> Result<Verdict, Trouble> {
    let deadline = begun + wait;
    let has_effect = done
        .iter_mut()
        .filter(|applied| !applied.manifest.is_empty());
    let mut parts: Vec<_> = has_effect.map(Part::new).collect();
    if parts.iter().all(|part| part.names.is_empty()) {
        return Ok(Verdict::Done);
    }
    let mut shown = Shown {
        live: Live::new(),
        course: Course::default(),
        tells,
    };
    while Instant::now() < deadline {
        let events = timeout_at(deadline, client.open(&Ask::get("/v1/events"))).await;
        let events = match events {
            Ok(events) => events?,
            Err(_) => break,
        };
        // The state between two streams is unknown, so the time of stable running starts again.
        for part in &mut parts {
            part.rollout = Rollout::new(stable);
        }
        let verdict = until_done(events, &mut parts, &mut shown, (begun, deadline)).await?;
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
    parts: &mut [Part<'_>],
    shown: &mut Shown,
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
        let now = begun.elapsed();
        let verdicts = parts.iter_mut().map(|part| part.look(&followed, now));
        match verdicts.fold(Verdict::Done, both) {
            Verdict::Wait(again) => {
                due = again.map_or(deadline, |again| deadline.min(begun + again));
            }
            verdict @ (Verdict::Done | Verdict::Stuck) => return Ok(verdict),
        }
        let applied = parts.iter().map(|part| &*part.applied);
        shown.show(&applied.collect::<Vec<_>>(), now);
    }
}

/// The progress during the wait.
struct Shown {
    live: Live,
    course: Course,
    tells: bool,
}

impl Shown {
    fn show(&mut self, applied: &[&Applied], now: Duration) {
        let workloads = applied
            .iter()
            .flat_map(|one| one.workloads.iter().flatten());
        let workloads: Vec<&Workload> = workloads.collect();
        self.course.look(now, workloads.iter().copied());
        let Some(size) = self.live.size() else {
            if self.tells {
                self.live.tell(&self.course.lines(&workloads, now));
            }
            return;
        };
        // The events have not reached the change yet.
        if workloads.is_empty() {
            let committed = applied
                .iter()
                .map(|one| format!("{}   committed at log index {}\n", one.manifest, one.index));
            return self.live.spin(&committed.collect::<String>());
        }
        self.live.spin(&self.course.drawn(&workloads, now, size));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_manifests_are_done_when_each_is() {
        let wait = |ms: Option<u64>| Verdict::Wait(ms.map(Duration::from_millis));
        for (one, other, expected) in [
            (Verdict::Done, Verdict::Done, Verdict::Done),
            (Verdict::Done, Verdict::Stuck, Verdict::Stuck),
            (Verdict::Stuck, wait(None), wait(None)),
            (Verdict::Done, wait(Some(5)), wait(Some(5))),
            (wait(Some(5)), wait(Some(3)), wait(Some(3))),
            (wait(None), wait(Some(3)), wait(Some(3))),
            (wait(None), wait(None), wait(None)),
        ] {
            assert_eq!(both(one, other), expected, "{one:?} {other:?}");
            assert_eq!(both(other, one), expected, "{other:?} {one:?}");
        }
    }
}
