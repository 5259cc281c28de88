//! The workloads' Quadlet pairs on disk, written so that a power cut leaves a whole pair or none.
//!
//! Shell: carries out the steps that [`put_steps`] and [`remove_steps`] list. Owner of
//! `/etc/containers/systemd/beemesh`. Input: [`UnitFiles`] and names from the gateway, which is another process and not
//! trusted. Output: files that Podman's generator reads.
//!
//! A `.kube` file names its YAML file, so the YAML becomes durable first and is removed last: after a power cut at any
//! step, each `.kube` on disk names a complete YAML. [`Units::open`] removes a YAML without a `.kube`. The YAML of the
//! previous revision stays until [`Units::tidy`], because Podman takes its pod down with that file.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use beemesh_protocol::{
    frame::CONTROL_MAX,
    ipc::UnitFiles,
    workload::{is_pod_name, kube_file, kube_pod, yaml_file, yaml_pod},
};

/// Bytes of a `.kube`, which has a dozen lines; the YAML takes the rest of a frame. A longer file was not written by
/// Beemesh, and the gateway receives its beginning.
const KUBE_BYTES_MAX: usize = 16 << 10;
/// The YAML contains secrets, so only root may read it. Podman's generator runs as root.
const FILE_MODE: u32 = 0o600;
/// As for the files.
const FOLDER_MODE: u32 = 0o700;

/// The folder of the pairs.
#[derive(Debug, Clone)]
pub(crate) struct Units {
    folder: PathBuf,
    /// Held during a whole put, tidy or removal, because their steps must not interleave.
    writing: Arc<Mutex<()>>,
}

/// The reason why a change of the files failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UnitsError {
    #[error("`{0}` is not a workload name")]
    Name(String),
    #[error("the Quadlet of {workload} is refused: {reason}")]
    Refused { workload: String, reason: String },
    #[error("{doing} {path}: {source}")]
    Io {
        doing: &'static str,
        path: PathBuf,
        source: io::Error,
    },
}

/// One change to the folder. The tests simulate a power cut between any two of them.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step<'a> {
    /// Write these bytes to a new file and sync it. Its name is not a name that any program reads.
    Write { name: String, bytes: &'a [u8] },
    /// Give the new file its final name.
    Rename { from: String, to: String },
    /// Remove the file. A missing file is no error.
    Unlink { name: String },
    /// Make the renames and removals so far durable.
    SyncFolder,
}

fn checked(workload: &str) -> Result<&str, UnitsError> {
    if is_pod_name(workload) {
        Ok(workload)
    } else {
        Err(UnitsError::Name(workload.to_owned()))
    }
}

/// The file name in `Yaml=`, if there is exactly one.
fn named_yaml(kube: &str) -> Option<&str> {
    let mut values = kube.lines().filter_map(|line| {
        line.trim()
            .strip_prefix("Yaml")?
            .trim_start()
            .strip_prefix('=')
    });
    let value = values.next()?.trim();
    values.next().is_none().then_some(value)
}

/// Returns true if a workload's `.kube` may have this key. The gateway runs in a container. A line that makes systemd
/// run a command, or that changes Podman's arguments, would let it escape.
fn is_kube_key(section: &str, key: &str) -> bool {
    match section {
        "Unit" => matches!(
            key,
            "Description"
                | "Documentation"
                | "ConditionPathExists"
                | "SourcePath"
                | "After"
                | "Wants"
                | "Requires"
                | "StartLimitIntervalSec"
                | "StartLimitBurst"
        ),
        "Kube" => matches!(
            key,
            "Yaml"
                | "Network"
                | "LogDriver"
                | "PublishPort"
                | "UserNS"
                | "ExitCodePropagation"
                | "KubeDownForce"
        ),
        "Quadlet" => key == "DefaultDependencies",
        "Service" => matches!(
            key,
            "Restart"
                | "RestartSec"
                | "RestartSteps"
                | "RestartMaxDelaySec"
                | "TimeoutStartSec"
                | "TimeoutStopSec"
                | "TimeoutSec"
                | "SyslogIdentifier"
        ),
        "Install" => matches!(key, "WantedBy" | "RequiredBy" | "UpheldBy"),
        _ => section.starts_with("X-"),
    }
}

