//! Pure: the messages about problems of a container, and the conversion of container output into one line of limited
//! length.

use super::{ContainerReport, ContainerState, FailedProbe, LastExit, ProbeKind};

/// Maximum number of containers whose reasons are listed.
const TOLD_MAX: usize = 3;

impl ContainerReport {
    /// The problem of the container as a message without output; `None` if it has none or is being started.
    #[must_use]
    pub fn reason(&self) -> Option<String> {
        if self.state == ContainerState::Paused {
            return Some("paused".to_owned());
        }
        let cause = self.cause()?;
        let times = match self.ends {
            0 | 1 => String::new(),
            ends => format!(", {ends} times"),
        };
        Some(format!("{cause}{times}{}", self.next()))
    }

    /// The same message with the last output of the container or its probe.
    #[must_use]
    pub fn reason_with_output(&self) -> Option<String> {
        let reason = self.reason()?;
        let output = match self.output() {
            "" => String::new(),
            output => format!(": {output}"),
        };
        Some(format!("{reason}{output}"))
    }

    fn cause(&self) -> Option<String> {
        if !self.start_error.is_empty() {
            return Some(format!("cannot start: {}", self.start_error));
        }
        let exit = self.exit.as_ref();
        let in_start = exit.filter(|exit| exit.in_start && self.ends > 0);
        match (in_start, &self.probe, exit) {
            (Some(exit), _, _) => Some(exit.words()),
            (None, Some(probe), _) => Some(probe.words()),
            (None, None, Some(exit)) if self.ends > 0 || !self.healthy => Some(exit.words()),
            _ => None,
        }
    }

    fn output(&self) -> &str {
        let probe = self.probe.as_ref().map_or("", |probe| &probe.output);
        match (self.start_error.as_str(), probe, &self.exit) {
            ("", "", Some(exit)) => &exit.output,
            ("", probe, _) => probe,
            _ => "",
        }
    }

    fn next(&self) -> String {
        let ended_at = self.exit.as_ref().map_or(0, |exit| exit.at);
        match self.next_try_at {
            Some(at) if at > ended_at => format!(", next try at {} UTC", time_of_day(at)),
            Some(_) => ", next try at once".to_owned(),
            None if self.state == ContainerState::Exited && !self.healthy => {
                ", not started again".to_owned()
            }
            None => String::new(),
        }
    }
}

impl LastExit {
    fn words(&self) -> String {
        let code = match (self.code, self.code.and_then(signal_name)) {
            (Some(code), Some(signal)) => format!("exit {code} ({signal})"),
            (Some(code), None) => format!("exit {code}"),
            (None, _) => "ended".to_owned(),
        };
        let memory = if self.out_of_memory {
            "out of memory, "
        } else {
            ""
        };
        let when = if self.in_start {
            " before its startup probe succeeded"
        } else {
            ""
        };
        format!("{memory}{code}{when}")
    }
}

impl FailedProbe {
    fn words(&self) -> String {
        let kind = match self.kind {
            ProbeKind::Startup => "startup",
            ProbeKind::Liveness => "liveness",
            ProbeKind::Readiness => "readiness",
        };
        let count = match (self.failures, self.threshold) {
            (0, _) => String::new(),
            (failures, 0) => format!(" {failures} times"),
            (failures, threshold) => format!(" {failures} of {threshold}"),
        };
        let how = match (self.timed_out, self.exit) {
            (true, _) => ", timed out".to_owned(),
            (false, Some(exit)) => format!(", exit {exit}"),
            (false, None) => String::new(),
        };
        format!("{kind} probe failed{count}{how}")
    }
}

/// `app: exit 3, 3 times` for each container that has a reason, for at most three of them, and the number of further
/// ones.
#[must_use]
pub fn reasons<'a>(
    containers: impl IntoIterator<Item = &'a ContainerReport>,
    with_output: bool,
) -> Vec<String> {
    let mut told = Vec::new();
    let mut more = 0;
    for one in containers {
        let reason = match with_output {
            true => one.reason_with_output(),
            false => one.reason(),
        };
        match reason {
            Some(_) if told.len() >= TOLD_MAX => more += 1,
            Some(reason) => told.push(format!("{}: {reason}", one.name)),
            None => {}
        }
    }
    if more > 0 {
        told.push(format!("and {more} more"));
    }
    told
}

/// The name of the signal in an exit code.
#[must_use]
pub fn signal_name(code: u32) -> Option<&'static str> {
    Some(match code.checked_sub(128)? {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        10 => "SIGUSR1",
        11 => "SIGSEGV",
        12 => "SIGUSR2",
        13 => "SIGPIPE",
        14 => "SIGALRM",
        15 => "SIGTERM",
        _ => return None,
    })
}

/// Formats the time of day as `13:46:40`, from seconds since 1970.
#[must_use]
pub fn time_of_day(at: u64) -> String {
    let (hours, minutes, seconds) = (at / 3600 % 24, at / 60 % 60, at % 60);
    format!("{hours:02}:{minutes:02}:{seconds:02}")
}

/// Converts text into one line of at most `chars` characters: words with one space between them, without control
/// characters and characters that change the direction of text or start a new line.
#[must_use]
pub fn clean(text: &str, chars: usize) -> String {
    let is_hidden = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
    };
    let mut line = String::new();
    let mut left = chars;
    for word in text.split_ascii_whitespace() {
        let mut word = word.chars().filter(|c| !is_hidden(*c)).peekable();
        if word.peek().is_none() {
            continue;
        }
        if !line.is_empty() {
            if left < 2 {
                break;
            }
            line.push(' ');
            left -= 1;
        }
        for c in word.take(left) {
            line.push(c);
            left -= 1;
        }
    }
    line
}

