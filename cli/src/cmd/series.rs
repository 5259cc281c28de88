//! Several files, each of which is one request. They are sent in order, and the first error stops.
//!
//! Shell, and only for warnings: requests, errors and messages.

use beemesh_protocol::api::Problem;

use crate::{
    client::Ask,
    source::{File, names},
    trouble::{Trouble, problem},
};

/// The request to apply a file, or with `dry_run` to tell what that would change.
pub(super) fn ask(file: &File, name: Option<String>, dry_run: bool) -> Ask {
    let truth = |set: bool| set.then(|| "true".to_owned());
    Ask::post("/v1/apply", file.bytes.clone())
        .with("name", name)
        .with("dryRun", truth(dry_run))
        .file(&file.name)
        // A repeated apply of the same file changes nothing.
        .repeatable()
        .timed()
}

/// Prints the warnings about a file.
pub(super) fn warn(file: &File, warnings: &[Problem]) {
    for warning in warnings {
        eprintln!("warning: {}", problem(&file.name, warning));
    }
}

/// Refuses a file whose manifest has the name of an earlier file's: it would replace that manifest and remove its objects.
/// `earlier` has the names of the manifests of the files before it.
pub(super) fn check_once(
    files: &[File],
    earlier: &[impl AsRef<str>],
    manifest: &str,
) -> Result<(), Trouble> {
    let same = |name: &&str| !manifest.is_empty() && *name == manifest;
    let mut names = earlier.iter().map(AsRef::as_ref);
    let Some(at) = names.position(|name| same(&name)) else {
        return Ok(());
    };
    let first = &files[at].name;
    Err(Trouble::failed(format!(
        "its manifest has the name `{manifest}`, as that of {first}, and would replace it"
    ))
    .hint("put the objects of both into one file, or apply each file by itself, with its own `--name`"))
}

/// The error of the file at `at`: what was done before it, and what was not tried after it.
pub(super) fn stopped(
    trouble: Trouble,
    files: &[File],
    at: usize,
    (verb, done): (&str, &str),
) -> Trouble {
    let trouble = trouble.during(&format!("{verb} {}", files[at].name));
    if files.len() == 1 {
        return trouble;
    }
    let (before, after) = (names(&files[..at]), names(&files[at + 1..]));
    trouble.note(format!(
        "{done} before this file: {before}; not tried: {after}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(names: &[&str]) -> Vec<File> {
        let file = |name: &&str| File {
            name: (*name).to_owned(),
            bytes: bytes::Bytes::new(),
        };
        names.iter().map(file).collect()
    }

    #[test]
    fn an_error_says_what_was_done_and_what_was_not_tried() {
        let words = ("apply", "applied");
        let trouble = || Trouble::failed("no quorum").hint("wait");
        let text = |names: &[&str], at| stopped(trouble(), &files(names), at, words).to_string();
        assert_eq!(
            text(&["a.yaml"], 0),
            "error: apply a.yaml: no quorum\nhint: wait\n"
        );
        assert_eq!(
            text(&["a.yaml", "b.yaml", "c.yaml", "d.yaml"], 2),
            "error: apply c.yaml: no quorum\n\
             note: applied before this file: a.yaml, b.yaml; not tried: d.yaml\nhint: wait\n"
        );
        let first = text(&["a.yaml", "b.yaml"], 0);
        assert!(
            first.contains("before this file: none; not tried: b.yaml"),
            "{first}"
        );
    }

    #[test]
    fn two_files_cannot_be_one_manifest() {
        let files = files(&["a.yaml", "b.yaml", "c.yaml"]);
        // Files without a kept object have no manifest.
        assert!(check_once(&files, &["web", ""], "").is_ok());
        assert!(check_once(&files, &["web", "db"], "shop").is_ok());
        let refused = check_once(&files, &["web", "db"], "db").unwrap_err();
        let words = "its manifest has the name `db`, as that of b.yaml, and would replace it";
        assert_eq!(refused.message(), words);
    }
}
