//! Codec of [`crate::peer`].
//!
//! Pure: values to FlatBuffers and back.

use flatbuffers::WIPOffset;

use super::{
    Builder, DecodeError, Field, SIZE_TYPICAL, Slot, Wire, choice, fb, messages,
    state::command_size, table, table_field, union,
};
use crate::peer::{
    Action, Committed, Effect, HostReport, Outcome, Phase, Refusal, Reply, ReplyBody, Reported,
    Request, RequestBody, WorkloadReport,
};

messages! {
    Request, "BMpq", request_size;
    Reply, "BMpr";
}

fn request_size(request: &Request) -> usize {
    match &request.body {
        RequestBody::Propose { commands, .. } => {
            SIZE_TYPICAL + commands.iter().map(command_size).sum::<usize>()
        }
        _ => SIZE_TYPICAL,
    }
}

choice! { Action = Action { Created, Updated, Unchanged, Removed } }
choice! { Phase = Phase { Pending, Starting, Running, Succeeded, Stopped, Failed, Removing } }

table! { WorkloadReport = WorkloadReport(WorkloadReportArgs) "workload_report" {
    workload, revision, index, phase, healthy, total, restarts, message, ended
} }

table! { HostReport = HostReport(HostReportArgs) "host_report" {
    sequence, applied, version, podman, trouble, workloads, takes_reports, reserved_ports
} }

table! { Reported = Reported(ReportedArgs) "reported" { host, report } }

union! { RequestBody = PeerRequestBody(PeerRequestBodyArgs, PeerRequestUnion) "peer_request.body"
    record Propose { commands, term } = PeerPropose(PeerProposeArgs) body_as_propose;
    record Reports { term, reports } = PeerReports(PeerReportsArgs) body_as_reports;
    value PreVote(last) = PeerPreVote(PeerPreVoteArgs) body_as_pre_vote;
    table Observe body_as_observe;
    unit ReadIndex;
}

table! { Request = PeerRequest(PeerRequestArgs) "peer_request" { id, body } }

table! { Effect = Effect(EffectArgs) "effect" { kind, name, revision, action } }

table! { Refusal = Refusal(RefusalArgs) "refusal" { missing, object, message } }

union! { Outcome = Outcome(OutcomeArgs, OutcomeBody) "outcome"
    value Applied(effects) = OutcomeApplied(OutcomeAppliedArgs) body_as_applied;
    value Deleted(workloads) = OutcomeDeleted(OutcomeDeletedArgs) body_as_deleted;
    value Admitted(members) = OutcomeAdmitted(OutcomeAdmittedArgs) body_as_admitted;
    value Refused(refusals) = OutcomeRefused(OutcomeRefusedArgs) body_as_refused;
    unit Done;
}

table! { Committed = Committed(CommittedArgs) "committed" { index, outcome } }

union! { ReplyBody = PeerReplyBody(PeerReplyBodyArgs, PeerReplyUnion) "peer_reply.body"
    value Committed(committed) = PeerCommitted(PeerCommittedArgs) body_as_committed;
    value ReadIndex(log_id) = PeerReadIndex(PeerReadIndexArgs) body_as_read_index;
    value NotLeader(leader) = PeerNotLeader(PeerNotLeaderArgs) body_as_not_leader;
    value PreVoted(yes) = PeerPreVoted(PeerPreVotedArgs) body_as_pre_voted;
    value Failed(reason) = Reason(ReasonArgs) body_as_failed;
    unit Noted;
}

table! { Reply = PeerReply(PeerReplyArgs) "peer_reply" { id, body } }