/// The last line of an output that is not empty after [`clean`].
#[must_use]
pub fn last_line(output: &str, chars: usize) -> String {
    let lines = output.split(['\n', '\r']).rev();
    let mut lines = lines.map(|line| clean(line, chars));
    lines.find(|line| !line.is_empty()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_says_what_is_wrong_with_it() {
        let up = ContainerReport {
            name: "app".into(),
            state: ContainerState::Running,
            ready: true,
            healthy: true,
            ..ContainerReport::default()
        };
        let exit = |code| LastExit {
            code: Some(code),
            at: 100,
            output: "no such metric".into(),
            ..LastExit::default()
        };
        let down = ContainerReport {
            state: ContainerState::Exited,
            ready: false,
            healthy: false,
            ends: 3,
            exit: Some(exit(3)),
            next_try_at: Some(36_000),
            ..up.clone()
        };
        let probe = FailedProbe {
            failures: 7,
            threshold: 10,
            exit: Some(1),
            output: "HTTP/1.1 404 Not Found".into(),
            ..FailedProbe::default()
        };
        for (container, reason, output) in [
            (up.clone(), None, ""),
            (
                ContainerReport {
                    state: ContainerState::Paused,
                    ..up.clone()
                },
                Some("paused"),
                "",
            ),
            (
                ContainerReport {
                    ready: false,
                    healthy: false,
                    ..up.clone()
                },
                None,
                "",
            ),
            (
                ContainerReport {
                    exit: Some(exit(3)),
                    restarts: 1,
                    ..up.clone()
                },
                None,
                "",
            ),
            (
                ContainerReport {
                    exit: Some(exit(137)),
                    restarts: 1,
                    ends: 1,
                    ..up.clone()
                },
                Some("exit 137 (SIGKILL)"),
                ": no such metric",
            ),
            (
                ContainerReport {
                    probe: Some(probe.clone()),
                    ..up.clone()
                },
                Some("liveness probe failed 7 of 10, exit 1"),
                ": HTTP/1.1 404 Not Found",
            ),
            (
                ContainerReport {
                    probe: Some(FailedProbe {
                        timed_out: true,
                        ..probe.clone()
                    }),
                    exit: Some(LastExit {
                        by_probe: true,
                        ..exit(137)
                    }),
                    ..down.clone()
                },
                Some("liveness probe failed 7 of 10, timed out, 3 times, next try at 10:00:00 UTC"),
                ": HTTP/1.1 404 Not Found",
            ),
            (
                down.clone(),
                Some("exit 3, 3 times, next try at 10:00:00 UTC"),
                ": no such metric",
            ),
            (
                ContainerReport {
                    next_try_at: Some(100),
                    ends: 1,
                    ..down.clone()
                },
                Some("exit 3, next try at once"),
                ": no such metric",
            ),
            (
                ContainerReport {
                    next_try_at: None,
                    ends: 1,
                    ..down.clone()
                },
                Some("exit 3, not started again"),
                ": no such metric",
            ),
            (
                ContainerReport {
                    exit: Some(LastExit {
                        out_of_memory: true,
                        ..exit(137)
                    }),
                    ..down.clone()
                },
                Some("out of memory, exit 137 (SIGKILL), 3 times, next try at 10:00:00 UTC"),
                ": no such metric",
            ),
            (
                ContainerReport {
                    exit: Some(LastExit {
                        in_start: true,
                        ..exit(3)
                    }),
                    probe: Some(FailedProbe {
                        kind: ProbeKind::Startup,
                        failures: 0,
                        ..probe
                    }),
                    ..down.clone()
                },
                Some(
                    "exit 3 before its startup probe succeeded, 3 times, next try at 10:00:00 UTC",
                ),
                ": HTTP/1.1 404 Not Found",
            ),
            (
                ContainerReport {
                    start_error: "no such file".into(),
                    ..down.clone()
                },
                Some("cannot start: no such file, 3 times, next try at 10:00:00 UTC"),
                "",
            ),
        ] {
            assert_eq!(container.reason().as_deref(), reason);
            let whole = reason.map(|reason| format!("{reason}{output}"));
            assert_eq!(container.reason_with_output(), whole);
        }
        let told = reasons(&vec![down; 5], false);
        assert_eq!(told.len(), 4);
        assert_eq!(
            (told[0].as_str(), told[3].as_str()),
            (
                "app: exit 3, 3 times, next try at 10:00:00 UTC",
                "and 2 more"
            )
        );
    }

    #[test]
    fn text_becomes_one_bounded_line() {
        for (text, chars, expected) in [
            ("", 9, ""),
            (
                " a\nSTATUS=b \u{7}c\t d \u{1b}[0m",
                99,
                "a STATUS=b c d [0m",
            ),
            ("\u{202e}evil\u{2028}line\u{feff}", 99, "evilline"),
            ("ab \u{7} cd", 5, "ab cd"),
            ("ab cd", 4, "ab c"),
            ("ab cd", 3, "ab"),
            ("äöü", 2, "äö"),
            ("x", 0, ""),
        ] {
            let line = clean(text, chars);
            assert_eq!(line, expected, "{text:?}");
            assert_eq!(clean(&line, chars), line, "{text:?}");
        }
        assert_eq!(last_line("one\ntwo\r\n \u{7}\n", 9), "two");
        assert_eq!(last_line("\n\n", 9), "");
    }
}
