//! `beemesh-agent purge`: removes everything that Beemesh has created on this host. The package manager removes the
//! program itself.
//!
//! Shell: inspects the host with Podman's and systemd's own commands, and carries out what [`steps`] lists. Each step
//! can be repeated. If a step fails, purge reports it and continues with the next.

mod steps;

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context, bail, ensure};

use crate::args::Arguments;
use steps::{Found, Places, Step, steps};

/// Purges, or without `yes` prints what a purge would remove.
pub(crate) fn run(arguments: Arguments, yes: bool) -> ExitCode {
    let places = Places {
        units: arguments.units,
        state: PathBuf::from("/var/lib/beemesh"),
        run: PathBuf::from("/run/beemesh"),
        configuration: PathBuf::from("/etc/beemesh/agent.toml.d"),
    };
    match purge(&places, yes) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn purge(places: &Places, yes: bool) -> anyhow::Result<ExitCode> {
    ensure!(nix::unistd::geteuid().is_root(), "purge needs root");
    let found = look().context("find what is to be removed")?;
    print!("{}", steps::announcement(&found, places));
    if !yes {
        eprintln!("nothing was removed: `beemesh-agent purge --yes` removes all of this");
        return Ok(ExitCode::FAILURE);
    }
    let mut failed = false;
    for step in steps(&found, places) {
        if let Err(error) = carry_out(&step) {
            eprintln!("error: {error:#}");
            failed = true;
        }
    }
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn look() -> anyhow::Result<Found> {
    let list = |arguments: &[&str]| -> anyhow::Result<Vec<String>> {
        let output = output("podman", arguments)?;
        let names = output.lines().map(str::to_owned);
        Ok(names.filter(|name| !name.is_empty()).collect())
    };
    Ok(Found {
        pods: list(&[
            "pod",
            "ps",
            "--format",
            "{{.Name}}",
            "--filter",
            steps::WORKLOADS,
        ])?,
        volumes: list(&["volume", "ls", "--format", "{{.Name}}"])?,
        secrets: list(&["secret", "ls", "--format", "{{.Name}}"])?,
    })
}

fn carry_out(step: &Step) -> anyhow::Result<()> {
    match step {
        Step::Run(command) => {
            let (program, arguments) = command.split_first().context("an empty command")?;
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            output(program, &arguments).map(drop)
        }
        Step::Empty(folder) => empty(folder).with_context(|| format!("empty {}", folder.display())),
    }
}

fn output(program: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let what = || format!("{program} {}", arguments.join(" "));
    let output = Command::new(program).args(arguments).output();
    let output = output.with_context(what)?;
    if !output.status.success() {
        bail!(
            "{}: {}",
            what(),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Removes the contents of a folder. The folder itself belongs to the package.
fn empty(folder: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        // Not followed: purge removes a link and not its target.
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_emptied_and_nothing_outside_of_it_is_touched() {
        let top = tempfile::tempdir().unwrap();
        let (inside, outside) = (top.path().join("inside"), top.path().join("outside"));
        fs::create_dir_all(inside.join("deep/deeper")).unwrap();
        fs::create_dir(&outside).unwrap();
        for file in [inside.join("a"), inside.join("deep/b"), outside.join("c")] {
            fs::write(file, "").unwrap();
        }
        std::os::unix::fs::symlink(&outside, inside.join("link")).unwrap();
        empty(&inside).unwrap();
        assert_eq!(fs::read_dir(&inside).unwrap().count(), 0);
        assert!(outside.join("c").exists());
        empty(&top.path().join("absent")).unwrap();
    }
}
