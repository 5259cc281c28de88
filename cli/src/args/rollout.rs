//! The commands about rollouts.
//!
//! Pure: text.

use std::time::Duration;

use clap::Subcommand;

use super::{Output, duration, examples};

#[derive(Debug, Subcommand)]
pub(crate) enum Rollout {
    /// Show the status of the rollout, and wait for its end
    #[command(after_help = examples::ROLLOUT_STATUS)]
    Status {
        /// Name of the workload
        workload: String,
        /// Timeout for the wait
        #[arg(long, value_name = "TIME", default_value = "10m", value_parser = duration)]
        wait: Duration,
        /// Wait until the rollout has ended (`--watch=false` shows its status only)
        #[arg(short, long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true", action = clap::ArgAction::Set)]
        watch: bool,
        #[command(flatten)]
        output: Output,
    },
    /// List the kept revisions
    #[command(after_help = examples::ROLLOUT_HISTORY)]
    History {
        /// Name of the workload
        workload: String,
        /// Show the details of this revision
        #[arg(long, value_name = "NUMBER")]
        revision: Option<u64>,
        #[command(flatten)]
        output: Output,
    },
    /// Roll back to an earlier revision
    ///
    /// The contents of that revision become the latest revision, with the ConfigMaps and Secrets that it ran with. ConfigMaps and
    /// Secrets that other workloads use do not change.
    #[command(after_help = examples::ROLLOUT_UNDO)]
    Undo {
        /// Name of the workload
        workload: String,
        /// Revision to return to; 0 means the last one that was ready before the latest
        #[arg(long, value_name = "NUMBER", default_value_t = 0)]
        to_revision: u64,
        /// Do it although a host cannot get an image, or does not answer
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        output: Output,
    },
    /// Pause the rollouts of a workload: no further host gets a new revision
    #[command(after_help = examples::ROLLOUT_PAUSE)]
    Pause {
        /// Name of the workload
        workload: String,
        #[command(flatten)]
        output: Output,
    },
    /// Resume the rollouts of a workload
    #[command(after_help = examples::ROLLOUT_RESUME)]
    Resume {
        /// Name of the workload
        workload: String,
        #[command(flatten)]
        output: Output,
    },
    /// Replace all pods of a workload, host by host
    #[command(after_help = examples::ROLLOUT_RESTART)]
    Restart(Forced),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Named {
    /// Name of the workload
    pub(crate) workload: String,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Forced {
    #[command(flatten)]
    pub(crate) named: Named,
    /// Do it although a host cannot get an image, or does not answer
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Scale {
    /// Name of the Deployment; a stopped one stays stopped
    pub(crate) workload: String,
    /// Number of replicas in the cluster
    #[arg(long, value_name = "NUMBER")]
    pub(crate) replicas: u32,
    /// Do it although a host cannot get an image, or does not answer
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) output: Output,
}
