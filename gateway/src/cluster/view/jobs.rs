//! Attempts of Jobs as the API shows them.
//!
//! Pure, like its parent. The end of an attempt is in the replicated state, so the API shows it even if the host is
//! unreachable.

use beemesh_protocol::{
    HostId,
    api::{Phase, WorkloadHost},
    state::{Assignment, JobEnd},
};

use super::Scene;
use crate::cluster::{
    placement::seats::{between_attempts, failed_for_good},
    state::Workload,
};

impl Scene {
    /// Replaces the host's report of the pod by the replicated state of the Job's attempts.
    pub(super) fn lay_attempts_over(&self, shown: &mut WorkloadHost, workload: &Workload) {
        let Some(seat) = self.seat(shown.id, workload) else {
            return;
        };
        if let Some(words) = between_attempts(seat, &shown.message) {
            (shown.phase, shown.message) = (Phase::Pending, words);
        } else if seat.end.is_some() {
            shown.revision = workload.revision;
            (shown.phase, shown.message) = match failed_for_good(seat) {
                Some(words) => (Phase::Failed, words),
                None => (Phase::Succeeded, String::new()),
            };
        }
    }

    /// How the Job ended on this host.
    pub(super) fn job_end(&self, host: HostId, workload: &Workload) -> Option<&JobEnd> {
        self.seat(host, workload)?.end.as_ref()
    }

    /// The message for a Job that failed on a host that no longer has it.
    pub(super) fn failed_elsewhere(&self, workload: &Workload) -> Vec<String> {
        let seats = self.state.seats(&workload.name).iter();
        let left = seats.filter(|seat| seat.host.is_none());
        left.filter_map(failed_for_good)
            .map(|words| format!("failed: {words}"))
            .collect()
    }

    /// The assignment of a Job to this host.
    fn seat(&self, host: HostId, workload: &Workload) -> Option<&Assignment> {
        let of_job = workload.job.is_some() && self.state.is_seated(workload);
        let mut seats = self.state.seats(&workload.name).iter();
        seats.find(|seat| of_job && seat.host == Some(host))
    }
}

#[cfg(test)]
mod tests {
    use beemesh_protocol::{
        api,
        peer::{Phase, WorkloadReport},
        state::Change,
    };

    use super::super::tests::{changed, h, report, with, with_job};
    use super::*;

    /// An attempt begins on h2 at this log index.
    fn begin(scene: &mut Scene, index: u64, from: Option<HostId>) {
        let assign = Change::Assign {
            workload: "job".into(),
            ordinal: 0,
            index: 8,
            from,
            host: Some(h(2)),
        };
        changed(scene, index, assign);
    }

    fn end(scene: &mut Scene, index: u64, attempt: u64, ended: Result<(), &str>, again: bool) {
        let end = Change::EndJob {
            workload: "job".into(),
            ordinal: 0,
            index: attempt,
            succeeded: ended.is_ok(),
            reason: ended.err().unwrap_or_default().into(),
            again,
        };
        changed(scene, index, end);
    }

    fn failed(index: u64) -> WorkloadReport {
        WorkloadReport {
            message: "code 3".into(),
            ended: true,
            ..report("job", index, Phase::Failed, 0)
        }
    }

    /// The phase on its only host, the message, and whether the Job is stuck.
    fn told(scene: &Scene) -> (api::Phase, String, bool) {
        let job = scene.workload("job").unwrap();
        assert_eq!(job.hosts.len(), 1, "{job:?}");
        let one = &job.hosts[0];
        assert_eq!((one.host.as_str(), job.reason.as_str()), ("h2", ""));
        (one.phase, one.message.clone(), job.stuck)
    }

    #[test]
    fn a_job_that_failed_says_whether_it_is_tried_again() {
        let mut scene = with_job();
        begin(&mut scene, 9, None);
        with(&mut scene, 2, 9, vec![failed(9)]);
        let words = |words: &str| words.to_owned();
        assert_eq!(
            told(&scene),
            (api::Phase::Failed, words("code 3"), false),
            "the leader has not decided yet"
        );
        end(&mut scene, 10, 9, Err("code 3"), true);
        let pause = "1 attempt failed: code 3; the next attempt starts after 00:00:11 UTC";
        assert_eq!(told(&scene), (api::Phase::Pending, words(pause), false));
        begin(&mut scene, 11, Some(h(2)));
        with(&mut scene, 2, 11, vec![failed(11)]);
        end(&mut scene, 12, 11, Err("code 4"), false);
        let last = "2 attempts failed, the last: code 4";
        assert_eq!(told(&scene), (api::Phase::Failed, words(last), true));
        // The same while its host is unreachable, and after it has left.
        scene.reachable.remove(&h(2));
        assert_eq!(told(&scene), (api::Phase::Failed, words(last), true));
        changed(&mut scene, 13, Change::RemoveHost { host: h(2) });
        let job = scene.workload("job").unwrap();
        assert_eq!((job.asked, job.ready, job.stuck), (1, 0, true));
        assert_eq!(job.reason, format!("failed: {last}"));
    }

    #[test]
    fn a_job_that_is_done_is_done_wherever_its_host_is() {
        let mut scene = with_job();
        begin(&mut scene, 9, None);
        end(&mut scene, 10, 9, Ok(()), false);
        let done = (api::Phase::Succeeded, String::new(), false);
        assert_eq!(told(&scene), done, "its host has not said so yet");
        scene.reachable.remove(&h(2));
        assert_eq!(told(&scene), done);
        assert!(scene.workload("job").unwrap().settled);
        changed(&mut scene, 11, Change::RemoveHost { host: h(2) });
        let job = scene.workload("job").unwrap();
        assert_eq!((job.asked, job.ready, job.settled), (1, 1, true));
        assert_eq!((job.reason.as_str(), job.hosts.len()), ("", 0));
    }
}
