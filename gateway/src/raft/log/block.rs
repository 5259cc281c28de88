//! The bytes of the log: segment headers, blocks and their records.
//!
//! Pure. A segment is a header and then blocks, up to its zero-filled rest. A block is what one write and one flush
//! made durable: it is either whole or it does not count. The writer flushes a block before it writes the next one. So
//! a damaged block with a valid later one behind it is damage, and a damaged block with none behind it is a torn tail.
//!
//! ```text
//! header  "BMRAFT", "0" + format: u8, "\n", number: u64, tag: u64, crc: u32 of all before it, 0: u32
//! block   length: u32 of the body, crc: u32 of length, tag, sequence and body, tag: u64, sequence: u64, body
//! record  kind: u8, length: u32, payload
//! ```
//!
//! All numbers are little-endian. The tag is random, one for each segment, so that bytes of a user's manifest can never
//! be taken for a block.
//!
//! Every later format keeps the first eight bytes and the place of the header's checksum, so that a version that cannot
//! read the file can tell that it is intact. A new kind of record requires a new format number.

use beemesh_protocol::HostId;
use bytes::Buf;
use openraft::LeaderId;

use crate::raft::types::{LogId, NodeId, Vote};

const MAGIC: [u8; 6] = *b"BMRAFT";
/// The format that is written, and the latest one that is read.
pub(crate) const FORMAT: u8 = 1;
/// Size of a segment's header.
pub(crate) const HEADER: usize = 32;
/// Size of the head that precedes a block's body.
pub(crate) const BLOCK_HEAD: usize = 24;
/// Size of the head that precedes a record's payload.
const RECORD_HEAD: usize = 5;
/// Size of an encoded log id: term, node, index.
const LOG_ID: usize = 48;

const ENTRY: u8 = 1;
const VOTE: u8 = 2;
const COMMITTED: u8 = 3;
const TRUNCATED: u8 = 4;
const PURGED: u8 = 5;

/// One fact in the log.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Record<'a> {
    /// An entry's id and its bytes.
    Entry(LogId, &'a [u8]),
    /// The vote.
    Vote(Vote),
    /// The commit point.
    Committed(LogId),
    /// Entries from this one on have been removed.
    Truncated(LogId),
    /// Entries up to this one have been purged.
    Purged(LogId),
}

/// The content of a valid header.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Header {
    /// A segment that this version reads.
    Known { number: u64, tag: u64 },
    /// A segment of a later format.
    Newer { format: u8 },
}

/// Encodes the header of a segment file.
pub(crate) fn header(number: u64, tag: u64) -> [u8; HEADER] {
    sealed(FORMAT, number, tag)
}

