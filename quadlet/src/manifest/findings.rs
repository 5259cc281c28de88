//! Collects what is found in a file, each with its place.
//!
//! Pure: no I/O, no clock, no randomness.

use super::{
    Problem,
    field::Field,
    outline::{Document, Outline},
    policy::Rules,
};

/// Findings of one file that are listed; a file with more has one cause that is among the first.
const LISTED_MAX: usize = 100;

/// Problems, and warnings, of one file that are kept: more than are listed, for some are the same.
const KEPT_MAX: usize = 2 * LISTED_MAX;

/// What is found in one file.
#[derive(Debug, Default)]
pub(super) struct Findings {
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
    /// Warnings that are told beside problems, too.
    uncounted: Vec<Problem>,
    /// Under `strict`, what will not be done is a problem.
    strict: bool,
}

impl Findings {
    pub(super) fn new(strict: bool) -> Self {
        Self {
            strict,
            ..Self::default()
        }
    }

    pub(super) fn wrong(&mut self, problem: Problem) {
        if self.problems.len() < KEPT_MAX {
            self.problems.push(problem);
        }
    }

    /// The warnings when nothing is wrong, else what is.
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

/// Findings in one object of a document.
#[derive(Debug)]
pub(super) struct Scope<'a> {
    pub(super) findings: &'a mut Findings,
    pub(super) outline: &'a Outline<'a>,
    pub(super) document: &'a Document,
    /// Counted from 1.
    pub(super) number: u32,
    /// Where the object stands in its document: `items[3]` in a List.
    pub(super) object: Field,
    /// Fields that could not be read: what is said about them and what is in them would only repeat that.
    pub(super) unread: Vec<Field>,
    /// What the object may ask of its hosts; `None` is anything.
    pub(super) rules: Option<&'a Rules>,
}

impl Scope<'_> {
    /// The object cannot be accepted.
    pub(super) fn wrong(&mut self, field: &Field, message: impl Into<String>) {
        let kept = self.findings.problems.len();
        let problem = self.problem(kept, field, message);
        self.findings.problems.extend(problem);
    }

    /// Something that the user asked for will not be done.
    pub(super) fn not_done(&mut self, field: &Field, message: impl Into<String>) {
        match self.findings.strict {
            true => self.wrong(field, message),
            false => self.advise(field, message),
        }
    }

    /// Something is asked for that nobody counts. It is told beside what else is wrong with the file, too: of what a pod asks of its
    /// hosts a person wants to see all at once.
    pub(super) fn not_counted(&mut self, field: &Field, message: &str) {
        self.not_done(field, message);
        let kept = self.findings.uncounted.len();
        let problem = self.problem(kept, field, message);
        self.findings.uncounted.extend(problem);
    }

    /// It will be done, and may not be what the user expects.
    pub(super) fn advise(&mut self, field: &Field, message: impl Into<String>) {
        let kept = self.findings.warnings.len();
        let problem = self.problem(kept, field, message);
        self.findings.warnings.extend(problem);
    }

    /// The field cannot be read, so nothing more is said about it.
    pub(super) fn unreadable(&mut self, field: Field, message: impl Into<String>) {
        self.wrong(&field, message);
        self.unread.push(field);
    }

    pub(super) fn line(&self, field: &Field) -> u32 {
        self.outline.line(self.document, &self.object.join(field))
    }

    /// `None` when as many are `kept`, for to find a field's line takes time.
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
