use std::collections::BTreeMap;

use beemesh_protocol::workload::WORKLOAD_BYTES_MAX;
use harness::interrupt::{Outcome, at_each_call};

use super::*;

fn files(workload: &str, index: u64) -> UnitFiles {
    UnitFiles {
        workload: workload.to_owned(),
        index,
        kube: format!(
            "[Kube]\nYaml={}\n\n[X-Beemesh]\nIndex={index}\n",
            yaml_file(workload, index)
        ),
        yaml: format!("revision {index}").into_bytes(),
    }
}

fn content(folder: &Path) -> BTreeMap<String, String> {
    let read = |entry: io::Result<fs::DirEntry>| {
        let entry = entry.unwrap();
        (
            entry.file_name().into_string().unwrap(),
            fs::read_to_string(entry.path()).unwrap(),
        )
    };
    fs::read_dir(folder).unwrap().map(read).collect()
}

fn pair(workload: &str, index: u64) -> BTreeMap<String, String> {
    let UnitFiles { kube, yaml, .. } = files(workload, index);
    let yaml = String::from_utf8(yaml).unwrap();
    BTreeMap::from([
        (kube_file(workload), kube),
        (yaml_file(workload, index), yaml),
    ])
}

/// The possible contents of the disk after a cut behind each step: everything that was synced, and any selection of the
/// later renames and removals. `Write` syncs its own file.
fn cuts<'a>(steps: &[Step<'a>]) -> Vec<Vec<Step<'a>>> {
    let mut outcomes = Vec::new();
    for end in 0..=steps.len() {
        let done = &steps[..end];
        let synced = done
            .iter()
            .rposition(|step| *step == Step::SyncFolder)
            .map_or(0, |at| at + 1);
        let (durable, loose) = done.split_at(synced);
        for selection in 0_u32..1 << loose.len() {
            let kept = loose
                .iter()
                .enumerate()
                .filter(|(bit, _)| selection >> bit & 1 == 1)
                .map(|(_, step)| step);
            outcomes.push(durable.iter().chain(kept).cloned().collect());
        }
    }
    outcomes
}

/// Carries out the surviving steps. A rename whose new file did not survive does nothing.
fn survive(units: &Units, steps: &[Step<'_>]) {
    for step in steps {
        match step {
            Step::Rename { from, .. } if !units.folder.join(from).exists() => {}
            _ => units.carry_out(step).unwrap(),
        }
    }
}

#[test]
fn a_cut_at_any_step_of_a_put_leaves_the_old_pair_or_the_new_one() {
    let new = files("web", 9);
    let outcomes = cuts(&put_steps(&new));
    assert_eq!(outcomes.len(), 1 + 2 + 4 + 1 + 2 + 4 + 1);
    for survived in outcomes {
        for old in [None, Some(files("web", 7))] {
            let folder = tempfile::tempdir().unwrap();
            let units = Units::open(folder.path()).unwrap();
            old.iter().for_each(|old| units.put(old).unwrap());
            survive(&units, &survived);
            let units = Units::open(folder.path()).unwrap();
            units.tidy("web").unwrap();
            let found = content(folder.path());
            let before = old
                .as_ref()
                .map_or_else(BTreeMap::new, |old| pair("web", old.index));
            assert!(
                found == before || found == pair("web", 9),
                "{survived:?} left {found:?}"
            );
            units.put(&new).unwrap();
            units.tidy("web").unwrap();
            assert_eq!(
                content(folder.path()),
                pair("web", 9),
                "put again after {survived:?}"
            );
        }
    }
}

#[test]
fn a_cut_at_any_step_of_a_removal_leaves_the_pair_or_nothing() {
    let yamls = vec![yaml_file("web", 7), yaml_file("web", 9)];
    for survived in cuts(&remove_steps("web", yamls)) {
        let folder = tempfile::tempdir().unwrap();
        let units = Units::open(folder.path()).unwrap();
        for index in [7, 9] {
            units.put(&files("web", index)).unwrap();
        }
        survive(&units, &survived);
        let units = Units::open(folder.path()).unwrap();
        units.tidy("web").unwrap();
        let found = content(folder.path());
        assert!(
            found.is_empty() || found == pair("web", 9),
            "{survived:?} left {found:?}"
        );
    }
}

#[test]
fn a_removal_and_a_tidy_touch_nothing_of_other_workloads() {
    let folder = tempfile::tempdir().unwrap();
    let units = Units::open(folder.path()).unwrap();
    for (workload, index) in [("web", 7), ("web", 9), ("web.7", 8), ("shop_web", 3)] {
        units.put(&files(workload, index)).unwrap();
    }
    fs::write(folder.path().join("notes.txt"), "an administrator's").unwrap();
    units.tidy("web").unwrap();
    let mut expected: BTreeMap<_, _> = [pair("web", 9), pair("web.7", 8), pair("shop_web", 3)]
        .into_iter()
        .flatten()
        .collect();
    expected.insert("notes.txt".to_owned(), "an administrator's".to_owned());
    assert_eq!(content(folder.path()), expected);
    units.remove("web").unwrap();
    expected.retain(|name, _| !pair("web", 9).contains_key(name));
    assert_eq!(content(folder.path()), expected);
    assert_eq!(
        units.kubes().unwrap().into_keys().collect::<Vec<_>>(),
        ["shop_web", "web.7"]
    );
    units.remove("web").unwrap();
}

#[test]
fn the_beginning_of_a_kube_file_that_somebody_else_made_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let units = Units::open(folder.path()).unwrap();
    units.put(&files("web", 7)).unwrap();
    let long = format!("#{}", "é".repeat(CONTROL_MAX));
    fs::write(folder.path().join(kube_file("foreign")), &long).unwrap();
    let expected = BTreeMap::from([
        ("foreign".to_owned(), long[..KUBE_BYTES_MAX - 1].to_owned()),
        ("web".to_owned(), files("web", 7).kube),
    ]);
    assert_eq!(units.kubes().unwrap(), expected);
}

