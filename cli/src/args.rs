//! What can be written on the command line.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use clap::{Parser, Subcommand, ValueEnum};

/// Where the gateway of this host listens.
pub(crate) const SOCKET: &str = "/run/beemesh/gateway.sock";

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed, or not done in time
  2  the command line makes no sense
  3  the gateway of this host cannot be reached";

/// Runs Kubernetes manifests on every host of a Podman cluster.
#[derive(Debug, Parser)]
#[command(name = "beemesh", version, after_help = EXIT_CODES, max_term_width = 100)]
pub(crate) struct Args {
    /// The socket of this host's gateway
    #[arg(long, global = true, value_name = "PATH", env = "BEEMESH_SOCKET", default_value = SOCKET)]
    pub(crate) socket: PathBuf,
    /// Asks a cluster elsewhere, as the user for whom `user create` printed this file
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "BEEMESH_CONFIG",
        conflicts_with = "socket"
    )]
    pub(crate) config: Option<PathBuf>,
    /// How long the gateway and the cluster may take to answer, such as 30s or 2m
    #[arg(long, global = true, value_name = "TIME", default_value = "10s", value_parser = duration)]
    pub(crate) timeout: Duration,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Runs what a file describes, on every host that should
    ///
    /// The file replaces what was applied under the same name before: objects that it no longer has are removed. All of
    /// it is done, or nothing.
    #[command(after_help = EXIT_CODES)]
    Apply(Apply),
    /// Shows workloads, hosts, manifests or who changed what
    Get(Get),
    /// Shows what this host knows of itself and the cluster, even without a quorum
    Status(Output),
    /// Removes a workload from the cluster, or what a file describes
    #[command(after_help = EXIT_CODES)]
    Delete(Delete),
    /// Shows the output of a workload's containers
    Logs(Logs),
    /// Shows the members of the cluster, and changes, drains or removes one
    #[command(subcommand)]
    Host(Host),
    /// Writes everything that was applied to standard output, Secrets too
    Backup,
    /// Applies what a backup holds, in a new cluster
    #[command(after_help = EXIT_CODES)]
    Restore(Restore),
    /// Shows what manifests may ask of the hosts, and changes it
    #[command(subcommand)]
    Policy(Policy),
    /// Makes tokens for new hosts, lists them and takes them back
    #[command(subcommand)]
    Token(Token),
    /// Makes users who can ask from elsewhere, lists them and takes their certificates back
    #[command(subcommand)]
    User(User),
    /// Makes this host a member of the cluster that made the token
    Join(Join),
    /// Prints completions for a shell
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct Apply {
    /// The manifest: a file of Kubernetes YAML, or - for standard input
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Names the manifest; otherwise its first object does
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Waits until it runs, at most so long
    ///
    /// It runs when as many pods as were asked for have been ready for two seconds, or for `minReadySeconds`, and no container
    /// of them has ended. Otherwise the exit code is 1, and the error says why.
    #[arg(long, value_name = "TIME", num_args = 0..=1, require_equals = true, default_missing_value = "120s", value_parser = duration)]
    pub(crate) wait: Option<Duration>,
    /// How many seconds pods must be ready at the end of the wait, for tests that make many
    #[arg(
        long,
        hide = true,
        value_name = "SECONDS",
        env = "BEEMESH_STABLE",
        hide_env = true
    )]
    pub(crate) stable: Option<u64>,
    /// Says what would happen, and does nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Refuses what would otherwise only be warned about
    #[arg(long)]
    pub(crate) strict: bool,
    /// Accepts what refers to ConfigMaps, Secrets or keys that are not there
    ///
    /// The workload, or its new revision, waits for them, and says so; what runs goes on.
    #[arg(long)]
    pub(crate) wait_for_references: bool,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Get {
    /// What to show
    pub(crate) what: What,
    /// Only this one, in more detail
    pub(crate) name: Option<String>,
    /// Takes what this host knows, without asking the others whether that is the latest
    #[arg(long)]
    pub(crate) stale: bool,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum What {
    /// What the cluster runs
    #[value(alias = "workload")]
    Workloads,
    /// The members of the cluster
    #[value(alias = "host")]
    Hosts,
    /// What was applied
    #[value(alias = "manifest")]
    Manifests,
    /// Who changed what: the latest thousand changes
    Audit,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Delete {
    /// The workload
    #[arg(required_unless_present_any = ["file", "manifest"])]
    pub(crate) name: Option<String>,
    /// Removes the manifest that this file would apply
    #[arg(short, long, value_name = "FILE", conflicts_with_all = ["name", "manifest"])]
    pub(crate) file: Option<PathBuf>,
    /// Removes the manifest of this name, with all it holds
    #[arg(long, value_name = "NAME", conflicts_with = "name")]
    pub(crate) manifest: Option<String>,
    /// Waits until all hosts are rid of it, at most so long
    #[arg(long, value_name = "TIME", num_args = 0..=1, require_equals = true, default_missing_value = "120s", value_parser = duration)]
    pub(crate) wait: Option<Duration>,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Restore {
    /// What `beemesh backup` wrote, or - for standard input
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Logs {
    /// The workload
    pub(crate) workload: String,
    /// The host whose containers are meant; otherwise this one, if it runs the workload, or another that does
    #[arg(long)]
    pub(crate) host: Option<String>,
    /// Goes on with what comes
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Begins with the last lines only
    #[arg(long, value_name = "LINES")]
    pub(crate) tail: Option<u32>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Host {
    /// Shows all
    List {
        /// Takes what this host knows, without asking the others whether that is the latest
        #[arg(long)]
        stale: bool,
        #[command(flatten)]
        output: Output,
    },
    /// Shows one, in more detail
    Show {
        /// The host
        name: String,
        /// Takes what this host knows, without asking the others whether that is the latest
        #[arg(long)]
        stale: bool,
        #[command(flatten)]
        output: Output,
    },
    /// Changes the labels that a `nodeSelector` can ask for
    Label {
        /// The host
        name: String,
        /// KEY=VALUE sets a label, KEY- takes it away
        #[arg(required = true, value_name = "LABEL")]
        labels: Vec<String>,
        #[command(flatten)]
        output: Output,
    },
    /// Takes all workloads from a host, until `undrain`
    ///
    /// A replica with a claim stops and waits for the host, which has its data; a Job that runs there runs to its end.
    ///
    /// Those that run on a number of hosts go to others. It is done when they run there, and the host has nothing any more.
    Drain {
        /// The host
        name: String,
        /// How long that may take
        #[arg(long, value_name = "TIME", default_value = "120s", value_parser = duration)]
        wait: Duration,
        /// Run what has data there on other hosts, where it begins with empty volumes; the data stays
        #[arg(long)]
        move_without_data: bool,
        #[command(flatten)]
        output: Output,
    },
    /// Lets a host run workloads again
    Undrain {
        /// The host
        name: String,
        #[command(flatten)]
        output: Output,
    },
    /// Gives this host another key, while it stays what it is
    ///
    /// What it runs goes on. The old key opens nothing any more. More than half of the other voters must be reachable, and one at least.
    RotateKey {
        #[command(flatten)]
        output: Output,
    },
    /// Takes a host out of the cluster
    ///
    /// What it runs stays there as units of that host: `drain` first if it should not. It can join again with a new token.
    Remove {
        /// The host; another than this one
        name: String,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Policy {
    /// Prints the rules, one on each line, as `set` takes them
    Show {
        /// Takes what this host knows, without asking the others whether that is the latest
        #[arg(long)]
        stale: bool,
        /// How to print it
        #[arg(short, long, value_name = "FORMAT", default_value = "yaml")]
        output: PolicyFormat,
    },
    /// Replaces all rules, for what is applied from now on
    ///
    /// A rule that the file leaves out is as in the default, which refuses whatever lets a pod out of its container. What runs
    /// already goes on.
    #[command(after_help = EXIT_CODES)]
    Set(SetPolicy),
}

#[derive(Debug, clap::Args)]
pub(crate) struct SetPolicy {
    /// The rules as YAML or JSON, or - for standard input
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Only if the policy still has this version
    #[arg(long, value_name = "VERSION")]
    pub(crate) if_version: Option<u64>,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PolicyFormat {
    /// One rule on each line
    Yaml,
    /// For programs
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Token {
    /// Prints a token with which a new host can join
    Create {
        /// How long it can be used, at most 7d
        #[arg(long, value_name = "TIME", default_value = "1h", value_parser = duration)]
        ttl: Duration,
        /// How many hosts can join with it
        #[arg(long, value_name = "HOSTS", default_value_t = 1)]
        uses: u32,
        #[command(flatten)]
        output: Output,
    },
    /// Shows the tokens that can be used, without their secrets
    List(Output),
    /// Takes a token back: nobody can join with it any more
    Revoke {
        /// What `beemesh token list` calls it
        id: String,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum User {
    /// Prints the configuration with which a new user asks from elsewhere: `beemesh --config FILE`
    ///
    /// For a user who exists, it is a new certificate, and the one before it is void. A host takes such requests where `api-port`
    /// is set in /etc/beemesh/agent.toml.d.
    Create {
        /// The user
        name: String,
        /// What the user may do
        #[arg(long)]
        role: Role,
        /// How long the certificate is good for
        #[arg(long, value_name = "TIME", default_value = "365d", value_parser = duration)]
        ttl: Duration,
        #[command(flatten)]
        output: Output,
    },
    /// Shows the users
    List(Output),
    /// Takes a user's certificate back, and ends the connections
    Revoke {
        /// The user
        name: String,
        #[command(flatten)]
        output: Output,
    },
    /// Revokes all, and makes what issues certificates anew
    ///
    /// After the theft of a disk or the removal of a host that is not trusted: both know the key that issues certificates.
    Reset {
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// Looks at workloads, their output and hosts
    Viewer,
    /// Applies and deletes, too
    Deployer,
    /// May do everything that can be done from elsewhere
    Admin,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Join {
    /// What `beemesh token create` printed on a member, or - for standard input
    pub(crate) token: String,
    /// An IP address at which the other hosts reach this one, instead of those of its interfaces; can be given several times
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) advertise: Vec<IpAddr>,
    /// A member that is lost for good, such as this machine before its disk failed: this host takes its place, with its labels
    #[arg(long, value_name = "NAME")]
    pub(crate) replace: Option<String>,
}

#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct Output {
    /// How to print it
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
    /// For people
    Table,
    /// For programs
    Json,
}

/// `90`, `90s`, `5m`, `1h` or `7d`.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no time such as 30s, 5m, 1h or 7d");
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
        let wait = |args: &[&str]| {
            let args = [&["beemesh", "apply", "-f", "-"], args].concat();
            match Args::try_parse_from(args).unwrap().command {
                Command::Apply(apply) => apply.wait.map(|wait| wait.as_secs()),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(wait(&[]), None);
        assert_eq!(wait(&["--wait"]), Some(120));
        assert_eq!(wait(&["--wait=60"]), Some(60));
    }
}
