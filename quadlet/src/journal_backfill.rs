//! Copies into a unit's journal what its containers logged before the unit adopted them, and into a container's output
//! the messages about lost lines.
//!
//! Podman's API starts the monitor (conmon) of a container in a scope of its own. Until the supervisor moves the
//! monitor into the unit's control group, and for up to a second after that, journald attributes its lines to that
//! scope. These are the container's first lines, which matter most when something fails, and `journalctl -u` would not
//! show them. Each copy names the entry that it copies. So each line appears once, however often supervisors run the
//! backfill.
//!
//! Input: the unit and its containers. Output: entries in the journal. [`is_missing`] decides; the rest is a shell that
//! reads and sends one entry at a time.

mod export;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::net::UnixDatagram;
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::Mutex;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use self::export::{Entry, Export};

/// The number of a container's latest entries outside of the unit that the backfill reads. It is meant for the
/// container's first lines, not for its history, and journald receives no more than this in the seconds before an
/// adoption.
const ENTRIES_MAX: usize = 50_000;
/// The highest age of an init container's lines, in systemd's notation. Older lines are of an earlier init container of
/// the same name; no play takes longer.
const INIT_AGE_MAX: &str = "1h";
/// Reading and sending take milliseconds; journald may need more on a full and slow disk.
const COPY_TIME_MAX: Duration = Duration::from_secs(10);
/// The time for journald to write its files to the disk. If it takes longer, a line may appear twice.
const SYNC_TIME_MAX: Duration = Duration::from_secs(3);
/// The socket on which journald accepts entries with fields (systemd, "Native Journal Protocol").
const JOURNAL: &str = "/run/systemd/journal/socket";
/// Times after an adoption at which the backfill runs: once soon, for a user who follows the output, and once when
/// journald has certainly noticed the move.
const LOOKS: [Duration; 2] = [Duration::from_millis(300), Duration::from_millis(2500)];
/// Bytes of journalctl's output that are read at a time.
const CHUNK: usize = 4096;

/// The origin of the lines to copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// A container that may be adopted, by its id.
    Container(String),
    /// An init container, by its name: Podman removes it when it has ended, and no unit adopts it.
    Init(String),
    /// journald's messages about lines of the unit that it has dropped. They are copied into the output of this
    /// container, given by its id.
    Lost { unit: String, container: String },
}

/// The key of journald's messages about dropped lines; no container has this id or name.
const LOST: &str = "lost lines";
/// The message ID of journald's messages about dropped lines (`SD_MESSAGE_JOURNAL_DROPPED`).
const DROPPED: &str = "a596d6fe7bfa4994828e72309e95d61e";

impl Source {
    /// The key under which its copies are found.
    fn key(&self) -> &str {
        match self {
            Self::Container(id) => id,
            Self::Init(name) => name,
            Self::Lost { .. } => LOST,
        }
    }

    /// Matches, in journalctl's syntax, for its entries outside of the unit.
    fn entries(&self) -> Vec<String> {
        match self {
            Self::Container(id) => vec![
                format!("CONTAINER_ID_FULL={id}"),
                format!("_SYSTEMD_UNIT=libpod-conmon-{id}.scope"),
            ],
            Self::Init(name) => vec![
                format!("CONTAINER_NAME={name}"),
                format!("--since=-{INIT_AGE_MAX}"),
            ],
            Self::Lost { unit, .. } => vec![
                format!("MESSAGE_ID={DROPPED}"),
                "_TRANSPORT=driver".to_owned(),
                format!("OBJECT_SYSTEMD_UNIT={unit}"),
                format!("--since=-{INIT_AGE_MAX}"),
            ],
        }
    }
}

/// For each source's key, the marks of the latest entries that the unit's journal has.
type Copied = BTreeMap<String, BTreeSet<u64>>;

/// Runs the backfill after adoptions, one run at a time.
#[derive(Debug, Default)]
pub(crate) struct Backfill {
    task: Option<AbortHandle>,
    copied: Arc<Mutex<Copied>>,
}

