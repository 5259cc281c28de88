//! Collects the findings of a file, each with its place.
//!
//! Pure: no I/O, no clock, no randomness.

use super::{
    Problem,
    field::Field,
    outline::{Document, Outline},
    policy::Rules,
};

/// The largest number of listed findings. A file with more has one cause, which is among the first.
const LISTED_MAX: usize = 100;

/// The largest number of kept problems, and of kept warnings, of one file. It is larger than the listed number because
/// some are duplicates.
const KEPT_MAX: usize = 2 * LISTED_MAX;

/// The findings of one file.
#[derive(Debug, Default)]
pub(super) struct Findings {
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
    /// Warnings that are listed beside problems, too.
    uncounted: Vec<Problem>,
    /// With `strict`, a part without effect is a problem.
    strict: bool,
    /// The objects were admitted before, maybe by an earlier release with fewer checks of what a field means.
    admitted: bool,
}

impl Findings {
    pub(super) fn new(strict: bool) -> Self {
        Self {
            strict,
            ..Self::default()
        }
    }

    /// For objects that were admitted before.
    pub(super) fn of_admitted() -> Self {
        Self {
            admitted: true,
            ..Self::default()
        }
    }

    pub(super) fn wrong(&mut self, problem: Problem) {
        if self.problems.len() < KEPT_MAX {
            self.problems.push(problem);
        }
    }

    /// The warnings if there is no problem, otherwise the problems.
    pub(super) fn finish(self) -> Result<Vec<Problem>, Vec<Problem>> {
        match self.problems.is_empty() {
            true => Ok(listed(self.warnings)),
            false => Err(listed(
                self.problems.into_iter().chain(self.uncounted).collect(),
            )),
        }
    }

    pub(super) fn is_clean(&self) -> bool {
        self.problems.is_empty()
    }
}

fn listed(mut found: Vec<Problem>) -> Vec<Problem> {
    found.sort();
    found.dedup();
    if found.len() > LISTED_MAX {
        found.truncate(LISTED_MAX);
        found.push(Problem {
            document: 0,
            line: 0,
            field: String::new(),
            message: format!("and more: the first {LISTED_MAX} are listed"),
        });
    }
    found
}

/// The findings of one object of a document.
#[derive(Debug)]
pub(super) struct Scope<'a> {
    pub(super) findings: &'a mut Findings,
    pub(super) outline: &'a Outline<'a>,
    pub(super) document: &'a Document,
    /// The document, counted from 1.
    pub(super) number: u32,
    /// The path of the object in its document: `items[3]` in a List.
    pub(super) object: Field,
    /// Fields that could not be read. Findings about them or their content would only repeat that.
    pub(super) unread: Vec<Field>,
    /// The policy for the object; `None` allows everything.
    pub(super) rules: Option<&'a Rules>,
}

impl Scope<'_> {
    /// Adds a problem: the object is refused.
    pub(super) fn wrong(&mut self, field: &Field, message: impl Into<String>) {
        let kept = self.findings.problems.len();
        let problem = self.problem(kept, field, message);
        self.findings.problems.extend(problem);
    }

    /// Adds a problem with what a part means here. It is only a warning if the object was admitted before: a backup
    /// of a cluster has to fit into a new one.
    pub(super) fn differs(&mut self, field: &Field, message: impl Into<String>) {
        match self.findings.admitted {
            true => self.advise(field, message),
            false => self.wrong(field, message),
        }
    }

    /// Adds a finding about a part that the user asked for and that has no effect.
    pub(super) fn not_done(&mut self, field: &Field, message: impl Into<String>) {
        match self.findings.strict {
            true => self.wrong(field, message),
            false => self.advise(field, message),
        }
    }

    /// Adds a finding about a request for a resource that Beemesh does not account for. It is listed beside other
    /// problems of the file, too, so that the user sees all such requests at once.
    pub(super) fn not_counted(&mut self, field: &Field, message: &str) {
        self.not_done(field, message);
        let kept = self.findings.uncounted.len();
        let problem = self.problem(kept, field, message);
        self.findings.uncounted.extend(problem);
    }

    /// Adds a warning about a part that takes effect but may not do what the user expects.
    pub(super) fn advise(&mut self, field: &Field, message: impl Into<String>) {
        let kept = self.findings.warnings.len();
        let problem = self.problem(kept, field, message);
        self.findings.warnings.extend(problem);
    }

    /// Adds a problem for a field that cannot be read; there are no further findings about that field.
    pub(super) fn unreadable(&mut self, field: Field, message: impl Into<String>) {
        self.wrong(&field, message);
        self.unread.push(field);
    }

    /// Adds a problem with a whole field, as [`Self::differs`]. There are no further findings about a refused field.
    pub(super) fn refuse(&mut self, field: Field, message: impl Into<String>) {
        match self.findings.admitted {
            true => self.advise(&field, message),
            false => self.unreadable(field, message),
        }
    }

    pub(super) fn line(&self, field: &Field) -> u32 {
        self.outline.line(self.document, &self.object.join(field))
    }

    /// `None` if as many are `kept` already, because finding a field's line takes time.
    fn problem(&self, kept: usize, field: &Field, message: impl Into<String>) -> Option<Problem> {
        let is_unread = self.unread.iter().any(|unread| field.starts_with(unread));
        (kept < KEPT_MAX && !is_unread).then(|| Problem {
            document: self.number,
            line: self.line(field),
            field: self.object.join(field).to_string(),
            message: message.into(),
        })
    }
}
