//! Codec of [`crate::ipc`].
//!
//! Pure: values to FlatBuffers and back.

use flatbuffers::WIPOffset;

use super::{
    Builder, DecodeError, Field, SIZE_TYPICAL, Slot, Wire, choice, fb, messages, table,
    table_field, union,
};
use crate::ipc::{
    Class, Done, FromAgent, Member, Opened, Opening, Report, Request, ToAgent, UnitFiles,
    UnitState, Welcome,
};

messages! {
    Opening, "BMop";
    Opened, "BMod";
    ToAgent, "BMta", to_agent_size;
    FromAgent, "BMfa";
}

fn to_agent_size(message: &ToAgent) -> usize {
    match message {
        ToAgent::Request {
            body: Request::PutUnit(files),
            ..
        } => SIZE_TYPICAL + files.kube.len() + files.yaml.len(),
        _ => SIZE_TYPICAL,
    }
}

choice! { Class = Class { Raft, Snapshot, Peer, Api } }

table! { Member = Member(MemberArgs) "member" { host, name, addresses } }

union! { Opening = Opening(OpeningArgs, OpeningBody) "opening"
    record Control { version } = OpeningControl(OpeningControlArgs) body_as_control;
    record Open { host, class } = OpeningOpen(OpeningOpenArgs) body_as_open;
    record Accept { stream } = OpeningAccept(OpeningAcceptArgs) body_as_accept;
}

union! { Opened = Opened(OpenedArgs, OpenedBody) "opened"
    record Refused { reason } = Reason(ReasonArgs) body_as_refused;
    unit Ready;
}

table! { UnitFiles = UnitFiles(UnitFilesArgs) "unit_files" { workload, index, kube, yaml } }

union! { Request = AgentRequest(AgentRequestArgs, AgentRequestBody) "agent_request"
    record RemoveUnit { workload } = WorkloadName(WorkloadNameArgs) body_as_remove_unit;
    record TidyUnit { workload } = WorkloadName(WorkloadNameArgs) body_as_tidy_unit;
    record StartUnit { workload } = WorkloadName(WorkloadNameArgs) body_as_start_unit;
    record StopUnit { workload } = WorkloadName(WorkloadNameArgs) body_as_stop_unit;
    record Join { host, addresses, request } = AgentJoin(AgentJoinArgs) body_as_join;
    record Advertise { addresses } = AgentAdvertise(AgentAdvertiseArgs) body_as_advertise;
    record UseKey { host } = AgentKey(AgentKeyArgs) body_as_use_key;
    table PutUnit body_as_put_unit;
    unit SyncStorage;
    unit MakeKey;
}

union! { Done = AgentDone(AgentDoneArgs, AgentDoneBody) "agent_done"
    record Key { host } = AgentKey(AgentKeyArgs) body_as_key;
    table Joined body_as_joined;
    unit Done;
}

union! { Result<Done, String> = AgentResult(AgentResultArgs, AgentResultBody) "agent_result"
    value Err(reason) = Reason(ReasonArgs) body_as_err;
    table Ok body_as_ok;
}

table! { Report = Report(ReportArgs) "report" { role, leader, leader_name, hosts, workloads, healthy } }

union! { ToAgent = ToAgent(ToAgentArgs, ToAgentBody) "to_agent"
    record Request { id, body } = ToAgentRequest(ToAgentRequestArgs) body_as_request;
    record JoinAnswer { id, answer } = ToAgentJoinAnswer(ToAgentJoinAnswerArgs) body_as_join_answer;
    value Members(members) = ToAgentMembers(ToAgentMembersArgs) body_as_members;
    table Report body_as_report;
}

table! { Welcome = Welcome(WelcomeArgs) "welcome" {
    host, name, addresses, version, connected, reserved_ports, name_is_set
} }

table! { UnitState = UnitState(UnitStateArgs) "unit_state" {
    workload, kube, active, sub, result, status, started
} }

union! { FromAgent = FromAgent(FromAgentArgs, FromAgentBody) "from_agent"
    record Reply { id, result } = FromAgentReply(FromAgentReplyArgs) body_as_reply;
    record UnitGone { workload } = WorkloadName(WorkloadNameArgs) body_as_unit_gone;
    record Peer { host, connected } = FromAgentPeer(FromAgentPeerArgs) body_as_peer;
    record Incoming { stream, host, class } = FromAgentIncoming(FromAgentIncomingArgs) body_as_incoming;
    record JoinRequest { id, host, request } = FromAgentJoinRequest(FromAgentJoinRequestArgs) body_as_join_request;
    record Units { units, more } = FromAgentUnits(FromAgentUnitsArgs) body_as_units;
    table Welcome body_as_welcome;
    table Unit body_as_unit;
}
