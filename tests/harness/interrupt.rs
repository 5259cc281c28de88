//! Kills the program of a test at each of its system calls in turn, or makes each of them fail, with `strace --inject`.
//!
//! The test runs itself again as a child, once for each call and each of [`FAULTS`], until a child completes without a
//! fault. This covers a kill at each moment and a disk that refuses at each moment. A power cut, which also loses
//! unflushed data, is covered by tests that know the earlier state.

use std::{
    collections::BTreeSet,
    env,
    ffi::OsStr,
    fs::{self, File},
    io::Write as _,
    os::unix::process::ExitStatusExt as _,
    path::Path,
    process::{self, Command},
    thread,
};

/// The variable with the folder on which the child works.
const FOLDER: &str = "BEEMESH_INTERRUPTED";
/// System calls that change a disk, or open a file to change it.
const CALLS: &str = "openat,write,pwrite64,fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,rmdir,\
                     ftruncate,chmod,fchmod,fchmodat";
/// The faults for each call: strace kills the process before the call, or makes the call fail.
const FAULTS: [&str; 3] = ["signal=SIGKILL", "error=EIO", "error=ENOSPC"];
const KILLED: i32 = 9;
/// Calls that the main thread makes, too.
const PADDED: [&str; 2] = ["openat", "write"];
/// strace counts each kind of call per thread. The test's thread begins with this many calls of the [`PADDED`] kinds,
/// more than the main thread makes. They change nothing, and strace injects faults only into the calls after them,
/// which belong to the action.
const PADDING: u32 = 64;
/// The largest number of calls of one kind; an action with more does not end.
const CALLS_MAX: u32 = 1_000;
/// The child's exit code for an action that failed.
const FAILED: i32 = 3;

/// The result of an action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It was killed.
    Killed,
    /// It failed, with its message.
    Failed(String),
    /// It completed.
    Done,
}

/// For each fault and each call of `act`: prepares a new folder, runs `act` on it with that fault, and checks the
/// result.
///
/// `act` runs in another process. `check` also gets a text that names the fault. A test may call this function once.
///
/// # Panics
///
/// Without strace, and if the action ends in another way than success, a kill or a failure.
#[track_caller]
pub fn at_each_call(
    prepare: impl Fn(&Path),
    act: impl Fn(&Path) -> Result<(), String>,
    check: impl Fn(&Path, &Outcome, &str),
) {
    if let Some(folder) = env::var_os(FOLDER) {
        act_as_child(&folder, act);
    }
    let mut struck = 0;
    for call in kinds(&prepare) {
        let first = if PADDED.contains(&call.as_str()) {
            PADDING + 1
        } else {
            1
        };
        for fault in FAULTS {
            for number in first.. {
                assert!(
                    number < PADDING + CALLS_MAX,
                    "{call}: the action has no end"
                );
                let folder = tempfile::tempdir().expect("a folder");
                prepare(folder.path());
                let inject = format!("--inject={call}:{fault}:when={number}");
                let (outcome, traced) = run(&[&format!("--trace={call}"), &inject], folder.path());
                let words = format!("{fault} at {call} {}: {outcome:?}", number - first + 1);
                check(folder.path(), &outcome, &words);
                if outcome != Outcome::Killed && !traced.contains("(INJECTED)") {
                    assert_eq!(outcome, Outcome::Done, "{words}");
                    break;
                }
                struck += 1;
            }
        }
    }
    eprintln!("{struck} faults");
    assert!(struck >= FAULTS.len(), "no call was struck");
}

fn act_as_child(folder: &OsStr, act: impl Fn(&Path) -> Result<(), String>) -> ! {
    let mut nowhere = File::create("/dev/null").expect("it is there");
    for _ in 0..PADDING {
        drop(File::open("/proc/self/absent"));
        drop(nowhere.write(b"x"));
    }
    match act(Path::new(folder)) {
        Ok(()) => process::exit(0),
        Err(reason) => {
            eprintln!("{reason}");
            process::exit(FAILED)
        }
    }
}

/// The kinds of calls that the action makes.
fn kinds(prepare: impl Fn(&Path)) -> BTreeSet<String> {
    let folder = tempfile::tempdir().expect("a folder");
    prepare(folder.path());
    let (outcome, traced) = run(&[&format!("--trace={CALLS}")], folder.path());
    assert_eq!(outcome, Outcome::Done, "without a fault");
    // Each line begins with the thread's number.
    let call = |line: &str| {
        let (_, call) = line.split_once(' ')?;
        let (call, _) = call.trim_start().split_once('(')?;
        Some(call.to_owned())
    };
    traced
        .lines()
        .filter_map(call)
        .filter(|call| CALLS.split(',').any(|one| one == call))
        .collect()
}

/// The outcome of the action under strace, and strace's output.
fn run(options: &[&str], folder: &Path) -> (Outcome, String) {
    let seen = tempfile::NamedTempFile::new().expect("a file");
    let current = thread::current();
    let test = current.name().expect("the test's name");
    let output = Command::new("strace")
        .args(["--follow-forks", "--quiet=all", "--output"])
        .arg(seen.path())
        .args(options)
        .arg(env::current_exe().expect("this program"))
        .args(["--exact", test, "--nocapture"])
        .env(FOLDER, folder)
        .output()
        .expect("strace runs: tests/prepare installs it");
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    let outcome = match (output.status.code(), output.status.signal()) {
        (Some(0), _) => Outcome::Done,
        (Some(FAILED), _) => Outcome::Failed(said),
        // strace ends in the same way as its child.
        (_, Some(KILLED)) => Outcome::Killed,
        _ => panic!("{options:?}: {}: {said}", output.status),
    };
    let traced = fs::read_to_string(seen.path()).expect("what strace saw");
    (outcome, traced)
}
