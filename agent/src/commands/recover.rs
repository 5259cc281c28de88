//! `beemesh-agent recover`: makes this host a cluster of one when the other members are lost.
//!
//! Shell: queries the gateway of this host over its API, asks the administrator for confirmation, and instructs the
//! gateway. [`announcement`] is pure.

mod http;

use std::{
    fmt::Write as _,
    io::{self, BufRead as _, IsTerminal as _, Write as _},
    path::Path,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use beemesh_protocol::{
    ClusterId,
    api::{
        Status,
        recovery::{CutOff, Recovering, Recovery, RecoveryBody},
    },
};

/// Time in which the gateway applies its log again and becomes the leader. A long log has some thousand entries.
const READY_MAX: Duration = Duration::from_secs(120);
/// Pause between two queries of the status.
const LOOK: Duration = Duration::from_millis(200);

/// Recovers if `confirm`, or the administrator at the terminal, names the cluster.
pub(crate) fn run(gateway: &Path, confirm: Option<String>) -> ExitCode {
    match recover(gateway, confirm) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn recover(gateway: &Path, confirm: Option<String>) -> anyhow::Result<()> {
    ensure!(nix::unistd::geteuid().is_root(), "recover needs root");
    let recovery: Recovery = http::ask(gateway, "GET", "/v1/recovery", b"")?;
    if let Some(obstacle) = &recovery.obstacle {
        bail!("no recovery: {obstacle}");
    }
    print!("{}", announcement(&recovery));
    let confirm = match confirm {
        Some(confirm) => confirm,
        None => typed(&recovery.confirm)?,
    };
    ensure!(
        confirm == recovery.confirm || Some(&confirm) == whole(recovery.cluster).as_ref(),
        "`{confirm}` is not {}: nothing was changed",
        recovery.confirm
    );
    let body = serde_json::to_vec(&RecoveryBody { confirm }).context("write the request")?;
    let Recovering { cluster } = http::ask(gateway, "POST", "/v1/recovery", &body)?;
    wait(gateway, cluster)?;
    println!(
        "{} is cluster {cluster} now, alone. For every other host: `beemesh token create` here, `beemesh join TOKEN` there.",
        recovery.host
    );
    Ok(())
}

fn whole(cluster: Option<ClusterId>) -> Option<String> {
    cluster.map(|cluster| cluster.to_string())
}

/// Reads a line from the terminal. Without a terminal, the recovery fails.
fn typed(expected: &str) -> anyhow::Result<String> {
    let stdin = io::stdin();
    ensure!(
        stdin.is_terminal(),
        "standard input is not a terminal: confirm with `--confirm {expected}`; nothing was changed"
    );
    print!("Type {expected} to continue: ");
    io::stdout().flush().context("write to the terminal")?;
    let mut line = String::new();
    stdin
        .lock()
        .read_line(&mut line)
        .context("read what was typed")?;
    Ok(line.trim().to_owned())
}

/// Waits until the gateway leads the new cluster.
fn wait(gateway: &Path, cluster: ClusterId) -> anyhow::Result<()> {
    let end = Instant::now() + READY_MAX;
    loop {
        let seen = match http::ask::<Status>(gateway, "GET", "/v1/status", b"") {
            Ok(status) if status.cluster == Some(cluster) && status.quorum => return Ok(()),
            Ok(_) => "it does not lead yet".to_owned(),
            Err(error) => format!("{error:#}"),
        };
        ensure!(
            Instant::now() < end,
            "the recovery has begun, but the gateway does not answer after {} s: {seen}; the recovery continues, see `journalctl -u beemesh-gateway`",
            READY_MAX.as_secs()
        );
        thread::sleep(LOOK);
    }
}

/// Pure: the text before the confirmation.
fn announcement(recovery: &Recovery) -> String {
    let Recovery {
        confirm,
        host,
        last_term,
        last_index,
        committed,
        applied,
        voters,
        cut_off,
        ..
    } = recovery;
    let shown = |host: &CutOff| {
        let there = if host.reachable {
            "reachable"
        } else {
            "not reachable"
        };
        format!("{} ({there})", host.name)
    };
    let hosts: Vec<_> = cut_off.iter().map(shown).collect();
    let hosts = if hosts.is_empty() {
        "none".to_owned()
    } else {
        hosts.join(", ")
    };
    let uncommitted = match last_index.saturating_sub(*committed) {
        0 => String::new(),
        count => format!("; the last {count} are not known to be committed, and are kept"),
    };
    let mut text =
        format!("{host} will leave cluster {confirm} and continue alone, as a new cluster.\n\n");
    let rows = [
        ("voters", voters.join(", ")),
        (
            "log",
            format!(
                "ends with index {last_index} of term {last_term}; committed to {committed}, applied to {applied}{uncommitted}"
            ),
        ),
        (
            "may be lost",
            format!(
                "every change after index {last_index} that others have agreed on without {host}"
            ),
        ),
        ("cut off", hosts),
    ];
    for (name, value) in rows {
        let _ = writeln!(text, "  {name:<12} {value}");
    }
    text.push_str(
        "\nWhat this host runs goes on. Join tokens end. The hosts that are cut off keep their pods, find out that they are no\n\
         members when they reach this host, and can join again with a new token. While a majority of them is up and does not\n\
         reach this host, they go on as the old cluster, and what they agree on is lost: keep them off, or cut them off.\n\
         Another host that is left may have more: this command, which changes nothing before it is confirmed, shows it there.\n\
         Recover the one with the highest term, and of those the highest index. Recover only one.\n\n",
    );
    text
}

#[cfg(test)]
mod tests {
    use beemesh_protocol::HostId;

    use super::*;

    #[test]
    fn the_announcement_says_what_may_be_lost_and_who_is_cut_off() {
        let cut_off = |name: &str, reachable| CutOff {
            name: name.to_owned(),
            id: HostId([2; 32]),
            reachable,
        };
        let mut recovery = Recovery {
            cluster: Some(ClusterId([7; 16])),
            confirm: "07070707".to_owned(),
            host: "h1".to_owned(),
            obstacle: None,
            last_term: 3,
            last_index: 57,
            committed: 55,
            applied: 55,
            voters: vec!["h1".to_owned(), "h2".to_owned()],
            cut_off: vec![cut_off("h2", false), cut_off("h3", true)],
        };
        let text = announcement(&recovery);
        for words in [
            "h1 will leave cluster 07070707",
            "  log          ends with index 57 of term 3; committed to 55, applied to 55; the last 2 are not known to be committed",
            "  may be lost  every change after index 57",
            "  cut off      h2 (not reachable), h3 (reachable)\n",
        ] {
            assert!(text.contains(words), "{words}: {text}");
        }
        recovery.committed = 57;
        recovery.cut_off.clear();
        let text = announcement(&recovery);
        assert!(
            !text.contains("not known") && text.contains("cut off      none"),
            "{text}"
        );
    }
}
