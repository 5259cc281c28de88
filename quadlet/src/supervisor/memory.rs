//! Stores a workload's [`Ledger`] in a file below `/run/beemesh`, where it outlives the supervisor but not the boot.
//! Shell: if the file is missing or damaged, the count continues from Podman's own count.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::{fs, io};

use super::Ledger;
use super::shell::Settings;

/// Maximum size of the file, in bytes. A pod with five hundred containers needs less.
const BYTES_MAX: u64 = 256 << 10;

fn file(run: &Path, workload: &str) -> PathBuf {
    run.join(format!("restarts-{workload}.json"))
}

/// Reads the ledger of the previous supervisor.
pub(super) fn recall(settings: &Settings) -> Ledger {
    match read(&settings.run, &settings.workload) {
        Ok(ledger) => ledger,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ledger::default(),
        Err(error) => {
            tracing::warn!(%error, "the count of restarts starts again at 0");
            Ledger::default()
        }
    }
}

fn read(run: &Path, workload: &str) -> io::Result<Ledger> {
    let mut bytes = Vec::new();
    let file = fs::File::open(file(run, workload))?;
    file.take(BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(serde_json::from_slice(&bytes)?)
}

/// Stores the ledger. A reader gets the old one or the new one.
pub(super) fn keep(settings: &Settings, ledger: &Ledger) {
    let path = file(&settings.run, &settings.workload);
    let new = path.with_extension("json.new");
    let kept = serde_json::to_vec(ledger)
        .map_err(io::Error::from)
        .and_then(|bytes| fs::write(&new, bytes))
        .and_then(|()| fs::rename(&new, &path));
    if let Err(error) = kept {
        tracing::warn!(%error, "the restarts were not saved: a supervisor that is killed now forgets them");
    }
}

/// Removes the file, because the pod is gone.
pub(super) fn forget(settings: &Settings) {
    drop(fs::remove_file(file(&settings.run, &settings.workload)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_comes_back_and_damage_is_survived() {
        let run = tempfile::tempdir().unwrap();
        let settings = Settings {
            workload: "web".into(),
            socket: PathBuf::new(),
            folder: PathBuf::new(),
            run: run.path().to_owned(),
        };
        assert_eq!(recall(&settings), Ledger::default());
        let ledger = Ledger {
            pod: "p".into(),
            over: true,
            ..Ledger::default()
        };
        keep(&settings, &ledger);
        assert_eq!(recall(&settings), ledger);
        fs::write(file(&settings.run, &settings.workload), "{").unwrap();
        assert_eq!(recall(&settings), Ledger::default());
        forget(&settings);
        assert_eq!(fs::read_dir(run.path()).unwrap().count(), 0);
    }
}
