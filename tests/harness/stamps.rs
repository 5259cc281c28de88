//! When the runs of a container were at work, by the time stamps that they wrote.
//!
//! Pure. All hosts of a testbed share one kernel, so the uptimes that they read are of one clock (`CLOCK_BOOTTIME`, in
//! hundredths of a second), and stamps of different hosts can be compared. A run is one start of a container: on one host,
//! with the uptime of its first line.

use std::{collections::BTreeMap, fmt, time::Duration};

/// One line that a container wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp {
    /// When it was written.
    pub at: Duration,
    /// The number of the host, from 1.
    pub host: usize,
    /// When its run began.
    pub begun: Duration,
}

/// One run of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// The number of the host, from 1.
    pub host: usize,
    /// When it began.
    pub begun: Duration,
    /// Its first stamp.
    pub first: Duration,
    /// Its last stamp.
    pub last: Duration,
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, last) = (self.first.as_secs_f64(), self.last.as_secs_f64());
        write!(f, "on h{} from {first:.2} to {last:.2}", self.host)
    }
}

/// A time in which no run was at work.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Gap {
    /// The last stamp before it.
    pub from: Duration,
    /// The first stamp after it, or the end of what is looked at.
    pub to: Duration,
}

impl Gap {
    /// How long it is.
    #[must_use]
    pub fn length(&self) -> Duration {
        self.to.saturating_sub(self.from)
    }
}

/// All stamps of one workload.
#[derive(Debug, Clone, Default)]
pub struct Stamps {
    all: Vec<Stamp>,
}

impl Stamps {
    /// Adds whole lines of a host: the uptime at which the run began, and the present one.
    ///
    /// # Errors
    /// A line is something else.
    pub fn read(&mut self, host: usize, lines: &str) -> Result<(), String> {
        for line in lines.lines() {
            let (begun, at) = line
                .split_once(' ')
                .and_then(|(begun, at)| Some((uptime(begun)?, uptime(at)?)))
                .filter(|(begun, at)| begun <= at)
                .ok_or_else(|| format!("h{host} wrote a line that is no stamp: {line:?}"))?;
            self.all.push(Stamp { at, host, begun });
        }
        Ok(())
    }

    /// The number of stamps.
    #[must_use]
    pub fn count(&self) -> usize {
        self.all.len()
    }

    /// The last stamp.
    #[must_use]
    pub fn latest(&self) -> Option<Stamp> {
        self.all.iter().max().copied()
    }

    /// All runs, by their first stamp.
    #[must_use]
    pub fn runs(&self) -> Vec<Run> {
        let mut runs: BTreeMap<(usize, Duration), Run> = BTreeMap::new();
        for Stamp { at, host, begun } in self.all.iter().copied() {
            let run = runs.entry((host, begun)).or_insert(Run {
                host,
                begun,
                first: at,
                last: at,
            });
            run.first = run.first.min(at);
            run.last = run.last.max(at);
        }
        let mut runs: Vec<Run> = runs.into_values().collect();
        runs.sort_by_key(|run| (run.first, run.host));
        runs
    }

    /// Two runs that were at work at the same time, on one host or on two. A common hundredth of a second counts.
    #[must_use]
    pub fn together(&self) -> Option<(Run, Run)> {
        let mut longest: Option<Run> = None;
        for run in self.runs() {
            match longest {
                Some(before) if run.first <= before.last => return Some((before, run)),
                _ => longest = Some(run),
            }
        }
        None
    }

    /// The longest time without a stamp, from the first one until `end`.
    #[must_use]
    pub fn longest_gap(&self, end: Duration) -> Gap {
        let mut times: Vec<Duration> = self.all.iter().map(|stamp| stamp.at).collect();
        times.push(end);
        times.sort_unstable();
        let gaps = times.windows(2).map(|pair| Gap {
            from: pair[0],
            to: pair[1],
        });
        gaps.max_by_key(Gap::length).unwrap_or_default()
    }
}

