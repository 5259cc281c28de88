//! Pure: tells a container that crashes again and again from one that crashed now and then.
//!
//! Podman restarts a container at once and for ever. What needs another workload that is still booting crashes for a
//! while and then runs, so it is given [`LOOP_TIME`]; a container that stayed up for [`CALM`] has started anew.

use std::time::{Duration, Instant};

use crate::health::{Container, Role, Run};

/// How long a container may go on crashing before its workload counts as beyond repair.
const LOOP_TIME: Duration = Duration::from_secs(60);
/// And how often at least, so that one which runs for a while between crashes is left alone.
const LOOP_RESTARTS: u32 = 5;
/// Up for this long means that it came up.
const CALM: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(super) struct Crashes {
    restarts: Option<u32>,
    run: Option<Loop>,
    /// The last container that ended, and its code.
    died: Option<(String, i32)>,
}

#[derive(Debug)]
struct Loop {
    since: Instant,
    last: Instant,
    restarts: u32,
}

impl Crashes {
    pub(super) fn died(&mut self, container: String, code: i32) {
        self.died = Some((container, code));
    }

    /// Whether a loop may be going on: look often, to notice its end.
    pub(super) fn is_hot(&self) -> bool {
        self.run.is_some()
    }

    /// The reason why the workload is beyond repair, if it is.
    pub(super) fn looked(&mut self, containers: &[Container], now: Instant) -> Option<String> {
        let members = || {
            containers
                .iter()
                .filter(|container| container.role == Role::Member)
        };
        let restarts = members().fold(0_u32, |sum, container| {
            sum.saturating_add(container.restarts)
        });
        // What happened before the first look is not known to be a loop.
        let before = self.restarts.replace(restarts).unwrap_or(restarts);
        let more = restarts.saturating_sub(before);
        if more > 0 {
            let run = self.run.get_or_insert(Loop {
                since: now,
                last: now,
                restarts: 0,
            });
            run.last = now;
            run.restarts = run.restarts.saturating_add(more);
        }
        let all_run = members().all(|container| container.run == Run::Running);
        let run = self.run.as_ref()?;
        if all_run && now >= run.last + CALM {
            self.run = None;
            return None;
        }
        if run.restarts < LOOP_RESTARTS || now < run.since + LOOP_TIME {
            return None;
        }
        let seconds = (now - run.since).as_secs();
        let worst = members().max_by_key(|container| container.restarts)?;
        let (name, code) = match &self.died {
            Some((name, code)) => (name.as_str(), *code),
            None => (worst.name.as_str(), worst.exit_code),
        };
        Some(format!(
            "container {name} ended {} times within {seconds} s, last with code {code}",
            run.restarts
        ))
    }
}
