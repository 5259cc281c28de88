//! Decodes old bytes, and refuses hostile bytes.
//!
//! `tests/golden/` holds each message as it was first written. `BLESS=1` writes files for new messages. It replaces an
//! existing file only after the file was deleted, which is a break of compatibility.

#[path = "golden/values.rs"]
mod values;

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::PathBuf,
    sync::Once,
};

use beemesh_protocol::{
    DecodeError,
    ipc::{Opened, ToAgent},
    mesh::JoinRequest,
    state::{Change, Command, Kind, Object},
    token::Token,
};
use proptest::prelude::*;
use values::{cases, join_request, lists, token};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn bless() {
    let lines = [("token.line".to_owned(), token().to_line().into_bytes())];
    let messages = cases()
        .into_iter()
        .map(|case| (format!("{}.bin", case.name), case.bytes));
    for (name, bytes) in messages.chain(lines) {
        let path = folder().join(name);
        if !path.exists() {
            fs::write(path, bytes).expect("tests/golden is writable");
        }
    }
}

fn golden(name: &str) -> Vec<u8> {
    static ONCE: Once = Once::new();
    if env::var_os("BLESS").is_some() {
        ONCE.call_once(bless);
    }
    let path = folder().join(name);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn committed_bytes_and_fresh_bytes_decode_to_the_value() {
    for case in cases() {
        assert_eq!((case.read)(&case.bytes), Ok(true), "{}, fresh", case.name);
        assert_eq!(
            (case.read)(&golden(&format!("{}.bin", case.name))),
            Ok(true),
            "{}",
            case.name
        );
    }
    let line = String::from_utf8(golden("token.line")).unwrap();
    assert_eq!(Token::from_line(&line), Ok(token()));
}

#[test]
fn every_committed_file_belongs_to_a_case() {
    golden("token.line");
    let mut expected: BTreeSet<_> = cases()
        .iter()
        .map(|case| format!("{}.bin", case.name))
        .collect();
    expected.insert("token.line".to_owned());
    let found = fs::read_dir(folder()).unwrap();
    let found: BTreeSet<_> = found
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.ends_with(".rs"))
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn long_lists_and_large_bodies_stay_within_the_bounds() {
    for case in lists() {
        assert_eq!((case.read)(&case.bytes), Ok(true), "{}", case.name);
    }
}

#[test]
fn truncated_and_altered_bytes_never_panic_and_never_pass_for_the_whole() {
    for case in cases() {
        let bytes = golden(&format!("{}.bin", case.name));
        for length in 0..bytes.len() {
            // The padding after the last object may be missing. A message that lacks anything else must be refused.
            let read = (case.read)(&bytes[..length]);
            assert!(
                read.is_err() || bytes.len() - length < 4 && read == Ok(true),
                "{}, {length}",
                case.name
            );
        }
        let mut altered = bytes.clone();
        for at in 0..bytes.len() {
            for flip in [0x01, 0x10, 0x80, 0xff] {
                altered[at] ^= flip;
                // Some alterations give another valid message; none may cause a panic.
                let _ = (case.read)(&altered);
                altered[at] ^= flip;
            }
        }
    }
}

/// The errors of decoding when `patch` overwrites each position in turn.
fn errors<T>(
    bytes: &[u8],
    patch: &[u8],
    decode: fn(&[u8]) -> Result<T, DecodeError>,
) -> BTreeSet<String> {
    let patched = (8..=bytes.len() - patch.len()).map(|at| {
        let mut bytes = bytes.to_vec();
        bytes[at..at + patch.len()].copy_from_slice(patch);
        bytes
    });
    patched
        .filter_map(|bytes| decode(&bytes).err())
        .map(|error| error.to_string())
        .collect()
}

#[test]
fn a_missing_field_is_named() {
    // Zero in the vtable is an absent field.
    let found = errors(&join_request().encode(), &[0, 0], JoinRequest::decode);
    for field in ["cluster", "token", "secret", "name", "addresses"] {
        let error = format!("message without join_request.{field}");
        assert!(found.contains(&error), "{error}: {found:?}");
    }
}

#[test]
fn a_variant_from_a_newer_version_is_named() {
    let newer = "has the unknown value 200: it was written by a newer version of Beemesh";
    let any = |found: BTreeSet<String>, field: &str| {
        let error = format!("{field} {newer}");
        assert!(found.contains(&error), "{error}: {found:?}");
    };
    let command = golden("command.01.bin");
    let found = errors(&command, &[200], Command::decode);
    any(found.clone(), "change");
    any(found.clone(), "object.kind");
    any(found, "reference.kind");
    any(
        errors(&golden("to_agent.05.bin"), &[200], ToAgent::decode),
        "agent_request",
    );
}

#[test]
fn one_kind_of_message_is_not_read_as_another() {
    assert_eq!(
        Opened::decode(&golden("stream_opening.00.bin"))
            .unwrap_err()
            .to_string(),
        "expected a message marked BMod, found \"BMso\""
    );
    // A release before 0.4.0 knows only BMst: it must not read a state without its revisions. One before 0.5.0 does not
    // know BMs3.
    assert_eq!(&golden("snapshot_assigned.00.bin")[4..8], b"BMst");
    assert_eq!(&golden("snapshot_revisions.00.bin")[4..8], b"BMs2");
    assert_eq!(&golden("snapshot_lost.00.bin")[4..8], b"BMs3");
    assert_eq!(
        Opened::decode(b"").unwrap_err().to_string(),
        "expected a message marked BMod, found \"\""
    );
}

proptest! {
    #[test]
    fn any_command_reads_back_and_any_damage_is_harmless(
        at_ms: u64, manifest: String, name: String, body: Vec<u8>, hash: [u8; 32], replicas: Option<u32>, policy: Option<u64>,
        selector: BTreeMap<String, String>, damage: Vec<(prop::sample::Index, u8)>,
    ) {
        let object = Object {
            kind: Kind::Pod, namespace: "default".into(), name, body, hash, references: vec![], replicas, selector,
        };
        let command = Command { at_ms, change: Change::Apply { manifest, objects: vec![object], policy, keep: false, if_index: None }, origin: None };
        let mut bytes = command.encode().to_vec();
        prop_assert_eq!(Command::decode(&bytes), Ok(command));
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let _ = Command::decode(&bytes);
        }
    }
}
