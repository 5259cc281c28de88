//! Pure: the report of a supervisor on its pod, and the status line of its unit.
//!
//! The supervisor writes a [`Report`] for the gateway of its host ([`Report::to_message`]), and a [line](Report::line)
//! for users (`STATUS=`). The gateway uses a report only if its line equals the one of the unit. Otherwise, as for a
//! supervisor of 0.2, it parses the line ([`parse`]).

use std::fmt::Write as _;

use beemesh_protocol::pod::{
    ContainerReport, PodPhase, PodReport, REASON_CHARS_MAX, clean, reasons,
};

use super::Health;

/// Maximum size of a status line, in bytes. systemd accepts at least 4 KiB per datagram; a longer line is cut.
pub const LINE_BYTES_MAX: usize = 1024;
/// Maximum size of the reasons in a line, in bytes. The rest is for the counts and the revision.
const REASONS_BYTES_MAX: usize = 850;
/// Maximum size of a reason with the output of containers, for the API, in bytes.
const MESSAGE_BYTES_MAX: usize = 1024;

/// The separator between two parts of a line.
const BETWEEN: &str = " · ";

/// The report of a supervisor on its pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The status of the pod.
    pub status: Status,
    /// The pod's containers; empty if they are unknown.
    pub containers: Vec<ContainerReport>,
    /// The part of a status line about containers, if only the line is known.
    pub trouble: String,
}

/// The status of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// The pod is up.
    Running {
        /// The health of its containers.
        health: Health,
        /// The revision that runs.
        revision: u64,
    },
    /// Every container ended with code 0, and none will be restarted.
    Completed {
        /// The revision that ran.
        revision: u64,
        /// Restarts by the restart policy before that.
        restarts: u32,
    },
    /// The pod of the old revision is gone, and that of the new one does not exist yet.
    Updating {
        /// The revision that ran.
        from: u64,
        /// The new revision.
        to: u64,
    },
    /// The supervisor is starting the pod.
    Starting {
        /// The revision that is being started.
        revision: u64,
        /// The present step, as a message.
        doing: String,
    },
    /// The supervisor cannot query the pod, which may be healthy.
    Waiting {
        /// The revision that should run.
        revision: u64,
        /// The condition that the supervisor waits for, as a message.
        wait: String,
    },
    /// Every container ended, one of them with a failure, and none is restarted.
    Ended {
        /// A message in addition to the containers' reasons.
        reason: String,
    },
    /// The supervisor has given up the pod on this host.
    Failed {
        /// Why, as a message.
        reason: String,
    },
    /// The unit is being stopped.
    Stopping,
}

impl From<Status> for Report {
    fn from(status: Status) -> Self {
        Self {
            status,
            containers: Vec::new(),
            trouble: String::new(),
        }
    }
}

impl Report {
    /// The status line, which every local user can read. It contains no output of containers and probes.
    #[must_use]
    pub fn line(&self) -> String {
        let reasons = |own: &str| {
            let mut all = reasons(&self.containers, false);
            all.extend(
                [self.trouble.as_str(), own]
                    .iter()
                    .filter(|one| !one.is_empty())
                    .map(ToString::to_string),
            );
            all
        };
        let line = match &self.status {
            Status::Running { health, revision } => {
                let Health {
                    healthy,
                    total,
                    restarts,
                } = health;
                let reasons = reasons("").join(BETWEEN);
                let reasons = match reasons.as_str() {
                    "" => String::new(),
                    reasons => format!("{BETWEEN}{}", cut(reasons, REASONS_BYTES_MAX)),
                };
                let restarts = restarts_in_words(*restarts);
                format!(
                    "{healthy}/{total} healthy{reasons}{BETWEEN}rev {revision}{BETWEEN}{restarts}"
                )
            }
            Status::Completed { revision, restarts } => {
                format!(
                    "completed{BETWEEN}rev {revision}{BETWEEN}{}",
                    restarts_in_words(*restarts)
                )
            }
            Status::Updating { from, to } => format!("updating to rev {to} from rev {from}"),
            Status::Starting { revision, doing } => format!("starting rev {revision}: {doing}"),
            Status::Waiting { revision, wait } => format!("waiting with rev {revision}: {wait}"),
            Status::Ended { reason } => format!("ended: {}", reasons(reason).join("; ")),
            Status::Failed { reason } => format!("failed: {reason}"),
            Status::Stopping => "stopping".to_owned(),
        };
        one_line(&line)
    }

