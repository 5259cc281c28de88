//! Lets systemd start a new workload without a daemon-reload.
//!
//! Shell. A reload runs all generators of the host and blocks systemd meanwhile, and with it every container that is
//! starting, for a third of a second or more. But if a folder of its search path has changed, systemd looks on disk for
//! a unit that it has not loaded. So this module runs Podman's generator on the folder of Quadlets, and puts the units
//! of new Quadlets where a reload would put them. Every later reload writes the same files again.
//!
//! Input: the folder of Quadlets. Output: files in `/run/systemd/generator`. The module does not change a file that
//! exists: systemd may have loaded it, and reads a changed file only in a reload.
//!
//! It also runs the generator on a Quadlet that has not been written yet, to learn whether Podman accepts it.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex as Lock, PoisonError},
    time::Duration,
};

use beemesh_protocol::workload::{kube_file, unit_name};

use tokio::{process::Command, sync::Mutex};

/// Podman's generator, in the folder of systemd's generators.
const GENERATOR: &str = "/usr/lib/systemd/system-generators/podman-system-generator";
/// The folder that systemd's generators write to.
const GENERATED: &str = "/run/systemd/generator";
/// A folder of the search path whose change systemd notices. It ignores changes in the generators' folders.
const NOTICED: &str = "/run/systemd/system";
/// The generator takes tens of milliseconds. If it hangs, a reload is needed, which runs it, too.
const SECONDS_MAX: u64 = 10;

/// Maximum number of accepted texts that are remembered.
const ACCEPTED_MAX: usize = 64;

/// Runs the generator, one run at a time.
#[derive(Debug, Clone)]
pub(super) struct Generate {
    quadlets: PathBuf,
    running: Arc<Mutex<()>>,
    /// The texts that the generator has accepted.
    accepted: Arc<Lock<BTreeSet<String>>>,
}

impl Generate {
    pub(super) fn new(quadlets: &Path) -> Self {
        Self {
            quadlets: quadlets.to_owned(),
            running: Arc::default(),
            accepted: Arc::default(),
        }
    }

    /// Returns why the generator makes no unit of this Quadlet, as a message; `None` if it makes one. No file stays.
    pub(super) async fn refuses(&self, workload: &str, kube: &str) -> Option<String> {
        let accepted = || self.accepted.lock().unwrap_or_else(PoisonError::into_inner);
        if accepted().contains(kube) {
            return None;
        }
        let _running = self.running.lock().await;
        match try_out(workload, kube).await {
            Err(reason) => Some(reason),
            Ok(()) => {
                let mut accepted = accepted();
                if accepted.len() >= ACCEPTED_MAX {
                    accepted.clear();
                }
                accepted.insert(kube.to_owned());
                None
            }
        }
    }

    /// Returns true if a generator has written the unit, so that systemd may have loaded it.
    pub(super) async fn is_made(&self, unit: &str) -> bool {
        tokio::fs::try_exists(Path::new(GENERATED).join(unit))
            .await
            .unwrap_or(true)
    }

    /// Writes the unit's file if there is none, and the files of all other new Quadlets. After an error, which is a
    /// message for the user, a reload is needed.
    pub(super) async fn ensure(&self, unit: &str) -> Result<(), String> {
        let _running = self.running.lock().await;
        if self.is_made(unit).await {
            return Ok(());
        }
        let scratch = tempfile::tempdir().map_err(|err| format!("make a folder: {err}"))?;
        let words = run(&self.quadlets, scratch.path()).await?;
        let place = |(file, path): (String, PathBuf)| {
            place(&file, &path).map_err(|err| format!("write {GENERATED}/{file}: {err}"))
        };
        made(scratch.path())
            .map_err(|err| format!("list {}: {err}", scratch.path().display()))?
            .into_iter()
            .try_for_each(place)?;
        touch(Path::new(NOTICED)).map_err(|err| format!("touch {NOTICED}: {err}"))?;
        if self.is_made(unit).await {
            Ok(())
        } else {
            Err(format!("Podman's generator made no {unit}: {words}"))
        }
    }
}

/// Runs the generator on a Quadlet in a folder of its own.
async fn try_out(workload: &str, kube: &str) -> Result<(), String> {
    let folder = || tempfile::tempdir().map_err(|err| format!("make a folder: {err}"));
    let (from, to) = (folder()?, folder()?);
    let path = from.path().join(kube_file(workload));
    fs::write(&path, kube).map_err(|err| format!("write {}: {err}", path.display()))?;
    let words = run(from.path(), to.path()).await?;
    let unit = unit_name(workload);
    match to.path().join(&unit).try_exists() {
        Ok(true) => Ok(()),
        _ => Err(format!("Podman's generator made no {unit}: {words}")),
    }
}

/// Runs the generator and returns its messages. Its exit status is ignored: it fails if one Quadlet of many is bad, but
/// writes the units of the others.
async fn run(quadlets: &Path, to: &Path) -> Result<String, String> {
    let output = Command::new(GENERATOR)
        .arg("-no-kmsg-log")
        .args([to, to, to])
        .env("QUADLET_UNIT_DIRS", quadlets)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(Duration::from_secs(SECONDS_MAX), output)
        .await
        .map_err(|_| format!("{GENERATOR} is not done after {SECONDS_MAX} s"))?
        .map_err(|err| format!("run {GENERATOR}: {err}"))?;
    let words = String::from_utf8_lossy(&output.stderr);
    Ok(format!("{}: {}", output.status, words.trim()))
}

/// The names and paths of the units in a folder that the generator has written to.
fn made(folder: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().into_string().unwrap_or_default();
        // The subfolders hold the links of `[Install]`. They matter only at the next boot, and systemd runs the
        // generators before that.
        if name.ends_with(".service") && entry.file_type()?.is_file() {
            files.push((name, entry.path()));
        }
    }
    Ok(files)
}

/// Writes a new unit atomically.
fn place(file: &str, from: &Path) -> io::Result<()> {
    let to = Path::new(GENERATED).join(file);
    if to.try_exists()? {
        return Ok(());
    }
    let partial = Path::new(GENERATED).join(format!(".{file}.partial"));
    fs::write(&partial, fs::read(from)?)?;
    // The mode of a generator's files: systemd and `systemctl cat` read them.
    fs::set_permissions(
        &partial,
        std::os::unix::fs::PermissionsExt::from_mode(0o644),
    )?;
    fs::rename(partial, to)
}

/// Sets the folder's modification time to now.
fn touch(folder: &Path) -> io::Result<()> {
    fs::File::open(folder)?.set_modified(std::time::SystemTime::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_units_count_as_made() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("multi-user.target.wants")).expect("made");
        fs::create_dir(at("odd.service")).expect("made");
        fs::write(at("beemesh-pod-web.service"), "[Unit]\n").expect("written");
        fs::write(at("beemesh-pod-web.service.partial"), "[Un").expect("written");
        let made = made(folder.path()).expect("listed");
        assert_eq!(
            made,
            [(
                "beemesh-pod-web.service".to_owned(),
                at("beemesh-pod-web.service")
            )]
        );
    }

    #[test]
    fn a_touched_folder_has_a_later_time() {
        let folder = tempfile::tempdir().expect("a folder");
        let changed = || {
            fs::metadata(folder.path())
                .and_then(|data| data.modified())
                .expect("a time")
        };
        fs::File::open(folder.path())
            .and_then(|file| file.set_modified(std::time::UNIX_EPOCH))
            .expect("touched");
        let before = changed();
        touch(folder.path()).expect("touched");
        assert!(changed() > before);
    }
}
