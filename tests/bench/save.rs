//! Saves the results of each part in a file of its own, and writes the page of all saved results.
//!
//! Shell: files and the circumstances of a run. [`crate::page`] decides the content of the page.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use clap::ValueEnum as _;
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    data::{Blow, Failover, Run, Saved, System},
    page::{self, All},
};

/// The project's folder.
fn top() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap_or(tests).to_owned()
}

fn file(part: &str) -> PathBuf {
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| top().join("target"), PathBuf::from);
    target.join("bench").join(format!("{part}.json"))
}

/// Saves the results of a part.
pub(crate) fn save<T: Serialize>(part: &str, data: T, failures: Vec<String>) -> Result<()> {
    let path = file(part);
    fs::create_dir_all(path.parent().unwrap_or(&path))?;
    let saved = Saved {
        run: run(failures),
        data,
    };
    fs::write(&path, serde_json::to_vec_pretty(&saved)?).with_context(|| path.display().to_string())
}

fn load<T: DeserializeOwned>(part: &str) -> Result<Option<Saved<T>>> {
    let path = file(part);
    match fs::read(&path) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes).with_context(|| {
            let path = path.display();
            format!("{path} is of another version: measure `--only {part}` again, or remove it")
        })?)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| path.display().to_string()),
    }
}

/// Writes `docs/benchmarks.md` and `docs/scale.md` from all saved results.
pub(crate) fn write_page() -> Result<()> {
    let all = All {
        commits: load("commit")?,
        applies: load("apply")?,
        failover: load_failover()?,
        elections: load("elections")?,
        starts: load("start")?,
        rest: load("idle")?,
        catch_ups: load("catchup")?,
        spans: load("spans")?,
        reschedules: load("reschedule")?,
    };
    write("docs/benchmarks.md", |before| page::render(&all, before))?;
    let Some(scale) = load("scale")? else {
        return Ok(());
    };
    write("docs/scale.md", |before| {
        page::scale::render(&scale, before)
    })
}

/// The name of the part that measures how one system replaces a leader after one fault.
pub(crate) fn failover(system: System, blow: Blow) -> String {
    format!("failover-{}-{blow:?}", system.name()).to_lowercase()
}

fn load_failover() -> Result<Vec<Saved<Failover>>> {
    let systems = System::value_variants().iter();
    let all = systems.flat_map(|system| Blow::value_variants().iter().map(|blow| (*system, *blow)));
    let of = |(system, blow)| load(&failover(system, blow)).transpose();
    all.filter_map(of).collect()
}

/// Writes a page that keeps a part of its old text.
fn write(page: &str, render: impl Fn(&str) -> String) -> Result<()> {
    let path = top().join(page);
    let before = fs::read_to_string(&path).unwrap_or_default();
    fs::write(&path, render(&before)).with_context(|| path.display().to_string())
}

/// The circumstances of this run.
fn run(failures: Vec<String>) -> Run {
    let suite = std::env::var("SUITE").unwrap_or_else(|_| "trixie".into());
    let arguments = std::env::args().skip(1).collect::<Vec<_>>().join(" ");
    let mut versions = BTreeMap::from([("beemesh".to_owned(), commit())]);
    let peers = std::env::var("BEEMESH_PEERS").unwrap_or_default();
    let listed = fs::read_to_string(Path::new(&peers).join("usr/share/beemesh-bench/versions"));
    for line in listed.unwrap_or_default().lines() {
        if let Some((name, version)) = line.split_once('\t') {
            versions.insert(name.to_owned(), version.to_owned());
        }
    }
    Run {
        date: said("date", &["-u", "+%Y-%m-%d %H:%M UTC"]),
        command: format!("make bench ARGS='{arguments}'").replace(" ARGS=''", ""),
        kernel: said("uname", &["-r"]),
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        suite,
        versions,
        failures,
    }
}

/// The version and the commit, with a mark if the tree differs in more than the pages that this program writes.
fn commit() -> String {
    let top = top().display().to_string();
    let git = |args: &[&str]| said("git", &[&["-C", &top], args].concat());
    let commit = git(&["describe", "--always", "--exclude=*"]);
    let changed = git(&["status", "--porcelain", "-uno", "--", ".", ":!docs"]);
    let mark = if changed.is_empty() { "" } else { "-dirty" };
    format!("{} ({commit}{mark})", env!("CARGO_PKG_VERSION"))
}

/// The output of a command; empty if it fails.
fn said(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    let output = output.map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&output).trim().to_owned()
}
