//! The outcomes of a run as a table, and the figure that `docs/kubernetes.md` shows of them.
//!
//! Pure: outcomes in, text out.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use super::{bed::Side, outcome::Outcome};

const BEGIN: &str = "<!-- figure -->";
const END: &str = "<!-- /figure -->";

/// The outcome of one case on one host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shown {
    /// The case.
    pub case: String,
    /// Podman's version, such as `5.4.2`.
    pub podman: String,
    /// What applied it.
    pub side: Side,
    /// What it showed.
    pub outcome: Outcome,
}

/// The results as lines of case, version, side and outcome.
#[must_use]
pub fn write(results: &[Shown]) -> String {
    let line = |one: &Shown| {
        let Shown {
            case,
            podman,
            side,
            outcome,
        } = one;
        format!("{case}\t{podman}\t{}\t{outcome}\n", side.word())
    };
    results.iter().map(line).collect()
}

/// Reads what [`write`] wrote.
#[must_use]
pub fn read(text: &str) -> Vec<Shown> {
    let read = |line: &str| {
        let columns: Vec<&str> = line.split('\t').collect();
        let [case, podman, side, outcome] = columns[..] else {
            return None;
        };
        let sides = [Side::Beemesh, Side::Podman];
        Some(Shown {
            case: case.to_owned(),
            podman: podman.to_owned(),
            side: sides.into_iter().find(|one| one.word() == side)?,
            outcome: Outcome::of(outcome)?,
        })
    };
    text.lines().filter_map(read).collect()
}

/// The outcomes of rows: the worst of the cases that show a row. `rows` has the rows of each case.
#[must_use]
pub fn of_rows(results: &[Shown], rows: &BTreeMap<String, Vec<String>>) -> Vec<Shown> {
    let mut worst: BTreeMap<(&str, &str, Side), Outcome> = BTreeMap::new();
    for one in results {
        for row in rows.get(&one.case).into_iter().flatten() {
            let place = worst.entry((row, &one.podman, one.side));
            let known = place.or_insert(one.outcome);
            // What did not run says nothing of its row, unless nothing else does.
            *known = match (*known, one.outcome) {
                (Outcome::Unable, other) | (other, Outcome::Unable) => other,
                (known, other) => known.max(other),
            };
        }
    }
    let shown = |((row, podman, side), outcome): ((&str, &str, Side), Outcome)| Shown {
        case: row.to_owned(),
        podman: podman.to_owned(),
        side,
        outcome,
    };
    worst.into_iter().map(shown).collect()
}

/// Puts the figures of rows and of cases and the table of cases between the markers of a page.
///
/// # Errors
/// If the page does not have both markers.
pub fn into_page(page: &str, rows: &[Shown], results: &[Shown]) -> Result<String, String> {
    let wrong = || format!("the page has no `{BEGIN}` … `{END}`");
    let (before, rest) = page.split_once(BEGIN).ok_or_else(wrong)?;
    let (_, after) = rest.split_once(END).ok_or_else(wrong)?;
    Ok(format!(
        "{before}{BEGIN}\nThe tests of Kubernetes that need one host and that a manifest can express; a test counts by the worst of its cases:\n\n{}\n\
         All cases, with those that once failed:\n\n{}\n{}{END}{after}",
        figure(rows, "tests"),
        figure(results, "cases"),
        table(results)
    ))
}

/// One line for each version of Podman.
#[must_use]
pub fn figure(results: &[Shown], what: &str) -> String {
    let mut figure = String::new();
    for podman in versions(results) {
        let count = |side: Side, wanted: &[Outcome]| {
            let mine = results
                .iter()
                .filter(|one| one.podman == podman && one.side == side);
            let mine = mine.filter(|one| match wanted.is_empty() {
                true => one.outcome != Outcome::Unable,
                false => wanted.contains(&one.outcome),
            });
            mine.count()
        };
        let of = |outcome| count(Side::Beemesh, &[outcome]);
        let _ = write!(
            figure,
            "- Podman {podman}: **{} of {} {what} as Kubernetes**, {} refused in words, {} warned, {} silent",
            of(Outcome::Right),
            count(Side::Beemesh, &[]),
            of(Outcome::Refused),
            of(Outcome::Warned),
            count(Side::Beemesh, &[Outcome::Silent, Outcome::Failed]),
        );
        let unable = of(Outcome::Unable);
        if unable > 0 {
            let _ = write!(
                figure,
                ", and {unable} were not run, because the host lacks a cgroup controller"
            );
        }
        let bare = count(Side::Podman, &[]);
        let right = count(Side::Podman, &[Outcome::Right]);
        match bare {
            0 => figure.push_str(".\n"),
            _ => {
                let _ = writeln!(figure, "; bare Podman: {right} of {bare} as Kubernetes.");
            }
        }
    }
    figure
}

