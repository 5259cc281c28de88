//! Codec of [`crate::pod`].
//!
//! Pure: values to FlatBuffers and back.

use flatbuffers::{ForwardsUOffset, Vector, WIPOffset};

use super::{
    Builder, DecodeError, Field, SIZE_TYPICAL, Slot, Wire, choice, fb, messages, table, table_field,
};
use crate::pod::{
    ContainerReport, ContainerState, FailedProbe, LastExit, PodPhase, PodReport, ProbeKind, Told,
};

messages! { PodReport, "BMpd", report_size; }

fn report_size(report: &PodReport) -> usize {
    SIZE_TYPICAL * (1 + report.containers.len())
}

choice! { PodPhase = PodPhase { Running, Completed, Updating, Starting, Waiting, Ended, Failed, Stopping } }
choice! { ContainerState = ContainerState { Created, Running, Paused, Stopping, Exited } }
choice! { ProbeKind = ProbeKind { Startup, Liveness, Readiness } }

table! { LastExit = LastExit(LastExitArgs) "last_exit" { code, out_of_memory, by_probe, in_start, at, output } }

table! { FailedProbe = FailedProbe(FailedProbeArgs) "failed_probe" {
    kind, failures, threshold, exit, timed_out, output
} }

table! { ContainerReport = ContainerReport(ContainerReportArgs) "container_report" {
    name, state, ready, healthy, restarts, ends, exit, probe, start_error, next_try_at
} }

table! { PodReport = PodReport(PodReportArgs) "pod_report" {
    phase, revision, from, reason, healthy, total, restarts, containers
} }

/// An empty list is written as an absent one, as older versions do.
impl Field for Told {
    type Slot = Option<WIPOffset<Vector<'static, ForwardsUOffset<fb::ContainerReport<'static>>>>>;
    type Got<'a> = Option<Vector<'a, ForwardsUOffset<fb::ContainerReport<'a>>>>;
    fn put(&self, to: &mut Builder) -> Self::Slot {
        (!self.0.is_empty()).then(|| self.0.put(to))
    }
    fn take(got: Self::Got<'_>, _name: &'static str) -> Result<Self, DecodeError> {
        let items = got.into_iter().flatten();
        Ok(Self(
            items.map(ContainerReport::read).collect::<Result<_, _>>()?,
        ))
    }
}
