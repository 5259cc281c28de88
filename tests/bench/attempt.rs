//! Lets the other measurements continue after one has failed.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
};

use anyhow::Result;

use crate::data::System;

/// Runs one measurement. If it fails or panics, as tests do when they give up, prints the reason and adds it to
/// `failures`. The hosts that it booted are removed in any case.
pub(crate) fn attempt<T>(
    failures: &mut Vec<String>,
    system: System,
    what: &str,
    act: impl FnOnce() -> Result<T>,
) -> Option<T> {
    let done = catch_unwind(AssertUnwindSafe(act));
    let reason = match done {
        Ok(Ok(done)) => return Some(done),
        Ok(Err(error)) => format!("{error:#}"),
        Err(panic) => words(panic.as_ref()).to_owned(),
    };
    let failure = format!("{}, {what}: {reason}", system.name());
    eprintln!("  FAILED: {failure}");
    failures.push(failure);
    None
}

/// The message of a panic.
fn words(panic: &(dyn Any + Send)) -> &str {
    let formatted = panic.downcast_ref::<String>().map(String::as_str);
    formatted
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("panicked")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_a_failure_with_its_words() {
        let mut failures = Vec::new();
        let mut fail = |act: fn() -> Result<()>| {
            let nothing = attempt(&mut failures, System::Etcd, "boot", act);
            assert_eq!(nothing, None);
        };
        fail(|| panic!("waited {:?}", [5]));
        fail(|| panic!("no host"));
        fail(|| anyhow::bail!("no disk"));
        let expected = [
            "etcd, boot: waited [5]",
            "etcd, boot: no host",
            "etcd, boot: no disk",
        ];
        assert_eq!(failures, expected);
    }
}
