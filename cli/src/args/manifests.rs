//! The commands that read manifest files.
//!
//! Pure: text.

use std::{path::PathBuf, time::Duration};

use super::{Output, WAIT, duration};

/// Where manifests are read from.
#[derive(Debug, clap::Args)]
pub(crate) struct Sources {
    /// Manifest file (Kubernetes YAML), folder of such files or https:// URL (repeatable); - reads standard input
    ///
    /// Of a folder, its *.yaml, *.yml and *.json files are read in the order of their names. Each file is one manifest.
    #[arg(short, long, value_name = "FILE", required = true)]
    pub(crate) file: Vec<PathBuf>,
    /// Also read the files in folders of a folder
    #[arg(short = 'R', long)]
    pub(crate) recursive: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Apply {
    #[command(flatten)]
    pub(crate) sources: Sources,
    /// Manifest name (default: name of the first object that is kept); only with one file
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Wait until rolled out; optional timeout (`--wait=30s`, default 120s)
    ///
    /// A workload is rolled out when the requested number of pods has been ready for two seconds, or for
    /// `minReadySeconds`, and none of their containers has exited. Otherwise the exit status is 1, and the error says why.
    /// After several files, the wait is for the workloads of all of them together.
    #[arg(long, value_name = "TIME", num_args = 0..=1, require_equals = true, default_missing_value = WAIT, value_parser = duration)]
    pub(crate) wait: Option<Duration>,
    /// Seconds that pods must be ready at the end of the wait; for tests
    #[arg(
        long,
        hide = true,
        value_name = "SECONDS",
        env = "BEEMESH_STABLE",
        hide_env = true
    )]
    pub(crate) stable: Option<u64>,
    /// Show what would change, without applying it
    ///
    /// Each file is compared with the cluster as it is. Files after the first may refer to objects that do not exist yet.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Delete the objects of the manifest that the file no longer contains
    #[arg(long)]
    pub(crate) prune: bool,
    /// Apply even if a host has no image, cannot pull it, or does not answer
    ///
    /// The hosts then pull the images when they start the pods. It overrides no policy, no host port that is in use, and
    /// no error in the manifest.
    #[arg(long)]
    pub(crate) force: bool,
    /// Treat warnings as errors
    #[arg(long)]
    pub(crate) strict: bool,
    /// Accept references to ConfigMaps, Secrets or keys that do not exist yet
    ///
    /// The workload, or its new revision, stays pending until they exist; the running revision is kept.
    #[arg(long)]
    pub(crate) wait_for_references: bool,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Diff {
    #[command(flatten)]
    pub(crate) sources: Sources,
    /// Manifest name (default: name of the first object that is kept); only with one file
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Show what `apply --prune` would do: delete the objects of the manifest that the file no longer contains
    #[arg(long)]
    pub(crate) prune: bool,
    /// Treat warnings as errors
    #[arg(long)]
    pub(crate) strict: bool,
    /// Accept references to ConfigMaps, Secrets or keys that do not exist yet
    #[arg(long)]
    pub(crate) wait_for_references: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Delete {
    /// Name of the workload
    #[arg(required_unless_present_any = ["file", "manifest"])]
    pub(crate) name: Option<String>,
    /// Delete the manifest that this file applies (also a folder or https:// URL; repeatable); - reads standard input
    ///
    /// The manifests of several files are deleted in the reverse order of an apply.
    #[arg(short, long, value_name = "FILE", conflicts_with_all = ["name", "manifest"])]
    pub(crate) file: Vec<PathBuf>,
    /// Also read the files in folders of a folder
    #[arg(short = 'R', long, conflicts_with_all = ["name", "manifest"])]
    pub(crate) recursive: bool,
    /// Delete the manifest with this name and all its objects
    #[arg(long, value_name = "NAME", conflicts_with = "name")]
    pub(crate) manifest: Option<String>,
    /// Wait until removed from all hosts; optional timeout (`--wait=30s`, default 120s)
    #[arg(long, value_name = "TIME", num_args = 0..=1, require_equals = true, default_missing_value = WAIT, value_parser = duration)]
    pub(crate) wait: Option<Duration>,
    #[command(flatten)]
    pub(crate) output: Output,
}