#[test]
fn a_put_that_fails_leaves_the_old_pair_and_no_litter() {
    let folder = tempfile::tempdir().unwrap();
    let units = Units::open(folder.path()).unwrap();
    units.put(&files("web", 7)).unwrap();
    // A folder has the name of the new YAML, so that the rename fails, also for root.
    fs::create_dir(folder.path().join(yaml_file("web", 9))).unwrap();
    let error = units.put(&files("web", 9)).unwrap_err().to_string();
    assert!(
        error.starts_with("rename to ") && error.contains("beemesh-pod-web.9.yaml: "),
        "{error}"
    );
    fs::remove_dir(folder.path().join(yaml_file("web", 9))).unwrap();
    assert_eq!(content(folder.path()), pair("web", 7));
}

#[test]
fn only_root_reads_what_is_written() {
    use std::os::unix::fs::PermissionsExt;
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("beemesh");
    Units::open(&folder).unwrap().put(&files("web", 7)).unwrap();
    let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(folder.clone()), 0o700);
    assert_eq!(mode(folder.join(kube_file("web"))), 0o600);
    assert_eq!(mode(folder.join(yaml_file("web", 7))), 0o600);
}

#[test]
fn a_name_that_is_not_a_workloads_is_refused_everywhere() {
    let folder = tempfile::tempdir().unwrap();
    let units = Units::open(folder.path()).unwrap();
    let long = format!("{0}_{0}.a", "a".repeat(63));
    for name in [
        "", ".", "..", "a/b", "../web", "a..b", "Web", "web ", "we%nb", "-web", "web-", "a_b_c",
        "_web", "web_", "a.b_web", "we\nb", &long,
    ] {
        let refused = |result: Result<(), UnitsError>| matches!(result, Err(UnitsError::Name(wrong)) if wrong == name);
        assert!(refused(units.put(&files(name, 1))), "put {name:?}");
        assert!(refused(units.remove(name)), "remove {name:?}");
        assert!(refused(units.tidy(name)), "tidy {name:?}");
    }
    assert_eq!(content(folder.path()), BTreeMap::new());
    // The longest workload name that admission allows, with the longest index.
    let longest = format!("{0}_{0}", "a".repeat(63));
    assert_eq!(longest.len(), WORKLOAD_BYTES_MAX);
    for name in ["web", "web.v2", "shop_web-1.a", &longest] {
        units.put(&files(name, u64::MAX)).unwrap();
    }
}

