//! Ends the program that runs a test at each of its system calls in turn, or has each of them fail, by `strace --inject`.
//!
//! The test runs itself again as a child, once for each call and [`FAULTS`], until one comes through. This is a kill at each
//! moment and a disk that refuses at each moment; a power cut, which also loses what was not flushed, is for the tests that
//! know what was.

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

/// The folder that the child works on.
const FOLDER: &str = "BEEMESH_INTERRUPTED";
/// What changes a disk, or opens what is changed.
const CALLS: &str = "openat,write,pwrite64,fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,rmdir,\
                     ftruncate,chmod,fchmod,fchmodat";
/// Each is tried at each call: the process is killed before the call, or the call fails.
const FAULTS: [&str; 3] = ["signal=SIGKILL", "error=EIO", "error=ENOSPC"];
/// SIGKILL.
const KILLED: i32 = 9;
/// What the main thread does, too.
const PADDED: [&str; 2] = ["openat", "write"];
/// strace counts each kind of call of each thread by itself. The test's own thread begins with so many of those that the main
/// thread makes, too, and more often than that; they change nothing, and what comes after them is the action's.
const PADDING: u32 = 64;
/// Calls of one kind, beyond which something never comes to an end.
const CALLS_MAX: u32 = 1_000;
/// The child's exit code for an action that failed.
const FAILED: i32 = 3;

/// What became of an action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It was killed.
    Killed,
    /// It failed, in its own words.
    Failed(String),
    /// It came through.
    Done,
}

/// Prepares a new folder, acts on it with one fault, and checks what is left, for each fault and each call of `act`.
///
/// `act` runs in another process. `check` also gets words that say which fault it was. To be called by a test, once.
///
/// # Panics
///
/// Without strace, and when the action does something else than to end, be killed, or fail.
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

/// The outcome of the action under strace, and what that saw.
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
        // strace ends like what it has traced.
        (_, Some(KILLED)) => Outcome::Killed,
        _ => panic!("{options:?}: {}: {said}", output.status),
    };
    let traced = fs::read_to_string(seen.path()).expect("what strace saw");
    (outcome, traced)
}
