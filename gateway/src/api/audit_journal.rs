//! The audit log in the journal: the change, its log index, and the user.
//!
//! [`lines`] is pure; the rest is a shell. All changes are in the journal, but changes can share a line: a line takes
//! longer than a small commit, and the changes of one log entry are answered at once. Each line has the fields
//! `BEEMESH_ACTION=`, `BEEMESH_NAME=`, `BEEMESH_INDEX=`, `BEEMESH_WHO=` and `BEEMESH_FROM=`. The second and the third
//! are repeated for each change of the line, so that `journalctl BEEMESH_NAME=web` finds all changes of `web`.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use beemesh_protocol::state::Origin;
use libsystemd::logging::{Priority, journal_send};
use tokio::sync::Notify;

/// Maximum number of changes on one line.
const NAMES_MAX: usize = 64;

/// A committed change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Done {
    /// The noun and the verb of the change.
    pub(super) verb: (&'static str, &'static str),
    pub(super) name: String,
    pub(super) index: u64,
    pub(super) origin: Origin,
}

/// The writer of the journal. Clones share it, and the last one writes the remaining changes when it is dropped. So
/// only a kill or a power cut can lose a line.
#[derive(Debug, Clone)]
pub(super) struct Trail {
    waiting: Arc<Waiting>,
}

/// Changes that are not in the journal yet. Their number is limited by the requests that handlers answer before the
/// writing task runs again.
#[derive(Debug, Default)]
struct Waiting {
    changes: Mutex<Vec<Done>>,
    more: Arc<Notify>,
}

impl Trail {
    /// Starts the writing task, which ends when the last clone is dropped.
    pub(super) fn start() -> Self {
        let waiting = Arc::<Waiting>::default();
        tokio::spawn(write(Arc::downgrade(&waiting), Arc::clone(&waiting.more)));
        Self { waiting }
    }

    /// Adds a change.
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
            // Without a journal the line goes to standard error, without fields.
            let fields = line.fields.iter().map(|(key, value)| (*key, value));
            if journal_send(Priority::Info, &line.text, fields).is_err() {
                tracing::info!("{}", line.text);
            }
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.write();
        self.more.notify_one();
    }
}

/// One entry of the journal.
#[derive(Debug, PartialEq, Eq)]
struct Line {
    text: String,
    fields: Vec<(&'static str, String)>,
}

/// The lines for these changes, in order. Consecutive changes with the same verb and the same caller share a line.
fn lines(changes: &[Done]) -> Vec<Line> {
    let alike = |a: &Done, b: &Done| a.verb == b.verb && a.origin == b.origin;
    changes
        .chunk_by(alike)
        .flat_map(|group| group.chunks(NAMES_MAX))
        .filter_map(line)
        .collect()
}

fn line(changes: &[Done]) -> Option<Line> {
    let (first, last) = (changes.first()?, changes.last()?);
    let (noun, verb) = first.verb;
    let Origin { who, from, .. } = &first.origin;
    let caller = format!("{who} {from}");
    let caller = caller.trim_end();
    let text = match changes.len() {
        1 => format!(
            "{noun} {} {verb} index={} caller={caller}",
            first.name, first.index
        ),
        count => {
            let names: Vec<&str> = changes.iter().map(|done| done.name.as_str()).collect();
            let names = names.join(" ");
            let (from_index, to) = (first.index, last.index);
            format!("{count} {noun}s {verb} names={names} index={from_index}..{to} caller={caller}")
        }
    };
    let once = [
        // The gateway's process is in the scope of its container. This field makes `journalctl -u beemesh-gateway` show
        // the line.
        ("OBJECT_SYSTEMD_UNIT", "beemesh-gateway.service".to_owned()),
        ("SYSLOG_IDENTIFIER", "beemesh-gateway".to_owned()),
        ("BEEMESH_ACTION", format!("{noun} {verb}")),
        ("BEEMESH_WHO", who.clone()),
        ("BEEMESH_FROM", from.clone()),
    ];
    let each = changes.iter().flat_map(|done| {
        [
            ("BEEMESH_NAME", done.name.clone()),
            ("BEEMESH_INDEX", done.index.to_string()),
        ]
    });
    let fields = once.into_iter().chain(each).collect();
    Some(Line { text, fields })
}

#[cfg(test)]
mod tests {
    use beemesh_protocol::HostId;

    use super::*;

    const APPLIED: (&str, &str) = ("manifest", "applied");
    const DELETED: (&str, &str) = ("workload", "deleted");

    fn done(verb: (&'static str, &'static str), name: &str, index: u64, pid: i32) -> Done {
        Done {
            verb,
            name: name.to_owned(),
            index,
            origin: Origin {
                host: HostId([1; 32]),
                who: "uid 0".to_owned(),
                from: format!("pid {pid}"),
            },
        }
    }

    #[test]
    fn changes_of_one_caller_share_a_line_and_none_is_left_out() {
        let changes = vec![
            done(APPLIED, "a", 4, 7),
            done(APPLIED, "b", 4, 7),
            done(APPLIED, "c", 5, 7),
            done(APPLIED, "d", 6, 8),
            done(DELETED, "d", 7, 8),
        ];
        let expected = [
            "3 manifests applied names=a b c index=4..5 caller=uid 0 pid 7",
            "manifest d applied index=6 caller=uid 0 pid 8",
            "workload d deleted index=7 caller=uid 0 pid 8",
        ];
        let told = lines(&changes);
        let texts: Vec<_> = told.iter().map(|line| line.text.as_str()).collect();
        assert_eq!(texts, expected);
        let fields: Vec<_> = told[0]
            .fields
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        let expected = "OBJECT_SYSTEMD_UNIT=beemesh-gateway.service,SYSLOG_IDENTIFIER=beemesh-gateway,BEEMESH_ACTION=manifest applied,BEEMESH_WHO=uid 0,BEEMESH_FROM=pid 7,\
             BEEMESH_NAME=a,BEEMESH_INDEX=4,BEEMESH_NAME=b,BEEMESH_INDEX=4,BEEMESH_NAME=c,BEEMESH_INDEX=5";
        assert_eq!(fields.join(","), expected);
        let many = (0..NAMES_MAX as u64 + 1).map(|n| done(APPLIED, &n.to_string(), n, 7));
        let told = lines(&many.collect::<Vec<_>>());
        let first = &told[0].text;
        assert!(
            first.starts_with("64 manifests applied names=0 1 2 "),
            "{first}"
        );
        assert_eq!(
            told[1].text,
            "manifest 64 applied index=64 caller=uid 0 pid 7"
        );
        assert!(lines(&[]).is_empty());
    }
}
