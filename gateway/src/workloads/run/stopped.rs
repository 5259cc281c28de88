//! Marks units that the gateway itself has stopped, to tell them from units that an administrator has stopped.
//!
//! Shell: empty files in `/run/beemesh`. They outlive the gateway. A power cut removes them, and systemd then starts
//! every unit anyway.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

const PREFIX: &str = "stopped-";

fn file(folder: &Path, workload: &str) -> PathBuf {
    folder.join(format!("{PREFIX}{workload}"))
}

/// Marks a unit that is about to be stopped.
pub(super) fn mark(folder: &Path, workload: &str) -> io::Result<()> {
    File::create(file(folder, workload)).map(drop)
}

/// Removes the mark of a unit that runs again or is gone.
pub(super) fn unmark(folder: &Path, workload: &str) {
    match fs::remove_file(file(folder, workload)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(workload, %error, "mark of a stopped unit not removed");
        }
        _ => {}
    }
}

/// Returns the workloads whose units are marked.
pub(super) fn marked(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names
        .filter_map(|name| name.strip_prefix(PREFIX).map(str::to_owned))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_stay_until_they_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        for workload in ["web", "shop_web"] {
            mark(folder.path(), workload).unwrap();
        }
        mark(folder.path(), "web").unwrap();
        File::create(folder.path().join("playing-web.lock")).unwrap();
        unmark(folder.path(), "web");
        unmark(folder.path(), "web");
        assert_eq!(marked(folder.path()), BTreeSet::from(["shop_web".into()]));
    }
}