/// Reads an uptime as in `/proc/uptime`, such as `1234.56`.
#[must_use]
pub fn uptime(text: &str) -> Option<Duration> {
    let (seconds, hundredths) = text.split_once('.')?;
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    (is_number(seconds) && is_number(hundredths) && hundredths.len() == 2).then_some(())?;
    let seconds = Duration::from_secs(seconds.parse().ok()?);
    seconds.checked_add(Duration::from_millis(10 * hundredths.parse::<u64>().ok()?))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "whatever is missing fails the test")]
mod tests {
    use super::*;

    fn stamps(lines: &[(usize, &str)]) -> Stamps {
        let mut stamps = Stamps::default();
        for (host, lines) in lines {
            stamps.read(*host, lines).unwrap();
        }
        stamps
    }

    #[test]
    fn one_after_the_other_is_not_together() {
        let one = stamps(&[
            (2, "30.00 30.01\n30.00 31.00\n"),
            (1, "10.00 10.02\n10.00 29.99\n40.00 40.01\n"),
        ]);
        assert_eq!(one.together(), None);
        let shown: Vec<String> = one.runs().iter().map(Run::to_string).collect();
        assert_eq!(
            shown,
            [
                "on h1 from 10.02 to 29.99",
                "on h2 from 30.01 to 31.00",
                "on h1 from 40.01 to 40.01"
            ]
        );
        assert_eq!(stamps(&[]).together(), None);
    }

    #[test]
    fn two_hosts_at_a_time_are_found() {
        for second in [
            // They take turns, one begins within the other, both begin at once, one stamp is within the other.
            "20.00 20.00\n20.00 40.00\n",
            "20.00 20.00\n20.00 21.00\n",
            "10.00 10.00\n10.00 40.00\n",
            "20.00 20.00\n",
            // In the same hundredth of a second as the last one of the other.
            "30.00 30.00\n",
        ] {
            let both = stamps(&[(1, "10.00 10.00\n10.00 30.00\n"), (2, second)]);
            let (one, other) = both.together().expect(second);
            assert_ne!(one.host, other.host, "{second}");
            let both = stamps(&[(2, second), (1, "10.00 10.00\n10.00 30.00\n")]);
            assert!(both.together().is_some(), "{second}");
        }
    }

    /// A short run in between does not hide the long one, which ends later.
    #[test]
    fn a_run_within_two_others_hides_none() {
        let all = stamps(&[
            (1, "10.00 10.00\n10.00 20.00\n"),
            (2, "30.00 30.00\n30.00 90.00\n"),
            (3, "40.00 40.00\n40.00 41.00\n"),
        ]);
        let (one, other) = all.together().unwrap();
        assert_eq!((one.host, other.host), (2, 3));
    }

    #[test]
    fn two_runs_on_one_host_at_a_time_are_found() {
        let both = stamps(&[(1, "10.00 10.00\n12.00 12.00\n10.00 13.00\n12.00 14.00\n")]);
        assert!(both.together().is_some());
    }

    #[test]
    fn the_longest_gap_counts_until_the_end() {
        let seconds = Duration::from_secs;
        let all = stamps(&[
            (1, "10.00 10.00\n10.00 11.00\n"),
            (2, "16.00 16.00\n16.00 17.00\n"),
        ]);
        let gap = |end| all.longest_gap(seconds(end));
        assert_eq!((gap(18).from, gap(18).to), (seconds(11), seconds(16)));
        assert_eq!(gap(18).length(), seconds(5));
        assert_eq!((gap(30).from, gap(30).to), (seconds(17), seconds(30)));
        assert_eq!(stamps(&[]).longest_gap(seconds(9)).length(), seconds(0));
        assert_eq!(all.latest().unwrap().at, seconds(17));
        assert_eq!(all.count(), 4);
    }

    #[test]
    fn what_is_no_stamp_is_an_error() {
        for line in [
            "\n",
            "10.00\n",
            "10.00 \n",
            "10.00 10\n",
            "10.00 10.0\n",
            "10.00 10.000\n",
            "11.00 10.00\n",
            "a.bc 10.00\n",
            "10.00 10.00 10.00\n",
        ] {
            let error = Stamps::default().read(3, line).expect_err(line);
            assert!(error.starts_with("h3 wrote"), "{error}");
        }
    }
}
