//! Reads entries in systemd's "Journal Export Format", with a bound on the length of each value.
//!
//! Pure: bytes in, entries out. A field is `NAME=value` and a line feed. If the value is not plain text, the field is
//! `NAME`, a line feed, the value's length in 8 bytes, the value and a line feed. An empty line ends the entry.

/// The longest line that journald itself accepts (`LineMax=`). A longer value is cut, so that no container can fill the
/// memory of this process.
pub(super) const VALUE_BYTES_MAX: usize = 48 << 10;
/// The names of the wanted fields are far shorter.
const NAME_BYTES_MAX: usize = 64;

/// The fields of an entry that the backfill uses. A missing field is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) cursor: Vec<u8>,
    pub(super) unit: Vec<u8>,
    pub(super) identifier: Vec<u8>,
    pub(super) priority: Vec<u8>,
    pub(super) copy_of: Vec<u8>,
    pub(super) message: Vec<u8>,
}

impl Entry {
    /// The wanted fields, for `--output-fields=`. journalctl always adds the cursor.
    pub(super) const FIELDS: &str = "MESSAGE,PRIORITY,_SYSTEMD_UNIT,CONTAINER_NAME,BEEMESH_COPY_OF";

    fn set(&mut self, name: &[u8], value: &[u8]) {
        let place = match name {
            b"__CURSOR" => &mut self.cursor,
            b"_SYSTEMD_UNIT" => &mut self.unit,
            b"CONTAINER_NAME" => &mut self.identifier,
            b"PRIORITY" => &mut self.priority,
            b"BEEMESH_COPY_OF" => &mut self.copy_of,
            b"MESSAGE" => &mut self.message,
            _ => return,
        };
        *place = value.to_vec();
    }
}

/// The meaning of the next byte.
#[derive(Debug, Default)]
enum At {
    /// A byte of a name, or of `NAME=value`.
    #[default]
    Line,
    /// A byte of a value's length.
    Length { bytes: [u8; 8], known: usize },
    /// A byte of a value with this many bytes left.
    Value { left: u64 },
    /// The line feed after a value.
    End,
}

/// An incremental parser of the export format.
#[derive(Debug, Default)]
pub(super) struct Export {
    at: At,
    name: Vec<u8>,
    text: Vec<u8>,
    entry: Entry,
}

impl Export {
    /// Consumes bytes from the front of `input` until an entry is complete or the input is empty.
    pub(super) fn next(&mut self, input: &mut &[u8]) -> Option<Entry> {
        while let Some((&byte, rest)) = input.split_first() {
            match &mut self.at {
                At::Line if byte == b'\n' => {
                    *input = rest;
                    if self.text.is_empty() {
                        return Some(std::mem::take(&mut self.entry));
                    }
                    self.line();
                }
                At::Line => {
                    let end = input.iter().position(|byte| *byte == b'\n');
                    let (more, rest) = input.split_at(end.unwrap_or(input.len()));
                    *input = rest;
                    keep(&mut self.text, more, NAME_BYTES_MAX + VALUE_BYTES_MAX);
                }
                At::Length { bytes, known } => {
                    *input = rest;
                    bytes[*known] = byte;
                    *known += 1;
                    if *known == bytes.len() {
                        let left = u64::from_le_bytes(*bytes);
                        self.at = At::Value { left };
                    }
                }
                At::Value { left: 0 } => {
                    self.entry.set(&self.name, &self.text);
                    self.text.clear();
                    self.at = At::End;
                }
                At::Value { left } => {
                    let now =
                        usize::try_from(*left).map_or(input.len(), |left| left.min(input.len()));
                    let (more, rest) = input.split_at(now);
                    *input = rest;
                    *left -= now as u64;
                    keep(&mut self.text, more, VALUE_BYTES_MAX);
                }
                At::End => {
                    *input = rest;
                    self.at = At::Line;
                }
            }
        }
        None
    }

    fn line(&mut self) {
        let mut halves = self.text.splitn(2, |byte| *byte == b'=');
        let name = halves.next().unwrap_or_default();
        match halves.next() {
            Some(value) => self
                .entry
                .set(name, value.get(..VALUE_BYTES_MAX).unwrap_or(value)),
            None => {
                self.name = name.to_vec();
                let (bytes, known) = ([0; 8], 0);
                self.at = At::Length { bytes, known };
            }
        }
        self.text.clear();
    }
}

fn keep(text: &mut Vec<u8>, more: &[u8], max: usize) {
    let room = max.saturating_sub(text.len());
    text.extend_from_slice(more.get(..room).unwrap_or(more));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8], step: usize) -> Vec<Entry> {
        let mut export = Export::default();
        let mut entries = Vec::new();
        for mut chunk in bytes.chunks(step) {
            while let Some(entry) = export.next(&mut chunk) {
                entries.push(entry);
            }
        }
        entries
    }

    #[test]
    fn entries_come_out_whole_however_they_arrive() {
        let binary = |value: &[u8]| [&(value.len() as u64).to_le_bytes(), value, b"\n"].concat();
        let long = vec![b'x'; 2 * VALUE_BYTES_MAX];
        let bytes = [
            &b"__CURSOR=s=1;i=2\nPRIORITY=3\nMESSAGE=a=b\n_SYSTEMD_UNIT=a.scope\nOTHER=1\n\n"[..],
            b"__CURSOR=2\nMESSAGE\n",
            &binary(b"a\n\nb"),
            b"CONTAINER_NAME=web-app\n\n",
            b"__CURSOR=3\nMESSAGE\n",
            &binary(&long),
            b"BEEMESH_COPY_OF\n",
            &binary(b""),
            b"\n__CURSOR=4\nMESSAGE=",
            &long,
            b"\n\n__CURSOR=5\nMESSAGE=of a journalctl that was killed",
        ]
        .concat();
        let expected = [
            Entry {
                cursor: b"s=1;i=2".to_vec(),
                priority: b"3".to_vec(),
                message: b"a=b".to_vec(),
                unit: b"a.scope".to_vec(),
                ..Entry::default()
            },
            Entry {
                cursor: b"2".to_vec(),
                message: b"a\n\nb".to_vec(),
                identifier: b"web-app".to_vec(),
                ..Entry::default()
            },
            Entry {
                cursor: b"3".to_vec(),
                message: long[..VALUE_BYTES_MAX].to_vec(),
                ..Entry::default()
            },
            Entry {
                cursor: b"4".to_vec(),
                message: long[..VALUE_BYTES_MAX].to_vec(),
                ..Entry::default()
            },
        ];
        for step in [1, 7, 4096, bytes.len()] {
            assert_eq!(read(&bytes, step), expected, "{step} bytes at a time");
        }
    }
}
