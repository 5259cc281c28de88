//! Pure: the one line in which a unit says what its workload does. The supervisor writes it (`STATUS=`) and the gateway reads it back from
//! systemd, so [`format`] and [`parse`] are each other's inverse.

use std::fmt::Write as _;

use super::Health;

/// Longest status line. systemd takes 4 KiB per datagram at least; a line longer than this is cut.
pub const LINE_BYTES_MAX: usize = 1024;

/// What stands between two parts of a line.
const BETWEEN: &str = " · ";

/// What a workload's unit says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// The pod is up.
    Running {
        /// How well.
        health: Health,
        /// The revision that runs.
        revision: u64,
        /// Which containers are down, unhealthy, or ended a while ago, and when they are started again. Empty when all is well.
        trouble: String,
    },
    /// Every container ended with code 0 and stays so.
    Completed {
        /// The revision that ran.
        revision: u64,
        /// Restarts by policy on the way.
        restarts: u32,
    },
    /// The old revision's pod is gone and the new one's is not there yet.
    Updating {
        /// The revision that ran.
        from: u64,
        /// The revision that is coming.
        to: u64,
    },
    /// The supervisor is bringing the pod up.
    Starting {
        /// The revision that is coming.
        revision: u64,
        /// What it is doing, in words.
        doing: String,
    },
    /// The supervisor cannot see the pod: it may be fine.
    Waiting {
        /// The revision that should run.
        revision: u64,
        /// What the supervisor waits for, in words.
        wait: String,
    },
    /// Every container ended, one of them in failure, and none is started again.
    Ended {
        /// Which one, in words for a person.
        reason: String,
    },
    /// Beyond repair on this host.
    Failed {
        /// Why, in words for a person.
        reason: String,
    },
    /// The unit is being stopped.
    Stopping,
}

/// The status as one line.
pub fn format(status: &Status) -> String {
    let line = match status {
        Status::Running {
            health,
            revision,
            trouble,
        } => {
            let Health {
                healthy,
                total,
                restarts,
            } = health;
            let restarts = restarts_in_words(*restarts);
            let trouble = match trouble.as_str() {
                "" => String::new(),
                trouble => format!("{BETWEEN}{trouble}"),
            };
            format!("{healthy}/{total} healthy · rev {revision} · {restarts}{trouble}")
        }
        Status::Completed { revision, restarts } => {
            format!(
                "completed · rev {revision} · {}",
                restarts_in_words(*restarts)
            )
        }
        Status::Updating { from, to } => format!("updating to rev {to} from rev {from}"),
        Status::Starting { revision, doing } => format!("starting rev {revision}: {doing}"),
        Status::Waiting { revision, wait } => format!("waiting with rev {revision}: {wait}"),
        Status::Ended { reason } => format!("ended: {reason}"),
        Status::Failed { reason } => format!("failed: {reason}"),
        Status::Stopping => "stopping".to_owned(),
    };
    one_line(&line)
}

/// Reads what [`format`] wrote; `None` for any other text.
pub fn parse(line: &str) -> Option<Status> {
    if line == "stopping" {
        return Some(Status::Stopping);
    }
    if let Some(reason) = line.strip_prefix("ended: ") {
        return Some(Status::Ended {
            reason: reason.to_owned(),
        });
    }
    if let Some(reason) = line.strip_prefix("failed: ") {
        return Some(Status::Failed {
            reason: reason.to_owned(),
        });
    }
    if let Some(rest) = line.strip_prefix("starting rev ") {
        let (revision, doing) = rest.split_once(": ")?;
        return Some(Status::Starting {
            revision: revision.parse().ok()?,
            doing: doing.to_owned(),
        });
    }
    if let Some(rest) = line.strip_prefix("waiting with rev ") {
        let (revision, wait) = rest.split_once(": ")?;
        return Some(Status::Waiting {
            revision: revision.parse().ok()?,
            wait: wait.to_owned(),
        });
    }
    if let Some(rest) = line.strip_prefix("updating to rev ") {
        let (to, from) = rest.split_once(" from rev ")?;
        return Some(Status::Updating {
            from: from.parse().ok()?,
            to: to.parse().ok()?,
        });
    }
    let mut parts = line.splitn(4, BETWEEN);
    let (what, revision, restarts) = (parts.next()?, parts.next()?, parts.next()?);
    // A supervisor of 0.2.0 writes three parts.
    let trouble = parts.next();
    let revision = revision.strip_prefix("rev ")?.parse().ok()?;
    let (count, noun) = restarts.split_once(' ')?;
    let restarts: u32 = count.parse().ok()?;
    if noun != if restarts == 1 { "restart" } else { "restarts" } {
        return None;
    }
    if what == "completed" {
        return trouble
            .is_none()
            .then_some(Status::Completed { revision, restarts });
    }
    let trouble = trouble.unwrap_or_default().to_owned();
    let (healthy, total) = what.strip_suffix(" healthy")?.split_once('/')?;
    let health = Health {
        healthy: healthy.parse().ok()?,
        total: total.parse().ok()?,
        restarts,
    };
    Some(Status::Running {
        health,
        revision,
        trouble,
    })
}