    /// Why the pod is not healthy, for the API. Contains the last output of containers and probes. Empty if the pod is
    /// healthy, and while a probe has failed less often than its threshold.
    #[must_use]
    pub fn message(&self) -> String {
        let own = match &self.status {
            Status::Running { .. } => "",
            Status::Completed { .. } | Status::Updating { .. } | Status::Stopping => {
                return String::new();
            }
            Status::Starting { doing: words, .. }
            | Status::Waiting { wait: words, .. }
            | Status::Failed { reason: words } => {
                return cut(&self.with_output(words), MESSAGE_BYTES_MAX);
            }
            Status::Ended { reason } => reason.as_str(),
        };
        let troubled = self.containers.iter().filter(|one| !one.is_calm());
        let mut all = reasons(troubled, true);
        all.extend(
            [self.trouble.as_str(), own]
                .iter()
                .filter(|one| !one.is_empty())
                .map(ToString::to_string),
        );
        cut(&all.join("; "), MESSAGE_BYTES_MAX)
    }

    /// Adds the last output of the containers that failed a play, which the message names.
    fn with_output(&self, words: &str) -> String {
        let outputs = self.containers.iter().filter_map(|one| one.exit.as_ref());
        let outputs = outputs.map(|exit| exit.output.as_str());
        let all = [words]
            .into_iter()
            .chain(outputs.filter(|output| !output.is_empty()));
        all.collect::<Vec<_>>().join(": ")
    }

    /// The same report with its texts in the form that the report's file may contain.
    #[must_use]
    pub fn cleaned(mut self) -> Self {
        match &mut self.status {
            Status::Starting { doing: words, .. }
            | Status::Waiting { wait: words, .. }
            | Status::Ended { reason: words }
            | Status::Failed { reason: words } => *words = clean(words, REASON_CHARS_MAX),
            Status::Running { .. }
            | Status::Completed { .. }
            | Status::Updating { .. }
            | Status::Stopping => {}
        }
        self
    }

    /// The report as the message that is written for the gateway.
    #[must_use]
    pub fn to_message(&self) -> PodReport {
        let containers = self.containers.clone();
        let to = PodReport {
            containers,
            ..PodReport::default()
        };
        match self.status.clone() {
            Status::Running { health, revision } => PodReport {
                phase: PodPhase::Running,
                revision,
                healthy: health.healthy,
                total: health.total,
                restarts: health.restarts,
                ..to
            },
            Status::Completed { revision, restarts } => PodReport {
                phase: PodPhase::Completed,
                revision,
                restarts,
                ..to
            },
            Status::Updating { from, to: revision } => PodReport {
                phase: PodPhase::Updating,
                revision,
                from,
                ..to
            },
            Status::Starting {
                revision,
                doing: reason,
            } => PodReport {
                phase: PodPhase::Starting,
                revision,
                reason,
                ..to
            },
            Status::Waiting {
                revision,
                wait: reason,
            } => PodReport {
                phase: PodPhase::Waiting,
                revision,
                reason,
                ..to
            },
            Status::Ended { reason } => PodReport {
                phase: PodPhase::Ended,
                reason,
                ..to
            },
            Status::Failed { reason } => PodReport {
                phase: PodPhase::Failed,
                reason,
                ..to
            },
            Status::Stopping => PodReport {
                phase: PodPhase::Stopping,
                ..to
            },
        }
    }
}

impl From<PodReport> for Report {
    fn from(message: PodReport) -> Self {
        let PodReport {
            phase,
            revision,
            from,
            reason,
            healthy,
            total,
            restarts,
            containers,
        } = message;
        let health = Health {
            healthy,
            total,
            restarts,
        };
        let status = match phase {
            PodPhase::Running => Status::Running { health, revision },
            PodPhase::Completed => Status::Completed { revision, restarts },
            PodPhase::Updating => Status::Updating { from, to: revision },
            PodPhase::Starting => Status::Starting {
                revision,
                doing: reason,
            },
            PodPhase::Waiting => Status::Waiting {
                revision,
                wait: reason,
            },
            PodPhase::Ended => Status::Ended { reason },
            PodPhase::Failed => Status::Failed { reason },
            PodPhase::Stopping => Status::Stopping,
        };
        Self {
            containers,
            ..status.into()
        }
    }
}

