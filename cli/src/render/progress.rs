//! The progress of a wait for workloads: what each host does, and for how long it has done it.
//!
//! Pure, like its parent; the caller passes the time. A terminal shows all hosts of a workload in the same place again and
//! again. Anything else gets a line when a host comes to its next stage.

use std::{collections::BTreeMap, time::Duration};

use beemesh_protocol::{
    HostId,
    api::{Phase, RolloutPhase, Workload, WorkloadHost},
    pod::{clean, reasons},
};

use super::{GAP, counts, fine, nowhere, on_host, rollout};

/// No lines are told before this time: most applies have ended by then.
const QUIET: Duration = Duration::from_secs(1);
/// Within this time a host is told once of each stage, so that changing reasons do not fill a log.
const SAME_STAGE: Duration = Duration::from_secs(5);
/// The lines of one second. The hosts beyond them follow in the next second, with what they do then.
const LINES_MAX: usize = 20;
/// Maximum length of what is shown of a host, in characters.
const WORDS_MAX: usize = 300;
/// The fewest lines for the hosts of one workload.
const HOSTS_MIN: usize = 3;

/// Where a host is on its way to the latest revision. The first ones are shown first where not all hosts fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Failed,
    Moves,
    Unreachable,
    Waits,
    Ready,
}

/// The size of a terminal, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) columns: usize,
    pub(crate) rows: usize,
}

/// What has been seen of the hosts since the begin of the wait, from which all times count.
#[derive(Debug, Default)]
pub(crate) struct Course {
    hosts: BTreeMap<(HostId, String), Leg>,
    /// The headlines that were told, by workload.
    headlines: BTreeMap<String, String>,
    /// The second in which lines were told last, and their number.
    told: (u64, usize),
}

/// What has been seen of one host.
#[derive(Debug, Default)]
struct Leg {
    /// The log index of the workload's revision.
    index: u64,
    /// When its pod began to change.
    begun: Option<Duration>,
    /// When its pod was ready, after that.
    ready: Option<Duration>,
    /// The stage and the words that were told, and when.
    told: Option<(Stage, String, Duration)>,
}

impl Course {
    /// Takes the state of the workloads at `now`.
    pub(crate) fn look<'a>(
        &mut self,
        now: Duration,
        workloads: impl IntoIterator<Item = &'a Workload>,
    ) {
        for workload in workloads {
            for host in &workload.hosts {
                let key = key(host, workload);
                let leg = self.hosts.entry(key).or_default();
                if leg.index != workload.index {
                    let told = leg.told.take();
                    *leg = Leg {
                        index: workload.index,
                        told,
                        ..Leg::default()
                    };
                }
                match stage(host, workload) {
                    Stage::Ready => leg.ready = leg.ready.or(leg.begun.map(|_| now)),
                    Stage::Moves if leg.ready.is_some() || leg.begun.is_none() => {
                        (leg.begun, leg.ready) = (Some(now), None);
                    }
                    Stage::Moves | Stage::Failed | Stage::Unreachable | Stage::Waits => {}
                }
            }
        }
    }

    /// The workloads and their hosts, for a terminal of this size.
    pub(crate) fn drawn(&self, workloads: &[&Workload], now: Duration, size: Size) -> String {
        let lines = size.rows.saturating_sub(1);
        let share = (lines / workloads.len().max(1)).saturating_sub(1);
        let all = workloads.iter().map(|workload| {
            let seconds = now.as_secs_f64();
            let head = format!("{}{GAP}{seconds:.1} s\n", headline(workload));
            head + &self.on_hosts(workload, size.columns, share.max(HOSTS_MIN))
        });
        let all = all.collect::<String>();
        let shown: Vec<&str> = all.split_inclusive('\n').take(lines.max(1)).collect();
        shown.concat()
    }

    /// The hosts in one line if they fit, else one line each, of at most this number.
    fn on_hosts(&self, workload: &Workload, columns: usize, lines: usize) -> String {
        if workload.hosts.is_empty() {
            return format!("  {}\n", clean(nowhere(workload), WORDS_MAX));
        }
        let width = |one: &WorkloadHost| one.label().chars().count();
        let widest = workload.hosts.iter().map(width).max().unwrap_or(0);
        let mut cells: Vec<(Stage, String, String)> = workload
            .hosts
            .iter()
            .map(|one| {
                let (stage, words) = self.words(one, workload);
                (stage, clean(&one.label(), WORDS_MAX), words)
            })
            .collect();
        let row = cells
            .iter()
            .map(|(_, host, words)| format!("{host}  {words}"));
        let row = format!("  {}", row.collect::<Vec<_>>().join(GAP));
        // The mark of the terminal takes two columns.
        if row.chars().count() + 2 <= columns {
            return row + "\n";
        }
        let line =
            |(_, host, words): &(Stage, String, String)| format!("  {host:widest$}  {words}\n");
        if cells.len() <= lines {
            return cells.iter().map(line).collect();
        }
        cells.sort_by_key(|(stage, _, _)| *stage);
        let (shown, rest) = cells.split_at(lines.saturating_sub(1));
        let count = |wanted: Stage| rest.iter().filter(|(stage, _, _)| *stage == wanted).count();
        let parts = [
            (count(Stage::Ready), "ready"),
            (count(Stage::Waits), "waiting"),
        ];
        let parts = parts.iter().filter(|(count, _)| *count > 0);
        let parts: Vec<String> = parts
            .map(|(count, word)| format!("{count} {word}"))
            .collect();
        let parts = match parts.as_slice() {
            [] => String::new(),
            parts => format!(": {}", parts.join(", ")),
        };
        let shown: String = shown.iter().map(line).collect();
        format!("{shown}  and {} more pods{parts}\n", rest.len())
    }

    /// The lines to tell at `now`: a headline that is new, and each host that came to another stage.
    pub(crate) fn lines(&mut self, workloads: &[&Workload], now: Duration) -> Vec<String> {
        let mut lines = Vec::new();
        if now < QUIET {
            return lines;
        }
        if self.told.0 != now.as_secs() {
            self.told = (now.as_secs(), 0);
        }
        for workload in workloads {
            let headline = headline(workload);
            let known = self.headlines.get(&workload.name);
            // A count changes with the hosts, which have lines of their own.
            let is_news = workload.rollout.is_some() || known.is_none();
            if is_news && known != Some(&headline) && self.may_tell() {
                lines.push(headline.clone());
                self.headlines.insert(workload.name.clone(), headline);
            }
            for host in &workload.hosts {
                let (stage, words) = self.words(host, workload);
                let key = key(host, workload);
                let Some(leg) = self.hosts.get(&key) else {
                    continue;
                };
                let is_due = match &leg.told {
                    // The headline implies that the others wait, or are as they were.
                    None => stage < Stage::Waits || leg.begun.is_some(),
                    Some((before, _, _)) if *before != stage => true,
                    Some((_, before, at)) => *before != words && now >= *at + SAME_STAGE,
                };
                if is_due && self.may_tell() {
                    let host = clean(&host.label(), WORDS_MAX);
                    lines.push(format!("{} on {host}: {words}", workload.name));
                    if let Some(leg) = self.hosts.get_mut(&key) {
                        leg.told = Some((stage, words, now));
                    }
                }
            }
        }
        lines
    }

    fn may_tell(&mut self) -> bool {
        let may = self.told.1 < LINES_MAX;
        self.told.1 += usize::from(may);
        may
    }

    /// What the host does.
    fn words(&self, one: &WorkloadHost, workload: &Workload) -> (Stage, String) {
        let stage = stage(one, workload);
        let words = match stage {
            Stage::Ready => {
                let leg = self.hosts.get(&key(one, workload));
                let times = leg.and_then(|leg| leg.begun.zip(leg.ready));
                let word = match one.phase {
                    Phase::Succeeded => "succeeded",
                    _ => "ready",
                };
                match times {
                    Some((begun, ready)) => {
                        format!(
                            "{word} in {:.1} s",
                            ready.saturating_sub(begun).as_secs_f64()
                        )
                    }
                    None => word.to_owned(),
                }
            }
            Stage::Waits => format!("revision {}, {}", one.revision, waits(workload)),
            Stage::Moves => moves(one, workload),
            Stage::Failed | Stage::Unreachable => on_host(one, workload.revision),
        };
        (stage, clean(&words, WORDS_MAX))
    }
}

