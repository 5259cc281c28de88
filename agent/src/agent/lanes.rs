//! Work in order within a lane, and at the same time in different ones.
//!
//! Pure: no I/O, no clock. A lane is a workload; its first job is the one that runs.

use std::collections::{BTreeMap, VecDeque};

/// Jobs that wait or run, in all lanes: some for each of a few hundred workloads.
const JOBS_MAX: usize = 2048;

/// See the module. A lane without jobs does not exist.
#[derive(Debug)]
pub(super) struct Lanes<T> {
    waiting: BTreeMap<String, VecDeque<T>>,
    jobs: usize,
}

/// What to do with a new job.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Pushed<T> {
    /// Its lane was free: run it, and call [`Lanes::done`] after.
    Run(T),
    /// It waits for its turn.
    Waits,
    /// There are too many.
    Full(T),
}

impl<T> Lanes<T> {
    pub(super) fn new() -> Self {
        Self {
            waiting: BTreeMap::new(),
            jobs: 0,
        }
    }

    /// Adds a job to a lane.
    pub(super) fn push(&mut self, lane: &str, job: T) -> Pushed<T> {
        if self.jobs >= JOBS_MAX {
            return Pushed::Full(job);
        }
        self.jobs += 1;
        if let Some(waiting) = self.waiting.get_mut(lane) {
            waiting.push_back(job);
            return Pushed::Waits;
        }
        self.waiting.insert(lane.to_owned(), VecDeque::new());
        Pushed::Run(job)
    }

    /// The running job of a lane is over; gives the next one to run.
    pub(super) fn done(&mut self, lane: &str) -> Option<T> {
        let waiting = self.waiting.get_mut(lane)?;
        self.jobs -= 1;
        let next = waiting.pop_front();
        if next.is_none() {
            self.waiting.remove(lane);
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_runs_one_job_at_a_time_and_in_order() {
        let mut lanes = Lanes::new();
        assert_eq!(lanes.push("web", 1), Pushed::Run(1));
        assert_eq!(lanes.push("web", 2), Pushed::Waits);
        assert_eq!(lanes.push("db", 3), Pushed::Run(3));
        assert_eq!(lanes.push("web", 4), Pushed::Waits);
        assert_eq!(lanes.done("db"), None);
        assert_eq!(lanes.done("web"), Some(2));
        assert_eq!(lanes.done("web"), Some(4));
        assert_eq!(lanes.done("web"), None);
        assert_eq!(lanes.done("web"), None);
        assert_eq!(lanes.push("web", 5), Pushed::Run(5));
        for job in 1..JOBS_MAX {
            assert_eq!(lanes.push("web", job), Pushed::Waits);
        }
        assert_eq!(lanes.push("db", 6), Pushed::Full(6));
    }
}
