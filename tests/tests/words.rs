//! Refuses words that plain technical English has replaced. `CONTRIBUTING.md` has the terms to use.

#![allow(
    clippy::unwrap_used,
    reason = "a source tree that cannot be read fails the test"
)]

use std::{
    fs,
    path::{Path, PathBuf},
};

/// What was said before, and what to say now. Case does not count.
const REPLACED: [(&str, &str); 21] = [
    ("goes on with what comes", "follow the log output"),
    ("is it misspelt", "did you mean"),
    ("makes no sense", "cannot be decoded, usage error"),
    ("in vain", "without an answer, without success"),
    ("any more", "no longer"),
    (" rid of", "removed from"),
    ("whoever", "the user, host or process that"),
    ("takes nobody", "cannot replace another host"),
    ("takes back", "revokes"),
    ("no host should run", "no host runs"),
    ("holds nothing", "contains no objects that have an effect"),
    ("means nothing here", "is not allowed here"),
    ("stands here", "appears"),
    ("the agent tries on", "the agent will retry"),
    ("none leads", "no leader"),
    ("openraft elects", "openraft runs elections"),
    ("what issues certificates", "the certificate authority"),
    ("of users elsewhere", "of remote users"),
    ("for people to read", "human-readable"),
    ("is no text", "is not UTF-8 text"),
    ("so that people see", "for administrators"),
];

/// Folders that hold no text of ours: builds, generated code, and inputs of tests.
const SKIPPED: [&str; 7] = [
    "target",
    "generated",
    "seeds",
    "corpus",
    ".git",
    "planted",
    "vendor",
];

/// Every text of the repository but this list and the table of words.
fn texts() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    walk(
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap(),
        &mut found,
    );
    assert!(found.len() > 400, "the source tree was not found");
    found
}

fn walk(folder: &Path, found: &mut Vec<(PathBuf, String)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            if !SKIPPED.contains(&name.as_str()) {
                walk(&path, found);
            }
        } else if is_text(&path) && !["words.rs", "CONTRIBUTING.md"].contains(&name.as_str()) {
            found.push((path.clone(), fs::read_to_string(path).unwrap()));
        }
    }
}

/// Sources, documentation, units and manual pages.
fn is_text(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    let kinds = [
        "rs", "md", "toml", "service", "socket", "conf", "kube", "yaml", "spec", "fbs", "more",
        "1", "5", "8",
    ];
    extension.is_some_and(|extension| kinds.contains(&extension))
}

#[test]
fn words_that_were_replaced_do_not_come_back() {
    let mut offenders = Vec::new();
    for (path, text) in texts() {
        for (number, line) in text.lines().enumerate() {
            let line = line.to_lowercase();
            let said = REPLACED.iter().filter(|(old, _)| line.contains(old));
            offenders.extend(said.map(|(old, new)| {
                format!("{}:{}: `{old}`: say `{new}`", path.display(), number + 1)
            }));
        }
    }
    assert!(
        offenders.is_empty(),
        "replaced words:\n{}",
        offenders.join("\n")
    );
}
