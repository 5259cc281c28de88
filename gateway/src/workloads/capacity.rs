//! What this host has: the kernel's figures on memory and processors.
//!
//! Shell: reads two files. A host whose figures cannot be read counts as large enough for everything.

use std::fs;

use beemesh_quadlet::manifest::Room;

/// The kernel's figures on memory and processors. They are those of the host in a container, too.
const FIGURES: [&str; 2] = ["/proc/meminfo", "/proc/stat"];

/// What this host has; `None` if it cannot be read.
pub(in crate::workloads) fn of_this_host() -> Option<Room> {
    let [memory, processors] = FIGURES.map(|path| fs::read_to_string(path).unwrap_or_default());
    of(&memory, &processors)
}

/// What a host with these figures has.
pub(in crate::workloads) fn of(memory: &str, processors: &str) -> Option<Room> {
    let total = memory
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"));
    let kibibytes = total?.split_whitespace().next()?.parse::<i128>().ok()?;
    let is_one = |line: &&str| {
        let number = line
            .strip_prefix("cpu")
            .and_then(|rest| rest.chars().next());
        number.is_some_and(|first| first.is_ascii_digit())
    };
    let cores = i128::try_from(processors.lines().filter(is_one).count()).ok()?;
    (cores > 0).then(|| Room {
        millis: cores.saturating_mul(1000),
        bytes: kibibytes.saturating_mul(1024),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figures_of_this_kernel_are_read() {
        let has = of_this_host().expect("the figures of this kernel");
        assert!(has.millis >= 1000 && has.bytes > 1 << 20, "{has:?}");
    }
}