fn restarts_in_words(restarts: u32) -> String {
    format!(
        "{restarts} {}",
        if restarts == 1 { "restart" } else { "restarts" }
    )
}

/// Words from Podman and the OCI runtime may hold line breaks, which would end a `STATUS=` assignment.
fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len().min(LINE_BYTES_MAX));
    for word in text.split_ascii_whitespace() {
        if line.len() + word.len() + 1 + '…'.len_utf8() > LINE_BYTES_MAX {
            let _ = write!(line, "…");
            break;
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.extend(word.chars().filter(|character| !character.is_control()));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_line_reads_well_and_comes_back_as_it_was() {
        let health = Health {
            healthy: 2,
            total: 2,
            restarts: 0,
        };
        for (status, line) in [
            (
                Status::Running {
                    health,
                    revision: 1,
                    trouble: String::new(),
                },
                "2/2 healthy · rev 1 · 0 restarts",
            ),
            (
                Status::Running {
                    health: Health {
                        healthy: 1,
                        total: 2,
                        restarts: 1,
                    },
                    revision: 12,
                    trouble: String::new(),
                },
                "1/2 healthy · rev 12 · 1 restart",
            ),
            (
                Status::Running {
                    health: Health {
                        healthy: 1,
                        total: 2,
                        restarts: 27,
                    },
                    revision: 3,
                    trouble: "container web-app cannot start: a · b".into(),
                },
                "1/2 healthy · rev 3 · 27 restarts · container web-app cannot start: a · b",
            ),
            (
                Status::Ended {
                    reason: "container web-app ended with code 1".into(),
                },
                "ended: container web-app ended with code 1",
            ),
            (
                Status::Completed {
                    revision: 3,
                    restarts: 2,
                },
                "completed · rev 3 · 2 restarts",
            ),
            (
                Status::Updating { from: 7, to: 8 },
                "updating to rev 8 from rev 7",
            ),
            (
                Status::Starting {
                    revision: 1,
                    doing: "playing the pod".into(),
                },
                "starting rev 1: playing the pod",
            ),
            (
                Status::Waiting {
                    revision: 1,
                    wait: "/run/podman/podman.sock: connection refused".into(),
                },
                "waiting with rev 1: /run/podman/podman.sock: connection refused",
            ),
            (
                Status::Failed {
                    reason: "container web-app cannot start: no such file".into(),
                },
                "failed: container web-app cannot start: no such file",
            ),
            (Status::Stopping, "stopping"),
        ] {
            assert_eq!(format(&status), line);
            assert_eq!(parse(line), Some(status));
        }
    }

    #[test]
    fn foreign_lines_are_no_status() {
        for line in [
            "",
            "running",
            "2/2 healthy",
            "2/2 healthy · rev 1",
            "2/2 healthy · rev 1 · 1 restarts",
            "completed · rev 1 · 0 restarts · more",
            "x/2 healthy · rev 1 · 0 restarts",
            "updating to rev 8",
            "starting rev x: y",
        ] {
            assert_eq!(parse(line), None, "{line:?}");
        }
    }

    #[test]
    fn line_is_one_line_and_bounded() {
        let line = format(&Status::Failed {
            reason: "a\nSTATUS=b \u{7}c\t d ".to_owned() + &"word ".repeat(1000),
        });
        assert!(
            line.starts_with("failed: a STATUS=b c d word word"),
            "{line}"
        );
        assert!(
            line.ends_with("word…") && line.len() <= LINE_BYTES_MAX,
            "{} bytes",
            line.len()
        );
    }
}
