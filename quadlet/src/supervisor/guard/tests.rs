use std::path::Path;

use super::cgroups::tests::{group, tree};
use super::*;
use crate::lease;

fn settings(run: &Path) -> Settings {
    Settings {
        workload: "web".into(),
        socket: PathBuf::new(),
        folder: PathBuf::new(),
        run: run.to_owned(),
    }
}

fn renew(run: &Path, left: Duration) {
    lease::write(run, "web", lease::now().unwrap() + left).unwrap();
}

#[test]
fn the_end_of_a_lease_comes_in_two_steps() {
    let millis = Duration::from_millis;
    for (left, expected) in [
        (20_000, Deed::Nothing),
        (10_001, Deed::Nothing),
        (10_000, Deed::Stop),
        (7_001, Deed::Stop),
        (7_000, Deed::Kill),
        (0, Deed::Kill),
    ] {
        assert_eq!(deed(millis(left)), expected, "{left}");
    }
}

#[tokio::test]
async fn without_a_lease_the_processes_of_the_pod_are_killed() {
    let (run, mount) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (mut inside, pids) = tree();
    let groups = BTreeSet::from([group(mount.path(), "libpod-c1.scope", &pids)]);
    renew(run.path(), lease::TERM);
    let mounts = vec![mount.path().to_owned()];
    let mut guard = Guard::over(&settings(run.path()), mounts.clone());
    assert!(!guard.is_short(), "it is not needed");
    assert!(guard.watch(true, &groups).unwrap());
    assert!(!guard.is_short());
    // It ends, and the loop is told.
    renew(run.path(), lease::STOP_AT);
    assert_eq!(guard.changed().await, Event::LeaseEnds);
    assert!(guard.is_short());
    assert!(inside.try_wait().unwrap().is_none(), "it may still end");
    renew(run.path(), lease::TERM);
    assert_eq!(guard.changed().await, Event::LeaseBegins);
    assert!(inside.try_wait().unwrap().is_none());
    // The gateway has died. The pod is gone, and its groups are those that the guard knew before.
    renew(run.path(), lease::KILL_AT);
    assert!(!guard.watch(true, &BTreeSet::new()).unwrap());
    let ended = tokio::task::spawn_blocking(move || inside.wait().unwrap());
    assert!(!ended.await.unwrap().success());
    // Other processes may get their ids.
    group(mount.path(), "libpod-c1.scope", &[]);
    // The next supervisor kills them too.
    let (mut inside, pids) = tree();
    drop(guard);
    group(mount.path(), "libpod-c1.scope", &pids);
    let mut next = Guard::over(&settings(run.path()), mounts);
    assert!(next.watch(true, &BTreeSet::new()).unwrap());
    let ended = tokio::task::spawn_blocking(move || inside.wait().unwrap());
    assert!(!ended.await.unwrap().success());
    // Other processes may get their ids.
    group(mount.path(), "libpod-c1.scope", &[]);
    // A supervisor that ends leaves nothing behind, even with a lease.
    renew(run.path(), lease::TERM);
    let (mut inside, pids) = tree();
    group(mount.path(), "libpod-c1.scope", &pids);
    drop(next);
    assert!(!inside.wait().unwrap().success());
    // The workload was replaced by one that is no singleton.
    assert!(cgroups::recall(run.path(), "web").is_some());
    let mut next = Guard::over(&settings(run.path()), Vec::new());
    assert!(!next.watch(false, &groups).unwrap());
    assert!(!next.is_short());
    assert_eq!(cgroups::recall(run.path(), "web"), None);
}