fn check_kube(files: &UnitFiles) -> Result<(), String> {
    let expected = yaml_file(&files.workload, files.index);
    if files.kube.len() > KUBE_BYTES_MAX || files.yaml.len() > CONTROL_MAX {
        return Err(format!(
            "{} and {} bytes are too many",
            files.kube.len(),
            files.yaml.len()
        ));
    }
    let mut section = "";
    for (number, line) in (1..).zip(files.kube.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', ';']) && !line.ends_with('\\') {
            continue;
        }
        if line.ends_with('\\') || line.contains(|c: char| c.is_control()) {
            return Err(format!(
                "line {number} is continued or has a control character"
            ));
        }
        if let Some(name) = line
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
        {
            section = name;
            continue;
        }
        let key = line.split_once('=').map_or(line, |(key, _)| key.trim());
        if !is_kube_key(section, key) {
            return Err(format!(
                "line {number}: `{key}` in [{section}] is not for a workload"
            ));
        }
    }
    if named_yaml(&files.kube) != Some(&expected) {
        return Err(format!("it does not name {expected}"));
    }
    Ok(())
}

fn put_steps<'a>(files: &'a UnitFiles) -> Vec<Step<'a>> {
    let mut steps = Vec::new();
    let pair: [(String, &'a [u8]); 2] = [
        (yaml_file(&files.workload, files.index), &files.yaml),
        (kube_file(&files.workload), files.kube.as_bytes()),
    ];
    for (to, bytes) in pair {
        let from = format!("{to}.partial");
        steps.push(Step::Write {
            name: from.clone(),
            bytes,
        });
        steps.push(Step::Rename { from, to });
        // The YAML must be durable before the `.kube` that names it.
        steps.push(Step::SyncFolder);
    }
    steps
}

fn remove_steps(workload: &str, yamls: Vec<String>) -> Vec<Step<'static>> {
    let mut steps = vec![
        Step::Unlink {
            name: kube_file(workload),
        },
        Step::SyncFolder,
    ];
    steps.extend(yamls.into_iter().map(|name| Step::Unlink { name }));
    steps.push(Step::SyncFolder);
    steps
}

