//! A log that a later version wrote is refused with a helpful error, and left unchanged.

use std::{collections::BTreeMap, fs};

use beemesh_protocol::DecodeError;
use bytes::Bytes;

use super::*;
use crate::raft::log::block::{BLOCK_HEAD, HEADER, sealed};

const REMEDY: &str = "install the version that wrote it (`dnf upgrade beemesh` on this host)";

/// Returns every file of a folder.
fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let names = System.list(dir).unwrap();
    let read = |name: String| (name.clone(), fs::read(dir.join(name)).unwrap());
    names.into_iter().map(read).collect()
}

fn refusal(dir: &Path) -> String {
    let error = Open::on(Arc::new(System), dir).err().unwrap();
    error.to_string()
}

#[tokio::test]
async fn a_log_of_a_later_format_is_told_from_damage_and_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let mut open = Open::on(Arc::new(System), dir.path()).unwrap();
    for step in story() {
        step.run(&mut open.log).await.unwrap();
    }
    open.kill().await;
    // Files that a recovery would remove or truncate.
    fs::write(dir.path().join(format!("{:020}.partial", 99)), "half").unwrap();
    let whole = files(dir.path());
    let last = whole.keys().rfind(|name| name.ends_with(".log")).unwrap();
    let mut torn = whole[last].clone();
    *torn.last_mut().unwrap() = 1;
    fs::write(dir.path().join(last), &torn).unwrap();

    for name in whole.keys().filter(|name| name.ends_with(".log")) {
        let path = dir.path().join(name);
        let before = fs::read(&path).unwrap();
        let number = name.trim_end_matches(".log").parse().unwrap();
        let mut newer = before.clone();
        newer[..HEADER].copy_from_slice(&sealed(2, number, 5));
        fs::write(&path, newer).unwrap();
        let left = files(dir.path());
        assert_eq!(
            refusal(dir.path()),
            format!(
                "raft log {} has format 2, this version of Beemesh reads up to 1: {REMEDY}",
                path.display()
            )
        );
        assert!(files(dir.path()) == left, "{name} was touched");
        fs::write(&path, before).unwrap();
    }
    let open = Open::on(Arc::new(System), dir.path()).unwrap();
    open.kill().await;
}

#[tokio::test]
async fn a_record_of_a_later_version_is_told_from_damage() {
    let dir = tempfile::tempdir().unwrap();
    let (path, ends, _) = four_blocks(dir.path()).await;
    let mut bytes = fs::read(&path).unwrap();
    let block = &mut bytes[ends[1]..ends[2]];
    block[BLOCK_HEAD] = 77;
    let sum = crc32fast::hash(&[&block[..4], &block[8..]].concat());
    block[4..8].copy_from_slice(&sum.to_le_bytes());
    fs::write(&path, &bytes).unwrap();
    assert_eq!(
        refusal(dir.path()),
        format!(
            "raft log {} holds a record at offset {} that this version of Beemesh does not know: {REMEDY}",
            path.display(),
            ends[1]
        )
    );
    assert!(fs::read(&path).unwrap() == bytes, "the log was touched");
}

/// An entry with a change that only a later version knows.
fn unknown_change() -> Bytes {
    let bytes = entry_out(&entry(1, 0, 3)).encode();
    let changed = (0..bytes.len()).map(|at| {
        let mut bytes = bytes.to_vec();
        bytes[at] = 200;
        bytes
    });
    let unknown = |bytes: &Vec<u8>| {
        let field = "change";
        raft::Entry::decode(bytes) == Err(DecodeError::Unknown { field, value: 200 })
    };
    changed.into_iter().find(unknown).unwrap().into()
}

#[tokio::test]
async fn an_entry_of_a_later_version_is_told_from_damage() {
    let dir = tempfile::tempdir().unwrap();
    let open = Open::on(Arc::new(System), dir.path()).unwrap();
    let entries = vec![(log_id(1, 0), unknown_change())];
    let written = open
        .log
        .ask(|done| Request::Append(entries, Some(done)))
        .await;
    written.unwrap();
    open.kill().await;
    let mut open = Open::on(Arc::new(System), dir.path()).unwrap();
    let error = open.log.try_get_log_entries(..).await.unwrap_err();
    let words = format!(
        "entry 0 in {} at offset ",
        dir.path().join(format!("{:020}.log", 1)).display()
    );
    let why = "cannot be read by this version of Beemesh: change has the unknown value 200: it was written by a newer version of \
               Beemesh: ";
    let error = error.to_string();
    assert!(error.contains(&words), "{error}");
    assert!(error.contains(&format!("{why}{REMEDY}")), "{error}");
    open.kill().await;
}
