//! Copies into a unit's journal what its containers logged before they were adopted.
//!
//! The monitor of a container that was started over Podman's API logs from a scope of its own until it is moved into
//! the unit's control group, and journald may believe the old place for a second more. Those are the first lines, which
//! matter most when something is wrong, and `journalctl -u` would not show them. Each copy names the entry that it
//! copies, so that however often, and by whichever supervisor, this is done, every line is there once.
//!
//! Input: the unit and its containers. Output: entries in the journal. [`missing`] decides, the rest is a shell.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::net::UnixDatagram;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::process::Command;
use tokio::task::AbortHandle;

/// A container's first lines are wanted, not its history: so many of its latest entries are looked at.
const ENTRIES_MAX: usize = 1000;
/// journalctl answers in milliseconds; on a full and slow disk it may search for longer.
const READ_TIME_MAX: Duration = Duration::from_secs(10);
/// Where journald takes entries with fields (systemd, "Native Journal Protocol").
const JOURNAL: &str = "/run/systemd/journal/socket";
/// When to look after an adoption: soon, for whoever watches; and when journald has surely noticed the move.
const LOOKS: [Duration; 2] = [Duration::from_millis(300), Duration::from_millis(2500)];

/// A line that the unit's journal lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    cursor: String,
    container: String,
    identifier: String,
    priority: String,
    message: Vec<u8>,
}

/// Looks after adoptions. Only one at a time, for a look that does not see another's copies would repeat them.
#[derive(Debug, Default)]
pub(crate) struct Copies(Option<AbortHandle>);

impl Copies {
    /// Containers were adopted: copies what is missing, twice, in the background.
    pub(crate) fn begin(&mut self, unit: String, containers: Vec<String>) {
        self.stop();
        let looks = async move {
            for (pause, before) in LOOKS.iter().zip([Duration::ZERO, LOOKS[0]]) {
                tokio::time::sleep(*pause - before).await;
                copy(&unit, &containers).await;
            }
        };
        self.0 = Some(tokio::spawn(looks).abort_handle());
    }

    /// The supervisor is about to end: copies what is missing now.
    pub(crate) async fn finish(&mut self, unit: &str, containers: &[String]) {
        self.stop();
        copy(unit, containers).await;
    }

    fn stop(&mut self) {
        if let Some(task) = self.0.take() {
            task.abort();
        }
    }
}

/// Copies what is missing now. A failure costs lines in one view of the journal, no more.
async fn copy(unit: &str, containers: &[String]) {
    if containers.is_empty() {
        return;
    }
    let outcome = match tokio::time::timeout(READ_TIME_MAX, read(containers)).await {
        Ok(Ok(entries)) => write(&missing(unit, &entries)),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    };
    if let Err(error) = outcome {
        tracing::warn!(%error, "lines that containers logged before they were adopted are not in the unit's journal");
    }
}

/// Pure: the entries of containers that are neither the unit's nor copied, in order.
fn missing(unit: &str, entries: &[BTreeMap<String, Value>]) -> Vec<Line> {
    let text = |entry: &BTreeMap<String, Value>, field: &str| {
        entry.get(field).and_then(Value::as_str).map(str::to_owned)
    };
    let copied: BTreeSet<String> = entries
        .iter()
        .filter_map(|entry| text(entry, "BEEMESH_COPY_OF"))
        .collect();
    entries
        .iter()
        .filter(|entry| text(entry, "_SYSTEMD_UNIT").as_deref() != Some(unit))
        .filter_map(|entry| {
            let cursor = text(entry, "__CURSOR").filter(|cursor| !copied.contains(cursor))?;
            let container = text(entry, "CONTAINER_ID_FULL")?;
            Some(Line {
                cursor,
                container,
                identifier: text(entry, "CONTAINER_NAME").unwrap_or_default(),
                priority: text(entry, "PRIORITY").unwrap_or_else(|| "6".to_owned()),
                message: bytes(entry.get("MESSAGE")?)?,
            })
        })
        .collect()
}

/// journalctl writes a message that is no UTF-8 as a list of bytes.
fn bytes(message: &Value) -> Option<Vec<u8>> {
    match message {
        Value::String(text) => Some(text.clone().into_bytes()),
        Value::Array(bytes) => bytes
            .iter()
            .map(|byte| u8::try_from(byte.as_u64()?).ok())
            .collect(),
        _ => None,
    }
}

