//! The conformance cases can be read, and show every row of `list.tsv` that one host can show.

#![allow(clippy::unwrap_used, reason = "whatever is missing fails the test")]

use std::{collections::BTreeSet, fs};

use harness::conformance::{
    case::{BEYOND, Case, Row},
    folder, read_cases,
    rows::{Listed, Open, listed},
};

/// Rows that no case shows: area, id, and why.
const EXCEPTIONS: [(&str, &str, &str); 0] = [];

fn cases() -> Vec<Case> {
    read_cases(&folder().join("cases")).unwrap_or_else(|wrong| panic!("{wrong}"))
}

fn rows() -> Vec<Listed> {
    listed(&fs::read_to_string(folder().join("list.tsv")).unwrap()).unwrap()
}

#[track_caller]
fn assert_none(rule: &str, offenders: &[String]) {
    assert!(offenders.is_empty(), "{rule}:\n{}", offenders.join("\n"));
}

#[test]
fn every_case_is_read_and_its_rows_are_listed() {
    let known: BTreeSet<Row> = rows().into_iter().map(|listed| listed.row).collect();
    let mut offenders = Vec::new();
    for case in cases() {
        let unknown = case
            .rows
            .iter()
            .filter(|row| row.area != BEYOND && !known.contains(row));
        offenders.extend(unknown.map(|row| format!("{}: {row}", case.slug)));
    }
    assert_none("rows that list.tsv does not have", &offenders);
}

#[test]
fn every_row_that_one_host_can_show_has_a_case() {
    let shown: BTreeSet<Row> = cases().into_iter().flat_map(|case| case.rows).collect();
    let excepted: BTreeSet<(&str, &str)> = EXCEPTIONS
        .iter()
        .map(|(area, id, _)| (*area, *id))
        .collect();
    let counted: Vec<Row> = rows()
        .into_iter()
        .filter(Listed::counts)
        .map(|listed| listed.row)
        .collect();
    let missing: Vec<&Row> = counted.iter().filter(|row| !shown.contains(row)).collect();
    let missing: BTreeSet<(&str, &str)> = missing
        .into_iter()
        .map(|row| (row.area.as_str(), row.id.as_str()))
        .collect();
    let shown = |rows: Vec<&(&str, &str)>| -> Vec<String> {
        rows.iter()
            .map(|(area, id)| format!("{area} | {id}"))
            .collect()
    };
    let without = missing.difference(&excepted).collect();
    assert_none("rows without a case", &shown(without));
    let unused = excepted.difference(&missing).collect();
    assert_none("exceptions that no row needs", &shown(unused));
}

#[test]
fn every_second_manifest_is_applied_by_the_check_of_a_first() {
    let mut offenders = Vec::new();
    let all = cases();
    let slugs: BTreeSet<&str> = all.iter().map(|case| case.slug.as_str()).collect();
    for entry in fs::read_dir(folder().join("cases")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if let Some(slug) = name.strip_suffix(".2.yaml")
            && !slugs.contains(slug)
        {
            offenders.push(format!("{name}: no {slug}.yaml"));
        }
    }
    for case in &all {
        let script = case.check.as_ref().map_or("", |check| &check.script);
        if case.second.is_some() && !script.contains("again") && !script.contains("$SECOND") {
            offenders.push(format!(
                "{}: its check does not apply {0}.2.yaml",
                case.slug
            ));
        }
        if case.second.is_none() && script.split_whitespace().any(|word| word == "again") {
            offenders.push(format!("{}: there is no {0}.2.yaml", case.slug));
        }
    }
    assert_none("second manifests", &offenders);
}

#[test]
fn the_list_of_open_cases_names_cases() {
    let text = fs::read_to_string(folder().join("open.tsv")).unwrap();
    let open = Open::read(&text).unwrap();
    let all = cases();
    let slugs: BTreeSet<&str> = all.iter().map(|case| case.slug.as_str()).collect();
    let unknown = open
        .cases()
        .into_iter()
        .filter(|case| !slugs.contains(case));
    assert_none(
        "cases that are not there",
        &unknown.map(str::to_owned).collect::<Vec<_>>(),
    );
}