/// The report of the unit with this line: the written report if it has the same line, or else the parsed line. Returns
/// `None` for a line that no supervisor writes.
#[must_use]
pub fn heard(line: &str, written: Option<PodReport>) -> Option<Report> {
    let written = written.map(Report::from);
    let written = written.filter(|report| report.line() == line);
    written.or_else(|| parse(line))
}

/// Parses a line of [`Report::line`] or of a supervisor of 0.2; returns `None` for any other text.
#[must_use]
pub fn parse(line: &str) -> Option<Report> {
    let status = if line == "stopping" {
        Status::Stopping
    } else if let Some(reason) = line.strip_prefix("ended: ") {
        let reason = reason.to_owned();
        Status::Ended { reason }
    } else if let Some(reason) = line.strip_prefix("failed: ") {
        let reason = reason.to_owned();
        Status::Failed { reason }
    } else if let Some(rest) = line.strip_prefix("starting rev ") {
        let (revision, doing) = rest.split_once(": ")?;
        let (revision, doing) = (revision.parse().ok()?, doing.to_owned());
        Status::Starting { revision, doing }
    } else if let Some(rest) = line.strip_prefix("waiting with rev ") {
        let (revision, wait) = rest.split_once(": ")?;
        let (revision, wait) = (revision.parse().ok()?, wait.to_owned());
        Status::Waiting { revision, wait }
    } else if let Some(rest) = line.strip_prefix("updating to rev ") {
        let (to, from) = rest.split_once(" from rev ")?;
        let (to, from) = (to.parse().ok()?, from.parse().ok()?);
        Status::Updating { from, to }
    } else {
        return parse_counts(line);
    };
    Some(status.into())
}

/// Parses `1/2 healthy · REASONS · rev 3 · 4 restarts`. A supervisor of 0.2 writes the reasons after the restarts.
fn parse_counts(line: &str) -> Option<Report> {
    let parts: Vec<&str> = line.split(BETWEEN).collect();
    let (what, rest) = parts.split_first()?;
    let at = |index: usize| Some((revision(rest.get(index)?)?, restarts(rest.get(index + 1)?)?));
    let last = rest.len().checked_sub(2)?;
    let ((revision, restarts), reasons) = match (at(0), at(last)) {
        (Some(counts), _) => (counts, &rest[2..]),
        (None, Some(counts)) => (counts, &rest[..last]),
        (None, None) => return None,
    };
    let trouble = reasons.join(BETWEEN);
    if *what == "completed" {
        let status = Status::Completed { revision, restarts };
        return trouble.is_empty().then(|| status.into());
    }
    let (healthy, total) = what.strip_suffix(" healthy")?.split_once('/')?;
    let health = Health {
        healthy: healthy.parse().ok()?,
        total: total.parse().ok()?,
        restarts,
    };
    let status = Status::Running { health, revision };
    Some(Report {
        trouble,
        ..status.into()
    })
}

fn revision(part: &str) -> Option<u64> {
    part.strip_prefix("rev ")?.parse().ok()
}

fn restarts(part: &str) -> Option<u32> {
    let (count, noun) = part.split_once(' ')?;
    let restarts: u32 = count.parse().ok()?;
    let expected = if restarts == 1 { "restart" } else { "restarts" };
    (noun == expected).then_some(restarts)
}

fn restarts_in_words(restarts: u32) -> String {
    format!(
        "{restarts} {}",
        if restarts == 1 { "restart" } else { "restarts" }
    )
}

/// Cuts text to at most this number of bytes, and marks the cut.
fn cut(text: &str, bytes: usize) -> String {
    if text.len() <= bytes {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(bytes.saturating_sub('…'.len_utf8()));
    format!("{}…", text[..end].trim_end())
}

/// Replaces line breaks. Messages from Podman and the OCI runtime may contain some, which would end a `STATUS=`
/// assignment.
fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len().min(LINE_BYTES_MAX));
    for word in text.split_ascii_whitespace() {
        if line.len() + word.len() + 1 + '…'.len_utf8() > LINE_BYTES_MAX {
            let _ = write!(line, "…");
            break;
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.extend(word.chars().filter(|character| !character.is_control()));
    }
    line
}

#[cfg(test)]
mod tests;
