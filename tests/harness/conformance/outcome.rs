//! What a run of a case shows: as in Kubernetes, said to be different, or silently different.
//!
//! Pure: a case and what was seen in, an outcome out.

use std::fmt;

use super::case::{Case, on_one_line};

/// What `beemesh apply` says of a change that it could not wait for: it was not refused.
pub(super) const COMMITTED: &str = "the change is committed";

/// What was seen in a run of a case.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// The exit code of the apply.
    pub code: i32,
    /// Standard output of the apply.
    pub out: String,
    /// Standard error of the apply.
    pub err: String,
    /// What the check printed.
    pub printed: String,
    /// Whether the state of the workloads claims that all is well after the check.
    pub healthy: bool,
    /// The state of the workloads, for people.
    pub state: String,
    /// What was left on the host after the deletion; empty if nothing was.
    pub left: String,
}

/// What a run of a case shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// As in Kubernetes.
    Right,
    /// Refused, with words that name the reason.
    Refused,
    /// A warning names what is different, and the case is different in nothing else.
    Warned,
    /// It failed and said so, but named no field.
    Failed,
    /// Different from Kubernetes, and nothing says so.
    Silent,
    /// It did not run: the host lacks what the case needs. This is no result.
    Unable,
}

impl Outcome {
    /// Every outcome, the best first.
    pub const ALL: [Self; 6] = [
        Self::Right,
        Self::Refused,
        Self::Warned,
        Self::Failed,
        Self::Silent,
        Self::Unable,
    ];

    /// Whether a user is not told what is different.
    #[must_use]
    pub fn is_fault(self) -> bool {
        matches!(self, Self::Failed | Self::Silent)
    }

    /// The outcome of that word.
    #[must_use]
    pub fn of(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.to_string() == word)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Right => "right",
            Self::Refused => "refused",
            Self::Warned => "warned",
            Self::Failed => "failed",
            Self::Silent => "silent",
            Self::Unable => "unable",
        })
    }
}

/// The outcome, and what was seen instead of the expected.
#[must_use]
pub fn judge(case: &Case, seen: &Seen) -> (Outcome, String) {
    let (outcome, words) = of_run(case, seen);
    if !seen.left.is_empty() && !outcome.is_fault() {
        return (
            Outcome::Silent,
            format!("left behind: {}", on_one_line(&seen.left)),
        );
    }
    (outcome, words)
}

fn of_run(case: &Case, seen: &Seen) -> (Outcome, String) {
    let applied = seen.code == 0;
    let told = on_one_line(&seen.err);
    let printed = on_one_line(&seen.printed);
    let as_expected = case.check.as_ref().map(|check| check.matches(&printed));
    let committed = applied || seen.err.contains(COMMITTED);
    if let Some(rejected) = &case.rejected {
        return match (committed, rejected.is_match(&told)) {
            (false, true) if as_expected != Some(false) => (Outcome::Right, told),
            (false, true) => (Outcome::Silent, printed),
            (false, false) => (Outcome::Failed, told),
            (true, _) => (Outcome::Silent, format!("applied: {printed}")),
        };
    }
    if as_expected == Some(true) {
        return match &case.warned {
            None => (Outcome::Right, printed),
            Some(warned) if warned.is_match(&told) => (Outcome::Warned, told),
            Some(_) => (Outcome::Silent, format!("no such warning: {told}")),
        };
    }
    let is_named = |warnings: bool| {
        let told = lines(&seen.err, warnings);
        let mut manifests = [Some(&case.first), case.second.as_ref()].into_iter();
        manifests.any(|one| one.is_some_and(|one| one.field_in(&told).is_some()))
    };
    let is_refusal = !committed;
    match (&case.refused, applied) {
        (Some(refused), false) if refused.is_match(&told) => (Outcome::Refused, told),
        (Some(_), true) => (Outcome::Silent, format!("applied: {printed}")),
        _ if is_refusal && is_named(false) => (Outcome::Refused, told),
        (None, _) if is_named(true) => (Outcome::Warned, format!("{told}: {printed}")),
        (None, true) => (Outcome::Silent, printed),
        (_, false) if seen.healthy => (Outcome::Silent, format!("{told}: {printed}")),
        (_, false) => (Outcome::Failed, format!("{told}: {printed}")),
    }
}

