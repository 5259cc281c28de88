//! Queues of jobs. The jobs of one queue run one after the other, those of different queues concurrently.
//!
//! Pure: no I/O, no clock. Each workload has a queue. The caller runs the jobs that it receives and reports when they
//! are done.

use std::collections::{BTreeMap, VecDeque};

/// Maximum number of jobs that wait or run, in all queues: some for each of a few hundred workloads.
const JOBS_MAX: usize = 2048;

/// The queues by name. A queue without jobs does not exist.
#[derive(Debug)]
pub(super) struct Queues<T> {
    waiting: BTreeMap<String, VecDeque<T>>,
    jobs: usize,
}

/// What to do with a new job.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Pushed<T> {
    /// No job of its queue runs: the caller must run it, and call [`Queues::done`] after it.
    Run(T),
    /// It waits for the other jobs of its queue.
    Waits,
    /// The limit of jobs is reached.
    Full(T),
}

impl<T> Queues<T> {
    pub(super) fn new() -> Self {
        Self {
            waiting: BTreeMap::new(),
            jobs: 0,
        }
    }

    /// Adds a job to a queue.
    pub(super) fn push(&mut self, queue: &str, job: T) -> Pushed<T> {
        if self.jobs >= JOBS_MAX {
            return Pushed::Full(job);
        }
        self.jobs += 1;
        if let Some(waiting) = self.waiting.get_mut(queue) {
            waiting.push_back(job);
            return Pushed::Waits;
        }
        self.waiting.insert(queue.to_owned(), VecDeque::new());
        Pushed::Run(job)
    }

    /// Ends the running job of a queue; returns the next job to run.
    pub(super) fn done(&mut self, queue: &str) -> Option<T> {
        let waiting = self.waiting.get_mut(queue)?;
        self.jobs -= 1;
        let next = waiting.pop_front();
        if next.is_none() {
            self.waiting.remove(queue);
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_runs_one_job_at_a_time_and_in_order() {
        let mut queues = Queues::new();
        assert_eq!(queues.push("web", 1), Pushed::Run(1));
        assert_eq!(queues.push("web", 2), Pushed::Waits);
        assert_eq!(queues.push("db", 3), Pushed::Run(3));
        assert_eq!(queues.push("web", 4), Pushed::Waits);
        assert_eq!(queues.done("db"), None);
        assert_eq!(queues.done("web"), Some(2));
        assert_eq!(queues.done("web"), Some(4));
        assert_eq!(queues.done("web"), None);
        assert_eq!(queues.done("web"), None);
        assert_eq!(queues.push("web", 5), Pushed::Run(5));
        for job in 1..JOBS_MAX {
            assert_eq!(queues.push("web", job), Pushed::Waits);
        }
        assert_eq!(queues.push("db", 6), Pushed::Full(6));
    }
}
