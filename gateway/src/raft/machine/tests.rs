//! Snapshot files: which ones are kept, and what happens to a damaged one.

use std::fs;

use openraft::LeaderId;
use sha2::{Digest, Sha256};

use super::{snapshots::SnapshotError, *};
use crate::raft::{
    AGAIN,
    disk::System,
    types::{NodeId, StoredMembership, meta_out},
};

fn meta(index: u64) -> SnapshotMeta {
    let last = LogId::new(LeaderId::new(1, NodeId::from(1)), index);
    SnapshotMeta {
        last_log_id: Some(last),
        last_membership: StoredMembership::default(),
        snapshot_id: snapshot_id(Some(last)),
    }
}

#[test]
fn a_damaged_newest_snapshot_is_made_up_for_or_refused() {
    let state = State::default().to_snapshot().encode();
    let purged = |index| meta(index).last_log_id;
    // The existing snapshots, the damaged ones, the index where the log begins, and the snapshot to start from.
    type Case<'a> = (
        &'a [u64],
        &'a [u64],
        Option<LogId>,
        Result<Option<u64>, &'a str>,
    );
    let cases: [Case<'_>; 7] = [
        (&[], &[], None, Ok(None)),
        (&[10, 20, 30], &[], purged(25), Ok(Some(30))),
        (&[10, 20], &[20], purged(10), Ok(Some(10))),
        (&[10, 20], &[20], purged(11), Err("does not reach back")),
        (&[10, 20], &[10, 20], purged(5), Err("does not reach back")),
        (&[10], &[10], None, Ok(None)),
        (&[], &[], purged(5), Err("holds no snapshot")),
    ];
    for (saved, damaged, purged, expected) in cases {
        let what = format!("{saved:?}, {damaged:?} damaged, log behind {purged:?}");
        let dir = tempfile::tempdir().unwrap();
        let snapshots = Snapshots::new(Arc::new(System), dir.path().to_owned());
        for index in saved {
            snapshots.save(&meta_out(&meta(*index)), &state).unwrap();
        }
        assert!(fs::read_dir(dir.path()).unwrap().count() <= 2, "{what}");
        for index in damaged {
            let path = dir.path().join(format!("{index:020}-1.snapshot"));
            let mut bytes = fs::read(&path).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            fs::write(&path, bytes).unwrap();
        }
        let found = snapshots.load(purged);
        let found = found.map(|newest| newest.and_then(|(meta, _)| Some(meta.last_log_id?.index)));
        match (found, expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{what}"),
            (Err(error), Err(words)) => {
                assert!(error.to_string().contains(words), "{what}: {error}");
                assert!(!matches!(error, SnapshotError::Io { .. }), "{what}");
            }
            (found, expected) => panic!("{what}: {found:?}, not {expected:?}"),
        }
    }
}

#[test]
fn a_snapshot_of_a_later_version_is_told_from_damage_and_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let snapshots = Snapshots::new(Arc::new(System), dir.path().to_owned());
    let path = |index: u64| dir.path().join(format!("{index:020}-1.snapshot"));
    let state = State::default().to_snapshot().encode();
    for index in [10, 20] {
        snapshots.save(&meta_out(&meta(index)), &state).unwrap();
    }
    // The newest is damaged. The one before it is of another version: first as a file, then in its content.
    fs::write(path(20), "damaged").unwrap();
    let whole = fs::read(path(10)).unwrap();
    let mark = |bytes: &[u8]| bytes.windows(4).position(|four| four == b"BMst").unwrap();
    for at in [4, mark(&whole)] {
        let mut content = whole[..whole.len() - 32].to_vec();
        content[at + 3] = b'9';
        let hash = Sha256::digest(&content);
        let newer = [&content[..], &hash[..]].concat();
        fs::write(path(10), &newer).unwrap();
        let error = snapshots.load(meta(9).last_log_id).err().unwrap();
        let words = error.to_string();
        let begin = format!(
            "raft snapshot {} is whole and cannot be read by this version of Beemesh: expected a message marked",
            path(10).display()
        );
        assert!(words.starts_with(&begin), "{words}");
        assert!(words.ends_with(AGAIN), "{words}");
        assert_eq!(fs::read(path(10)).unwrap(), newer);
        assert_eq!(fs::read(path(20)).unwrap(), b"damaged");
    }
}
