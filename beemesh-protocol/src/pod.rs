//! What a supervisor reports of its pod: the file that the gateway of the same host reads, and, of each container that has something
//! to tell, what gateways tell each other and the API shows.
//!
//! Pure. The text in a report comes from containers. [`clean`] makes one bounded line of it, and [`PodReport::from_bytes`] takes nothing
//! else.

use serde::{Deserialize, Serialize};

use crate::DecodeError;

mod words;

pub use words::{clean, last_line, reasons, signal_name, time_of_day};

/// Containers of one pod in a report. Of a pod with more, those that have something to tell come first.
pub const CONTAINERS_MAX: usize = 32;
/// Containers of one workload that a gateway tells the others about.
pub const CONTAINERS_TOLD_MAX: usize = 8;
/// Characters of one text in a report: a line of a log by which its reader knows what is wrong.
pub const TEXT_CHARS_MAX: usize = 256;
/// Bytes of a whole report: each container has four texts, of four bytes a character at most.
pub const REPORT_BYTES_MAX: usize = 160 << 10;
/// Characters of the reason for a whole pod, such as Podman's words.
pub const REASON_CHARS_MAX: usize = 1024;

/// A pod as its supervisor sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodReport {
    /// What the supervisor does with it.
    pub phase: PodPhase,
    /// The revision that runs, or that is coming; 0 while it is unknown.
    pub revision: u64,
    /// While it is updated: the revision that ran before.
    pub from: u64,
    /// What the supervisor does, waits for, or gave up for, in words for a person.
    pub reason: String,
    /// Containers that are healthy.
    pub healthy: u32,
    /// Containers that the pod has.
    pub total: u32,
    /// Restarts of its containers since the pod was made.
    pub restarts: u32,
    /// Its containers, in the order of the pod.
    pub containers: Vec<ContainerReport>,
}

/// What a supervisor does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PodPhase {
    /// The pod is up.
    Running,
    /// Every container ended with code 0 and stays so.
    Completed,
    /// The gateway replaces the pod.
    Updating,
    /// The supervisor brings the pod up.
    #[default]
    Starting,
    /// The supervisor cannot see the pod.
    Waiting,
    /// Every container ended, one of them in failure, and none is started again.
    Ended,
    /// Beyond repair on this host.
    Failed,
    /// The unit is being stopped.
    Stopping,
}

/// One container of a pod.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerReport {
    /// Its name in the manifest.
    pub name: String,
    /// What its process does.
    pub state: ContainerState,
    /// It runs, and no probe objects.
    pub ready: bool,
    /// It is ready, or has done its work.
    pub healthy: bool,
    /// Its restarts since the pod was made.
    pub restarts: u32,
    /// How often it ended since it last ran for ten minutes. While that is not 0, the workload is not rolled out.
    pub ends: u32,
    /// How it ended last, as far as that counts still.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<LastExit>,
    /// The probe that fails now, or for which it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<FailedProbe>,
    /// Why its last start failed, in Podman's words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub start_error: String,
    /// While it is down and is to be started again: when, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_try_at: Option<u64>,
}

/// What a container's process does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ContainerState {
    /// It has not been started yet.
    #[default]
    Created,
    /// It runs.
    Running,
    /// It is frozen.
    Paused,
    /// It is being stopped or removed.
    Stopping,
    /// It ended.
    Exited,
}

/// How a container ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LastExit {
    /// Its exit code, which is 128 and the number of the signal that ended it; nothing when Podman does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<u32>,
    /// The kernel ended it because it had no memory left.
    pub out_of_memory: bool,
    /// Podman ended it because its liveness probe had failed too often.
    pub by_probe: bool,
    /// It ended before its startup probe had succeeded.
    pub in_start: bool,
    /// When, in seconds since 1970.
    pub at: u64,
    /// The last line that it wrote.
    pub output: String,
}

/// A probe that fails.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FailedProbe {
    /// Which.
    pub kind: ProbeKind,
    /// How often in a row.
    pub failures: u32,
    /// At how many failures Podman ends the container (`failureThreshold`).
    pub threshold: u32,
    /// Its last exit code, as Podman tells it: Podman says 1 for whatever code a command fails with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<u32>,
    /// It took longer than it may.
    pub timed_out: bool,
    /// The last line that it wrote.
    pub output: String,
}

/// A kind of probe.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ProbeKind {
    /// `startupProbe`.
    Startup,
    /// `livenessProbe`.
    #[default]
    Liveness,
}

/// The containers of a workload that have something to tell; none is no list on the wire, which is what older releases send.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told(pub Vec<ContainerReport>);

impl ContainerReport {
    /// Whether it does what it should, and has not ended within the last ten minutes.
    #[must_use]
    pub fn is_calm(&self) -> bool {
        self.healthy && self.ends == 0
    }

    /// Whether it has more to tell than that it runs, or is being started.
    #[must_use]
    pub fn is_telling(&self) -> bool {
        self.restarts > 0 || self.exit.is_some() || self.probe.is_some() || self.reason().is_some()
    }

