//! One workload in detail.
//!
//! Pure, like its parent.

use beemesh_protocol::{
    api::{Phase, Workload},
    pod::{ContainerReport, reasons},
};

use super::{GAP, committed, counts, phase_name, rollout, table};

/// One workload, host by host.
pub(crate) fn workload(workload: &Workload) -> String {
    let mut text = format!(
        "{}{GAP}{}{GAP}revision {}{GAP}manifest {}{GAP}{}{GAP}{} ready\n",
        workload.name,
        workload.kind,
        workload.revision,
        workload.manifest,
        committed(workload.index),
        counts(workload),
    );
    if workload.stopped {
        text.push_str(&format!(
            "stopped: `beemesh start {}` starts it\n",
            workload.name
        ));
    } else if workload.rollout.is_some() {
        text.push_str(&format!("{}\n", rollout::phase(workload)));
    } else if !workload.reason.is_empty() {
        text.push_str(&format!("{}\n", workload.reason));
    }
    let mut rows = vec![
        [
            "HOST", "STATE", "REVISION", "HEALTHY", "RESTARTS", "MESSAGE",
        ]
        .map(str::to_owned),
    ];
    for one in &workload.hosts {
        let state = phase_name(one.phase);
        rows.push([
            one.label(),
            match one.reachable {
                true => state.to_owned(),
                false => format!("unknown (last: {state})"),
            },
            one.revision.to_string(),
            format!("{}/{}", one.healthy, one.total),
            one.restarts.to_string(),
            match one.message.as_str() {
                "" if one.phase == Phase::Succeeded => termination_messages(&one.containers),
                // A probe that fails less often than it may keeps nothing from being ready.
                "" => reasons(&one.containers, true).join("; "),
                message => message.to_owned(),
            },
        ]);
    }
    text.push_str(&table(&rows));
    text
}

/// What the containers of a pod that has completed left behind.
fn termination_messages(containers: &[ContainerReport]) -> String {
    let message = |one: &ContainerReport| {
        let exit = one.exit.as_ref()?;
        (!exit.output.is_empty()).then(|| format!("{}: {}", one.name, exit.output))
    };
    let messages: Vec<String> = containers.iter().filter_map(message).collect();
    messages.join("; ")
}