impl Units {
    /// Creates the folder if it is missing, and removes the remains of an interrupted change.
    pub(crate) fn open(folder: &Path) -> Result<Self, UnitsError> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(FOLDER_MODE)
            .create(folder)
            .map_err(|source| UnitsError::Io {
                doing: "make",
                path: folder.to_owned(),
                source,
            })?;
        let units = Self {
            folder: folder.to_owned(),
            writing: Arc::default(),
        };
        let names = units.names()?;
        let pairless = |name: &str| {
            yaml_pod(name).is_some_and(|workload| !names.contains(&kube_file(workload)))
        };
        let litter = names
            .iter()
            .filter(|name| is_partial(name) || pairless(name));
        let mut steps: Vec<_> = litter
            .map(|name| Step::Unlink { name: name.clone() })
            .collect();
        if !steps.is_empty() {
            steps.push(Step::SyncFolder);
        }
        units.run(&steps)?;
        Ok(units)
    }

    /// After a success, the new pair survives a power cut; after a failure, the previous one does.
    pub(crate) fn put(&self, files: &UnitFiles) -> Result<(), UnitsError> {
        checked(&files.workload)?;
        check_kube(files).map_err(|reason| UnitsError::Refused {
            workload: files.workload.clone(),
            reason,
        })?;
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        self.run(&put_steps(files)).inspect_err(|_| {
            // Frees space on a full disk. The first error is the one to report.
            for name in [
                yaml_file(&files.workload, files.index),
                kube_file(&files.workload),
            ] {
                drop(fs::remove_file(self.folder.join(format!("{name}.partial"))));
            }
        })
    }

    /// Returns true if the YAML of this revision is written.
    pub(crate) fn has(&self, workload: &str, index: u64) -> bool {
        is_pod_name(workload) && self.folder.join(yaml_file(workload, index)).exists()
    }

    /// Removes the pair and every other YAML file of the workload.
    pub(crate) fn remove(&self, workload: &str) -> Result<(), UnitsError> {
        let workload = checked(workload)?;
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        self.run(&remove_steps(workload, self.yamls(workload)?))
    }

    /// Removes the YAML files of the workload that its `.kube` does not name.
    pub(crate) fn tidy(&self, workload: &str) -> Result<(), UnitsError> {
        let workload = checked(workload)?;
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let kube = self.kube(workload)?.unwrap_or_default();
        let keep = named_yaml(&kube);
        let old = self
            .yamls(workload)?
            .into_iter()
            .filter(|name| Some(name.as_str()) != keep);
        let mut steps: Vec<_> = old.map(|name| Step::Unlink { name }).collect();
        steps.push(Step::SyncFolder);
        self.run(&steps)
    }

    /// The text of every `.kube` file by workload, cut to what the gateway receives.
    pub(crate) fn kubes(&self) -> Result<BTreeMap<String, String>, UnitsError> {
        let mut kubes = BTreeMap::new();
        for name in self.names()? {
            let Some(workload) = kube_pod(&name) else {
                continue;
            };
            if let Some(mut kube) = self.kube(workload)? {
                kube.truncate(kube.floor_char_boundary(KUBE_BYTES_MAX));
                kubes.insert(workload.to_owned(), kube);
            }
        }
        Ok(kubes)
    }

    fn kube(&self, workload: &str) -> Result<Option<String>, UnitsError> {
        let path = self.folder.join(kube_file(workload));
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
            Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(UnitsError::Io {
                doing: "read",
                path,
                source,
            }),
        }
    }

    fn yamls(&self, workload: &str) -> Result<Vec<String>, UnitsError> {
        let mut names = self.names()?;
        names.retain(|name| yaml_pod(name) == Some(workload));
        Ok(names)
    }

    fn names(&self) -> Result<Vec<String>, UnitsError> {
        let list = || -> io::Result<Vec<String>> {
            let mut names = Vec::new();
            for entry in fs::read_dir(&self.folder)? {
                // Beemesh writes no file names that are not UTF-8.
                names.extend(entry?.file_name().into_string());
            }
            names.sort();
            Ok(names)
        };
        list().map_err(|source| UnitsError::Io {
            doing: "list",
            path: self.folder.clone(),
            source,
        })
    }

    fn run(&self, steps: &[Step<'_>]) -> Result<(), UnitsError> {
        steps.iter().try_for_each(|step| self.carry_out(step))
    }

    fn carry_out(&self, step: &Step<'_>) -> Result<(), UnitsError> {
        let (doing, path, result) = match step {
            Step::Write { name, bytes } => {
                let path = self.folder.join(name);
                ("write", path.clone(), write(&path, bytes))
            }
            Step::Rename { from, to } => {
                let path = self.folder.join(to);
                (
                    "rename to",
                    path.clone(),
                    fs::rename(self.folder.join(from), path),
                )
            }
            Step::Unlink { name } => {
                let path = self.folder.join(name);
                let result = fs::remove_file(&path);
                (
                    "remove",
                    path,
                    result.or_else(|err| {
                        if err.kind() == io::ErrorKind::NotFound {
                            Ok(())
                        } else {
                            Err(err)
                        }
                    }),
                )
            }
            Step::SyncFolder => (
                "sync",
                self.folder.clone(),
                File::open(&self.folder).and_then(|folder| folder.sync_all()),
            ),
        };
        result.map_err(|source| UnitsError::Io {
            doing,
            path,
            source,
        })
    }
}

fn is_partial(name: &str) -> bool {
    let whole = name.strip_suffix(".partial");
    whole.is_some_and(|whole| kube_pod(whole).is_some() || yaml_pod(whole).is_some())
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(FILE_MODE)
        .open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests;
