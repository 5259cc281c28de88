//! Whether manifests mean what Kubernetes says: cases of `tests/conformance/cases`, run on booted hosts with Beemesh and with
//! bare Podman.
//!
//! A case ([`case`]) is a manifest whose head says what Kubernetes makes of it. Its run is right, refused in words, warned
//! about, or silent ([`outcome`]). `make e2e` fails for a case that is silent and not listed in `open.tsv`, and for one that
//! is listed and no longer silent, so that the list only shrinks. `make conformance` writes `docs/kubernetes.md`'s figure.

pub mod bed;
pub mod case;
pub mod manifest;
pub mod outcome;
pub mod results;
pub mod rows;
mod schedule;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    sync::Mutex,
};

use crate::{Cluster, Host};
use bed::{Bed, Side};
use case::{Case, on_one_line};
use outcome::{Outcome, judge};
use results::Shown;
use rows::Open;
use schedule::Job;

/// Printed text that a line of a run shows at most.
const SHOWN_MAX: usize = 160;

/// What is run, and how.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Files of cases; without any, all cases run
    pub files: Vec<PathBuf>,
    /// Run the cases whose names begin so, such as `env,probes-http`
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub only: Vec<String>,
    /// Run one part of all cases, such as 2/3
    #[arg(long, value_name = "I/N", value_parser = part)]
    pub part: Option<(usize, usize)>,
    /// Run with Beemesh or with bare Podman alone
    #[arg(long, value_name = "SIDE")]
    pub side: Vec<Side>,
    /// Cases that run at the same time on one host
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub at_once: usize,
    /// Factor for the time that an apply may take: a busy machine is slow, and Kubernetes' meaning does not depend on that
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub patience: u64,
    /// Run on this booted host, such as h1, on which Beemesh has formed a cluster, and leave it running
    #[arg(long, value_name = "HOST", requires = "side")]
    pub on: Option<String>,
    /// Print all that was seen
    #[arg(long, short)]
    pub verbose: bool,
    /// Keep the outcomes in this folder, in a file for each suite
    #[arg(long, value_name = "FOLDER")]
    pub results: Option<PathBuf>,
    /// Write the figure of all kept outcomes into this page
    #[arg(long, value_name = "FILE", requires = "results")]
    pub report: Option<PathBuf>,
    /// Run nothing, and only write the page of the outcomes that an earlier run kept
    #[arg(long, requires = "report")]
    pub no_run: bool,
}

impl Options {
    /// All cases with Beemesh, or the part of them that `BEEMESH_CONFORMANCE` names, such as `2/3`.
    ///
    /// # Errors
    /// If that names no part.
    pub fn from_environment() -> Result<Self, String> {
        let chosen = std::env::var("BEEMESH_CONFORMANCE").ok();
        Ok(Self {
            files: Vec::new(),
            only: Vec::new(),
            part: chosen.as_deref().map(part).transpose()?,
            side: vec![Side::Beemesh],
            at_once: 4,
            patience: 2,
            on: None,
            verbose: false,
            results: None,
            report: None,
            no_run: false,
        })
    }

    fn chooses(&self, case: &Case) -> bool {
        self.only.is_empty() || self.only.iter().any(|name| case.slug.starts_with(name))
    }

    /// The sides that are run.
    fn sides(&self) -> Vec<Side> {
        match self.side.as_slice() {
            [] => vec![Side::Beemesh, Side::Podman],
            chosen => chosen.to_vec(),
        }
    }
}

/// Reads `I/N`.
fn part(text: &str) -> Result<(usize, usize), String> {
    let parsed = text.split_once('/').and_then(|(one, of)| {
        let (one, of): (usize, usize) = (one.parse().ok()?, of.parse().ok()?);
        (1..=of).contains(&one).then_some((one, of))
    });
    parsed.ok_or_else(|| format!("{text}: not a part such as 2/3"))
}

/// The folder with `cases`, `list.tsv` and `open.tsv`.
#[must_use]
pub fn folder() -> PathBuf {
    let folder = std::env::var_os("BEEMESH_CASES").map(PathBuf::from);
    folder.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance"))
}

/// Reads the case of a file `SLUG.yaml`, with `SLUG.2.yaml` beside it.
///
/// # Errors
/// What is wrong, with file and line.
pub fn read_case(path: &Path) -> Result<Case, String> {
    let name = path.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| format!("{}: not a file", path.display()))?;
    let read = |path: &Path| {
        fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
    };
    let second = path.with_extension("2.yaml");
    let second = second.exists().then(|| read(&second)).transpose()?;
    Case::read(name, &read(path)?, second.as_deref())
}

