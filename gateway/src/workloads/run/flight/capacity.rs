//! Checks that this host has what a revision requests of it: reads the figures of the kernel.
//!
//! Shell. A host whose figures cannot be read runs everything, as if it were large enough.

use std::fs;

use beemesh_quadlet::{
    manifest::{Beyond, Room},
    render,
};

use super::{Flight, StepError};

/// The kernel's figures on memory and processors. They are those of the host in a container, too.
const FIGURES: [&str; 2] = ["/proc/meminfo", "/proc/stat"];

impl Flight {
    /// Checks that the pod of this YAML requests no more than the whole host has.
    pub(super) fn capacity(&self, yaml: &[u8]) -> Result<(), StepError> {
        let asked = render::requests(yaml);
        if asked == Room::default() {
            return Ok(());
        }
        let [memory, processors] = FIGURES.map(|path| fs::read_to_string(path).unwrap_or_default());
        match lacks(asked, &memory, &processors) {
            Some(beyond) => Err(StepError::Beyond(beyond)),
            None => Ok(()),
        }
    }
}

fn lacks(asked: Room, memory: &str, processors: &str) -> Option<Beyond> {
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
    let has = Room {
        millis: cores.saturating_mul(1000),
        bytes: kibibytes.saturating_mul(1024),
    };
    has.lacks(asked).filter(|_| cores > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMORY: &str = "MemTotal:        2048 kB\nMemFree:          100 kB\n";
    const PROCESSORS: &str = "cpu  1 2 3\ncpu0 1 2 3\ncpu1 1 2 3\nintr 5\nctxt 7\n";

    #[test]
    fn a_host_has_what_its_kernel_says() {
        let asks = |millis: i128, mebibytes: i128| {
            let bytes = mebibytes << 20;
            lacks(Room { millis, bytes }, MEMORY, PROCESSORS).map(|beyond| beyond.to_string())
        };
        assert_eq!(asks(2000, 2), None);
        let cores = asks(2001, 2).expect("too many cores");
        assert_eq!(cores, "the pod requests 2.001 cores, and this host has 2");
        let memory = asks(1, 3).expect("too much memory");
        assert_eq!(
            memory,
            "the pod requests 3 MiB of memory, and this host has 2 MiB"
        );
        let much = Room {
            millis: 1_000_000,
            bytes: 1 << 60,
        };
        for (memory, processors) in [
            ("", PROCESSORS),
            (MEMORY, ""),
            ("MemTotal: x kB", PROCESSORS),
        ] {
            assert_eq!(
                lacks(much, memory, processors),
                None,
                "{memory:?} {processors:?}"
            );
        }
    }

    #[test]
    fn the_figures_of_this_kernel_are_read() {
        let [memory, processors] = FIGURES.map(|path| fs::read_to_string(path).expect(path));
        let much = Room {
            millis: 1_000_000_000,
            bytes: 1 << 62,
        };
        let beyond = lacks(much, &memory, &processors).expect("no host has that much");
        assert!(
            beyond.has.millis >= 1000 && beyond.has.bytes > 1 << 20,
            "{beyond:?}"
        );
    }
}
