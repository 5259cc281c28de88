//! Pure: the report of one container from its record.

use beemesh_protocol::pod::{
    ContainerReport, ContainerState, FailedProbe, LastExit, ProbeKind, TEXT_CHARS_MAX, clean,
};

use super::{Record, SeenPod, short_name};
use crate::health::{Container, Probe, Restart, Run, is_done, is_well};

impl Record {
    pub(super) fn report(
        &self,
        container: &Container,
        pod: &SeenPod,
        workload: &str,
        is_given_up: bool,
    ) -> ContainerReport {
        let healthy = is_well(container, pod.restart);
        let is_done = is_done(container, pod.restart);
        let waits = self.down.is_some() && !is_done && !is_given_up;
        let waits = waits && container.role.restart(pod.restart) != Restart::Never;
        ContainerReport {
            name: clean(short_name(&container.name, workload), TEXT_CHARS_MAX),
            state: match container.run {
                Run::Created => ContainerState::Created,
                Run::Running => ContainerState::Running,
                Run::Paused => ContainerState::Paused,
                Run::Stopping => ContainerState::Stopping,
                Run::Exited => ContainerState::Exited,
            },
            ready: healthy && container.run == Run::Running,
            healthy,
            restarts: self.restarts,
            ends: if is_done { 0 } else { self.ends },
            exit: self.has_ended().then(|| self.exit()),
            probe: self.failed_probe(container, pod),
            start_error: match self.words.is_empty() {
                true => self.hook.clone(),
                false => self.words.clone(),
            },
            next_try_at: waits.then(|| u64::try_from(self.due).unwrap_or_default()),
        }
    }

    fn has_ended(&self) -> bool {
        self.ends > 0 || self.restarts > 0 || self.down.is_some() || self.done.is_some()
    }

    fn exit(&self) -> LastExit {
        LastExit {
            code: self.code.and_then(|code| u32::try_from(code).ok()),
            out_of_memory: self.out_of_memory,
            by_probe: self.by_probe,
            in_start: self.in_start,
            at: u64::try_from(self.last).unwrap_or_default(),
            output: self.last_words().to_owned(),
        }
    }

    /// What it said at its end. Its log stands in for a message that a failure lacks, also without
    /// `FallbackToLogsOnError`: that is more helpful than nothing.
    fn last_words(&self) -> &str {
        let has_failed = self.code != Some(0);
        match self.message.as_str() {
            "" if self.has_file && (self.by_probe || !has_failed) => "",
            "" => &self.output,
            message => message,
        }
    }

    /// The probe that fails now, or the one for which the container was stopped in the last ten minutes.
    fn failed_probe(&self, container: &Container, pod: &SeenPod) -> Option<FailedProbe> {
        let is_up = container.run == Run::Running;
        if let Some(probe) = pod.failing.get(&container.id).filter(|_| is_up) {
            return Some(probe.clone());
        }
        if is_up && container.probe == Probe::Unhealthy {
            return Some(FailedProbe::default());
        }
        let (exit, failures, threshold) = self.probe;
        let probe = |kind| FailedProbe {
            kind,
            failures,
            threshold,
            exit,
            timed_out: self.late,
            output: self.said.clone(),
        };
        if self.done.is_some() {
            return None;
        }
        if self.ends > 0 && self.by_probe {
            return Some(probe(ProbeKind::Liveness));
        }
        let in_start = self.ends > 0 && self.in_start && !self.said.is_empty();
        in_start.then(|| probe(ProbeKind::Startup))
    }
}
