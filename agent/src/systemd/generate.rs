//! Makes systemd able to start a new workload without a daemon-reload.
//!
//! Shell. A reload runs every generator of the host and stops systemd meanwhile, and with it every container that is
//! being started: a third of a second or more. But systemd looks a unit that it has not loaded up on disk when a folder of
//! its search path has changed. So Podman's own generator is run on the workloads' folder, and what it makes of a new
//! Quadlet is put where a reload would put it. The next reload, whoever asks for it, makes the same file again.
//!
//! Input: the folder of Quadlets. Output: files in `/run/systemd/generator`. A unit that has a file there is left alone:
//! systemd may have loaded it, and only a reload makes it read a changed one.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use tokio::{process::Command, sync::Mutex};

/// Podman's generator, in the folder that systemd runs generators from.
const GENERATOR: &str = "/usr/lib/systemd/system-generators/podman-system-generator";
/// Where a reload puts what generators make.
const GENERATED: &str = "/run/systemd/generator";
/// A folder of the search path whose change systemd notices. It takes no notice of its generators' own.
const NOTICED: &str = "/run/systemd/system";
/// It takes tens of milliseconds; a reload, which runs it too, is the way out when it hangs.
const SECONDS_MAX: u64 = 10;

/// Runs the generator, one run at a time.
#[derive(Debug, Clone)]
pub(super) struct Generate {
    quadlets: PathBuf,
    running: Arc<Mutex<()>>,
}

impl Generate {
    pub(super) fn new(quadlets: &Path) -> Self {
        Self {
            quadlets: quadlets.to_owned(),
            running: Arc::default(),
        }
    }

    /// Whether a generator has made the unit, so that systemd may have loaded it.
    pub(super) async fn is_made(&self, unit: &str) -> bool {
        tokio::fs::try_exists(Path::new(GENERATED).join(unit))
            .await
            .unwrap_or(true)
    }

    /// Makes the unit's file if there is none, and those of all other new Quadlets with it. An error is words; then a
    /// reload is needed.
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

/// What the generator said. It fails when one Quadlet of many is bad, having made the others: what counts is what it made.
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

/// The units in a folder that the generator has written to, and where they are.
fn made(folder: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().into_string().unwrap_or_default();
        // Its folders hold the links of `[Install]`, which matter at the next boot and are made anew by then.
        if name.ends_with(".service") && entry.file_type()?.is_file() {
            files.push((name, entry.path()));
        }
    }
    Ok(files)
}

/// Puts a new unit in its place in one piece.
fn place(file: &str, from: &Path) -> io::Result<()> {
    let to = Path::new(GENERATED).join(file);
    if to.try_exists()? {
        return Ok(());
    }
    let partial = Path::new(GENERATED).join(format!(".{file}.partial"));
    fs::write(&partial, fs::read(from)?)?;
    // As a generator's files are: systemd and whoever asks `systemctl cat` read them.
    fs::set_permissions(
        &partial,
        std::os::unix::fs::PermissionsExt::from_mode(0o644),
    )?;
    fs::rename(partial, to)
}

/// Makes the folder's time of change now.
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