/// Reads all cases of a folder, in the order of their names.
///
/// # Errors
/// Everything that is wrong, one on each line.
pub fn read_cases(folder: &Path) -> Result<Vec<Case>, String> {
    let listed = fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut paths: Vec<PathBuf> = listed
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| {
            let name = path.to_string_lossy();
            name.ends_with(".yaml") && !name.ends_with(".2.yaml")
        })
        .collect();
    paths.sort();
    let (mut cases, mut wrong) = (Vec::new(), Vec::new());
    for path in paths {
        match read_case(&path) {
            Ok(case) => cases.push(case),
            Err(error) => wrong.push(error),
        }
    }
    match wrong.is_empty() {
        true => Ok(cases),
        false => Err(wrong.join("\n")),
    }
}

/// Runs cases, prints their outcomes, and returns whether all are as `open.tsv` has them.
///
/// # Errors
/// If a case cannot be read, or the page not be written.
///
/// # Panics
/// If no host can be booted.
pub fn run(options: &Options) -> io::Result<bool> {
    let cases = chosen(options).map_err(io::Error::other)?;
    let open = fs::read_to_string(folder().join("open.tsv")).unwrap_or_default();
    let open = Open::read(&open).map_err(io::Error::other)?;
    if let (true, Some(folder), Some(page)) = (options.no_run, &options.results, &options.report) {
        write_page(folder, page)?;
        return Ok(true);
    }
    let mut shown = Vec::new();
    for side in options.sides() {
        shown.extend(on_host(options, &cases, side));
    }
    print!("{}", results::figure(&shown, "cases"));
    if let Some(folder) = &options.results {
        fs::create_dir_all(folder)?;
        fs::write(
            folder.join(format!("{}.tsv", suite())),
            results::write(&shown),
        )?;
        if let Some(page) = &options.report {
            write_page(folder, page)?;
        }
    }
    let differing = differing(&shown, &open);
    for words in &differing {
        println!("{words}");
    }
    Ok(differing.is_empty())
}

/// What is not as `open.tsv` has it.
fn differing(shown: &[Shown], open: &Open) -> Vec<String> {
    let ours = shown.iter().filter(|one| one.side == Side::Beemesh);
    let suite = suite();
    ours.filter_map(|one| {
        let Shown { case, outcome, .. } = one;
        match (outcome.is_fault(), open.wrong(case, &suite)) {
            _ if *outcome == Outcome::Unable => None,
            (true, None) => Some(format!(
                "{case} on {suite}: {outcome}, and open.tsv does not list it"
            )),
            (false, Some(wrong)) => Some(format!(
                "{case} on {suite}: {outcome}: remove it from open.tsv, which says: {wrong}"
            )),
            _ => None,
        }
    })
    .collect()
}

/// Writes the figure of all kept outcomes into a page.
fn write_page(folder: &Path, page: &Path) -> io::Result<()> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder)? {
        all.extend(results::read(&fs::read_to_string(entry?.path())?));
    }
    all.sort();
    let rows = results::of_rows(&all, &rows_of_cases().map_err(io::Error::other)?);
    let text = results::into_page(&fs::read_to_string(page)?, &rows, &all);
    let text = text.map_err(|wrong| io::Error::other(format!("{}: {wrong}", page.display())))?;
    fs::write(page, text)
}

/// The rows of `list.tsv` that count, by the cases that show them.
fn rows_of_cases() -> Result<BTreeMap<String, Vec<String>>, String> {
    let list = folder().join("list.tsv");
    let text = fs::read_to_string(&list).map_err(|error| format!("{}: {error}", list.display()))?;
    let listed = rows::listed(&text)?.into_iter();
    let counting: BTreeSet<String> = listed
        .filter(rows::Listed::counts)
        .map(|one| one.row.to_string())
        .collect();
    let of_case = |case: Case| {
        let rows = case.rows.iter().map(ToString::to_string);
        (
            case.slug,
            rows.filter(|row| counting.contains(row)).collect(),
        )
    };
    Ok(read_cases(&folder().join("cases"))?
        .into_iter()
        .map(of_case)
        .collect())
}

fn chosen(options: &Options) -> Result<Vec<Case>, String> {
    let mut cases: Vec<Case> = match options.files.as_slice() {
        [] => read_cases(&folder().join("cases"))?,
        files => files
            .iter()
            .map(|file| read_case(file))
            .collect::<Result<_, _>>()?,
    };
    cases.retain(|case| options.chooses(case));
    if let Some(part) = options.part {
        cases = of_part(cases, part);
    }
    match cases.is_empty() {
        true => Err("no case of that name".into()),
        false => Ok(cases),
    }
}

/// Every N-th, so that neighbours, which are alike, are in different parts.
fn of_part<T>(all: Vec<T>, (one, of): (usize, usize)) -> Vec<T> {
    all.into_iter().skip(one - 1).step_by(of).collect()
}

