//! Rules about the source tree that no compiler checks.

#![allow(
    clippy::unwrap_used,
    reason = "a source tree that cannot be read fails the test"
)]

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Longer files hide more than one idea.
const LINES_MAX: usize = 600;

/// What a module that calls itself pure must not name.
const IMPURE: [&str; 13] = [
    "std::fs",
    "std::net",
    "std::process",
    "std::env",
    "SystemTime::now",
    "Instant::now",
    "tokio::net",
    "tokio::fs",
    "tokio::time::sleep",
    "tokio::time::timeout",
    "getrandom",
    "thread::sleep",
    "std::io::Read",
];

fn sources() -> Vec<(PathBuf, String)> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut found = Vec::new();
    for part in [
        "agent",
        "beemesh-protocol",
        "cli",
        "fuzz",
        "gateway",
        "quadlet",
        "tests",
    ] {
        walk(&top.join(part), &mut found);
    }
    assert!(found.len() > 50, "the source tree was not found");
    found
}

fn walk(folder: &Path, found: &mut Vec<(PathBuf, String)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        // What flatc and cargo-fuzz write is not ours.
        if path.is_dir() && !path.ends_with("generated") && !path.ends_with("target") {
            walk(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            found.push((path, text));
        }
    }
}

/// The part of a file that ships.
fn shipped(text: &str) -> &str {
    text.split("#[cfg(test)]").next().unwrap_or(text)
}

#[track_caller]
fn assert_none(rule: &str, offenders: Vec<String>) {
    assert!(offenders.is_empty(), "{rule}:\n{}", offenders.join("\n"));
}

#[test]
fn files_are_small() {
    let long = sources()
        .into_iter()
        .filter(|(_, text)| text.lines().count() > LINES_MAX);
    assert_none(
        "files over 600 lines",
        long.map(|(path, _)| path.display().to_string()).collect(),
    );
}

#[test]
fn every_module_says_what_it_is() {
    let silent = sources()
        .into_iter()
        .filter(|(path, text)| !text.starts_with("//!") && !path.ends_with("tests.rs"));
    assert_none(
        "modules without `//!`",
        silent.map(|(path, _)| path.display().to_string()).collect(),
    );
}

#[test]
fn pure_modules_do_no_io_and_read_no_clock() {
    let pure: Vec<_> = sources()
        .into_iter()
        .filter(|(_, text)| text.lines().any(|line| line.starts_with("//! Pure")))
        .collect();
    assert!(pure.len() > 8, "pure modules say so");
    let offenders = pure.iter().flat_map(|(path, text)| {
        let named = IMPURE.iter().filter(|name| shipped(text).contains(**name));
        named.map(move |name| format!("{}: {name}", path.display()))
    });
    assert_none("pure modules that are not", offenders.collect());
}

#[test]
fn nobody_promises_work_instead_of_doing_it() {
    let words = ["TODO", "FIXME", "XXX", "for now", "not yet implemented"];
    let me = Path::new(file!()).file_name().unwrap().to_owned();
    let offenders = sources()
        .into_iter()
        .filter(|(path, _)| path.file_name() != Some(&me))
        .flat_map(|(path, text)| {
            let lines: Vec<String> = text
                .lines()
                .enumerate()
                .filter(|(_, line)| words.iter().any(|word| line.contains(word)))
                .map(|(at, line)| format!("{}:{}: {}", path.display(), at + 1, line.trim()))
                .collect();
            lines
        });
    assert_none("promises", offenders.collect());
}

#[test]
fn every_file_names_this_version() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let version = env!("CARGO_PKG_VERSION");
    for (file, line) in [
        (
            "quadlet/units/gateway.yaml",
            format!("image: localhost/beemesh-gateway:{version}\n"),
        ),
        ("rpm/beemesh.spec", format!("\nVersion:        {version}\n")),
    ] {
        let text = fs::read_to_string(top.join(file)).unwrap();
        assert!(text.contains(&line), "{file}: {line}");
    }
}
