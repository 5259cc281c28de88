//! Stores the report of a workload's pod in a file below `/run/beemesh`. The gateway of the host reads it when the
//! status line of the unit changes.
//!
//! Shell. A reader gets the old report or the new one. Without the file the gateway uses the status line. Only root may
//! read the file, because it contains output of containers.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::{fs, io};

use beemesh_protocol::pod::{PodReport, REPORT_BYTES_MAX};

use crate::health::Report;

fn file(run: &Path, workload: &str) -> PathBuf {
    // A workload's name may contain dots. The file that is being written has a name without the suffix `.bin`, so it
    // cannot be the file of another workload.
    run.join(format!("report-{workload}.bin"))
}

/// Reads the last report of a workload's supervisor; returns `None` if there is none or if it is damaged.
#[must_use]
pub fn read(run: &Path, workload: &str) -> Option<PodReport> {
    let file = fs::File::open(file(run, workload)).ok()?;
    let mut bytes = Vec::new();
    let max = u64::try_from(REPORT_BYTES_MAX).unwrap_or(u64::MAX);
    file.take(max + 1).read_to_end(&mut bytes).ok()?;
    let report = PodReport::from_bytes(&bytes);
    report
        .inspect_err(|error| tracing::warn!(workload, %error, "the report of a pod is not read"))
        .ok()
}

/// Removes the file, because the workload's pod is gone.
pub fn forget(run: &Path, workload: &str) {
    match fs::remove_file(file(run, workload)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(workload, %error, "the report of a pod was not removed");
        }
        _ => {}
    }
}

/// Writes a report, before its line is shown.
pub(super) fn write(run: &Path, workload: &str, report: &Report) {
    let path = file(run, workload);
    let new = path.with_extension("bin.new");
    let bytes = report.to_message().encode();
    let written = fs::write(&new, bytes).and_then(|()| fs::rename(&new, &path));
    if let Err(error) = written {
        tracing::warn!(%error, "the gateway knows what the unit's line says alone");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::Status;

    #[test]
    fn a_report_is_read_as_it_was_written_and_damage_is_survived() {
        let run = tempfile::tempdir().unwrap();
        let (run, report) = (
            run.path(),
            Report::from(Status::Updating { from: 1, to: 2 }),
        );
        assert_eq!(read(run, "web"), None);
        write(run, "web", &report);
        assert_eq!(read(run, "web"), Some(report.to_message()));
        for other in ["web.new", "web.bin", "web.bin.new"] {
            let (path, written) = (file(run, "web"), file(run, other));
            assert!(written != path && written != path.with_extension("bin.new"));
        }
        for damage in [&b""[..], b"BMpd", &[0; REPORT_BYTES_MAX + 7]] {
            fs::write(file(run, "web"), damage).unwrap();
            assert_eq!(read(run, "web"), None);
        }
        forget(run, "web");
        forget(run, "web");
        assert_eq!(fs::read_dir(run).unwrap().count(), 0);
    }
}
