//! What can be written on the command line.

#[path = "args/examples.rs"]
mod examples;
#[path = "args/manifests.rs"]
mod manifests;
#[path = "args/rollout.rs"]
mod rollout;

use std::{ffi::OsString, net::IpAddr, path::PathBuf, time::Duration};

use clap::{Parser, Subcommand, ValueEnum};

pub(crate) use manifests::{Apply, Delete, Diff};
pub(crate) use rollout::{Forced, Named, Rollout, Scale};

/// Where the gateway of this host listens.
pub(crate) const SOCKET: &str = "/run/beemesh/gateway.sock";

/// The heading of options that every command has.
const GLOBAL: &str = "Global options";

/// The timeout of a `--wait` without a value.
const WAIT: &str = "120s";

const AFTER_HELP: &str = "\
Examples:
  # Create a join token on a member, and join another host with it
  beemesh token create
  beemesh join beemesh1-...

  # Apply a manifest and wait until it is rolled out
  beemesh apply -f web.yaml --wait

  # List workloads and hosts
  beemesh get workloads
  beemesh get hosts

Exit status:
  0    Success
  1    The operation failed, or was not finished in time
  2    Usage error
  3    The gateway could not be reached
  130  Interrupted (Ctrl-C) during --wait";

/// Run Kubernetes manifests on a cluster of Podman hosts
#[derive(Debug, Parser)]
#[command(name = "beemesh", version, after_help = AFTER_HELP, max_term_width = 100)]
pub(crate) struct Args {
    /// Socket of the gateway on this host
    #[arg(long, global = true, help_heading = GLOBAL, value_name = "PATH", env = "BEEMESH_SOCKET", default_value = SOCKET)]
    pub(crate) socket: PathBuf,
    /// Connect to a remote cluster with this user's configuration file (see `beemesh user create`)
    #[arg(
        long,
        global = true,
        help_heading = GLOBAL,
        value_name = "FILE",
        env = "BEEMESH_CONFIG",
        conflicts_with = "socket"
    )]
    pub(crate) config: Option<PathBuf>,
    /// Request timeout, such as 30s or 2m
    #[arg(long, global = true, help_heading = GLOBAL, value_name = "TIME", default_value = "10s", value_parser = duration)]
    pub(crate) timeout: Duration,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Apply a manifest to the cluster
    ///
    /// An apply adds and changes objects. Objects of the manifest that the file no longer contains stay, unless `--prune` is set.
    /// Either the whole file is applied, or nothing changes. A changed workload is rolled out host by host, as its strategy says;
    /// if its new revision fails, the hosts go back to the revision before it. Several files are applied one after the other,
    /// each as a manifest of its own; the first error stops.
    ///
    /// A URL is read by this command, over TLS with the certificate authorities of the system, without a proxy: at most 1 MiB,
    /// after at most 5 redirects, within `--timeout`. Its SHA-256 digest is printed to standard error.
    #[command(after_help = examples::APPLY)]
    Apply(Apply),
    /// Compare manifest files with the cluster
    ///
    /// Prints a unified diff of what the cluster has and what it would have after `beemesh apply` of the same files. Nothing
    /// changes. Values of Secrets are not shown: a hash that only this answer uses shows whether a value would change.
    #[command(after_help = examples::DIFF)]
    Diff(Diff),
    /// Display workloads, hosts, manifests or the audit log
    #[command(after_help = examples::GET)]
    Get(Get),
    /// Display this host's view of the cluster; works without quorum
    #[command(after_help = examples::STATUS)]
    Status(Output),
    /// Delete a workload, or all objects of a manifest
    #[command(after_help = examples::DELETE)]
    Delete(Delete),
    /// Display, undo, pause, resume or restart the rollout of a workload
    #[command(subcommand)]
    Rollout(Rollout),
    /// Set the number of replicas of a Deployment
    #[command(after_help = examples::SCALE)]
    Scale(Scale),
    /// Replace all pods of a workload, host by host, as `rollout restart` does
    #[command(after_help = examples::RESTART)]
    Restart(Forced),
    /// Stop a workload: end its pods on all hosts, and start none until `start`
    ///
    /// The workload stays in the cluster, with its history, its name, its ports and the data of its claims. It stays stopped when
    /// hosts reboot or join. An `apply` of its file starts it again, unless the file has the annotation
    /// `beemesh.io/stopped: "true"`; `diff` shows that. A Job cannot be stopped.
    #[command(after_help = examples::STOP)]
    Stop(Named),
    /// Start a workload that was stopped
    #[command(after_help = examples::START)]
    Start(Forced),
    /// Print the logs of a workload's containers
    #[command(after_help = examples::LOGS)]
    Logs(Logs),
    /// Manage the hosts of the cluster
    #[command(subcommand)]
    Host(Host),
    /// Write a backup of all manifests, Secrets and the policy to standard output
    #[command(after_help = examples::BACKUP)]
    Backup,
    /// Restore a backup into a new cluster
    #[command(after_help = examples::RESTORE)]
    Restore(Restore),
    /// Display or replace the admission policy
    #[command(subcommand)]
    Policy(Policy),
    /// Create, list and revoke join tokens
    #[command(subcommand)]
    Token(Token),
    /// Create, list and revoke users of the remote API
    #[command(subcommand)]
    User(User),
    /// Join this host to a cluster
    #[command(after_help = examples::JOIN)]
    Join(Join),
    /// Print the completion script for a shell
    #[command(after_help = examples::COMPLETION)]
    Completion {
        /// Shell
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct Get {
    /// Resource type
    pub(crate) what: What,
    /// Name of one resource
    pub(crate) name: Option<String>,
    /// Show this host's view, which may be stale; works without quorum
    #[arg(long)]
    pub(crate) stale: bool,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum What {
    /// Workloads (Pods, Deployments, ReplicaSets, ReplicationControllers, DaemonSets and Jobs)
    #[value(alias = "workload")]
    Workloads,
    /// Hosts of the cluster
    #[value(alias = "host")]
    Hosts,
    /// Applied manifests
    #[value(alias = "manifest")]
    Manifests,
    /// Audit log (last 1000 changes)
    Audit,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Restore {
    /// Backup file, as written by `beemesh backup`; - reads standard input
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Logs {
    /// Name of the workload
    pub(crate) workload: String,
    /// Host whose containers to read (default: this host if it runs the workload, else another that does)
    #[arg(long)]
    pub(crate) host: Option<String>,
    /// Pod whose containers to read, where a host has several, such as web__1 (default: all on the host)
    #[arg(long)]
    pub(crate) pod: Option<String>,
    /// Follow log output
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Number of lines to show from the end of the logs
    #[arg(long, value_name = "LINES")]
    pub(crate) tail: Option<u32>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Host {
    /// List the hosts of the cluster
    #[command(after_help = examples::HOST_LIST)]
    List {
        /// Show this host's view, which may be stale; works without quorum
        #[arg(long)]
        stale: bool,
        #[command(flatten)]
        output: Output,
    },
    /// Display one host in detail
    #[command(after_help = examples::HOST_SHOW)]
    Show {
        /// Name of the host
        name: String,
        /// Show this host's view, which may be stale; works without quorum
        #[arg(long)]
        stale: bool,
        #[command(flatten)]
        output: Output,
    },
    /// Set or remove labels of a host, which `nodeSelector` can match
    #[command(after_help = examples::HOST_LABEL)]
    Label {
        /// Name of the host
        name: String,
        /// KEY=VALUE sets a label, KEY- removes it
        #[arg(required = true, value_name = "LABEL")]
        labels: Vec<String>,
        #[command(flatten)]
        output: Output,
    },
    /// Evict all workloads from a host and keep new ones off it, until `undrain`
    ///
    /// Replicas of Deployments move to other hosts. A replica with a PersistentVolumeClaim stops and waits for this host, which
    /// holds its data. A running Job runs to completion. The host is drained when it runs no workload and the
    /// moved replicas run elsewhere.
    #[command(after_help = examples::HOST_DRAIN)]
    Drain {
        /// Name of the host
        name: String,
        /// Timeout for the drain (`--wait=30s`)
        #[arg(long, value_name = "TIME", num_args = 0..=1, require_equals = true, default_value = WAIT, default_missing_value = WAIT, value_parser = duration)]
        wait: Duration,
        /// Move replicas with claims too; they start with empty volumes, and the data stays on this host
        #[arg(long)]
        move_without_data: bool,
        #[command(flatten)]
        output: Output,
    },
    /// Let a drained host run workloads again
    #[command(after_help = examples::HOST_UNDRAIN)]
    Undrain {
        /// Name of the host
        name: String,
        #[command(flatten)]
        output: Output,
    },
    /// Say that an unreachable host is lost: its pods start on other hosts at once
    ///
    /// The cluster says so by itself when no member has reached the host for 30 seconds. Make sure that the host is off: pods
    /// that still run there run twice until the host returns. A pod with a PersistentVolumeClaim waits for its host, which
    /// has its data. The host is no longer lost when it returns.
    #[command(after_help = examples::HOST_LOST)]
    Lost {
        /// Name of the host
        name: String,
        #[command(flatten)]
        output: Output,
    },
    /// Rotate this host's identity key
    ///
    /// Workloads keep running, and the host keeps its name, labels and role. The old key is no longer valid. A majority of the
    /// other voters, and at least one, must be reachable.
    #[command(after_help = examples::HOST_ROTATE_KEY)]
    RotateKey {
        #[command(flatten)]
        output: Output,
    },
    /// Remove a host from the cluster
    ///
    /// Its workloads keep running there as local units; drain the host first to move them. The host can join again with a
    /// new token.
    #[command(after_help = examples::HOST_REMOVE)]
    Remove {
        /// Name of the host; it cannot be this host
        name: String,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Policy {
    /// Print the policy, in the format that `policy set` reads
    #[command(after_help = examples::POLICY_SHOW)]
    Show {
        /// Show this host's view, which may be stale; works without quorum
        #[arg(long)]
        stale: bool,
        /// Output format
        #[arg(short, long, value_name = "FORMAT", default_value = "yaml")]
        output: PolicyFormat,
    },
    /// Replace the policy
    ///
    /// The new policy applies to manifests from now on; running workloads are not affected. A rule that the file omits has its
    /// default value. The default policy refuses everything that gives a pod access to its host.
    #[command(after_help = examples::POLICY_SET)]
    Set(SetPolicy),
}

#[derive(Debug, clap::Args)]
pub(crate) struct SetPolicy {
    /// Policy file (YAML or JSON); - reads standard input
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Replace only if the current version is VERSION
    #[arg(long, value_name = "VERSION")]
    pub(crate) if_version: Option<u64>,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PolicyFormat {
    Yaml,
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Token {
    /// Create a join token and print it
    #[command(after_help = examples::TOKEN_CREATE)]
    Create {
        /// Validity of the token, at most 7d
        #[arg(long, value_name = "TIME", default_value = "1h", value_parser = duration)]
        ttl: Duration,
        /// Number of hosts that can join with the token
        #[arg(long, value_name = "HOSTS", default_value_t = 1)]
        uses: u32,
        #[command(flatten)]
        output: Output,
    },
    /// List valid join tokens, without their secrets
    #[command(after_help = examples::TOKEN_LIST)]
    List(Output),
    /// Revoke a join token
    #[command(after_help = examples::TOKEN_REVOKE)]
    Revoke {
        /// Token ID, from `beemesh token list`
        id: String,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum User {
    /// Create a user and print the configuration file for `beemesh --config`
    ///
    /// For an existing user this issues a new certificate and revokes the old one. A host serves remote users if `api-port` is
    /// set in /etc/beemesh/agent.toml.d.
    #[command(after_help = examples::USER_CREATE)]
    Create {
        /// Name of the user
        name: String,
        /// Role of the user
        #[arg(long)]
        role: Role,
        /// Validity of the certificate
        #[arg(long, value_name = "TIME", default_value = "365d", value_parser = duration)]
        ttl: Duration,
        #[command(flatten)]
        output: Output,
    },
    /// List users
    #[command(after_help = examples::USER_LIST)]
    List(Output),
    /// Revoke a user's certificate and close the user's connections
    #[command(after_help = examples::USER_REVOKE)]
    Revoke {
        /// Name of the user
        name: String,
        #[command(flatten)]
        output: Output,
    },
    /// Revoke all certificates and replace the certificate authority
    ///
    /// Use this after the theft of a disk or the removal of an untrusted host: every host holds the key of the authority.
    #[command(after_help = examples::USER_RESET)]
    Reset {
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// Read workloads, logs and hosts
    Viewer,
    /// Also apply manifests and delete workloads
    Deployer,
    /// Everything that the remote API offers
    Admin,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Join {
    /// Token, as printed by `beemesh token create` on a member; - reads standard input
    pub(crate) token: String,
    /// IP address at which other hosts reach this one, instead of its interface addresses (repeatable)
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) advertise: Vec<IpAddr>,
    /// Replace the lost member NAME and take over its labels
    #[arg(long, value_name = "NAME")]
    pub(crate) replace: Option<String>,
}

#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct Output {
    /// Output format
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub(crate) output: Format,
}

impl Output {
    pub(crate) fn json(self) -> bool {
        self.output == Format::Json
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Table,
    Json,
}

/// Joins `--wait 30s` into `--wait=30s`. The value of `--wait` is optional, so that clap alone would take `--wait web` for a
/// time; here only what is a time belongs to the option, and everything else stays an argument of its own.
pub(crate) fn join_wait(args: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut args = args.into_iter().peekable();
    let mut joined = Vec::new();
    let mut options = true;
    while let Some(arg) = args.next() {
        options &= arg != "--";
        let time = (options && arg == "--wait")
            .then(|| args.next_if(|next| next.to_str().is_some_and(|next| duration(next).is_ok())))
            .flatten();
        joined.push(match time {
            Some(time) => [OsString::from("--wait="), time].into_iter().collect(),
            None => arg,
        });
    }
    joined
}

/// `90`, `90s`, `5m`, `1h` or `7d`.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong =
        || format!("invalid time `{text}`: use a number and a unit, such as 30s, 5m, 1h or 7d");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 24 * 3600,
        _ => return Err(wrong()),
    };
    let count: u64 = digits.parse().map_err(|_| wrong())?;
    match count.checked_mul(unit) {
        Some(seconds @ 1..) => Ok(Duration::from_secs(seconds)),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent_and_reads_times() {
        Args::command().debug_assert();
        for (text, expected) in [
            ("90", Some(90)),
            ("30s", Some(30)),
            ("2m", Some(120)),
            ("7d", Some(604_800)),
            ("0", None),
            ("h", None),
            ("1y", None),
            ("99999999999999999999d", None),
        ] {
            assert_eq!(
                duration(text).ok(),
                expected.map(Duration::from_secs),
                "{text}"
            );
        }
        let parse = |args: &[&str]| {
            let args = ["beemesh"].iter().chain(args).map(OsString::from);
            Args::try_parse_from(join_wait(args)).map(|args| args.command)
        };
        let apply = |args: &[&str]| {
            let args = [&["apply", "-f", "-"], args].concat();
            match parse(&args).unwrap() {
                Command::Apply(apply) => apply.wait.map(|wait| wait.as_secs()),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(apply(&[]), None);
        assert_eq!(apply(&["--wait"]), Some(120));
        assert_eq!(apply(&["--wait=60"]), Some(60));
        assert_eq!(apply(&["--wait", "30s"]), Some(30));
        assert_eq!(apply(&["--wait", "--strict"]), Some(120));
        let delete = |args: &[&str]| {
            let args = [&["delete"], args].concat();
            match parse(&args).unwrap() {
                Command::Delete(delete) => (delete.name, delete.wait.map(|wait| wait.as_secs())),
                other => panic!("{other:?}"),
            }
        };
        let web = || Some("web".to_owned());
        assert_eq!(delete(&["--wait", "web"]), (web(), Some(120)));
        assert_eq!(delete(&["--wait", "30s", "web"]), (web(), Some(30)));
        assert_eq!(delete(&["web", "--wait", "30s"]), (web(), Some(30)));
        assert_eq!(delete(&["--", "web"]), (web(), None));
        let drain = |args: &[&str]| {
            let args = [&["host", "drain"], args].concat();
            match parse(&args).unwrap() {
                Command::Host(Host::Drain { name, wait, .. }) => (name, wait.as_secs()),
                other => panic!("{other:?}"),
            }
        };
        let h1 = || "h1".to_owned();
        assert_eq!(drain(&["h1"]), (h1(), 120));
        assert_eq!(drain(&["--wait", "h1"]), (h1(), 120));
        assert_eq!(drain(&["--wait", "5m", "h1"]), (h1(), 300));
        assert_eq!(drain(&["h1", "--wait=5m"]), (h1(), 300));
        assert!(parse(&["delete", "web", "--wait=soon"]).is_err());
        let count = |args: &[&str]| match parse(args).unwrap() {
            Command::Apply(Apply { sources, .. }) | Command::Diff(Diff { sources, .. }) => {
                (sources.file.len(), sources.recursive)
            }
            Command::Delete(delete) => (delete.file.len(), delete.recursive),
            other => panic!("{other:?}"),
        };
        for command in ["apply", "diff", "delete"] {
            let (one, two) = (["-f", "a"], ["-R", "-f", "a", "--file=b"]);
            assert_eq!(count(&[&[command], &one[..]].concat()), (1, false));
            assert_eq!(count(&[&[command], &two[..]].concat()), (2, true));
            assert!(parse(&[command, "-f", "a", "b"]).is_err(), "{command}");
            assert!(parse(&[command]).is_err(), "{command}");
        }
        assert!(parse(&["delete", "web", "-R"]).is_err());
    }

    /// kubectl's and podman's form: an imperative verb or a noun, no full stop.
    #[test]
    fn help_texts_have_one_form() {
        fn walk(command: &clap::Command, offenders: &mut Vec<String>) {
            let about = command.get_about().map(ToString::to_string);
            let helps = command.get_arguments().map(|one| one.get_help());
            let helps = helps.map(|help| help.map(ToString::to_string).unwrap_or_default());
            let texts = about.into_iter().chain(helps);
            offenders.extend(texts.filter(|text| {
                let verb = text.split(' ').next().unwrap_or_default();
                text.is_empty() || text.ends_with('.') || verb.ends_with("es") || verb == "How"
            }));
            for one in command.get_subcommands() {
                walk(one, offenders);
            }
        }
        let mut offenders = Vec::new();
        walk(&Args::command(), &mut offenders);
        assert_eq!(offenders, Vec::<String>::new());
    }
}
