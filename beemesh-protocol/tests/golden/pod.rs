//! Reports of pods, and of their containers.

use beemesh_protocol::pod::{
    ContainerReport, ContainerState, FailedProbe, LastExit, PodPhase, PodReport, ProbeKind,
};

pub(super) fn containers() -> Vec<ContainerReport> {
    use ContainerState::{Created, Exited, Paused, Running, Stopping};
    let states = [Created, Running, Paused, Stopping, Exited];
    let containers = states.map(|state| ContainerReport {
        name: "app".into(),
        state,
        ready: true,
        healthy: true,
        restarts: 3,
        ends: 2,
        exit: Some(LastExit {
            code: Some(137),
            out_of_memory: true,
            by_probe: true,
            in_start: true,
            at: 1_800_000_000,
            output: "no such metric".into(),
        }),
        probe: Some(FailedProbe {
            kind: if state == Running {
                ProbeKind::Startup
            } else {
                ProbeKind::Liveness
            },
            failures: 7,
            threshold: 10,
            exit: Some(1),
            timed_out: true,
            output: "404 Not Found".into(),
        }),
        start_error: "no such file".into(),
        next_try_at: Some(1_800_000_010),
    });
    containers
        .into_iter()
        .chain([ContainerReport::default()])
        .collect()
}

pub(super) fn pod_reports() -> [PodReport; 8] {
    use PodPhase::{Completed, Ended, Failed, Running, Starting, Stopping, Updating, Waiting};
    [
        Running, Completed, Updating, Starting, Waiting, Ended, Failed, Stopping,
    ]
    .map(|phase| PodReport {
        phase,
        revision: 2,
        from: 1,
        reason: "pulling".into(),
        healthy: 1,
        total: 2,
        restarts: 3,
        containers: containers(),
    })
}
