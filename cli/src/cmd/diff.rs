//! `beemesh diff`.

use std::time::Duration;

use beemesh_protocol::api::{Compared, ComparedObject};
use similar::TextDiff;

use super::{
    print,
    series::{ask, check_once, stopped, warn},
};
use crate::{
    args::Diff,
    client::Client,
    source::{File, Places},
    trouble::Trouble,
};

/// The lines around a change, as other programs show them.
const CONTEXT: usize = 3;
/// The longest search for the smallest difference of one object: two texts of a MiB each could take minutes.
const SEARCH_TIME_MAX: Duration = Duration::from_secs(2);

/// Prints the differences. Returns true if there are any.
pub(super) async fn run(client: &Client, args: Diff) -> Result<bool, Trouble> {
    let places = Places::find(&args.sources.file, args.sources.recursive)?;
    places.check_name(args.name.as_ref())?;
    let files = places.read(client.timeout()).await?;
    let mut differs = false;
    let mut manifests = Vec::new();
    for (at, file) in files.iter().enumerate() {
        let compared = compare(client, &args, &files, &manifests).await;
        let compared =
            compared.map_err(|trouble| stopped(trouble, &files, at, ("diff", "compared")))?;
        warn(file, &compared.warnings);
        let changes = |one: &ComparedObject| one.before != one.after;
        differs |= compared.objects.iter().any(changes);
        let texts = compared.objects.iter().map(|one| unified(&file.name, one));
        print(texts.collect::<String>())?;
        manifests.push(compared.manifest);
    }
    Ok(differs)
}

/// Compares the file after those with these manifests.
async fn compare(
    client: &Client,
    args: &Diff,
    files: &[File],
    manifests: &[String],
) -> Result<Compared, Trouble> {
    let truth = |set: bool| set.then(|| "true".to_owned());
    // The files before it may have what it refers to.
    let lenient = args.wait_for_references || !manifests.is_empty();
    let ask = ask(&files[manifests.len()], args.name.clone(), true)
        .with("diff", truth(true))
        .with("prune", truth(args.prune))
        .with("strict", truth(args.strict))
        .with("waitForReferences", truth(lenient));
    let compared: Compared = client.json(&ask).await?;
    if args.prune {
        check_once(files, manifests, &compared.manifest)?;
    }
    Ok(compared)
}

/// The unified diff of one object; empty if its content does not change.
fn unified(file: &str, object: &ComparedObject) -> String {
    let text = |version: &Option<String>| version.clone().unwrap_or_default();
    let (before, after) = (text(&object.before), text(&object.after));
    if before == after {
        return String::new();
    }
    let name = format!("{} {}", object.effect.kind, object.effect.name);
    let has = |version: &Option<String>| match version {
        Some(_) => "",
        None => " (absent)",
    };
    let from = format!("cluster: {name}{}", has(&object.before));
    let to = format!("{file}: {name}{}", has(&object.after));
    let diff = TextDiff::configure()
        .timeout(SEARCH_TIME_MAX)
        .diff_lines(before.as_str(), after.as_str());
    diff.unified_diff()
        .context_radius(CONTEXT)
        .header(&from, &to)
        .to_string()
}

#[cfg(test)]
mod tests {
    use beemesh_protocol::api::{Action, AppliedObject};

    use super::*;

    fn object(before: Option<&str>, after: Option<&str>) -> ComparedObject {
        ComparedObject {
            effect: AppliedObject {
                kind: "ConfigMap".into(),
                name: "web".into(),
                action: Action::Updated,
                revision: 0,
            },
            before: before.map(str::to_owned),
            after: after.map(str::to_owned),
        }
    }

    #[test]
    fn a_change_has_three_lines_around_it() {
        let lines = |changed: &str| {
            format!("a: 1\nb: 2\nc: 3\nd: 4\ne: {changed}\nf: 6\ng: 7\nh: 8\ni: 9\n")
        };
        let (before, after) = (lines("5"), lines("x"));
        let diff = unified("web.yaml", &object(Some(&before), Some(&after)));
        assert_eq!(
            diff,
            "--- cluster: ConfigMap web\n+++ web.yaml: ConfigMap web\n@@ -2,7 +2,7 @@\n b: 2\n c: 3\n d: 4\n-e: 5\n+e: x\n f: 6\n g: 7\n h: 8\n"
        );
        assert_eq!(unified("web.yaml", &object(Some(&after), Some(&after))), "");
    }

    #[test]
    fn what_is_new_and_what_is_removed_is_shown_as_a_whole() {
        let text = "a: 1\nb: 2\n";
        assert_eq!(
            unified("-", &object(None, Some(text))),
            "--- cluster: ConfigMap web (absent)\n+++ -: ConfigMap web\n@@ -0,0 +1,2 @@\n+a: 1\n+b: 2\n"
        );
        assert_eq!(
            unified("-", &object(Some(text), None)),
            "--- cluster: ConfigMap web\n+++ -: ConfigMap web (absent)\n@@ -1,2 +0,0 @@\n-a: 1\n-b: 2\n"
        );
    }

    #[test]
    fn large_texts_are_compared_in_time() {
        let lines = |factor: u64| -> String {
            let line = |n: u64| format!("{}\n", n.wrapping_mul(factor) % 1009);
            (0..200_000).map(line).collect()
        };
        let (before, after) = (lines(7), lines(11));
        let begun = std::time::Instant::now();
        let diff = unified("web.yaml", &object(Some(&before), Some(&after)));
        assert!(diff.starts_with("--- cluster"), "{}", diff.len());
        let taken = begun.elapsed();
        assert!(taken < 10 * SEARCH_TIME_MAX, "{taken:?}");
    }
}