fn table(results: &[Shown]) -> String {
    let columns: BTreeSet<(&str, Side)> = results
        .iter()
        .map(|one| (one.podman.as_str(), one.side))
        .collect();
    let mut cells: BTreeMap<&str, BTreeMap<(&str, Side), Outcome>> = BTreeMap::new();
    for one in results {
        let row = cells.entry(&one.case).or_default();
        row.insert((&one.podman, one.side), one.outcome);
    }
    let mut table = "| case |".to_owned();
    for (podman, side) in &columns {
        let _ = match side {
            Side::Beemesh => write!(table, " Podman {podman} |"),
            Side::Podman => write!(table, " bare Podman {podman} |"),
        };
    }
    let _ = writeln!(table, "\n| --- |{}", " --- |".repeat(columns.len()));
    for (case, row) in cells {
        let _ = write!(table, "| {case} |");
        for column in &columns {
            let shown = row.get(column).map(|outcome| match (column.1, outcome) {
                // Bare Podman says of no field that it does not know it.
                (Side::Podman, Outcome::Warned | Outcome::Failed) => Outcome::Silent.to_string(),
                _ => outcome.to_string(),
            });
            let _ = write!(table, " {} |", shown.unwrap_or_default());
        }
        table.push('\n');
    }
    table
}

fn versions(results: &[Shown]) -> BTreeSet<&str> {
    results.iter().map(|one| one.podman.as_str()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(case: &str, podman: &str, side: Side, outcome: Outcome) -> Shown {
        Shown {
            case: case.into(),
            podman: podman.into(),
            side,
            outcome,
        }
    }

    fn some() -> Vec<Shown> {
        vec![
            shown("env-a", "5.4.2", Side::Beemesh, Outcome::Right),
            shown("env-a", "5.4.2", Side::Podman, Outcome::Silent),
            shown("env-b", "5.4.2", Side::Beemesh, Outcome::Refused),
            shown("env-b", "5.4.2", Side::Podman, Outcome::Failed),
            shown("env-a", "5.8.6", Side::Beemesh, Outcome::Warned),
        ]
    }

    #[test]
    fn results_are_read_as_they_are_written() {
        assert_eq!(read(&write(&some())), some());
    }

    #[test]
    fn the_page_has_a_line_for_each_version_and_a_row_for_each_case() {
        let page = into_page(
            "# A\n\n<!-- figure -->\nold\n<!-- /figure -->\n\nrest\n",
            &[],
            &some(),
        );
        assert_eq!(
            page.unwrap(),
            "# A\n\n<!-- figure -->\nThe tests of Kubernetes that need one host and that a manifest can express; a test counts by the worst of its cases:\n\n\n\
             All cases, with those that once failed:\n\n\
             - Podman 5.4.2: **1 of 2 cases as Kubernetes**, 1 refused in words, 0 warned, 0 silent; bare Podman: 0 of 2 as Kubernetes.\n\
             - Podman 5.8.6: **0 of 1 cases as Kubernetes**, 0 refused in words, 1 warned, 0 silent.\n\n\
             | case | Podman 5.4.2 | bare Podman 5.4.2 | Podman 5.8.6 |\n| --- | --- | --- | --- |\n\
             | env-a | right | silent | warned |\n| env-b | refused | silent |  |\n<!-- /figure -->\n\nrest\n"
        );
        assert!(into_page("# A\n<!-- figure -->\n", &[], &some()).is_err());
    }

    #[test]
    fn a_row_counts_by_the_worst_of_its_cases_that_ran() {
        let rows = [
            ("a", vec!["one", "two"]),
            ("b", vec!["one"]),
            ("c", vec!["two", "three"]),
        ];
        let rows = rows.map(|(case, rows)| {
            (
                case.to_owned(),
                rows.into_iter().map(str::to_owned).collect(),
            )
        });
        let results = [
            ("a", Outcome::Right),
            ("b", Outcome::Warned),
            ("c", Outcome::Unable),
        ];
        let results = results.map(|(case, outcome)| shown(case, "5.4.2", Side::Beemesh, outcome));
        let found = of_rows(&results, &rows.into());
        let found: Vec<_> = found
            .iter()
            .map(|one| (one.case.as_str(), one.outcome))
            .collect();
        let expected = [
            ("one", Outcome::Warned),
            ("three", Outcome::Unable),
            ("two", Outcome::Right),
        ];
        assert_eq!(found, expected);
    }
}