/// The lines of standard error that warn, or the others. Without what every workload that asks for CPU or memory is told.
fn lines(err: &str, warnings: bool) -> String {
    let lines = err.lines().filter(|line| {
        line.starts_with("warning:") == warnings
            && !line.starts_with("hint:")
            && !line.contains("resources.requests")
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "# row: env | x\n# kubernetes: y\n# wait: 6\n";
    const CHECK: &str = "# check: log c\n# expect: yes\n";
    const POD: &str =
        "kind: Pod\nmetadata: {name: a}\nspec: {activeDeadlineSeconds: 5, hostname: b}\n";

    fn outcome(head: &str, code: i32, err: &str, printed: &str) -> Outcome {
        let case = Case::read("a.yaml", &format!("{HEAD}{head}{POD}"), None).unwrap();
        let seen = Seen {
            code,
            err: err.into(),
            printed: printed.into(),
            ..Seen::default()
        };
        judge(&case, &seen).0
    }

    #[test]
    fn what_kubernetes_runs_is_right_refused_warned_or_silent() {
        let warning = "warning: -:3: spec.activeDeadlineSeconds: is ignored";
        let error = "error: apply -: 1 problem\n-:3: spec.activeDeadlineSeconds: is not supported";
        for (code, err, printed, expected) in [
            (0, "", "yes\n", Outcome::Right),
            (1, "error: not rolled out after 6 s", "yes", Outcome::Right),
            (0, warning, "yes", Outcome::Right),
            (0, warning, "no", Outcome::Warned),
            (0, "warning: it is old", "no", Outcome::Silent),
            (0, "", "no", Outcome::Silent),
            (1, error, "", Outcome::Refused),
            (
                1,
                &format!("{warning}\nerror: apply -: 1 problem"),
                "",
                Outcome::Warned,
            ),
            (
                1,
                &format!("{error}\nhint: the change is committed"),
                "",
                Outcome::Failed,
            ),
            (1, "error: not rolled out after 6 s", "no", Outcome::Failed),
        ] {
            assert_eq!(
                outcome(CHECK, code, err, printed),
                expected,
                "{code} {err:?} {printed:?}"
            );
        }
    }

    #[test]
    fn a_state_that_claims_health_is_not_a_failure_that_is_told() {
        let case = Case::read("a.yaml", &format!("{HEAD}{CHECK}{POD}"), None).unwrap();
        let seen = Seen {
            code: 1,
            healthy: true,
            ..Seen::default()
        };
        assert_eq!(judge(&case, &seen).0, Outcome::Silent);
    }

    #[test]
    fn what_must_be_refused_is_silent_if_it_is_applied() {
        let head = "# refused: hostname.*reason\n";
        assert_eq!(
            outcome(head, 1, "spec.hostname: the reason", ""),
            Outcome::Refused
        );
        assert_eq!(
            outcome(head, 1, "spec.hostname: other words", ""),
            Outcome::Refused
        );
        assert_eq!(outcome(head, 1, "other words", ""), Outcome::Failed);
        assert_eq!(
            outcome(head, 0, "warning: spec.hostname: the reason", ""),
            Outcome::Silent
        );
        let head = "# rejected: hostname.*reason\n";
        assert_eq!(
            outcome(head, 1, "spec.hostname: the reason", ""),
            Outcome::Right
        );
        assert_eq!(
            outcome(head, 1, "spec.hostname: other words", ""),
            Outcome::Failed
        );
        assert_eq!(outcome(head, 0, "", ""), Outcome::Silent);
        let late = "error: not rolled out\nhint: the change is committed";
        assert_eq!(outcome(head, 1, late, ""), Outcome::Silent);
    }

    #[test]
    fn a_declared_warning_must_be_there() {
        let head = format!("{CHECK}# warned: hostname\n");
        assert_eq!(
            outcome(&head, 0, "warning: spec.hostname: x", "yes"),
            Outcome::Warned
        );
        assert_eq!(outcome(&head, 0, "", "yes"), Outcome::Silent);
    }

    #[test]
    fn what_is_left_on_the_host_is_a_fault() {
        let case = Case::read("a.yaml", &format!("{HEAD}{CHECK}{POD}"), None).unwrap();
        let seen = Seen {
            printed: "yes".into(),
            left: "volume x\n".into(),
            ..Seen::default()
        };
        let expected = (Outcome::Silent, "left behind: volume x".to_owned());
        assert_eq!(judge(&case, &seen), expected);
        for outcome in Outcome::ALL {
            assert_eq!(Outcome::of(&outcome.to_string()), Some(outcome));
        }
    }
}
