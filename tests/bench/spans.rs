//! Part 6: the stages of a commit and of an apply, with their times.

mod apply;
mod commit;
mod trace;

use anyhow::Result;

use crate::{
    attempt::attempt,
    data::{Spans, System},
    options::Options,
    running::Running,
};

/// The number of hosts in the cluster.
const HOSTS: usize = 3;

/// Measures both operations on one cluster.
pub(crate) fn measure(options: &Options, failures: &mut Vec<String>) -> Result<Spans> {
    let mut spans = Spans::default();
    eprintln!("spans: one commit");
    let running = attempt(failures, System::Beemesh, "spans", || {
        Running::boot(System::Beemesh, HOSTS)
    });
    let Some(running) = running else {
        return Ok(spans);
    };
    let seconds = options.pick(10, 60);
    let commit = attempt(failures, System::Beemesh, "spans of a commit", || {
        commit::measure(&running, seconds)
    });
    spans.ways.extend(commit);
    eprintln!("spans: one apply");
    let apply = attempt(failures, System::Beemesh, "spans of an apply", || {
        apply::measure(&running, options.pick(5, 30))
    });
    spans.ways.extend(apply);
    for way in &spans.ways {
        for span in &way.spans {
            eprintln!("  {:<60} {:>8.3} ms", span.what, span.times.p50);
        }
    }
    Ok(spans)
}
