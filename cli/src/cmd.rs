//! The commands, one file each, and their common functions.
//!
//! Shell: reads files, sends requests to the gateway, and prints what [`crate::render`] makes of the responses.

mod apply;
mod backup;
mod delete;
mod diff;
mod get;
mod host;
mod join;
mod logs;
mod policy;
mod rollout;
mod series;
mod token;
mod user;

use std::{
    io::{self, Write as _},
    os::{fd::AsFd as _, unix::fs::PermissionsExt as _},
    process::ExitCode,
    time::Duration,
};

use clap::CommandFactory;
use http_body_util::BodyExt;
use hyper::{Response, body::Incoming};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use tokio::{
    signal::ctrl_c,
    time::{sleep, timeout},
};

use crate::{
    args::{Args, Command},
    client::{Ask, Client, Way},
    live::Live,
    remote::Remote,
    trouble::Trouble,
};

/// How often the spinner turns while no event arrives.
const TURN: Duration = Duration::from_millis(100);
/// The longest wait after Ctrl-C.
const CHECK_TIME_MAX: Duration = Duration::from_secs(2);

/// Runs a command. The exit status is not 0 if the command succeeded and says something by it.
pub(crate) async fn run(args: Args) -> Result<ExitCode, Trouble> {
    let way = match &args.config {
        Some(file) if needs_gateway(&args.command) => Way::Remote(Remote::load(file)?),
        _ => Way::Socket(args.socket),
    };
    let client = Client::new(way, args.timeout);
    let done = match args.command {
        Command::Diff(diff) => {
            let differs = diff::run(&client, diff).await?;
            return Ok(ExitCode::from(u8::from(differs)));
        }
        Command::Apply(apply) => apply::run(&client, apply).await,
        Command::Get(get) => get::run(&client, get).await,
        Command::Status(output) => get::status(&client, output).await,
        Command::Delete(delete) => delete::run(&client, delete).await,
        Command::Rollout(rollout) => rollout::run(&client, rollout).await,
        Command::Scale(scale) => rollout::scale(&client, scale).await,
        Command::Restart(named) => rollout::restart(&client, named).await,
        Command::Stop(named) => rollout::stop(&client, named).await,
        Command::Start(named) => rollout::start(&client, named).await,
        Command::Logs(logs) => logs::run(&client, logs).await,
        Command::Host(host) => host::run(&client, host).await,
        Command::Backup => backup::backup(&client).await,
        Command::Restore(restore) => backup::restore(&client, restore).await,
        Command::User(user) => user::run(&client, user).await,
        Command::Policy(policy) => policy::run(&client, policy).await,
        Command::Token(token) => token::run(&client, token).await,
        Command::Join(join) => join::run(&client, join).await,
        Command::Completion { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Args::command(), "beemesh", &mut text);
            print(&text)
        }
    };
    done.map(|()| ExitCode::SUCCESS)
}

fn needs_gateway(command: &Command) -> bool {
    !matches!(command, Command::Completion { .. })
}

/// Sends a request and shows a spinner until the response arrives.
async fn spin<T: DeserializeOwned>(client: &Client, ask: &Ask, doing: &str) -> Result<T, Trouble> {
    let mut live = Live::new();
    let mut answer = std::pin::pin!(client.json(ask));
    loop {
        tokio::select! {
            answer = &mut answer => return answer,
            () = sleep(TURN) => live.spin(doing),
        }
    }
}

/// How to find out whether a change is committed before its response arrives.
struct Check {
    ask: Ask,
    committed: Box<dyn Fn(Result<Value, Trouble>) -> bool>,
}

/// Requests a change and waits for the response, which arrives when the change has taken effect. Ctrl-C ends the wait
/// but not the change; the error then says whether the cluster has committed it.
async fn wait_for<T: DeserializeOwned>(
    client: &Client,
    ask: &Ask,
    doing: &str,
    check: Check,
) -> Result<T, Trouble> {
    tokio::select! {
        answer = spin(client, ask, doing) => return answer,
        Ok(()) = ctrl_c() => {}
    }
    let found = timeout(CHECK_TIME_MAX, client.json::<Value>(&check.ask)).await;
    let committed = found.is_ok_and(|found| (check.committed)(found));
    Err(if committed {
        interrupted()
    } else {
        Trouble::interrupted("interrupted; it is unknown whether the change is committed")
            .hint("check with `beemesh get` before you repeat it")
    })
}

/// The error for Ctrl-C after the commit.
fn interrupted() -> Trouble {
    Trouble::interrupted("interrupted; the change is committed and goes on")
        .hint("`beemesh get workloads` shows the progress")
}

/// Warns if standard output is a file that other users can read. `what` names the secret that goes into it.
fn warn_readable(what: &str) {
    let stdout = io::stdout();
    let file = stdout.as_fd().try_clone_to_owned().map(std::fs::File::from);
    let Ok(metadata) = file.and_then(|file| file.metadata()) else {
        return;
    };
    let mode = metadata.permissions().mode() & 0o777;
    if metadata.is_file() && mode & 0o044 != 0 {
        let file = std::fs::read_link("/proc/self/fd/1").unwrap_or_else(|_| "FILE".into());
        let file = file.display();
        eprintln!(
            "warning: other users can read {file} (mode {mode:04o}), which is going to contain {what}: run `chmod 600 {file}`"
        );
    }
}

/// Copies a response to standard output as it arrives. A closed pipe is no failure.
async fn copy(answer: Response<Incoming>, doing: &str) -> Result<(), Trouble> {
    let mut body = answer.into_body();
    let mut stdout = io::stdout().lock();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            Trouble::failed(format!("{doing}: connection lost: {error}")).hint(
                "the host or its gateway may have stopped: check with `beemesh get hosts --stale`",
            )
        })?;
        let Some(bytes) = frame.data_ref() else {
            continue;
        };
        match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            Err(error) => {
                return Err(Trouble::failed(format!(
                    "cannot write to standard output: {error}"
                )));
            }
            Ok(()) => {}
        }
    }
    Ok(())
}

/// Prints to standard output. A closed pipe is no failure.
fn print(text: impl AsRef<[u8]>) -> Result<(), Trouble> {
    let mut stdout = io::stdout().lock();
    let written = stdout
        .write_all(text.as_ref())
        .and_then(|()| stdout.flush());
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Trouble::failed(format!(
            "cannot write to standard output: {error}"
        ))),
        _ => Ok(()),
    }
}

fn print_json(value: &impl Serialize) -> Result<(), Trouble> {
    let text = serde_json::to_string_pretty(value);
    let text = text.map_err(|error| Trouble::failed(format!("cannot write JSON: {error}")))?;
    print(text + "\n")
}
