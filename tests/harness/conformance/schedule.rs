//! Runs cases side by side, none beside another one that holds the same names.

use std::{
    collections::BTreeSet,
    sync::{Condvar, Mutex},
    thread,
};

/// What is to be run, and what two of them must not share.
#[derive(Debug)]
pub(super) struct Job<T> {
    pub(super) what: T,
    pub(super) holds: BTreeSet<String>,
    pub(super) alone: bool,
}

struct Waiting<T> {
    jobs: Vec<Job<T>>,
    held: BTreeSet<String>,
    running: usize,
    alone: bool,
}

impl<T> Waiting<T> {
    /// The next job that may run now. Those that run alone come last.
    fn next(&mut self) -> Option<Job<T>> {
        if self.alone {
            return None;
        }
        let fits = |job: &Job<T>| !job.alone && job.holds.is_disjoint(&self.held);
        let at = self.jobs.iter().position(fits).or_else(|| {
            let only_alone = self.running == 0 && self.jobs.iter().all(|job| job.alone);
            (only_alone && !self.jobs.is_empty()).then_some(0)
        })?;
        let job = self.jobs.remove(at);
        self.held.extend(job.holds.iter().cloned());
        self.running += 1;
        self.alone = job.alone;
        Some(job)
    }
}

/// Runs all jobs, `at_once` at the same time.
pub(super) fn run<T: Send>(jobs: Vec<Job<T>>, at_once: usize, act: impl Fn(&T) + Sync) {
    let waiting = Mutex::new(Waiting {
        jobs,
        held: BTreeSet::new(),
        running: 0,
        alone: false,
    });
    let ended = Condvar::new();
    let lane = || {
        let mut guard = waiting.lock().expect("no lane panics");
        while !guard.jobs.is_empty() {
            let Some(job) = guard.next() else {
                guard = ended.wait(guard).expect("no lane panics");
                continue;
            };
            drop(guard);
            act(&job.what);
            guard = waiting.lock().expect("no lane panics");
            guard.held.retain(|name| !job.holds.contains(name));
            guard.running -= 1;
            guard.alone = false;
            ended.notify_all();
        }
        ended.notify_all();
    };
    thread::scope(|scope| {
        for _ in 0..at_once.max(1) {
            scope.spawn(lane);
        }
    });
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn jobs_run_side_by_side_unless_they_share_a_name_or_run_alone() {
        let job = |what: &'static str, name: &str, alone| Job {
            what,
            holds: [name.to_owned()].into(),
            alone,
        };
        let jobs = vec![
            job("quiet", "z", true),
            job("a1", "a", false),
            job("a2", "a", false),
            job("b", "b", false),
        ];
        let running = Mutex::new((BTreeSet::new(), Vec::new()));
        run(jobs, 3, |what| {
            running.lock().unwrap().0.insert(*what);
            thread::sleep(Duration::from_millis(20));
            let mut now = running.lock().unwrap();
            let beside = now.0.clone();
            now.0.remove(what);
            now.1.push((*what, beside));
        });
        let seen = running.into_inner().unwrap().1;
        assert_eq!(seen.len(), 4);
        assert!(seen.iter().any(|(_, beside)| beside.len() == 2), "{seen:?}");
        assert!(
            !seen
                .iter()
                .any(|(_, beside)| beside.contains("a1") && beside.contains("a2"))
        );
        assert_eq!(seen[3], ("quiet", ["quiet"].into()));
    }
}
