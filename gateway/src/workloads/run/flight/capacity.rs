//! Checks that this host has what a revision requests of it.
//!
//! Shell. A host whose figures cannot be read runs everything, as if it were large enough.

use beemesh_quadlet::{
    manifest::{Beyond, Room},
    render,
};

use super::{Flight, StepError};
use crate::workloads::capacity;

impl Flight {
    /// Checks that the pod of this YAML requests no more than the whole host has.
    pub(super) fn capacity(&self, yaml: &[u8]) -> Result<(), StepError> {
        let asked = render::requests(yaml);
        match lacks(asked, capacity::of_this_host()) {
            Some(beyond) => Err(StepError::Beyond(beyond)),
            None => Ok(()),
        }
    }
}

fn lacks(asked: Room, has: Option<Room>) -> Option<Beyond> {
    has.filter(|_| asked != Room::default())?.lacks(asked)
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
            let has = capacity::of(MEMORY, PROCESSORS);
            lacks(Room { millis, bytes }, has).map(|beyond| beyond.to_string())
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
                lacks(much, capacity::of(memory, processors)),
                None,
                "{memory:?} {processors:?}"
            );
        }
    }
}