impl Backfill {
    /// Starts copying missing lines in the background, twice, after the supervisor has adopted containers.
    pub(crate) fn begin(&mut self, unit: String, sources: Vec<Source>) {
        self.stop();
        let copied = Arc::clone(&self.copied);
        let looks = async move {
            for (pause, before) in LOOKS.iter().zip([Duration::ZERO, LOOKS[0]]) {
                tokio::time::sleep(*pause - before).await;
                copy(&unit, &sources, &copied).await;
            }
        };
        self.task = Some(tokio::spawn(looks).abort_handle());
    }

    /// Copies missing lines now, before the containers are removed or the supervisor ends.
    pub(crate) async fn finish(&mut self, unit: &str, sources: &[Source]) {
        self.stop();
        copy(unit, sources, &self.copied).await;
    }

    fn stop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }
}

/// Copies missing lines now. A failure only leaves lines out of one view of the journal.
async fn copy(unit: &str, sources: &[Source], copied: &Mutex<Copied>) {
    if sources.is_empty() {
        return;
    }
    let outcome = timeout(COPY_TIME_MAX, copy_all(unit, sources, copied)).await;
    if let Err(error) = outcome.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
        tracing::warn!(%error, "lines that containers logged before they were adopted are not in the unit's journal");
    }
}

async fn copy_all(unit: &str, sources: &[Source], copied: &Mutex<Copied>) -> io::Result<()> {
    let mut copied = copied.lock().await;
    let is_new = |source: &Source| !copied.contains_key(source.key());
    if sources.iter().any(is_new) {
        // The copies that another supervisor sent just before it was killed must be readable.
        sync().await;
    }
    copied.retain(|key, _| sources.iter().any(|source| source.key() == key));
    let journal = UnixDatagram::unbound()?;
    journal.connect(JOURNAL)?;
    for source in sources {
        let key = source.key();
        if !copied.contains_key(key) {
            let mut known = BTreeSet::new();
            // Any program may write this field, but only the unit's supervisors write it as the unit.
            let copies = [
                format!("BEEMESH_CONTAINER={key}"),
                format!("_SYSTEMD_UNIT={unit}"),
            ];
            let mut entries = Entries::open(&copies)?;
            while let Some(entry) = entries.next().await? {
                known.insert(mark(&entry.copy_of));
            }
            copied.insert(key.to_owned(), known);
        }
        let known = copied.entry(key.to_owned()).or_default();
        let mut latest = BTreeSet::new();
        let mut entries = Entries::open(&source.entries())?;
        while let Some(entry) = entries.next().await? {
            latest.insert(mark(&entry.cursor));
            if is_missing(unit, &entry, known) {
                // Waiting for journald does not block this thread.
                journal.send(&written(source, &entry)).await?;
                known.insert(mark(&entry.cursor));
            }
        }
        // Older entries are not read again.
        known.retain(|mark| latest.contains(mark));
    }
    Ok(())
}

/// Pure: whether the unit's journal has neither the entry nor a copy.
fn is_missing(unit: &str, entry: &Entry, known: &BTreeSet<u64>) -> bool {
    entry.unit != unit.as_bytes() && !known.contains(&mark(&entry.cursor))
}

/// Pure: a hash that stands for a cursor, which is twenty times as long.
fn mark(cursor: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    cursor.hash(&mut hasher);
    hasher.finish()
}

/// Has journald store the entries that it has received, so that they can be read.
async fn sync() {
    let sync = journalctl().arg("--sync").status();
    match timeout(SYNC_TIME_MAX, sync).await {
        Ok(Ok(status)) if status.success() => {}
        outcome => tracing::debug!(?outcome, "journald may not have received every line"),
    }
}

/// Entries of the journal, from the oldest to the latest.
struct Entries {
    journalctl: Child,
    output: ChildStdout,
    export: Export,
    chunk: Vec<u8>,
    /// The number of bytes of `chunk` that are parsed.
    taken: usize,
}

