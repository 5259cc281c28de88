//! The page of all results.
//!
//! Pure: measured data and the old page go in, Markdown comes out. The page keeps the text between the two marks, which
//! people write, and its text about parts without data, which were measured on another machine.

mod aims;
mod commits;
mod failures;
mod method;
mod rest;
pub(crate) mod scale;
mod table;
#[cfg(test)]
mod tests;
mod workloads;

use crate::data::{
    Applies, CatchUps, Commits, Elections, Failover, Reschedules, Rest, Run, Saved, Spans, Starts,
};

/// The mark before the text that people write and the program keeps.
const BY_HAND: &str = "<!-- Written by hand from here: `make bench` keeps it. -->";
const BY_HAND_END: &str = "<!-- Written by hand up to here. -->";
/// The text between the marks on a new page.
const UNWRITTEN: &str =
    "\n## What changed what\n\nNothing has been measured before and after a change.\n\n";

/// All measured data.
#[derive(Debug, Default)]
pub(crate) struct All {
    pub(crate) commits: Option<Saved<Commits>>,
    pub(crate) applies: Option<Saved<Applies>>,
    /// One for each system and fault, because each takes long.
    pub(crate) failover: Vec<Saved<Failover>>,
    pub(crate) elections: Option<Saved<Elections>>,
    pub(crate) starts: Option<Saved<Starts>>,
    pub(crate) rest: Option<Saved<Rest>>,
    pub(crate) catch_ups: Option<Saved<CatchUps>>,
    pub(crate) spans: Option<Saved<Spans>>,
    pub(crate) reschedules: Option<Saved<Reschedules>>,
}

/// The page; `before` is the old page.
pub(crate) fn render(all: &All, before: &str) -> String {
    let mut page = String::from(method::INTRODUCTION);
    page += &aims::section(all, before);
    page += &keeping(kept(before).unwrap_or(UNWRITTEN));
    page += &part(
        before,
        all.commits.as_ref(),
        "Commits",
        method::COMMITS,
        commits::body,
    );
    page += &failover(before, &all.failover);
    page += &part(
        before,
        all.reschedules.as_ref(),
        "A host dies",
        method::RESCHEDULES,
        failures::reschedules,
    );
    page += &part(
        before,
        all.elections.as_ref(),
        "Elections that nothing caused",
        method::ELECTIONS,
        failures::elections,
    );
    page += &part(
        before,
        all.starts.as_ref(),
        "Start to first answer",
        method::STARTS,
        rest::starts,
    );
    page += &part(
        before,
        all.rest.as_ref(),
        "Idle hosts",
        method::REST,
        rest::body,
    );
    page += &part(
        before,
        all.applies.as_ref(),
        "Apply to running",
        method::APPLIES,
        workloads::applies,
    );
    page += &part(
        before,
        all.catch_ups.as_ref(),
        "A follower catches up",
        method::CATCH_UPS,
        workloads::catch_ups,
    );
    page += &part(
        before,
        all.spans.as_ref(),
        "Where the time goes",
        method::SPANS,
        workloads::spans,
    );
    page.truncate(page.trim_end().len());
    page + "\n"
}

/// The text that people write, between its marks.
fn keeping(written: &str) -> String {
    format!("{BY_HAND}{written}{BY_HAND_END}\n\n")
}

/// The text that people have written on the old page.
fn kept(before: &str) -> Option<&str> {
    let (_, rest) = before.split_once(BY_HAND)?;
    Some(rest.split_once(BY_HAND_END)?.0)
}

/// The section of a page with this title, up to the next heading; empty if there is none.
fn section<'a>(page: &'a str, title: &str) -> &'a str {
    let heading = format!("\n## {title}\n");
    let Some(begin) = page.find(&heading).map(|before| before + 1) else {
        return "";
    };
    let rest = &page[begin..];
    let end = rest.find("\n## ").map_or(rest.len(), |before| before + 1);
    &rest[..end]
}

/// A section without data, as the old page has it.
fn unmeasured(before: &str, title: &str) -> String {
    match section(before, title) {
        "" => String::new(),
        section => format!("{}\n\n", section.trim_end()),
    }
}

/// A section with its method, its tables and its circumstances; without data, as the old page has it.
fn part<T>(
    before: &str,
    saved: Option<&Saved<T>>,
    title: &str,
    method: &str,
    body: impl Fn(&T) -> String,
) -> String {
    let Some(saved) = saved else {
        return unmeasured(before, title);
    };
    let circumstances = circumstances(&saved.run);
    format!(
        "## {title}\n\n{method}\n{}{circumstances}\n",
        body(&saved.data)
    )
}

/// The section about all systems and faults, measured in one run or in several.
fn failover(before: &str, saved: &[Saved<Failover>]) -> String {
    let title = "A leader fails";
    if saved.is_empty() {
        return unmeasured(before, title);
    }
    let method = method::FAILOVER;
    let body = failures::failover(saved.iter().flat_map(|saved| &saved.data.outages));
    let runs = together(saved.iter().map(|saved| &saved.run));
    let runs: Vec<_> = runs.iter().map(circumstances).collect();
    format!("## {title}\n\n{method}\n{body}{}\n", runs.join("\n"))
}

/// Merges runs that differ only in their end and their failures.
fn together<'a>(runs: impl Iterator<Item = &'a Run>) -> Vec<Run> {
    let mut all: Vec<Run> = Vec::new();
    let apart = |run: &Run| {
        (
            run.command.clone(),
            run.kernel.clone(),
            run.versions.clone(),
        )
    };
    for run in runs {
        match all.iter_mut().find(|one| apart(one) == apart(run)) {
            Some(one) => {
                let (first, _) = one.date.split_once(" to ").unwrap_or((&one.date, ""));
                one.date = format!("{first} to {}", run.date);
                one.failures.extend(run.failures.iter().cloned());
            }
            None => all.push(run.clone()),
        }
    }
    all
}

fn circumstances(run: &Run) -> String {
    let versions = run.versions.iter();
    let versions = versions.map(|(name, version)| format!("{name} {version}"));
    let versions = versions.collect::<Vec<_>>().join(", ");
    let mut text = format!(
        "`{}` on {}: kernel {}, {} cores, hosts of {}; {versions}.\n",
        run.command, run.date, run.kernel, run.cores, run.suite
    );
    for failure in &run.failures {
        text += &format!("\nNot measured: {}\n", failure.replace('\n', " "));
    }
    text
}
