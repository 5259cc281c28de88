//! Decides whether the Quadlet of a revision may be written on this host, or must wait for a host port.
//!
//! Pure: no I/O, no clock, no randomness. Input: the ports of a revision, those of the Quadlets on the disk, and the
//! state. Output: the workload that holds a port. Two Quadlets with the same port are never on the disk at once, so a
//! boot starts the workload that had the port. A workload on the disk keeps its ports for its next revision. Among the
//! others, the workload with the older revision gets the port.

use std::{collections::BTreeMap, fmt};

use beemesh_protocol::{HostId, workload::split_pod_name};
use beemesh_quadlet::manifest::{Demand, Port, demands};

use crate::cluster::{placement, state::State};

/// A revision to write.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Own<'a> {
    /// The name of the pod.
    pub(crate) workload: &'a str,
    /// The log index of the revision.
    pub(crate) index: u64,
    /// This host.
    pub(crate) host: HostId,
    pub(crate) wanted: &'a [Port],
}

/// The port that is not available, and its holder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Held {
    port: Port,
    /// The workload; `None` for Beemesh itself.
    holder: Option<String>,
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.holder {
            Some(holder) => write!(f, "port {} of workload {holder}", self.port),
            None => write!(
                f,
                "port {}, which is reserved for Beemesh itself on this host",
                self.port
            ),
        }
    }
}

/// The holder of a port that a revision requests; `None` if all ports are available.
pub(crate) fn held(
    own: &Own<'_>,
    reserved: &[u16],
    written: &BTreeMap<String, Vec<Port>>,
    state: &State,
) -> Option<Held> {
    let ours = own.wanted.iter().find(|port| reserved.contains(&port.port));
    if let Some(port) = ours {
        return Some(Held {
            port: *port,
            holder: None,
        });
    }
    let meets = |ports: &[Port], kept: &[Port]| {
        let mut wanted = own.wanted.iter().filter(|port| !kept.contains(port));
        let found = wanted.find(|port| ports.iter().any(|other| port.meets(other)));
        found.copied()
    };
    let kept = written.get(own.workload).map_or(&[][..], Vec::as_slice);
    let others = written
        .iter()
        .filter(|(workload, _)| *workload != own.workload);
    let on_disk = others.filter_map(|(workload, ports)| {
        let port = meets(ports, &[])?;
        Some((port, workload.clone()))
    });
    // Another pod of the same workload keeps what it has, on the disk.
    let itself = split_pod_name(own.workload).map_or("", |(workload, _)| workload);
    let first = state.workloads().filter(|workload| {
        workload.index < own.index
            && workload.name != itself
            && placement::on_host(state, workload, own.host)
                .iter()
                .any(|(_, runs)| !runs.ended)
    });
    let first = first.filter_map(|workload| {
        let port = |demand| match demand {
            Demand::Port(port) => Some(port),
            Demand::Key(_) | Demand::Name { .. } | Demand::StopSignal | Demand::Topology(_) => None,
        };
        let theirs: Vec<Port> = demands(&workload.object)
            .into_iter()
            .filter_map(port)
            .collect();
        let port = meets(&theirs, kept)?;
        Some((port, workload.name.clone()))
    });
    let (port, holder) = on_disk.chain(first).next()?;
    Some(Held {
        port,
        holder: Some(holder),
    })
}

#[cfg(test)]
mod tests {
    use beemesh_protocol::{
        ClusterId,
        state::{Change, Command, Host},
    };
    use beemesh_quadlet::manifest::parse;

    use super::*;