impl Entries {
    /// The latest of the entries that match these arguments.
    fn open(of: &[String]) -> io::Result<Self> {
        let mut journalctl = journalctl()
            .arg("--output=export")
            .arg(format!("--lines={ENTRIES_MAX}"))
            .arg(format!("--output-fields={}", Entry::FIELDS))
            .args(of)
            .stdout(Stdio::piped())
            .spawn()?;
        let output = journalctl.stdout.take();
        Ok(Self {
            journalctl,
            output: output.ok_or(io::ErrorKind::BrokenPipe)?,
            export: Export::default(),
            chunk: Vec::with_capacity(CHUNK),
            taken: 0,
        })
    }

    async fn next(&mut self) -> io::Result<Option<Entry>> {
        loop {
            let mut left = self.chunk.get(self.taken..).unwrap_or_default();
            let entry = self.export.next(&mut left);
            self.taken = self.chunk.len() - left.len();
            if entry.is_some() {
                return Ok(entry);
            }
            self.chunk.clear();
            self.taken = 0;
            if self.output.read_buf(&mut self.chunk).await? == 0 {
                return match self.journalctl.wait().await? {
                    status if status.success() => Ok(None),
                    status => Err(failed(status)),
                };
            }
        }
    }
}

/// Its error output goes into this process's journal.
fn journalctl() -> Command {
    let mut journalctl = Command::new("journalctl");
    journalctl
        .args(["--quiet", "--no-pager"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .kill_on_drop(true);
    journalctl
}

fn failed(status: ExitStatus) -> io::Error {
    io::Error::other(format!("journalctl: {status}"))
}

/// Pure: the copy of an entry in journald's native format: the length of a binary value precedes its bytes.
fn written(source: &Source, entry: &Entry) -> Vec<u8> {
    let of = match source {
        Source::Lost { container, .. } => container.as_bytes(),
        Source::Container(_) | Source::Init(_) => b"",
    };
    let priority: &[u8] = match entry.priority.as_slice() {
        b"" => b"6",
        priority => priority,
    };
    let mut bytes = Vec::with_capacity(entry.message.len() + 512);
    for (field, value) in [
        ("MESSAGE", entry.message.as_slice()),
        ("PRIORITY", priority),
        ("SYSLOG_IDENTIFIER", &entry.identifier),
        ("CONTAINER_ID_FULL", of),
        ("BEEMESH_CONTAINER", source.key().as_bytes()),
        ("BEEMESH_COPY_OF", &entry.cursor),
    ] {
        if value.is_empty() && field != "MESSAGE" {
            continue;
        }
        bytes.extend(field.as_bytes());
        bytes.push(b'\n');
        bytes.extend((value.len() as u64).to_le_bytes());
        bytes.extend(value);
        bytes.push(b'\n');
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_unit_lacks_is_missing() {
        let entry = |cursor: &str, unit: &str| Entry {
            cursor: cursor.into(),
            unit: unit.into(),
            ..Entry::default()
        };
        let known = BTreeSet::from([mark(b"s=1;i=1")]);
        for (cursor, unit, expected) in [
            ("s=1;i=1", "libpod-conmon-a.scope", false),
            ("s=1;i=2", "libpod-conmon-a.scope", true),
            ("s=1;i=3", "", true),
            ("s=1;i=4", "web.service", false),
        ] {
            let entry = entry(cursor, unit);
            assert_eq!(
                is_missing("web.service", &entry, &known),
                expected,
                "{entry:?}"
            );
        }
    }

    #[test]
    fn a_copy_may_hold_any_bytes_and_names_what_it_copies() {
        let entry = Entry {
            cursor: b"c".to_vec(),
            message: b"a\nb".to_vec(),
            ..Entry::default()
        };
        let bytes = written(&Source::Container("i".into()), &entry);
        assert!(
            bytes
                .starts_with(b"MESSAGE\n\x03\0\0\0\0\0\0\0a\nb\nPRIORITY\n\x01\0\0\0\0\0\0\x006\n"),
            "{bytes:?}"
        );
        assert!(
            bytes.ends_with(
                b"BEEMESH_CONTAINER\n\x01\0\0\0\0\0\0\0i\nBEEMESH_COPY_OF\n\x01\0\0\0\0\0\0\0c\n"
            ),
            "{bytes:?}"
        );
    }
}