fn suite() -> String {
    std::env::var("SUITE").unwrap_or_else(|_| "trixie".into())
}

fn on_host(options: &Options, cases: &[Case], side: Side) -> Vec<Shown> {
    if let Some(name) = &options.on {
        return on_booted(options, cases, &Host::booted(name), side);
    }
    let cluster = match side {
        Side::Beemesh => Cluster::formed("conformance", 1),
        Side::Podman => Cluster::layered("conformance", 1, ""),
    };
    on_booted(options, cases, cluster.host(1), side)
}

fn on_booted(options: &Options, cases: &[Case], host: &Host, side: Side) -> Vec<Shown> {
    let bed = Bed::prepared(host, side, options.patience);
    let podman = bed.podman();
    println!("{} on Podman {podman}: {} cases", side.word(), cases.len());
    let job = |case| Job {
        what: case,
        holds: bed.holds(case),
        alone: case.alone,
    };
    let shown = Mutex::new(Vec::new());
    let run = |case: &&Case| {
        let one = run_one(options, &bed, case, &podman);
        shown.lock().expect("no lane panics").push(one);
    };
    schedule::run(cases.iter().map(job).collect(), options.at_once, run);
    let mut shown = shown.into_inner().expect("no lane panics");
    shown.sort();
    // Beside others a case may be late. Its meaning does not depend on that, so it is what a run alone shows.
    for one in shown.iter_mut().filter(|one| one.outcome.is_fault()) {
        let case = cases.iter().find(|case| case.slug == one.case);
        if let Some(case) = case.filter(|case| side == Side::Beemesh && !case.alone) {
            *one = run_one(options, &bed, case, &podman);
        }
    }
    shown
}

/// Runs a case and prints what it shows.
fn run_one(options: &Options, bed: &Bed, case: &Case, podman: &str) -> Shown {
    let lacks = case.needs.as_ref().filter(|needs| !bed.has(needs));
    let (seen, took) = match lacks {
        Some(_) => Default::default(),
        None => bed.run(case),
    };
    let (outcome, words) = match lacks {
        Some(needs) => (
            Outcome::Unable,
            format!("the host has no cgroup controller {needs}"),
        ),
        None => judge(case, &seen),
    };
    let printed = match options.verbose {
        true => all_of(case, &seen) + "\n",
        false => String::new(),
    };
    let short: String = words.chars().take(SHOWN_MAX).collect();
    print!(
        "{outcome:<8}{:<44}{:>4.0} s  {short}\n{printed}",
        case.slug,
        took.as_secs_f64()
    );
    Shown {
        case: case.slug.clone(),
        podman: podman.to_owned(),
        side: bed.side(),
        outcome,
    }
}

/// All that was seen in a run.
fn all_of(case: &Case, seen: &outcome::Seen) -> String {
    let outcome::Seen {
        code,
        out,
        err,
        printed,
        state,
        left,
        ..
    } = seen;
    let expected = case.check.as_ref().map(|check| check.expect.as_str());
    format!(
        "  kubernetes: {}\n  apply: exit code {code}\n{out}{err}  printed: {}\n  expected: {}\n  state: {state}  left: {}\n",
        case.kubernetes,
        on_one_line(printed),
        expected.unwrap_or_default(),
        on_one_line(left),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_one_of_some() {
        assert_eq!(part("2/3"), Ok((2, 3)));
        for wrong in ["0/3", "4/3", "3", "a/b", "1/0"] {
            assert_eq!(part(wrong), Err(format!("{wrong}: not a part such as 2/3")));
        }
        let all = vec![1, 2, 3, 4, 5, 6, 7];
        assert_eq!(of_part(all.clone(), (1, 3)), [1, 4, 7]);
        assert_eq!(of_part(all, (3, 3)), [3, 6]);
    }

    #[test]
    fn the_list_of_open_cases_only_shrinks() {
        let suite = suite();
        let listed =
            format!("case\tsuite\twrong\nknown\t{suite}\tprints b\nmended\t{suite}\tprints c\n");
        let open = Open::read(&listed).unwrap();
        let shown = |case: &str, side, outcome| Shown {
            case: case.into(),
            podman: "5".into(),
            side,
            outcome,
        };
        let all = [
            shown("known", Side::Beemesh, Outcome::Silent),
            shown("mended", Side::Beemesh, Outcome::Right),
            shown("new", Side::Beemesh, Outcome::Failed),
            shown("new", Side::Podman, Outcome::Silent),
            shown("well", Side::Beemesh, Outcome::Refused),
        ];
        assert_eq!(
            differing(&all, &open),
            [
                format!("mended on {suite}: right: remove it from open.tsv, which says: prints c"),
                format!("new on {suite}: failed, and open.tsv does not list it"),
            ]
        );
    }
}
