//! The error message of a failed command.
//!
//! Pure: failures in, messages and an exit status out.

use std::{fmt, process::ExitCode};

use beemesh_protocol::api::{Code, Failure, Problem};

/// The error of a command: what failed, on what, why, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trouble {
    message: String,
    /// One line each: `FILE:LINE: field: message`.
    problems: Vec<String>,
    notes: Vec<String>,
    hints: Vec<String>,
    /// The exit status.
    exit: u8,
    /// The kind of failure, if the gateway sent one.
    code: Option<Code>,
}

impl Trouble {
    fn new(exit: u8, message: String) -> Self {
        Self {
            message,
            problems: Vec::new(),
            notes: Vec::new(),
            hints: Vec::new(),
            exit,
            code: None,
        }
    }

    /// The operation failed.
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self::new(1, message.into())
    }

    /// The command line is wrong.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(2, message.into())
    }

    /// The gateway cannot be reached.
    pub(crate) fn unreachable(message: impl Into<String>) -> Self {
        Self::new(3, message.into())
    }

    /// The user ended a wait with Ctrl-C.
    pub(crate) fn interrupted(message: impl Into<String>) -> Self {
        Self::new(130, message.into())
    }

    /// The gateway refused the request. `file` is the name of the manifest's file.
    pub(crate) fn refused(failure: Failure, file: &str) -> Self {
        let problems = failure.problems.iter().map(|one| problem(file, one));
        let hint = Some(failure.hint).filter(|hint| !hint.is_empty());
        Self {
            problems: problems.collect(),
            hints: hint.into_iter().collect(),
            code: Some(failure.code),
            ..Self::failed(failure.message)
        }
    }

    /// Adds what a user must know beside the failure.
    pub(crate) fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    /// Adds a hint about what to do.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Puts the operation before the message: `apply web.yaml: …`.
    pub(crate) fn during(mut self, doing: &str) -> Self {
        self.message = format!("{doing}: {}", self.message);
        self
    }

    /// The message without hints.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// Returns true if the gateway cannot be reached.
    pub(crate) fn is_unreachable(&self) -> bool {
        self.exit == 3
    }

    /// Returns true if the cluster has no object of the requested name.
    pub(crate) fn is_not_found(&self) -> bool {
        self.code == Some(Code::NotFound)
    }

    /// Returns true if the cluster has no quorum or did not answer in time.
    pub(crate) fn is_unavailable(&self) -> bool {
        self.code == Some(Code::Unavailable)
    }

    /// Gives a failure another exit status than 1, by which `beemesh diff` says that there are differences.
    pub(crate) fn of_diff(mut self) -> Self {
        if self.exit == 1 {
            self.exit = 4;
        }
        self
    }

    pub(crate) fn exit(&self) -> ExitCode {
        ExitCode::from(self.exit)
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "error: {}", self.message)?;
        for problem in &self.problems {
            writeln!(f, "{problem}")?;
        }
        for note in &self.notes {
            writeln!(f, "note: {note}")?;
        }
        for hint in &self.hints {
            writeln!(f, "hint: {hint}")?;
        }
        Ok(())
    }
}

/// One problem or warning of a file, in a form that editors can jump to.
pub(crate) fn problem(file: &str, problem: &Problem) -> String {
    let place = match (problem.line, problem.document) {
        (0, 0) => String::new(),
        (0, document) => format!(" document {document}:"),
        (line, _) => format!("{line}:"),
    };
    let field = match problem.field.as_str() {
        "" => String::new(),
        field => format!(" {field}:"),
    };
    format!("{file}:{place}{field} {}", problem.message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_failure_of_a_comparison_looks_like_differences() {
        for (trouble, status) in [
            (Trouble::failed("x"), 4),
            (Trouble::usage("x"), 2),
            (Trouble::unreachable("x"), 3),
            (Trouble::interrupted("x"), 130),
        ] {
            assert_eq!(trouble.of_diff().exit, status);
        }
    }

    #[test]
    fn a_refused_manifest_lists_every_problem_where_it_is() {
        let at = |document, line, field: &str, message: &str| Problem {
            document,
            line,
            field: field.into(),
            message: message.into(),
        };
        let failure = Failure {
            code: Code::Invalid,
            message: "the manifest has 3 problems; nothing was applied".into(),
            hint: "see `kubectl explain pod.spec`".into(),
            pulling: false,
            problems: vec![
                at(1, 7, "spec.containers[0].image", "is missing"),
                at(2, 0, "", "is not an object"),
                at(0, 0, "", "is not YAML"),
            ],
        };
        let trouble = Trouble::refused(failure, "web.yaml").during("apply web.yaml");
        assert_eq!(
            trouble.to_string(),
            "error: apply web.yaml: the manifest has 3 problems; nothing was applied\n\
             web.yaml:7: spec.containers[0].image: is missing\n\
             web.yaml: document 2: is not an object\n\
             web.yaml: is not YAML\n\
             hint: see `kubectl explain pod.spec`\n"
        );
    }
}