async fn read(containers: &[String]) -> io::Result<Vec<BTreeMap<String, Value>>> {
    let mut journalctl = Command::new("journalctl");
    journalctl
        .args(["--no-pager", "--quiet", "--output=json"])
        .arg(format!("--lines={ENTRIES_MAX}"))
        .arg("--output-fields=MESSAGE,PRIORITY,_SYSTEMD_UNIT,CONTAINER_ID_FULL,CONTAINER_NAME,BEEMESH_COPY_OF");
    for (at, container) in containers.iter().enumerate() {
        if at > 0 {
            journalctl.arg("+");
        }
        journalctl.arg(format!("CONTAINER_ID_FULL={container}"));
        journalctl.arg("+");
        journalctl.arg(format!("BEEMESH_CONTAINER={container}"));
    }
    let output = journalctl
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        return Err(io::Error::other(format!(
            "journalctl: {}: {}",
            output.status,
            words.trim()
        )));
    }
    let lines = output.stdout.split(|byte| *byte == b'\n');
    Ok(lines
        .filter_map(|line| serde_json::from_slice(line).ok())
        .collect())
}

fn write(lines: &[Line]) -> io::Result<()> {
    if lines.is_empty() {
        return Ok(());
    }
    let socket = UnixDatagram::unbound()?;
    socket.connect(JOURNAL)?;
    for line in lines {
        socket.send(&entry(line))?;
    }
    Ok(())
}

/// One entry in journald's own format: a field with any bytes has its length before them.
fn entry(line: &Line) -> Vec<u8> {
    let mut entry = Vec::new();
    for (field, value) in [
        ("MESSAGE", line.message.as_slice()),
        ("PRIORITY", line.priority.as_bytes()),
        ("SYSLOG_IDENTIFIER", line.identifier.as_bytes()),
        ("BEEMESH_CONTAINER", line.container.as_bytes()),
        ("BEEMESH_COPY_OF", line.cursor.as_bytes()),
    ] {
        entry.extend(field.as_bytes());
        entry.push(b'\n');
        entry.extend((value.len() as u64).to_le_bytes());
        entry.extend(value);
        entry.push(b'\n');
    }
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lines_that_the_unit_lacks_are_copied_and_each_once() {
        let entry = |json: &str| serde_json::from_str(json).unwrap();
        let entries: Vec<BTreeMap<String, Value>> = [
            r#"{"__CURSOR":"1","_SYSTEMD_UNIT":"libpod-conmon-a.scope","CONTAINER_ID_FULL":"a","CONTAINER_NAME":"web-app","PRIORITY":"3","MESSAGE":"first"}"#,
            r#"{"__CURSOR":"2","_SYSTEMD_UNIT":"libpod-conmon-a.scope","CONTAINER_ID_FULL":"a","CONTAINER_NAME":"web-app","MESSAGE":[255,10]}"#,
            r#"{"__CURSOR":"3","_SYSTEMD_UNIT":"web.service","CONTAINER_ID_FULL":"a","CONTAINER_NAME":"web-app","MESSAGE":"adopted"}"#,
            r#"{"__CURSOR":"4","_SYSTEMD_UNIT":"web.service","BEEMESH_COPY_OF":"1","MESSAGE":"first"}"#,
            r#"{"__CURSOR":"5","_SYSTEMD_UNIT":"other.service","MESSAGE":"of no container"}"#,
        ]
        .map(entry)
        .to_vec();
        let line = Line {
            cursor: "2".into(),
            container: "a".into(),
            identifier: "web-app".into(),
            priority: "6".into(),
            message: vec![255, 10],
        };
        assert_eq!(missing("web.service", &entries), [line]);
        assert_eq!(missing("web.service", &entries[2..]), []);
    }

    #[test]
    fn an_entry_may_hold_any_bytes() {
        let line = Line {
            cursor: "c".into(),
            container: "i".into(),
            identifier: "n".into(),
            priority: "6".into(),
            message: b"a\nb".to_vec(),
        };
        let bytes = entry(&line);
        assert!(
            bytes.starts_with(b"MESSAGE\n\x03\0\0\0\0\0\0\0a\nb\nPRIORITY\n\x01"),
            "{bytes:?}"
        );
    }
}
