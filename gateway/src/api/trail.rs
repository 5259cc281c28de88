//! The trail of changes in the journal: what was changed, at which log index, and who asked for it.
//!
//! [`lines`] is pure; the rest is a shell. Each change is in the journal, but not each on a line of its own: a line costs
//! more than a small commit does, and the changes of one log entry are answered in one go, so they share lines.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::Notify;

use super::request::Caller;

/// Names on one line.
const NAMES_MAX: usize = 64;

/// What was done to a thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    ManifestApplied,
    ManifestDeleted,
    WorkloadDeleted,
    HostLabelled,
    HostDrained,
    HostUndrained,
    HostRemoved,
}

/// One change that was committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Done {
    pub(super) what: What,
    pub(super) name: String,
    pub(super) index: u64,
    pub(super) caller: Caller,
}

/// The way into the journal. Clones share it; the last one writes what is left, so that only a kill or a power cut loses
/// a line.
#[derive(Debug, Clone)]
pub(super) struct Trail {
    waiting: Arc<Waiting>,
}

/// Changes that no line tells of yet: as many as handlers have answered since the runtime last came by.
#[derive(Debug, Default)]
struct Waiting {
    changes: Mutex<Vec<Done>>,
    more: Arc<Notify>,
}

impl Trail {
    /// Begins to write, for as long as there is a clone.
    pub(super) fn start() -> Self {
        let waiting = Arc::<Waiting>::default();
        tokio::spawn(write(Arc::downgrade(&waiting), Arc::clone(&waiting.more)));
        Self { waiting }
    }

    /// Notes a change.
    pub(super) fn note(&self, done: Done) {
        self.waiting.changes().push(done);
        self.waiting.more.notify_one();
    }
}

async fn write(waiting: Weak<Waiting>, more: Arc<Notify>) {
    loop {
        more.notified().await;
        let Some(waiting) = waiting.upgrade() else {
            return;
        };
        waiting.write();
    }
}

impl Waiting {
    fn changes(&self) -> std::sync::MutexGuard<'_, Vec<Done>> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) {
        let changes = std::mem::take(&mut *self.changes());
        for line in lines(&changes) {
            tracing::info!("{line}");
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.write();
        self.more.notify_one();
    }
}

/// The changes in their order, those that follow each other with the same verb and caller on one line.
fn lines(changes: &[Done]) -> Vec<String> {
    let alike = |a: &Done, b: &Done| a.what == b.what && a.caller == b.caller;
    changes
        .chunk_by(alike)
        .flat_map(|group| group.chunks(NAMES_MAX))
        .filter_map(line)
        .collect()
}

fn line(changes: &[Done]) -> Option<String> {
    let (first, last) = (changes.first()?, changes.last()?);
    let (noun, verb) = match first.what {
        What::ManifestApplied => ("manifest", "applied"),
        What::ManifestDeleted => ("manifest", "deleted"),
        What::WorkloadDeleted => ("workload", "deleted"),
        What::HostLabelled => ("host", "labelled"),
        What::HostDrained => ("host", "drained"),
        What::HostUndrained => ("host", "undrained"),
        What::HostRemoved => ("host", "removed"),
    };
    let (name, caller) = (&first.name, first.caller);
    Some(match changes.len() {
        1 => format!("{noun} {name} {verb} index={} caller={caller}", first.index),
        count => {
            let names: Vec<&str> = changes.iter().map(|done| done.name.as_str()).collect();
            let names = names.join(" ");
            let (from, to) = (first.index, last.index);
            format!("{count} {noun}s {verb} names={names} index={from}..{to} caller={caller}")
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(what: What, name: &str, index: u64, pid: i32) -> Done {
        Done {
            what,
            name: name.to_owned(),
            index,
            caller: Caller::Local { uid: 0, pid },
        }
    }

    #[test]
    fn changes_of_one_caller_share_a_line_and_none_is_left_out() {
        use What::{ManifestApplied as Applied, WorkloadDeleted as Deleted};
        let changes = vec![
            done(Applied, "a", 4, 7),
            done(Applied, "b", 4, 7),
            done(Applied, "c", 5, 7),
            done(Applied, "d", 6, 8),
            done(Deleted, "d", 7, 8),
        ];
        let expected = [
            "3 manifests applied names=a b c index=4..5 caller=uid 0 pid 7",
            "manifest d applied index=6 caller=uid 0 pid 8",
            "workload d deleted index=7 caller=uid 0 pid 8",
        ];
        assert_eq!(lines(&changes), expected);
        let many = (0..NAMES_MAX as u64 + 1).map(|n| done(Applied, &n.to_string(), n, 7));
        let told = lines(&many.collect::<Vec<_>>());
        assert!(
            told[0].starts_with("64 manifests applied names=0 1 2 "),
            "{told:?}"
        );
        assert_eq!(
            told[1..],
            ["manifest 64 applied index=64 caller=uid 0 pid 7"]
        );
        assert!(lines(&[]).is_empty());
    }
}
