//! What a pod requests of the host that runs it.
//!
//! Pure: no I/O, no clock, no randomness. The sum is that of Kubernetes' scheduler: containers run together, and before
//! them the init containers one by one, each beside the sidecars before it. A limit without a request is a request.

use std::{collections::BTreeMap, fmt};

use k8s_openapi::{
    api::core::v1::{Container, PodSpec},
    apimachinery::pkg::api::resource::Quantity as Written,
};

use super::quantity;

type List = BTreeMap<String, Written>;

/// An amount of both resources: of a host, or of a pod.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Room {
    /// Thousandths of a core.
    pub millis: i128,
    /// Bytes of memory.
    pub bytes: i128,
}

/// A request that a host cannot fulfil, even for this pod alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beyond {
    /// What the pod requests.
    pub asked: Room,
    /// What the host has.
    pub has: Room,
}

impl Room {
    /// Why a host with this room cannot run a pod; `None` if it can.
    #[must_use]
    pub fn lacks(self, asked: Self) -> Option<Beyond> {
        let fits = asked.millis <= self.millis && asked.bytes <= self.bytes;
        (!fits).then_some(Beyond { asked, has: self })
    }

    fn of(container: &Container) -> Self {
        let amount = |name: &str, read: fn(quantity::Quantity) -> i128| {
            let resources = container.resources.as_ref();
            let listed = |list: Option<&List>| {
                let value = quantity::parse(&list?.get(name)?.0).ok()?;
                Some(read(value))
            };
            let request = listed(resources.and_then(|all| all.requests.as_ref()));
            let limit = || listed(resources.and_then(|all| all.limits.as_ref()));
            request.or_else(limit).unwrap_or(0)
        };
        Self {
            millis: amount("cpu", quantity::Quantity::millis),
            bytes: amount("memory", quantity::Quantity::units),
        }
    }

    /// The sum of both.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            millis: self.millis.saturating_add(other.millis),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }

    fn max(self, other: Self) -> Self {
        Self {
            millis: self.millis.max(other.millis),
            bytes: self.bytes.max(other.bytes),
        }
    }
}

/// What a pod requests.
pub(crate) fn of(spec: &PodSpec) -> Room {
    let (mut beside, mut most) = (Room::default(), Room::default());
    for init in spec.init_containers.iter().flatten() {
        let own = Room::of(init);
        most = most.max(beside.plus(own));
        if init.restart_policy.as_deref() == Some("Always") {
            beside = beside.plus(own);
        }
    }
    let together = spec.containers.iter().map(Room::of);
    most.max(together.fold(beside, Room::plus))
}

/// Thousandths of a core, as cores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cores(pub i128);

impl fmt::Display for Cores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{}.{:03}", self.0 / 1000, self.0 % 1000);
        f.write_str(text.trim_end_matches('0').trim_end_matches('.'))
    }
}

impl fmt::Display for Beyond {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { asked, has } = self;
        f.write_str("the pod requests ")?;
        if asked.millis > has.millis {
            write!(
                f,
                "{} cores, and this host has {}",
                Cores(asked.millis),
                Cores(has.millis)
            )?;
        }
        if asked.bytes > has.bytes {
            if asked.millis > has.millis {
                f.write_str("; it requests ")?;
            }
            let mebibytes = |bytes: i128| bytes >> 20;
            write!(
                f,
                "{} MiB of memory, and this host has {} MiB",
                mebibytes(asked.bytes),
                mebibytes(has.bytes)
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn asked(spec: &Value) -> (i128, i128) {
        let spec = serde_json::from_value(spec.clone()).expect("a pod");
        let room = of(&spec);
        (room.millis, room.bytes)
    }

    #[test]
    fn a_pod_requests_what_its_containers_need_at_one_time() {
        let one = |lists: Value| json!({"name": "a", "resources": lists});
        let small = one(json!({"requests": {"cpu": "500m", "memory": "1Ki"}}));
        let limited = one(json!({"limits": {"cpu": 2, "memory": "2Ki"}, "requests": {"cpu": "1"}}));
        let big = one(json!({"requests": {"cpu": "4", "memory": "1"}}));
        let mut sidecar = small.clone();
        sidecar["restartPolicy"] = "Always".into();
        for (spec, expected) in [
            (json!({"containers": [{"name": "a"}]}), (0, 0)),
            (json!({"containers": [small]}), (500, 1024)),
            (json!({"containers": [small, limited]}), (1500, 3072)),
            (
                json!({"initContainers": [big, small], "containers": [small]}),
                (4000, 1024),
            ),
            (
                json!({"initContainers": [sidecar, big], "containers": [small]}),
                (4500, 2048),
            ),
            (
                json!({"initContainers": [big, sidecar], "containers": [small]}),
                (4000, 2048),
            ),
        ] {
            assert_eq!(asked(&spec), expected, "{spec}");
        }
    }

    #[test]
    fn a_host_says_what_it_lacks() {
        let room = |millis: i128, gibibytes: i128| Room {
            millis,
            bytes: gibibytes << 30,
        };
        let host = room(2000, 4);
        assert_eq!(host.lacks(host), None);
        for (asked, words) in [
            (
                room(2500, 1),
                "the pod requests 2.5 cores, and this host has 2",
            ),
            (
                room(1, 9000),
                "the pod requests 9216000 MiB of memory, and this host has 4096 MiB",
            ),
            (
                room(1_000_000, 8),
                "the pod requests 1000 cores, and this host has 2; it requests 8192 MiB of memory, and this host has 4096 MiB",
            ),
        ] {
            let lacks = host.lacks(asked).expect(words);
            assert_eq!(lacks.to_string(), words);
        }
    }
}
