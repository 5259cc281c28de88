//! Records how attempts of Jobs ended on this host, until the host has nothing left of the Job.
//!
//! Shell: one file for each Job in the gateway's folder, written durably. If a host forgot that a Job has completed,
//! and reported after a reboot that the Job was interrupted, the Job would run twice.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use crate::{local::durable, workloads::plan::End};

const SUFFIX: &str = ".json";
/// Maximum size of a file, which holds one reason from the status of a unit.
const BYTES_MAX: u64 = 64 << 10;

fn file(folder: &Path, workload: &str) -> PathBuf {
    folder.join(format!("{workload}{SUFFIX}"))
}

/// Records an end. When this returns, it survives a power cut.
pub(super) fn keep(folder: &Path, workload: &str, end: &End) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    durable::replace(&file(folder, workload), &serde_json::to_vec(end)?)?;
    // The folder itself may be new.
    folder.parent().map_or(Ok(()), durable::sync_folder)
}

/// Removes the record of a Job of which this host has nothing left.
pub(super) fn forget(folder: &Path, workload: &str) {
    match fs::remove_file(file(folder, workload)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(workload, %error, "the saved end of a job was not removed");
        }
        _ => {}
    }
}

/// Reads the recorded ends. A file that cannot be read is logged, and its end counts as unknown.
pub(super) fn kept(folder: &Path) -> BTreeMap<String, End> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let ends = names.filter_map(|name| {
        let workload = name.strip_suffix(SUFFIX)?.to_owned();
        match read(&folder.join(&name)) {
            Ok(end) => Some((workload, end)),
            Err(error) => {
                tracing::warn!(workload, %error, "the saved end of a job cannot be read");
                None
            }
        }
    });
    ends.collect()
}

fn read(path: &Path) -> io::Result<End> {
    let mut bytes = Vec::new();
    File::open(path)?.take(BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(serde_json::from_slice(&bytes)?)
}

#[cfg(test)]
mod tests {
    use beemesh_protocol::ClusterId;

    use super::*;

    #[test]
    fn ends_are_kept_until_they_are_forgotten() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("ended");
        assert_eq!(kept(&folder), BTreeMap::new());
        let end = |index, succeeded| End {
            cluster: ClusterId([7; 16]),
            index,
            succeeded,
            restarts: 2,
            reason: "container web-app ended with code 3".into(),
        };
        keep(&folder, "shop_import.a", &end(9, false)).unwrap();
        keep(&folder, "shop_import.a", &end(12, true)).unwrap();
        keep(&folder, "web", &end(10, false)).unwrap();
        fs::write(folder.join("damaged.json"), b"{").unwrap();
        fs::write(folder.join("web.partial"), b"{").unwrap();
        forget(&folder, "web");
        forget(&folder, "web");
        let left = BTreeMap::from([("shop_import.a".to_owned(), end(12, true))]);
        assert_eq!(kept(&folder), left);
    }
}