    /// The bytes of its texts.
    #[must_use]
    pub fn text_bytes(&self) -> usize {
        let exit = self.exit.as_ref().map_or(0, |exit| exit.output.len());
        let probe = self.probe.as_ref().map_or(0, |probe| probe.output.len());
        self.name.len() + self.start_error.len() + exit + probe
    }
}

impl Told {
    /// Those of these containers that have something to tell.
    #[must_use]
    pub fn of(containers: &[ContainerReport]) -> Self {
        let telling = containers.iter().filter(|one| one.is_telling());
        Self(telling.take(CONTAINERS_TOLD_MAX).cloned().collect())
    }
}

/// Why bytes are not the report of a pod.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReportError {
    /// More than anybody writes.
    #[error("a report of more than {REPORT_BYTES_MAX} bytes")]
    TooLong,
    /// More containers than anybody reports.
    #[error("a report of more than {CONTAINERS_MAX} containers")]
    TooMany,
    /// A text that [`clean`] would have changed.
    #[error("a report with a text that is not one bounded line")]
    Text,
    /// Not a report.
    #[error("{0}")]
    Decode(#[from] DecodeError),
}

impl PodReport {
    /// Reads what a supervisor wrote. Fields that a later release added are passed over.
    ///
    /// # Errors
    ///
    /// When the bytes are not a report, or one that exceeds a bound.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ReportError> {
        if bytes.len() > REPORT_BYTES_MAX {
            return Err(ReportError::TooLong);
        }
        let report = Self::decode(bytes)?;
        if report.containers.len() > CONTAINERS_MAX {
            return Err(ReportError::TooMany);
        }
        if !report.is_clean() {
            return Err(ReportError::Text);
        }
        Ok(report)
    }

    fn is_clean(&self) -> bool {
        let mut texts = self.containers.iter().flat_map(|one| {
            let exit = one.exit.as_ref().map_or("", |exit| &exit.output);
            let probe = one.probe.as_ref().map_or("", |probe| &probe.output);
            [&one.name, &one.start_error, exit, probe]
        });
        texts.all(|text| clean(text, TEXT_CHARS_MAX) == text)
            && clean(&self.reason, REASON_CHARS_MAX) == self.reason
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(output: &str, containers: usize) -> PodReport {
        let one = ContainerReport {
            name: "app".into(),
            exit: Some(LastExit {
                output: output.into(),
                ..LastExit::default()
            }),
            ..ContainerReport::default()
        };
        PodReport {
            containers: vec![one; containers],
            ..PodReport::default()
        }
    }

    #[test]
    fn only_bounded_clean_reports_are_read() {
        let fine = report("no such metric", CONTAINERS_MAX);
        assert_eq!(PodReport::from_bytes(&fine.encode()), Ok(fine));
        let longest = "\u{10ffff}".repeat(TEXT_CHARS_MAX);
        let full = PodReport {
            reason: "\u{10ffff}".repeat(REASON_CHARS_MAX),
            containers: vec![
                ContainerReport {
                    name: longest.clone(),
                    start_error: longest.clone(),
                    probe: Some(FailedProbe {
                        output: longest.clone(),
                        ..FailedProbe::default()
                    }),
                    ..report(&longest, 1).containers.remove(0)
                };
                CONTAINERS_MAX
            ],
            ..PodReport::default()
        };
        assert!(
            full.encode().len() <= REPORT_BYTES_MAX,
            "{}",
            full.encode().len()
        );
        assert_eq!(PodReport::from_bytes(&full.encode()), Ok(full));
        for (bytes, error) in [
            (
                report("", CONTAINERS_MAX + 1).encode().to_vec(),
                ReportError::TooMany,
            ),
            (report("a\nb", 1).encode().to_vec(), ReportError::Text),
            (report("\u{1b}[31m", 1).encode().to_vec(), ReportError::Text),
            (
                report(&"x".repeat(TEXT_CHARS_MAX + 1), 1).encode().to_vec(),
                ReportError::Text,
            ),
            (vec![0; REPORT_BYTES_MAX + 1], ReportError::TooLong),
        ] {
            assert_eq!(PodReport::from_bytes(&bytes), Err(error));
        }
        assert!(matches!(
            PodReport::from_bytes(b"{}"),
            Err(ReportError::Decode(_))
        ));
    }

    #[test]
    fn containers_that_only_run_have_nothing_to_tell() {
        let calm = ContainerReport {
            state: ContainerState::Running,
            ready: true,
            healthy: true,
            ..ContainerReport::default()
        };
        let restarted = ContainerReport {
            restarts: 1,
            ..calm.clone()
        };
        let starting = ContainerReport {
            ready: false,
            healthy: false,
            ..calm.clone()
        };
        let told = Told::of(&[calm, restarted.clone(), starting]);
        assert_eq!(told.0, std::slice::from_ref(&restarted));
        assert_eq!(Told::of(&vec![restarted; 20]).0.len(), CONTAINERS_TOLD_MAX);
    }
}
