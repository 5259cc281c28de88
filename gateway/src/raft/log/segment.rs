//! The segment files of the log: creates, lists and reads them.

use std::{
    collections::VecDeque,
    io,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    block::{self, FORMAT, HEADER, Header, Record},
    table::{Place, Slot, Table},
};
use crate::raft::{
    AGAIN,
    disk::{Disk, DiskFile},
};

/// Source of zeros, which are written in pieces of this size.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// An open segment file.
pub(crate) struct Segment {
    pub(crate) path: PathBuf,
    pub(crate) number: u64,
    pub(crate) tag: u64,
    pub(crate) capacity: u64,
    pub(crate) file: Arc<dyn DiskFile>,
}

/// A segment that the running log uses.
pub(crate) struct Live {
    pub(crate) segment: Arc<Segment>,
    /// The highest index of an entry in it. The segment can be removed once that entry is purged.
    pub(crate) last_index: Option<u64>,
}

/// Why the log cannot be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogError {
    /// The file system returned an error.
    #[error("open raft log {path}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// Bytes that had been durable have changed.
    #[error(
        "raft log {path} is damaged at offset {offset}: {what}; what this host acknowledged may be lost, so it must not vote: \
         remove it from the cluster and let it join again, or restore the file"
    )]
    Damaged {
        path: PathBuf,
        /// The offset of the damage in the file.
        offset: u64,
        /// What is wrong.
        what: String,
    },
    /// A later version of Beemesh wrote the file.
    #[error(
        "raft log {path} has format {format}, this version of Beemesh reads up to {FORMAT}: {AGAIN}"
    )]
    Newer {
        path: PathBuf,
        /// The format number in the header.
        format: u8,
    },
    /// Another version wrote the file, and failed to give it another format number.
    #[error(
        "raft log {path} holds a record at offset {offset} that this version of Beemesh does not know: {AGAIN}"
    )]
    Unknown {
        path: PathBuf,
        /// The offset of the block.
        offset: u64,
    },
}

/// The result of reading the log.
pub(crate) struct Recovered {
    pub(crate) table: Table,
    pub(crate) segments: VecDeque<Live>,
    /// Where the next block goes in the last segment.
    pub(crate) end: u64,
    /// The sequence number of the next block.
    pub(crate) sequence: u64,
    /// The last segment and the number of bytes cut off its end: a write that a power loss interrupted.
    pub(crate) torn: Option<(PathBuf, u64)>,
}

/// Creates a segment of this capacity. It is zero-filled, so that later flushes write no metadata, and durable before
/// its first block is written.
pub(crate) fn create(
    disk: &dyn Disk,
    dir: &Path,
    number: u64,
    tag: u64,
    capacity: u64,
) -> io::Result<Segment> {
    let path = dir.join(format!("{number:020}.log"));
    let partial = path.with_extension("partial");
    let file = disk.create(&partial)?;
    file.write_at(&block::header(number, tag), 0)?;
    zero(&*file, HEADER as u64, capacity)?;
    file.sync()?;
    disk.rename(&partial, &path)?;
    disk.sync_dir(dir)?;
    Ok(Segment {
        path,
        number,
        tag,
        capacity,
        file,
    })
}

