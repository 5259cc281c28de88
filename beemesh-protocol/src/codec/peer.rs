//! Codec of [`crate::peer`].
//!
//! Pure: values to FlatBuffers and back.

use flatbuffers::WIPOffset;

use super::{
    Builder, DecodeError, Field, SIZE_TYPICAL, Slot, Wire, choice, fb, messages,
    state::command_size, table, table_field, union,
};
use crate::peer::{
    Action, Committed, Effect, Failure, HostReport, Outcome, Phase, Refusal, Reply, ReplyBody,
    Reported, Request, RequestBody, WorkloadReport,
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

choice! { Action = Action { Created, Updated, Unchanged, Removed, Kept } }
choice! { Phase = Phase { Pending, Starting, Running, Succeeded, Stopped, Failed, Removing } }

table! { WorkloadReport = WorkloadReport(WorkloadReportArgs) "workload_report" {
    workload, revision, index, phase, healthy, total, restarts, message, ended, containers, images,
    number
} }

table! { HostReport = HostReport(HostReportArgs) "host_report" {
    sequence, applied, version, podman, trouble, workloads, takes_reports, reserved_ports, unreached,
    cpu_millis, memory_bytes
} }

table! { Reported = Reported(ReportedArgs) "reported" { host, report } }

union! { RequestBody = PeerRequestBody(PeerRequestBodyArgs, PeerRequestUnion) "peer_request.body"
    record Propose { commands, term } = PeerPropose(PeerProposeArgs) body_as_propose;
    record Reports { term, reports } = PeerReports(PeerReportsArgs) body_as_reports;
    value Lease(workloads) = PeerLease(PeerLeaseArgs) body_as_lease;
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
    value Leased(workloads) = PeerLeased(PeerLeasedArgs) body_as_leased;
    value PreVoted(yes) = PeerPreVoted(PeerPreVotedArgs) body_as_pre_voted;
    table Failed body_as_failed;
    unit Noted;
}

impl Wire for Failure {
    type Table<'a> = fb::PeerFailed<'a>;
    fn write(&self, to: &mut Builder) -> WIPOffset<fb::PeerFailed<'static>> {
        let why = match self {
            Self::NoQuorum => fb::Failure::NoQuorum,
            Self::LeadershipLost => fb::Failure::LeadershipLost,
            Self::Stopped => fb::Failure::Stopped,
            Self::Late => fb::Failure::Late,
            Self::Other(_) => fb::Failure::Unset,
        };
        let reason = Some(to.create_string(&self.to_string()));
        fb::PeerFailed::create(to, &fb::PeerFailedArgs { reason, why })
    }
    fn read(from: fb::PeerFailed<'_>) -> Result<Self, DecodeError> {
        let words = Field::take(from.reason(), "peer_reply.body.Failed.reason")?;
        Ok(match from.why() {
            fb::Failure::NoQuorum => Self::NoQuorum,
            fb::Failure::LeadershipLost => Self::LeadershipLost,
            fb::Failure::Stopped => Self::Stopped,
            fb::Failure::Late => Self::Late,
            _ => Self::Other(words),
        })
    }
}

table! { Reply = PeerReply(PeerReplyArgs) "peer_reply" { id, body } }

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Message;

    #[test]
    fn a_failure_of_an_older_or_later_peer_keeps_its_words() {
        for why in [fb::Failure::Unset, fb::Failure(200)] {
            let mut to = Builder::new();
            let reason = Some(to.create_string("asleep"));
            let failed = match why {
                fb::Failure::Unset => {
                    fb::Reason::create(&mut to, &fb::ReasonArgs { reason }).as_union_value()
                }
                why => fb::PeerFailed::create(&mut to, &fb::PeerFailedArgs { reason, why })
                    .as_union_value(),
            };
            let args = fb::PeerReplyBodyArgs {
                body_type: fb::PeerReplyUnion::Failed,
                body: Some(failed),
            };
            let body = Some(fb::PeerReplyBody::create(&mut to, &args));
            let root = fb::PeerReply::create(&mut to, &fb::PeerReplyArgs { id: 7, body });
            to.finish(root, Some(Reply::MARK));
            let body = ReplyBody::Failed(Failure::Other("asleep".to_owned()));
            assert_eq!(
                Reply::decode(to.finished_data()),
                Ok(Reply { id: 7, body }),
                "{why:?}"
            );
        }
        // 0.2 reads the words from the field's original position.
        assert_eq!(fb::PeerFailed::VT_REASON, fb::Reason::VT_REASON);
    }
}