/// What identifies the pod. A gateway of a release before 0.5 does not name it.
fn key(one: &WorkloadHost, workload: &Workload) -> (HostId, String) {
    let pod = Some(&one.pod).filter(|pod| !pod.is_empty());
    (one.id, pod.unwrap_or(&workload.name).clone())
}

/// Why a host with an earlier revision does not get the latest one now.
fn waits(workload: &Workload) -> &'static str {
    match workload.rollout.as_ref().map(|rollout| rollout.phase) {
        None | Some(RolloutPhase::Rolling) => "waits",
        Some(RolloutPhase::Paused) => "paused",
        Some(RolloutPhase::RollingBack | RolloutPhase::RolledBack | RolloutPhase::Failed) => {
            "ready"
        }
    }
}

fn moves(one: &WorkloadHost, workload: &Workload) -> String {
    let reason = match one.message.as_str() {
        "" => reasons(&one.containers, true).join("; "),
        message => message.to_owned(),
    };
    let word = match one.phase {
        Phase::Removing if workload.stopped => "stopping",
        Phase::Removing => "removing",
        Phase::Pending => "pending",
        _ => "starting",
    };
    match reason.as_str() {
        "" => word.to_owned(),
        reason => format!("{word} ({reason})"),
    }
}

fn stage(one: &WorkloadHost, workload: &Workload) -> Stage {
    if !one.reachable {
        return Stage::Unreachable;
    }
    match one.phase {
        Phase::Failed | Phase::Stopped => Stage::Failed,
        Phase::Running | Phase::Succeeded if fine(one, workload.revision) => Stage::Ready,
        Phase::Running | Phase::Succeeded if fine(one, one.revision) => Stage::Waits,
        Phase::Pending | Phase::Starting | Phase::Running | Phase::Succeeded | Phase::Removing => {
            Stage::Moves
        }
    }
}

/// The workload and its rollout.
fn headline(workload: &Workload) -> String {
    let what = match &workload.rollout {
        Some(rollout) if rollout.phase == RolloutPhase::Rolling => rollout::pace(workload, rollout),
        Some(rollout) if rollout.phase == RolloutPhase::Paused => rollout::phase(workload),
        // The words name the revision.
        Some(_) => {
            let words = clean(&rollout::phase(workload), WORDS_MAX);
            return format!("{}{GAP}{words}", workload.name);
        }
        None if workload.stopped => "stopping".to_owned(),
        None => format!("{} ready", counts(workload)),
    };
    format!(
        "{}{GAP}revision {}{GAP}{what}",
        workload.name, workload.revision
    )
}

#[cfg(test)]
mod tests;
