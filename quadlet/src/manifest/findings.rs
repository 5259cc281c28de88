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

/// What is found in one file.
#[derive(Debug, Default)]
pub(super) struct Findings {
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
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
        self.problems.push(problem);
    }

    /// The warnings when nothing is wrong, else what is.
    pub(super) fn finish(self) -> Result<Vec<Problem>, Vec<Problem>> {
        match self.problems.is_empty() {
            true => Ok(listed(self.warnings)),
            false => Err(listed(self.problems)),
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
        if let Some(problem) = self.problem(field, message.into()) {
            self.findings.problems.push(problem);
        }
    }

    /// Something that the user asked for will not be done.
    pub(super) fn not_done(&mut self, field: &Field, message: impl Into<String>) {
        if let Some(problem) = self.problem(field, message.into()) {
            match self.findings.strict {
                true => self.findings.problems.push(problem),
                false => self.findings.warnings.push(problem),
            }
        }
    }

    /// It will be done, and may not be what the user expects.
    pub(super) fn advise(&mut self, field: &Field, message: impl Into<String>) {
        if let Some(problem) = self.problem(field, message.into()) {
            self.findings.warnings.push(problem);
        }
    }

    /// The field cannot be read, so nothing more is said about it.
    pub(super) fn unreadable(&mut self, field: Field, message: impl Into<String>) {
        self.wrong(&field, message);
        self.unread.push(field);
    }

    pub(super) fn line(&self, field: &Field) -> u32 {
        self.outline.line(self.document, &self.object.join(field))
    }

    fn problem(&self, field: &Field, message: String) -> Option<Problem> {
        let full = self.findings.problems.len() + self.findings.warnings.len() > 2 * LISTED_MAX;
        if full || self.unread.iter().any(|unread| field.starts_with(unread)) {
            return None;
        }
        Some(Problem {
            document: self.number,
            line: self.line(field),
            field: self.object.join(field).to_string(),
            message,
        })
    }
}