#[test]
fn a_quadlet_that_would_run_something_on_the_host_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let units = Units::open(folder.path()).unwrap();
    let good = "[Kube]\nYaml=beemesh-pod-web.7.yaml\n";
    for (kube, reason) in [
        ("", "it does not name beemesh-pod-web.7.yaml"),
        (
            "[Kube]\nYaml=beemesh-pod-web.8.yaml\n",
            "it does not name beemesh-pod-web.7.yaml",
        ),
        (
            "[Kube]\nYaml=/etc/shadow\n",
            "it does not name beemesh-pod-web.7.yaml",
        ),
        (
            &format!("{good}Yaml = b.yaml\n"),
            "it does not name beemesh-pod-web.7.yaml",
        ),
        (
            &format!("{good}PodmanArgs=--build\n"),
            "line 3: `PodmanArgs` in [Kube] is not for a workload",
        ),
        (
            &format!("{good}[Service]\nExecStartPre=sh\n"),
            "line 4: `ExecStartPre` in [Service] is not for a workload",
        ),
        (
            &format!("{good}[Service]\n  Environment = A=b\n"),
            "line 4: `Environment` in [Service] is not for a workload",
        ),
        (
            &format!("{good}# note\\\n"),
            "line 3 is continued or has a control character",
        ),
        (
            &format!("{good}[X-Beemesh]\nIndex=1\\\n"),
            "line 4 is continued or has a control character",
        ),
        (
            &format!("ExecStart=sh\n{good}"),
            "line 1: `ExecStart` in [] is not for a workload",
        ),
    ] {
        let put = units.put(&UnitFiles {
            kube: kube.to_owned(),
            ..files("web", 7)
        });
        let expected = format!("the Quadlet of web is refused: {reason}");
        assert_eq!(put.unwrap_err().to_string(), expected, "{kube}");
    }
    assert_eq!(content(folder.path()), BTreeMap::new());
}

fn prepare(folder: &Path) {
    Units::open(folder).unwrap().put(&files("web", 7)).unwrap();
}

/// Checks that the folder holds `before` or `after`; a failure names the folder.
fn check(folder: &Path, outcome: &Outcome, words: &str, after: &BTreeMap<String, String>) {
    let units = Units::open(folder).unwrap();
    units.tidy("web").unwrap();
    let found = content(folder);
    match outcome {
        Outcome::Done => assert_eq!(found, *after, "{words}"),
        Outcome::Killed | Outcome::Failed(_) => {
            let is_old = found == pair("web", 7);
            assert!(is_old || found == *after, "{words} left {found:?}");
        }
    }
    if let Outcome::Failed(reason) = outcome {
        assert!(reason.contains(folder.to_str().unwrap()), "{words}");
    }
}

#[test]
fn a_put_that_ends_or_fails_at_any_system_call_leaves_the_old_pair_or_the_new_one() {
    let new = files("web", 9);
    at_each_call(
        prepare,
        |folder| {
            let units = Units::open(folder).map_err(|error| error.to_string())?;
            units.put(&new).map_err(|error| error.to_string())?;
            units.tidy("web").map_err(|error| error.to_string())
        },
        |folder, outcome, words| {
            check(folder, outcome, words, &pair("web", 9));
            let units = Units::open(folder).unwrap();
            units.put(&new).unwrap();
            units.tidy("web").unwrap();
            assert_eq!(content(folder), pair("web", 9), "put again after {words}");
        },
    );
}

#[test]
fn a_removal_that_ends_or_fails_at_any_system_call_leaves_the_pair_or_nothing() {
    at_each_call(
        prepare,
        |folder| {
            let units = Units::open(folder).map_err(|error| error.to_string())?;
            units.remove("web").map_err(|error| error.to_string())
        },
        |folder, outcome, words| check(folder, outcome, words, &BTreeMap::new()),
    );
}