/// Encodes the header of a segment file of this format.
pub(super) fn sealed(format: u8, number: u64, tag: u64) -> [u8; HEADER] {
    let mut bytes = [0; HEADER];
    bytes[..6].copy_from_slice(&MAGIC);
    bytes[6..8].copy_from_slice(&[b'0' + format, b'\n']);
    bytes[8..16].copy_from_slice(&number.to_le_bytes());
    bytes[16..24].copy_from_slice(&tag.to_le_bytes());
    let crc = crc32fast::hash(&bytes[..24]);
    bytes[24..28].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// Decodes a segment's header; `None` if the bytes are damaged or not a header.
pub(crate) fn read_header(mut bytes: &[u8]) -> Option<Header> {
    let head = bytes.get(..HEADER)?;
    let crc = crc32fast::hash(&head[..24]);
    if head[..6] != MAGIC || head[7] != b'\n' || head[24..28] != crc.to_le_bytes() {
        return None;
    }
    let format = head[6].checked_sub(b'0')?;
    if format > FORMAT {
        return Some(Header::Newer { format });
    }
    if format == 0 || head[28..] != [0; 4] {
        return None;
    }
    bytes.advance(8);
    let (number, tag) = (bytes.get_u64_le(), bytes.get_u64_le());
    Some(Header::Known { number, tag })
}

/// A block under construction.
pub(crate) struct Builder {
    bytes: Vec<u8>,
}

impl Builder {
    pub(crate) fn new() -> Self {
        Self {
            bytes: vec![0; BLOCK_HEAD],
        }
    }

    /// Adds a record, and returns the offset of an entry's bytes within the block.
    pub(crate) fn push(&mut self, record: &Record<'_>) -> usize {
        let (kind, id, rest): (u8, [u8; LOG_ID], &[u8]) = match record {
            Record::Entry(id, bytes) => (ENTRY, log_id_bytes(id), bytes),
            Record::Vote(vote) => {
                let id = LogId::new(vote.leader_id, 0);
                let committed: &[u8] = if vote.committed { &[1] } else { &[0] };
                (VOTE, log_id_bytes(&id), committed)
            }
            Record::Committed(id) => (COMMITTED, log_id_bytes(id), &[]),
            Record::Truncated(id) => (TRUNCATED, log_id_bytes(id), &[]),
            Record::Purged(id) => (PURGED, log_id_bytes(id), &[]),
        };
        let length = u32::try_from(LOG_ID + rest.len()).expect("an entry fits into a Raft message");
        self.bytes.push(kind);
        self.bytes.extend_from_slice(&length.to_le_bytes());
        self.bytes.extend_from_slice(&id);
        let at = self.bytes.len();
        self.bytes.extend_from_slice(rest);
        at
    }

    /// Returns the size of the finished block.
    pub(crate) fn size(&self) -> usize {
        self.bytes.len()
    }

    /// Returns true if the block has no records.
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.len() == BLOCK_HEAD
    }

    /// Completes the block for the segment with this tag, and returns its bytes.
    pub(crate) fn seal(&mut self, tag: u64, sequence: u64) -> &[u8] {
        let length = u32::try_from(self.bytes.len() - BLOCK_HEAD).expect("a block is bounded");
        self.bytes[..4].copy_from_slice(&length.to_le_bytes());
        self.bytes[8..16].copy_from_slice(&tag.to_le_bytes());
        self.bytes[16..24].copy_from_slice(&sequence.to_le_bytes());
        let crc = crc_of(&self.bytes);
        self.bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        &self.bytes
    }
}

fn crc_of(block: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&block[..4]);
    crc.update(&block[8..]);
    crc.finalize()
}

fn log_id_bytes(id: &LogId) -> [u8; LOG_ID] {
    let mut bytes = [0; LOG_ID];
    bytes[..8].copy_from_slice(&id.leader_id.term.to_le_bytes());
    bytes[8..40].copy_from_slice(&id.leader_id.node_id.0.0);
    bytes[40..].copy_from_slice(&id.index.to_le_bytes());
    bytes
}

fn read_log_id(bytes: &mut &[u8]) -> Option<LogId> {
    if bytes.len() < LOG_ID {
        return None;
    }
    let term = bytes.get_u64_le();
    let mut key = [0; 32];
    bytes.copy_to_slice(&mut key);
    let leader = LeaderId::new(term, NodeId(HostId(key)));
    Some(LogId::new(leader, bytes.get_u64_le()))
}

/// A valid block.
#[derive(Debug)]
pub(crate) struct Block<'a> {
    pub(crate) sequence: u64,
    /// The offset of the body in the segment.
    pub(crate) body_at: usize,
    pub(crate) body: &'a [u8],
}

/// Reads the block at this offset of a segment; `None` if there is no valid one.
pub(crate) fn read_block(segment: &[u8], at: usize, tag: u64) -> Option<Block<'_>> {
    let rest = segment.get(at..)?;
    let mut head = rest.get(..BLOCK_HEAD)?;
    let length = head.get_u32_le() as usize;
    let crc = head.get_u32_le();
    if head.get_u64_le() != tag || length == 0 {
        return None;
    }
    let sequence = head.get_u64_le();
    let block = rest.get(..BLOCK_HEAD.checked_add(length)?)?;
    (crc_of(block) == crc).then_some(Block {
        sequence,
        body_at: at + BLOCK_HEAD,
        body: &block[BLOCK_HEAD..],
    })
}

