use std::process::{Child, Command, Stdio};

use super::*;

const POD: &str = "07c1ab";

/// A process with two children, whose ids are in the answer too.
pub(in super::super) fn tree() -> (Child, Vec<i32>) {
    let script = "sleep 60 & echo $!; (sleep 60; true) & echo $!; wait";
    let mut child = Command::new("sh")
        .args(["-c", script])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut pids = vec![i32::try_from(child.id()).unwrap()];
    let mut output = io::BufReader::new(child.stdout.take().unwrap());
    for _ in 0..2 {
        let mut line = String::new();
        io::BufRead::read_line(&mut output, &mut line).unwrap();
        pids.push(line.trim().parse().unwrap());
    }
    (child, pids)
}

/// Makes a folder that looks like the group of a container in the pod, with these processes. Returns the group of the pod.
pub(in super::super) fn group(mount: &Path, name: &str, pids: &[i32]) -> String {
    let pod = format!("machine.slice/machine-libpod_pod_{POD}.slice");
    let folder = mount.join(&pod).join(name);
    fs::create_dir_all(&folder).unwrap();
    let list: String = pids.iter().map(|pid| format!("{pid}\n")).collect();
    fs::write(folder.join("cgroup.procs"), list).unwrap();
    pod
}

#[test]
fn the_processes_of_a_pod_are_killed_and_those_that_watch_them_are_not() {
    let mount = tempfile::tempdir().unwrap();
    let (mut inside, pids) = tree();
    let mut watching = Command::new("sleep").arg("60").spawn().unwrap();
    let watcher = i32::try_from(watching.id()).unwrap();
    group(mount.path(), "libpod-c1.scope", &pids[..1]);
    group(mount.path(), "libpod-c1.scope/container/deep", &pids[1..]);
    // The init, a group, and the killer itself.
    let own = i32::try_from(std::process::id()).unwrap();
    group(mount.path(), "libpod-c2.scope", &[0, 1, -7, own]);
    let pod = group(mount.path(), "libpod-conmon-c1.scope", &[watcher]);
    let groups = BTreeSet::from([pod, "machine.slice/libpod-gone.scope".to_owned()]);
    kill_all(&[mount.path()], &groups);
    assert!(!inside.wait().unwrap().success());
    // The children are those of the init now, or of whatever took its place.
    for pid in &pids[1..] {
        let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let is_over = state.is_empty() || state.contains(") Z ");
        assert!(is_over || is_gone_soon(*pid), "{state}");
    }
    assert!(watching.try_wait().unwrap().is_none());
    watching.kill().unwrap();
    watching.wait().unwrap();
    assert!(kill_within(
        &[mount.path()],
        &BTreeSet::new(),
        Duration::ZERO
    ));
}

/// Waits until a killed process has ended.
fn is_gone_soon(pid: i32) -> bool {
    let began = Instant::now();
    loop {
        let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        if state.is_empty() || state.contains(") Z ") {
            return true;
        }
        if began.elapsed() > Duration::from_secs(10) {
            return false;
        }
        thread::yield_now();
    }
}

#[test]
fn only_groups_of_podman_are_known() {
    let own = [
        format!("libpod_parent/{POD}"),
        format!("machine.slice/machine-libpod_pod_{POD}.slice"),
    ];
    let with = |found: &str| {
        let mut all = BTreeSet::from(own.clone());
        all.insert(found.to_owned());
        all
    };
    for (path, expected) in [
        (
            format!("/machine.slice/machine-libpod_pod_{POD}.slice/libpod-c1.scope/container"),
            with(&own[1]),
        ),
        (
            format!("/my.slice/my-libpod_pod_{POD}.slice/libpod-c1.scope"),
            with(&format!("my.slice/my-libpod_pod_{POD}.slice")),
        ),
        (
            "/my.slice/libpod-c1.scope/container".to_owned(),
            with("my.slice/libpod-c1.scope"),
        ),
        (format!("/libpod_parent/{POD}/libpod-c1"), with(&own[0])),
        (
            "/system.slice/podman.service".to_owned(),
            BTreeSet::from(own.clone()),
        ),
        (
            "/machine.slice/libpod-conmon-c1.scope".to_owned(),
            BTreeSet::from(own.clone()),
        ),
        ("/".to_owned(), BTreeSet::from(own.clone())),
    ] {
        assert_eq!(of_pod(POD, [path.as_str()]), expected, "{path}");
    }
    for id in ["", "x", "../a"] {
        assert_eq!(of_pod(id, ["/machine.slice/a"]), BTreeSet::new(), "{id}");
    }
}

#[test]
fn the_next_supervisor_knows_the_groups() {
    let run = tempfile::tempdir().unwrap();
    assert_eq!(recall(run.path(), "web"), None);
    let groups = of_pod(POD, []);
    keep(run.path(), "web", &groups).unwrap();
    assert_eq!(recall(run.path(), "web"), Some(groups.clone()));
    let text = "machine.slice\n\n/\nmachine.slice/../libpod-a\nsystem.slice/a.service\n";
    fs::write(file(run.path(), "web"), text).unwrap();
    assert_eq!(recall(run.path(), "web"), Some(BTreeSet::new()));
    forget(run.path(), "web");
    assert_eq!(fs::read_dir(run.path()).unwrap().count(), 0);
    let mount = tempfile::tempdir().unwrap();
    let pod = group(mount.path(), "libpod-c1.scope", &[]);
    assert!(exists(&[mount.path()], &pod));
    assert!(!exists(&[mount.path()], "libpod_parent/aa"));
}
