//! Values of messages that were added with assignments.

use beemesh_protocol::{
    HostId,
    ipc::{FromAgent, Welcome},
    peer::{self, HostReport},
    state::{Assignment, Assignments, Change, ClaimRecord, JobEnd, MoveReason, Moved},
};

fn host(n: u8) -> HostId {
    HostId([n; 32])
}

pub(super) fn changes() -> [Change; 6] {
    let assign = |from, host| Change::Assign {
        workload: "web".into(),
        ordinal: 2,
        index: 9,
        from,
        host,
    };
    let end = |succeeded, reason: &str, again| Change::EndJob {
        workload: "migrate".into(),
        ordinal: 0,
        index: 12,
        succeeded,
        reason: reason.into(),
        again,
    };
    [
        Change::RaiseLevel { level: 1 },
        assign(None, Some(host(2))),
        assign(Some(host(2)), None),
        assign(Some(host(2)), Some(host(3))),
        end(true, "", false),
        end(false, "container migrate-app ended with code 3", true),
    ]
}

/// Reports of hosts that say which members they do not reach.
pub(super) fn unreached(report: &HostReport) -> [peer::Request; 2] {
    [vec![], vec![host(2), host(3)]].map(|hosts| {
        observed(HostReport {
            unreached: Some(hosts),
            ..report.clone()
        })
    })
}

/// The report of a host that says what it has, and that runs pods beside each other.
pub(super) fn capacity(mut report: HostReport) -> peer::Request {
    for (number, pod) in (0..).zip(&mut report.workloads) {
        pod.number = number;
    }
    observed(HostReport {
        cpu_millis: 4000,
        memory_bytes: 8 << 30,
        ..report
    })
}

fn observed(report: HostReport) -> peer::Request {
    peer::Request {
        id: 3,
        body: peer::RequestBody::Observe(report),
    }
}

/// Changes of hosts that are lost and return, and a step of the rollout of pods beside each other, from level 3 on.
pub(super) fn losses() -> [Change; 4] {
    let lose = |declared| Change::LoseHost {
        host: host(2),
        declared,
    };
    let back = Change::ReturnHost {
        host: host(2),
        steady_at_ms: 1_800_000_600_000,
    };
    let roll = Change::Roll {
        workload: "web".into(),
        index: 9,
        to: 9,
        hosts: vec![host(2), host(2)],
        numbers: vec![0, 1],
    };
    [lose(false), lose(true), back, roll]
}

/// Pods that have moved, and that run beside each other, from level 3 on.
pub(super) fn moved() -> Assignments {
    use MoveReason::{Drained, Lost, Unfit, Unreachable};
    let mut all = assignments();
    let first = all.assigned[0].clone();
    let reasons = [Lost, Unreachable, Drained, Unfit];
    let one = |(ordinal, why)| Assignment {
        ordinal,
        moved: Some(Moved {
            from: "h1".into(),
            why,
            at_ms: 1_800_000_000_003,
        }),
        number: ordinal,
        ..first.clone()
    };
    all.assigned = (0..).zip(reasons).map(one).collect();
    all
}

pub(super) fn assignments() -> Assignments {
    let one = |ordinal, host, end| Assignment {
        workload: "web".into(),
        ordinal,
        host,
        index: 12,
        failures: 3,
        failed_at_ms: 1_800_000_000_000,
        end,
        moved: None,
        number: 0,
    };
    let end = JobEnd {
        succeeded: false,
        reason: "container web-app ended with code 3".into(),
        at_ms: 1_800_000_000_001,
    };
    Assignments {
        assigned: vec![one(0, Some(host(2)), None), one(1, None, Some(end))],
        claims: vec![ClaimRecord {
            namespace: "default".into(),
            name: "ledger".into(),
            host: host(2),
        }],
    }
}

pub(super) fn welcome() -> FromAgent {
    FromAgent::Welcome(Welcome {
        host: host(1),
        name: "h1".into(),
        addresses: vec!["/ip4/10.0.0.1/udp/4701/quic-v1".into()],
        version: "0.2.1".into(),
        connected: vec![],
        reserved_ports: vec![4701, 7443],
        name_is_set: true,
    })
}
