use std::fs;

use beemesh_protocol::{ClusterId, HostId};
use harness::interrupt::{Outcome, at_each_call};

use super::super::{Joining, Rotation};
use super::*;

const OLD: ClusterId = ClusterId([1; 16]);
const NEW: ClusterId = ClusterId([2; 16]);
const KEY: HostId = HostId([9; 32]);

fn joining(cleared: bool) -> Joining {
    Joining {
        cluster: NEW,
        cleared,
        members: Vec::new(),
    }
}

/// Writes the files of a release before 0.3: a key change (and whether it was admitted), a join (and whether its log
/// was cleared), a recovery, a removal.
fn markers(
    folder: &Path,
    rotating: Option<bool>,
    joins: Option<bool>,
    recovering: bool,
    removed: bool,
) {
    let write = |name: &str, text: String| fs::write(folder.join(name), text).unwrap();
    let join = |cleared: bool| serde_json::to_string(&joining(cleared)).unwrap();
    if let Some(admitted) = rotating {
        let admitted = if admitted { join(false) } else { "null".into() };
        write(
            "rotating",
            format!("{{\"host\":\"{KEY}\",\"admitted\":{admitted}}}"),
        );
    }
    if let Some(cleared) = joins {
        write("joining", join(cleared));
    }
    if recovering {
        write("recovering", format!("{NEW}\n"));
    }
    if removed {
        write("removed", format!("{OLD}\n"));
    }
}

fn open(folder: &Path) -> Lifecycle {
    Lifecycle::open(&Home::open(folder).unwrap()).unwrap()
}

#[test]
fn every_combination_of_the_old_files_is_one_state_and_they_are_gone_afterwards() {
    let any = [None, Some(false), Some(true)];
    for rotating in any {
        for joins in any {
            for (recovering, removed) in
                [(false, false), (false, true), (true, false), (true, true)]
            {
                let folder = tempfile::tempdir().unwrap();
                markers(folder.path(), rotating, joins, recovering, removed);
                let expected = match (rotating, joins, recovering, removed) {
                    (Some(true), ..) => Life::RotatingKey(Rotation::Admitted {
                        host: KEY,
                        joining: joining(false),
                    }),
                    (_, Some(false), ..) => Life::Joining(joining(false)),
                    (_, _, true, _) => Life::Recovering { cluster: NEW },
                    (_, Some(true), ..) => Life::Joining(joining(true)),
                    (Some(false), ..) => Life::RotatingKey(Rotation::Proposed { host: KEY }),
                    (.., true) => Life::Removed {
                        cluster: OLD,
                        at: None,
                    },
                    (None, None, false, false) => Life::Alone,
                };
                let words = format!("{rotating:?} {joins:?} {recovering} {removed}");
                assert_eq!(open(folder.path()).now(), expected, "{words}");
                let left: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
                assert_eq!(left.len(), 1, "{words}: {left:?}");
                assert_eq!(open(folder.path()).now(), expected, "again: {words}");
                // The host was downgraded to the previous release for a while.
                markers(folder.path(), None, None, false, true);
                assert!(open(folder.path()).now().is_removed(), "{words}");
            }
        }
    }
}

#[test]
fn what_happens_is_seen_by_who_waits_and_what_cannot_happen_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let life = open(folder.path());
    let mut watch = life.watch();
    let error = life.happens(Event::Joined).unwrap_err();
    assert!(matches!(error, LifeError::Forbidden(_)), "{error}");
    assert!(!watch.has_changed().unwrap());
    assert_eq!(life.happens(Event::Grown).unwrap(), Life::Member);
    assert_eq!(*watch.borrow_and_update(), Life::Member);
    let removed = Event::Removed {
        cluster: OLD,
        at: Some(4),
    };
    assert!(life.happens(removed.clone()).unwrap().is_removed());
    watch.mark_unchanged();
    let _ = life.happens(removed).unwrap();
    assert!(!watch.has_changed().unwrap(), "it is as it was");
    assert!(open(folder.path()).now().is_removed());
}

#[test]
fn a_damaged_file_is_named() {
    for (name, text) in [
        ("life", "{\"joining\":"),
        ("joining", "{\"cluster\":"),
        ("removed", "x"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(name), text).unwrap();
        let error = Lifecycle::open(&Home::open(folder.path()).unwrap()).unwrap_err();
        assert!(
            matches!(error, HomeError::Damaged { .. }),
            "{name}: {error}"
        );
    }
}

#[test]
fn a_change_that_ends_or_fails_at_any_system_call_leaves_the_state_before_or_after() {
    let order = [
        Life::Joining(joining(false)),
        Life::Joining(joining(true)),
        Life::Member,
        Life::RotatingKey(Rotation::Making),
        Life::RotatingKey(Rotation::Proposed { host: KEY }),
    ];
    at_each_call(
        |folder| markers(folder, Some(false), Some(false), true, true),
        |folder| {
            let act = || -> Result<(), LifeError> {
                let life = Lifecycle::open(&Home::open(folder)?)?;
                let key = Event::KeyProposed { host: KEY };
                for event in [Event::Cleared, Event::Joined, Event::KeyAsked, key] {
                    let _ = life.happens(event)?;
                }
                Ok(())
            };
            act().map_err(|error| match error {
                LifeError::Home(error) => error.to_string(),
                error @ LifeError::Forbidden(_) => error.to_string(),
            })
        },
        |folder, outcome, words| {
            let found = open(folder).now();
            assert!(order.contains(&found), "{words} left {found:?}");
            match outcome {
                Outcome::Done => assert_eq!(found, order[4], "{words}"),
                Outcome::Killed => {}
                Outcome::Failed(reason) => {
                    assert!(
                        reason.contains(folder.to_str().unwrap()),
                        "{words}: {reason}"
                    );
                }
            }
        },
    );
}