/// Returns the offset of a valid block with this sequence number or a later one, at or after `from`.
pub(crate) fn later_block(segment: &[u8], from: usize, tag: u64, sequence: u64) -> Option<usize> {
    let needle = tag.to_le_bytes();
    let rest = segment.get(from..)?;
    rest.windows(needle.len())
        .enumerate()
        .filter(|(_, window)| *window == needle)
        .filter_map(|(found, _)| (from + found).checked_sub(8))
        .find(|at| read_block(segment, *at, tag).is_some_and(|block| block.sequence >= sequence))
}

/// Decodes the records of a block's body, each with the offset of its entry bytes in the body. Returns `None` if the
/// body contains records that this build does not know.
pub(crate) fn records(body: &[u8]) -> Option<Vec<(usize, Record<'_>)>> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < body.len() {
        let mut head = body.get(at..at + RECORD_HEAD)?;
        let kind = head.get_u8();
        let length = head.get_u32_le() as usize;
        let start = at + RECORD_HEAD;
        let mut payload = body.get(start..start.checked_add(length)?)?;
        let id = read_log_id(&mut payload)?;
        let record = match (kind, payload) {
            (ENTRY, bytes) => Record::Entry(id, bytes),
            (VOTE, [committed @ (0 | 1)]) => Record::Vote(Vote {
                leader_id: id.leader_id,
                committed: *committed == 1,
            }),
            (COMMITTED, []) => Record::Committed(id),
            (TRUNCATED, []) => Record::Truncated(id),
            (PURGED, []) => Record::Purged(id),
            _ => return None,
        };
        found.push((start + LOG_ID, record));
        at = start + length;
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(term: u64, index: u64) -> LogId {
        LogId::new(LeaderId::new(term, NodeId::from(7)), index)
    }

    #[test]
    fn a_block_reads_back_and_any_flipped_bit_is_found() {
        let mut builder = Builder::new();
        let vote = Vote::new_committed(3, NodeId::from(7));
        for record in [
            Record::Vote(vote),
            Record::Entry(id(3, 1), b"one"),
            Record::Committed(id(3, 1)),
            Record::Truncated(id(3, 9)),
            Record::Purged(id(2, 0)),
        ] {
            builder.push(&record);
        }
        let block = builder.seal(42, 5).to_vec();
        let read = read_block(&block, 0, 42).unwrap();
        assert_eq!((read.sequence, read.body_at), (5, BLOCK_HEAD));
        let found: Vec<_> = records(read.body)
            .unwrap()
            .into_iter()
            .map(|(_, record)| record)
            .collect();
        assert_eq!(
            found,
            [
                Record::Vote(vote),
                Record::Entry(id(3, 1), b"one"),
                Record::Committed(id(3, 1)),
                Record::Truncated(id(3, 9)),
                Record::Purged(id(2, 0)),
            ]
        );
        for bit in 0..block.len() * 8 {
            let mut damaged = block.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(read_block(&damaged, 0, 42).is_none(), "bit {bit}");
        }
        assert!(read_block(&block, 0, 43).is_none());
    }

    #[test]
    fn a_header_reads_back_and_any_flipped_bit_is_found() {
        let bytes = header(3, 9);
        assert_eq!(
            read_header(&bytes),
            Some(Header::Known { number: 3, tag: 9 })
        );
        for bit in 0..HEADER * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(read_header(&damaged), None, "bit {bit}");
        }
    }

    #[test]
    fn a_later_format_is_told_from_damage() {
        for (format, expected) in [
            (0, None),
            (1, Some(Header::Known { number: 3, tag: 9 })),
            (2, Some(Header::Newer { format: 2 })),
            (10, Some(Header::Newer { format: 10 })),
        ] {
            assert_eq!(read_header(&sealed(format, 3, 9)), expected, "{format}");
        }
        let mut grown = sealed(2, 3, 9);
        grown[28..].fill(7);
        assert_eq!(read_header(&grown), Some(Header::Newer { format: 2 }));
    }
}
