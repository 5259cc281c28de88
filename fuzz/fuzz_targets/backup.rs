//! Backup files: arbitrary bytes, and arbitrary bytes after a matching first line.

#![no_main]

use beemesh_fuzz::longest;
use beemesh_protocol::backup;
use sha2::{Digest, Sha256};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    read(bytes);
    let sum: String = Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let line = format!("beemesh-backup 1 sha256={sum} bytes={}\n", bytes.len());
    read(&[line.as_bytes(), bytes].concat());
});

fn read(file: &[u8]) {
    if let Ok(state) = backup::decode(file) {
        let written = backup::encode(&state);
        assert_eq!(backup::decode(&written), Ok(state));
        assert!(written.len() <= longest(file.len()));
    }
}