    fn port(text: &str) -> Port {
        let yaml = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: a}}\nspec: {{containers: [{{name: a, image: quay.io/a:1, ports: [{text}]}}]}}"
        );
        let manifest = parse(yaml.as_bytes(), false).unwrap();
        let ports = demands(&manifest.objects[0]).into_iter();
        let mut ports = ports.filter_map(|demand| match demand {
            Demand::Port(port) => Some(port),
            _ => None,
        });
        ports.next().unwrap()
    }

    /// A state with one host and workloads of these names that request port 80, in the order of their indexes.
    fn state(names: &[&str]) -> State {
        let mut state = State::default();
        let host = Host {
            id: HostId([1; 32]),
            name: "h1".into(),
            addresses: Vec::new(),
            labels: BTreeMap::new(),
            drained: false,
            claims_as: None,
            votes_from_ms: 0,
            lost_at_ms: 0,
            declared_lost: false,
            steady_at_ms: 0,
        };
        let cluster = ClusterId([7; 16]);
        let changes = std::iter::once(Change::Found { cluster, host }).chain(names.iter().map(|name| {
            let yaml = format!(
                "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec: {{containers: [{{name: a, image: quay.io/a:1, ports: [{{containerPort: 80, hostPort: 80}}]}}]}}"
            );
            Change::Apply {
                manifest: (*name).into(),
                objects: parse(yaml.as_bytes(), false).unwrap().objects,
                policy: None, keep: false, if_index: None }
        }));
        for (index, change) in (1..).zip(changes) {
            let _ = state.apply(index, &Command::unasked(1, change));
        }
        state
    }

    fn waits(
        own: &str,
        index: u64,
        wanted: &str,
        written: &[(&str, &str)],
        state: &State,
    ) -> Option<String> {
        let written = written
            .iter()
            .map(|(name, text)| ((*name).to_owned(), vec![port(text)]))
            .collect();
        let wanted = [port(wanted)];
        let own = Own {
            workload: own,
            index,
            host: HostId([1; 32]),
            wanted: &wanted,
        };
        held(&own, &[4701, 8443], &written, state).map(|held| held.to_string())
    }

    #[test]
    fn who_is_on_the_disk_keeps_its_port() {
        let none = State::default();
        let tcp = "{containerPort: 1, hostPort: 80}";
        for (theirs, meets) in [
            (tcp, true),
            ("{containerPort: 1, hostPort: 80, hostIP: 0.0.0.0}", true),
            ("{containerPort: 1, hostPort: 80, hostIP: '::'}", true),
            ("{containerPort: 1, hostPort: 80, hostIP: 10.0.0.1}", true),
            ("{containerPort: 1, hostPort: 80, protocol: UDP}", false),
            ("{containerPort: 80, hostPort: 81}", false),
        ] {
            let expected = meets.then(|| "port 80/tcp of workload b".to_owned());
            assert_eq!(
                waits("a", 9, tcp, &[("b", theirs)], &none),
                expected,
                "{theirs}"
            );
            assert_eq!(
                waits("b", 9, tcp, &[("b", theirs)], &none),
                None,
                "its own revision of before"
            );
        }
        let reserved = waits(
            "a",
            9,
            "{containerPort: 1, hostPort: 8443, protocol: UDP}",
            &[],
            &none,
        );
        assert_eq!(
            reserved.as_deref(),
            Some("port 8443/udp, which is reserved for Beemesh itself on this host")
        );
    }

    #[test]
    fn of_those_that_are_not_written_the_older_one_goes_first() {
        let tcp = "{containerPort: 1, hostPort: 80}";
        let both = state(&["zz", "aa"]);
        let index = |name: &str| both.workload(name).unwrap().index;
        let second = waits("aa", index("aa"), tcp, &[], &both);
        assert_eq!(second.as_deref(), Some("port 80/tcp of workload zz"));
        assert_eq!(waits("zz", index("zz"), tcp, &[], &both), None);
        assert_eq!(
            waits("zz", index("zz"), tcp, &[("aa", tcp)], &both).as_deref(),
            Some("port 80/tcp of workload aa")
        );
        // Its next revision is younger than the revision that waits for its port.
        assert_eq!(
            waits("aa", index("aa"), tcp, &[("aa", tcp)], &both),
            None,
            "who is written keeps its port for its next revision"
        );
    }
}
