//! The lease of a singleton: until when this host may run its pod.
//!
//! The gateway renews leases and writes each into a file below `/run/beemesh`. The supervisor of the workload reads it.
//! Times are seconds since the boot of the host, on the clock that also counts while the host is suspended
//! (`CLOCK_BOOTTIME` of clock_gettime(2)). A boot removes all files. Input and output: the files, and the clock.

use std::{
    fs, io,
    io::Read as _,
    path::{Path, PathBuf},
    time::Duration,
};

use nix::time::{ClockId, clock_gettime};

/// How long a lease lasts on the host that has it, from before it asked for it.
pub const TERM: Duration = Duration::from_secs(20);
/// The clocks of two hosts drift apart by at most one part in this many. The leader waits this much longer.
pub const DRIFT: u32 = 100;
/// When so little of the lease is left, the supervisor begins to stop the pod.
pub const STOP_AT: Duration = Duration::from_secs(10);
/// When so little is left, it kills all processes of the pod.
pub const KILL_AT: Duration = Duration::from_secs(7);

/// The longest content of a file.
const FILE_MAX: u64 = 32;
/// The folder of the files, below `/run/beemesh`.
const FOLDER: &str = "leases";

/// How long the leader must wait after it has granted a lease, until nobody has it.
#[must_use]
pub fn term_of_leader() -> Duration {
    TERM + TERM / DRIFT
}

/// The time since the boot of this host, including the time in which it was suspended.
///
/// # Errors
///
/// The kernel has no such clock.
pub fn now() -> io::Result<Duration> {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME)?;
    Ok(now.into())
}

fn file(run: &Path, pod: &str) -> PathBuf {
    // A pod's name has no `/`, and does not begin with a dot.
    run.join(FOLDER).join(pod)
}

/// Writes until when this host has the lease.
///
/// # Errors
///
/// The file cannot be written. The earlier one stays.
pub fn write(run: &Path, pod: &str, end: Duration) -> io::Result<()> {
    let path = file(run, pod);
    fs::create_dir_all(run.join(FOLDER))?;
    // No pod has a name with this character.
    let new = run.join(FOLDER).join(format!("{pod}~"));
    fs::write(
        &new,
        format!("{}.{:03}\n", end.as_secs(), end.subsec_millis()),
    )?;
    fs::rename(new, path)
}

/// Reads until when this host has the lease. `None`: it has none, or the file cannot be read.
#[must_use]
pub fn read(run: &Path, pod: &str) -> Option<Duration> {
    let mut text = String::new();
    let file = fs::File::open(file(run, pod)).ok()?;
    file.take(FILE_MAX).read_to_string(&mut text).ok()?;
    let (seconds, millis) = text.trim_end().split_once('.')?;
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    (is_number(seconds) && is_number(millis) && millis.len() == 3).then_some(())?;
    let seconds = Duration::from_secs(seconds.parse().ok()?);
    seconds.checked_add(Duration::from_millis(millis.parse().ok()?))
}

/// How much of the lease is left: zero without one.
#[must_use]
pub fn left(run: &Path, pod: &str) -> Duration {
    // Without a clock nothing is known of the time, so nothing is left.
    let (Some(end), Ok(now)) = (read(run, pod), now()) else {
        return Duration::ZERO;
    };
    // A longer lease than a term was written before a jump of the clock, or by nobody that knows.
    match end.saturating_sub(now) {
        left if left > TERM => Duration::ZERO,
        left => left,
    }
}

/// Removes the file, because this host runs the pod no more.
pub fn forget(run: &Path, pod: &str) {
    match fs::remove_file(file(run, pod)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(pod, %error, "the lease of a pod was not removed");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_read_as_it_was_written() {
        let run = tempfile::tempdir().unwrap();
        assert_eq!(left(run.path(), "web"), Duration::ZERO);
        let end = now().unwrap() + Duration::from_secs(15);
        write(run.path(), "web", end).unwrap();
        let read_end = read(run.path(), "web").unwrap();
        assert!(read_end <= end && end - read_end < Duration::from_millis(1));
        let left_now = left(run.path(), "web");
        assert!(left_now > Duration::from_secs(14) && left_now <= Duration::from_secs(15));
        assert_eq!(left(run.path(), "db"), Duration::ZERO);
        forget(run.path(), "web");
        forget(run.path(), "web");
        assert_eq!(read(run.path(), "web"), None);
    }

    #[test]
    fn what_cannot_be_read_is_no_lease() {
        let run = tempfile::tempdir().unwrap();
        write(run.path(), "web", Duration::ZERO).unwrap();
        assert_eq!(left(run.path(), "web"), Duration::ZERO, "it is over");
        let far = now().unwrap() + Duration::from_secs(3600);
        write(run.path(), "web", far).unwrap();
        assert_eq!(
            left(run.path(), "web"),
            Duration::ZERO,
            "no lease is so long"
        );
        for text in [
            "",
            "\n",
            "9",
            "9.",
            ".9",
            "-9.000",
            "+9.000",
            "9.0000",
            "9.00x",
            "1e9.000",
            "9.000 9.000",
            "99999999999999999999.000",
        ] {
            fs::write(file(run.path(), "web"), text).unwrap();
            assert_eq!(read(run.path(), "web"), None, "{text:?}");
        }
    }
}
