use std::sync::Arc;

use beemesh_protocol::{
    ClusterId,
    peer::Phase,
    state::{Change, Command, Host, Kind, Object},
};

use super::{decide::Case, *};
use crate::cluster::state::State;

mod jobs;
mod old;
mod removed;
mod retry;
mod stopped;
mod way;

const CLUSTER: ClusterId = ClusterId([7; 16]);
const HOST: HostId = HostId([1; 32]);
const UP: &str = "2/2 healthy · rev 1 · 0 restarts";

fn unit(active: &str, started: bool, status: &str) -> UnitState {
    UnitState {
        workload: "web".into(),
        active: active.into(),
        result: if active == "failed" {
            "exit-code"
        } else {
            "success"
        }
        .into(),
        status: status.into(),
        started,
        ..UnitState::default()
    }
}

fn failures(index: u64, count: u32, last: Instant, step: Option<Step>, message: &str) -> Memory {
    let failures = Failures {
        cause: Cause::Failed,
        index,
        count,
        last,
        step,
        message: message.into(),
    };
    Memory {
        failures: Some(failures),
        ..Memory::default()
    }
}

fn settled(index: u64) -> Memory {
    Memory {
        settled: index,
        ..Memory::default()
    }
}

/// Log index 9 created revision 1, log index 12 revision 2; the state includes log index 20.
#[test]
fn every_situation_has_one_decision_and_one_report() {
    use Phase::{Failed, Pending, Removing, Running, Starting, Stopped, Succeeded};
    let now = Instant::now() + Duration::from_secs(3600);
    let ago = |seconds| now - Duration::from_secs(seconds);
    let (one, two) = (
        Revision {
            revision: 1,
            index: 9,
        },
        Revision {
            revision: 2,
            index: 12,
        },
    );
    let ours = Disk::Ours;
    let up = || Some(unit("active", true, UP));
    let fresh = Memory::default;
    let other = "beemesh-pod-web.kube belongs to cluster 09090909090909090909090909090909, so Beemesh does not touch it";
    let foreign = "beemesh-pod-web.kube was not written by Beemesh, so Beemesh does not touch it";
    let stopped = "stopped by the administrator of this host";
    let broken = "failed: container web-app cannot start: no such file";
    let reason = "container web-app cannot start: no such file";
    let pull = "image a/b:1 cannot be pulled: no route";
    // what is wanted, on disk, in systemd, remembered → the operation, seconds until the next look, phase and message
    for (case, wanted, disk, unit, memory, work, due, said) in [
        (
            "new",
            Some(one),
            Disk::Nothing,
            None,
            fresh(),
            Some(Work::Bring(9)),
            None,
            Some((Pending, "")),
        ),
        (
            "as it should be",
            Some(one),
            ours(one),
            up(),
            settled(9),
            None,
            None,
            Some((Running, "")),
        ),
        (
            "after our restart",
            Some(one),
            ours(one),
            up(),
            fresh(),
            Some(Work::Settle(9)),
            None,
            Some((Running, "")),
        ),
        (
            "a container of it is in back-off",
            Some(one),
            ours(one),
            Some(unit(
                "active",
                true,
                "1/2 healthy · rev 1 · 5 restarts · container web-b ended with code 1 (5 times), next try at 10:00:00 UTC",
            )),
            settled(9),
            None,
            None,
            Some((
                Running,
                "container web-b ended with code 1 (5 times), next try at 10:00:00 UTC",
            )),
        ),
        (
            "ended in failure for good",
            Some(one),
            ours(one),
            Some(unit(
                "failed",
                true,
                "ended: container web-a ended with code 1",
            )),
            settled(9),
            None,
            None,
            Some((Failed, "container web-a ended with code 1")),
        ),
        (
            "ended in failure for good, and was changed",
            Some(two),
            ours(one),
            Some(unit(
                "failed",
                true,
                "ended: container web-a ended with code 1",
            )),
            settled(9),
            Some(Work::Bring(12)),
            None,
            Some((Failed, "container web-a ended with code 1")),
        ),
        (
            "updated",
            Some(two),
            ours(one),
            up(),
            settled(9),
            Some(Work::Bring(12)),
            None,
            Some((Running, "")),
        ),
        (
            "persisted, then we were killed",
            Some(two),
            ours(two),
            up(),
            fresh(),
            Some(Work::Finish(12)),
            None,
            Some((Starting, "revision 1 is being replaced")),
        ),
        (
            "taken down, then we were killed",
            Some(two),
            ours(two),
            Some(unit("active", true, "updating to rev 2 from rev 1")),
            fresh(),
            Some(Work::Finish(12)),
            None,
            Some((Starting, "updating to rev 2 from rev 1")),
        ),
        (
            "brought, and the supervisor has not looked yet",
            Some(two),
            ours(two),
            up(),
            settled(12),
            None,
            None,
            Some((Starting, "revision 1 is being replaced")),
        ),
        (
            "never started",
            Some(one),
            ours(one),
            Some(unit("inactive", false, "")),
            fresh(),
            Some(Work::Start(9)),
            None,
            Some((Pending, "")),
        ),
        (
            "starting by itself",
            Some(one),
            ours(one),
            Some(unit("activating", false, "starting rev 1: playing the pod")),
            fresh(),
            None,
            None,
            Some((Starting, "playing the pod")),
        ),
        (
            "stopped",
            Some(one),
            ours(one),
            Some(unit("inactive", true, UP)),
            settled(9),
            None,
            None,
            Some((Stopped, stopped)),
        ),
        (
            "stopped, then updated",
            Some(two),
            ours(one),
            Some(unit("inactive", true, UP)),
            settled(9),
            Some(Work::Persist(12)),
            None,
            Some((Stopped, stopped)),
        ),
        (
            "being stopped while updated",
            Some(two),
            ours(one),
            Some(unit("deactivating", true, "stopping")),
            settled(9),
            None,
            None,
            Some((Starting, "stopping")),
        ),
        (
            "updated while systemd starts the old revision over and over",
            Some(two),
            ours(one),
            Some(unit("activating", true, broken)),
            settled(9),
            Some(Work::Bring(12)),
            None,
            Some((Starting, &*format!("trying again after: {reason}"))),
        ),
        (
            "stopped by our own work, which could not start it again",
            Some(one),
            ours(one),
            Some(unit("inactive", true, "")),
            Memory {
                stopped: true,
                ..failures(
                    9,
                    1,
                    ago(5),
                    Some(Step::Start),
                    "the agent cannot be reached",
                )
            },
            Some(Work::Start(9)),
            None,
            Some((Starting, "trying again after: the agent cannot be reached")),
        ),
        (
            "given up by its supervisor",
            Some(one),
            ours(one),
            Some(unit("failed", false, broken)),
            failures(9, 2, ago(20), None, ""),
            None,
            Some(100),
            Some((Failed, reason)),
        ),
        (
            "given up a while ago",
            Some(one),
            ours(one),
            Some(unit("failed", false, broken)),
            failures(9, 2, ago(120), None, ""),
            Some(Work::Start(9)),
            None,
            Some((Failed, reason)),
        ),
        (
            "given up, then updated",
            Some(two),
            ours(one),
            Some(unit("failed", false, broken)),
            failures(9, 9, ago(0), None, ""),
            Some(Work::Bring(12)),
            None,
            Some((Failed, reason)),
        ),
        (
            "an image that cannot be pulled, of a new workload",
            Some(one),
            Disk::Nothing,
            None,
            failures(9, 1, ago(1), Some(Step::Pull), pull),
            None,
            Some(1),
            Some((Failed, pull)),
        ),
        (
            "an image that cannot be pulled, of an update",
            Some(two),
            ours(one),
            up(),
            failures(12, 3, ago(0), Some(Step::Pull), pull),
            None,
            Some(8),
            Some((
                Failed,
                &*format!("revision 2 cannot be started: {pull}; revision 1 keeps running"),
            )),
        ),
        (
            "a job that is done",
            Some(one),
            ours(one),
            Some(unit("inactive", true, "completed · rev 1 · 0 restarts")),
            settled(9),
            None,
            None,
            Some((Succeeded, "")),
        ),
        (
            "a job that is done, then updated",
            Some(two),
            ours(one),
            Some(unit("active", true, "completed · rev 1 · 0 restarts")),
            settled(9),
            Some(Work::Bring(12)),
            None,
            Some((Succeeded, "")),
        ),
        (
            "deleted",
            None,
            ours(one),
            up(),
            settled(9),
            Some(Work::Remove(9)),
            None,
            Some((Removing, "")),
        ),
        (
            "deleted, and the pod does not go",
            None,
            ours(one),
            up(),
            failures(9, 1, ago(0), Some(Step::Down), "pod web is still there"),
            None,
            Some(2),
            Some((Removing, "pod web is still there")),
        ),
        (
            "newer than our state",
            Some(one),
            ours(Revision {
                revision: 1,
                index: 21,
            }),
            up(),
            fresh(),
            None,
            None,
            Some((Running, "")),
        ),
        (
            "newer than our state, in which it is gone",
            None,
            ours(Revision {
                revision: 1,
                index: 21,
            }),
            up(),
            fresh(),
            None,
            None,
            Some((Running, "")),
        ),
        (
            "another cluster's",
            Some(one),
            Disk::Other(ClusterId([9; 16])),
            up(),
            fresh(),
            None,
            None,
            Some((Failed, other)),
        ),
        (
            "another cluster's, unwanted",
            None,
            Disk::Other(ClusterId([9; 16])),
            up(),
            fresh(),
            None,
            None,
            None,
        ),
        (
            "somebody's own file",
            Some(one),
            Disk::Foreign,
            up(),
            fresh(),
            None,
            None,
            Some((Failed, foreign)),
        ),
        (
            "not ours to run",
            None,
            Disk::Nothing,
            None,
            fresh(),
            None,
            None,
            None,
        ),
    ] {
        let situation = Case {
            now,
            applied: 20,
            wanted,
            job: None,
            cluster: None,
            rolls: false,
            disk,
            unit: unit.as_ref(),
            heard: unit
                .as_ref()
                .and_then(|unit| health::parse(&unit.status))
                .map(Arc::new),
        };
        let decision = decide::decide(&situation, &memory);
        let due = due.map(|seconds| now + Duration::from_secs(seconds));
        assert_eq!(decision, decide::Decision { work, due }, "{case}");
        let report = tell::report("web", &situation, &memory);
        let report = report
            .as_ref()
            .map(|report| (report.phase, report.message.as_str()));
        assert_eq!(report, said, "{case}");
    }
}

fn object(body: &str) -> Object {
    Object {
        kind: Kind::Pod,
        namespace: "default".into(),
        name: "web".into(),
        body: body.as_bytes().to_vec(),
        hash: [body.len() as u8; 32],
        references: Vec::new(),
        replicas: None,
        selector: BTreeMap::new(),
    }
}

fn me() -> Host {
    Host {
        id: HOST,
        name: "h1".into(),
        addresses: Vec::new(),
        labels: BTreeMap::new(),
        drained: false,
        claims_as: None,
        votes_from_ms: 0,
        lost_at_ms: 0,
        declared_lost: false,
        steady_at_ms: 0,
    }
}

/// The Quadlet of `web` as of log index 9.
fn web_at_9() -> String {
    format!(
        "[X-Beemesh]\nWorkload=web\nRevision=1\nIndex=9\nCluster={CLUSTER}\nFormat=3\n\n[Kube]\nYaml=beemesh-pod-web.9.yaml\n"
    )
}

fn view(state: &mut State, index: u64, change: Change) -> View {
    state.apply(index, &Command::unasked(0, change));
    View {
        applied: index,
        state: Arc::new(state.clone()),
    }
}