fn zero(file: &dyn DiskFile, mut from: u64, to: u64) -> io::Result<()> {
    while from < to {
        let length = (to - from).min(ZEROS.len() as u64);
        file.write_at(
            &ZEROS[..usize::try_from(length).unwrap_or(ZEROS.len())],
            from,
        )?;
        from += length;
    }
    Ok(())
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> LogError {
    let path = path.to_owned();
    move |source| LogError::Io { path, source }
}

/// Reads the whole log and cuts off a torn tail. Fails if the log is damaged or of a later format, and then leaves it
/// unchanged.
pub(crate) fn recover(disk: &dyn Disk, dir: &Path) -> Result<Recovered, LogError> {
    let (numbers, partial) = list(disk, dir)?;
    let mut replay = Replay::default();
    let mut segments = VecDeque::new();
    let mut tail = 0..0;
    let count = numbers.len();
    for (at, (number, path)) in numbers.into_iter().enumerate() {
        let (file, bytes) = read(disk, &path).map_err(failed(&path))?;
        let (end, live) = replay.segment(number, &path, file, &bytes, at + 1 == count)?;
        if bytes[end..].iter().any(|byte| *byte != 0) {
            tail = end as u64..bytes.len() as u64;
        }
        replay.end = end as u64;
        segments.push_back(live);
    }
    let Replay {
        mut table,
        next,
        end,
        ..
    } = replay;
    if let (Some(first), Some(purged), Some(live)) = (table.first(), table.purged, segments.front())
        && first.index != purged.index + 1
    {
        return Err(LogError::Damaged {
            path: live.segment.path.clone(),
            offset: HEADER as u64,
            what: format!(
                "entries between {} and {} are missing",
                purged.index, first.index
            ),
        });
    }
    for path in partial {
        disk.remove(&path).map_err(failed(&path))?;
    }
    let last = segments.back().filter(|_| !tail.is_empty());
    let torn = last.map(|live| cut(&live.segment, tail)).transpose()?;
    // The commit point is a hint that is written before its entries are flushed, so it is limited to the entries that
    // survived.
    table.committed = table.committed.min(table.last());
    Ok(Recovered {
        table,
        segments,
        end,
        sequence: next.unwrap_or(1),
        torn,
    })
}

type Listed = (Vec<(u64, PathBuf)>, Vec<PathBuf>);

/// Lists the segments by number, and the files of segments whose creation was interrupted.
fn list(disk: &dyn Disk, dir: &Path) -> Result<Listed, LogError> {
    let (mut numbers, mut partial) = (Vec::new(), Vec::new());
    for name in disk.list(dir).map_err(failed(dir))? {
        let path = dir.join(&name);
        if name.ends_with(".partial") {
            partial.push(path);
        } else if let Some(number) = name.strip_suffix(".log").and_then(|n| n.parse().ok()) {
            numbers.push((number, path));
        }
    }
    numbers.sort();
    Ok((numbers, partial))
}

/// Cuts off a write that a power loss interrupted.
fn cut(segment: &Segment, tail: Range<u64>) -> Result<(PathBuf, u64), LogError> {
    zero(&*segment.file, tail.start, tail.end)
        .and_then(|()| segment.file.sync())
        .map_err(failed(&segment.path))?;
    Ok((segment.path.clone(), tail.start))
}

fn read(disk: &dyn Disk, path: &Path) -> io::Result<(Arc<dyn DiskFile>, Vec<u8>)> {
    let file = disk.open(path)?;
    let size = usize::try_from(file.size()?).map_err(io::Error::other)?;
    let mut bytes = vec![0; size];
    file.read_at(&mut bytes, 0)?;
    Ok((file, bytes))
}

#[derive(Default)]
struct Replay {
    table: Table,
    number: Option<u64>,
    /// The sequence number of the next block.
    next: Option<u64>,
    end: u64,
    /// The last segment and the end of its blocks: the place to name in an error about a missing block.
    before: Option<(PathBuf, u64)>,
}

impl Replay {
    fn segment(
        &mut self,
        number: u64,
        path: &Path,
        file: Arc<dyn DiskFile>,
        bytes: &[u8],
        last: bool,
    ) -> Result<(usize, Live), LogError> {
        let damaged = |offset: usize, what: String| LogError::Damaged {
            path: path.to_owned(),
            offset: offset as u64,
            what,
        };
        if let Some(before) = self.number
            && number != before + 1
        {
            return Err(damaged(0, format!("segment {} is missing", before + 1)));
        }
        let tag = match block::read_header(bytes) {
            Some(Header::Known { number: found, tag }) if found == number => tag,
            Some(Header::Newer { format }) => {
                let path = path.to_owned();
                return Err(LogError::Newer { path, format });
            }
            _ => return Err(damaged(0, "its header is not that of this segment".into())),
        };
        let segment = Arc::new(Segment {
            path: path.to_owned(),
            number,
            tag,
            capacity: bytes.len() as u64,
            file,
        });
        let mut live = Live {
            segment: Arc::clone(&segment),
            last_index: None,
        };
        let mut at = HEADER;
        while let Some(found) = block::read_block(bytes, at, tag) {
            if let Some(next) = self.next
                && found.sequence != next
            {
                let (path, offset) = self.before.take().unwrap_or((path.to_owned(), at as u64));
                let what = format!("block {next} is missing, block {} follows", found.sequence);
                return Err(LogError::Damaged { path, offset, what });
            }
            let records = block::records(found.body).ok_or_else(|| LogError::Unknown {
                path: path.to_owned(),
                offset: at as u64,
            })?;
            for (offset, record) in records {
                if let Record::Entry(log_id, bytes) = &record {
                    live.last_index = live.last_index.max(Some(log_id.index));
                    let place = Place {
                        segment: Arc::clone(&segment),
                        offset: (found.body_at + offset) as u64,
                    };
                    let slot = Slot {
                        log_id: *log_id,
                        size: bytes.len(),
                        crc: crc32fast::hash(bytes),
                        place: Some(place),
                        entry: None,
                    };
                    self.table
                        .append(slot)
                        .map_err(|gap| damaged(at, gap.to_string()))?;
                }
                self.fact(&record);
            }
            self.next = Some(found.sequence + 1);
            at = found.body_at + found.body.len();
            self.before = None;
        }
        if bytes[at..].iter().any(|byte| *byte != 0) {
            if !last {
                return Err(damaged(at, "a block is not what was written".into()));
            }
            let next = self.next.unwrap_or(0);
            if let Some(later) = block::later_block(bytes, at, tag, next) {
                return Err(damaged(
                    at,
                    format!(
                        "a block is not what was written, but a later block at offset {later} is"
                    ),
                ));
            }
        }
        self.number = Some(number);
        self.before = Some((path.to_owned(), at as u64));
        Ok((at, live))
    }

    fn fact(&mut self, record: &Record<'_>) {
        match record {
            Record::Entry(..) => {}
            Record::Vote(vote) => self.table.vote = Some(*vote),
            Record::Committed(id) => self.table.committed = Some(*id),
            Record::Truncated(id) => self.table.truncate(id.index),
            Record::Purged(id) => self.table.purge(*id),
        }
    }
}
