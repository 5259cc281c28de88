//! The report of a supervisor on its pod. The gateway of the same host reads it from a file. Gateways exchange the part
//! about containers that are not simply running, and the API shows that part.
//!
//! Pure. The text in a report comes from containers. [`clean`] makes one line of limited length from it, and
//! [`PodReport::from_bytes`] accepts no other text.

use serde::{Deserialize, Serialize};

use crate::DecodeError;

mod words;

pub use words::{clean, last_line, reasons, signal_name, time_of_day};

/// Maximum number of a pod's containers in a report. If a pod has more, those that are not simply running come first.
pub const CONTAINERS_MAX: usize = 32;
/// Maximum number of a workload's containers that a gateway reports to other gateways.
pub const CONTAINERS_TOLD_MAX: usize = 8;
/// Maximum length of one text in a report, in characters: enough for the line of a log that shows the problem.
pub const TEXT_CHARS_MAX: usize = 256;
/// Maximum size of a report, in bytes: each container has four texts with at most four bytes for each character.
pub const REPORT_BYTES_MAX: usize = 160 << 10;
/// Maximum length of the reason for a whole pod, such as a message from Podman, in characters.
pub const REASON_CHARS_MAX: usize = 1024;

/// The report of a supervisor on its pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodReport {
    /// The phase of the pod.
    pub phase: PodPhase,
    /// The revision that runs or is being started; 0 if unknown.
    pub revision: u64,
    /// While the pod is updated: the previous revision.
    pub from: u64,
    /// The present step, the condition that the supervisor waits for, or the reason for which it gave up, as a message.
    pub reason: String,
    /// The number of healthy containers.
    pub healthy: u32,
    /// The number of containers.
    pub total: u32,
    /// Restarts of its containers since the pod was created.
    pub restarts: u32,
    /// Its containers, in their order in the pod.
    pub containers: Vec<ContainerReport>,
}

/// The phase of a pod, as its supervisor sees it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PodPhase {
    /// The pod is up.
    Running,
    /// Every container ended with code 0, and none will be restarted.
    Completed,
    /// The gateway replaces the pod.
    Updating,
    /// The supervisor is starting the pod.
    #[default]
    Starting,
    /// The supervisor cannot query the pod.
    Waiting,
    /// Every container ended, one of them with a failure, and none is restarted.
    Ended,
    /// The supervisor has given up the pod on this host.
    Failed,
    /// The unit is being stopped.
    Stopping,
}

/// The report on one container of a pod.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerReport {
    /// Its name in the manifest.
    pub name: String,
    /// The state of its process.
    pub state: ContainerState,
    /// Whether it runs without a failing probe.
    pub ready: bool,
    /// Whether it is ready or has completed.
    pub healthy: bool,
    /// Restarts since the pod was created.
    pub restarts: u32,
    /// The number of times that it ended since it last ran for ten minutes. While that is not 0, the workload is not
    /// rolled out.
    pub ends: u32,
    /// Its last end, if it still counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<LastExit>,
    /// The probe that fails now, or the failed probe for which Podman ended the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<FailedProbe>,
    /// Why its last start failed, as a message from Podman.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub start_error: String,
    /// While it is down and will be restarted: the time of the restart, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_try_at: Option<u64>,
}

/// The state of a container's process.
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

/// The end of a container's process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LastExit {
    /// Its exit code: 128 plus the number of the signal if a signal ended it. `None` if Podman does not report it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<u32>,
    /// Whether the kernel killed it because it was out of memory.
    pub out_of_memory: bool,
    /// Whether Podman ended it because its liveness probe had failed too often.
    pub by_probe: bool,
    /// Whether it ended before its startup probe succeeded.
    pub in_start: bool,
    /// The time of the end, in seconds since 1970.
    pub at: u64,
    /// Its termination message, or the last line that it wrote.
    pub output: String,
}

/// A failing probe.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FailedProbe {
    /// The kind of the probe.
    pub kind: ProbeKind,
    /// The number of consecutive failures.
    pub failures: u32,
    /// The number of failures at which Podman ends the container (`failureThreshold`).
    pub threshold: u32,
    /// Its last exit code from Podman, which reports 1 for every code with which a command fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<u32>,
    /// Whether it exceeded its time limit.
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
    /// `readinessProbe`.
    Readiness,
}

/// The containers of a workload that are not simply running. An empty list is absent on the wire, as in messages of
/// older releases.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told(pub Vec<ContainerReport>);

impl ContainerReport {
    /// Whether the container is healthy and has not ended within the last ten minutes.
    #[must_use]
    pub fn is_calm(&self) -> bool {
        self.healthy && self.ends == 0
    }

    /// Whether the container has a restart, an end, a failing probe or another reason to report it, and is not simply
    /// running or being started.
    #[must_use]
    pub fn is_telling(&self) -> bool {
        self.restarts > 0 || self.exit.is_some() || self.probe.is_some() || self.reason().is_some()
    }

    /// The size of its texts, in bytes.
    #[must_use]
    pub fn text_bytes(&self) -> usize {
        let exit = self.exit.as_ref().map_or(0, |exit| exit.output.len());
        let probe = self.probe.as_ref().map_or(0, |probe| probe.output.len());
        self.name.len() + self.start_error.len() + exit + probe
    }
}

impl Told {
    /// Selects the containers that are not simply running. If there are too many, those with a problem come first.
    #[must_use]
    pub fn of(containers: &[ContainerReport]) -> Self {
        let telling = containers.iter().filter(|one| one.is_telling());
        let mut telling: Vec<&ContainerReport> = telling.collect();
        if telling.len() > CONTAINERS_TOLD_MAX {
            telling.sort_by_key(|one| one.is_calm());
        }
        let told = telling.into_iter().take(CONTAINERS_TOLD_MAX);
        Self(told.cloned().collect())
    }
}

/// Why bytes are no valid report.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReportError {
    /// The report is longer than the limit.
    #[error("a report of more than {REPORT_BYTES_MAX} bytes")]
    TooLong,
    /// The report has more containers than the limit.
    #[error("a report of more than {CONTAINERS_MAX} containers")]
    TooMany,
    /// The report has a text that [`clean`] would change.
    #[error("a report with a text that is not one bounded line")]
    Text,
    /// The bytes are no report.
    #[error("{0}")]
    Decode(#[from] DecodeError),
}

impl PodReport {
    /// Decodes the report of a supervisor. Fields from a later release are ignored.
    ///
    /// # Errors
    ///
    /// The bytes are no report, or the report exceeds a limit.
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
        let failed = ContainerReport {
            ends: 1,
            ..restarted.clone()
        };
        let mut many = vec![restarted; 20];
        many.push(failed.clone());
        let told = Told::of(&many).0;
        assert_eq!((told.len(), &told[0]), (CONTAINERS_TOLD_MAX, &failed));
    }
}
