//! Codec of [`crate::ipc`].
//!
//! Pure: values to FlatBuffers and back.

use flatbuffers::WIPOffset;

use super::{
    Builder, DecodeError, Field, SIZE_TYPICAL, Slot, Wire, choice, fb, messages, table,
    table_field, union,
};
use crate::ipc::{
    Checked, Class, Done, FromAgent, HostRole, Listener, Member, NoStream, Opened, Opening,
    PortAsked, Report, Request, ToAgent, Transport, UnitFiles, UnitState, Welcome,
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

choice! { Transport = Transport { Tcp, Udp } }

table! { Member = Member(MemberArgs) "member" { host, name, addresses } }

union! { Opening = Opening(OpeningArgs, OpeningBody) "opening"
    record Control { version } = OpeningControl(OpeningControlArgs) body_as_control;
    record Open { host, class } = OpeningOpen(OpeningOpenArgs) body_as_open;
    record Accept { stream } = OpeningAccept(OpeningAcceptArgs) body_as_accept;
}

union! { Opened = Opened(OpenedArgs, OpenedBody) "opened"
    table Refused body_as_refused;
    unit Ready;
}

impl Wire for NoStream {
    type Table<'a> = fb::OpenedRefused<'a>;
    fn write(&self, to: &mut Builder) -> WIPOffset<fb::OpenedRefused<'static>> {
        let why = match self {
            Self::NotMember => fb::NoStream::NotMember,
            Self::Other(_) => fb::NoStream::Other,
        };
        let reason = Some(to.create_string(&self.to_string()));
        fb::OpenedRefused::create(to, &fb::OpenedRefusedArgs { reason, why })
    }
    fn read(from: fb::OpenedRefused<'_>) -> Result<Self, DecodeError> {
        let words = Field::take(from.reason(), "opened.Refused.reason")?;
        Ok(match from.why() {
            fb::NoStream::NotMember => Self::NotMember,
            fb::NoStream::Unset => Self::from_words(words),
            _ => Self::Other(words),
        })
    }
}

table! { UnitFiles = UnitFiles(UnitFilesArgs) "unit_files" { workload, index, kube, yaml } }

table! { PortAsked = PortAsked(PortAskedArgs) "port_asked" { transport, port } }

table! { Listener = Listener(ListenerArgs) "listener" { transport, port, addresses, process, container } }

table! { Checked = AgentChecked(AgentCheckedArgs) "agent_checked" { unit, listeners } }

union! { Request = AgentRequest(AgentRequestArgs, AgentRequestBody) "agent_request"
    record RemoveUnit { workload } = WorkloadName(WorkloadNameArgs) body_as_remove_unit;
    record TidyUnit { workload } = WorkloadName(WorkloadNameArgs) body_as_tidy_unit;
    record StartUnit { workload } = WorkloadName(WorkloadNameArgs) body_as_start_unit;
    record StopUnit { workload } = WorkloadName(WorkloadNameArgs) body_as_stop_unit;
    record Join { host, addresses, request } = AgentJoin(AgentJoinArgs) body_as_join;
    record Advertise { addresses } = AgentAdvertise(AgentAdvertiseArgs) body_as_advertise;
    record UseKey { host } = AgentKey(AgentKeyArgs) body_as_use_key;
    record Check { workload, kube, ports } = AgentCheck(AgentCheckArgs) body_as_check;
    table PutUnit body_as_put_unit;
    unit SyncStorage;
    unit MakeKey;
}

union! { Done = AgentDone(AgentDoneArgs, AgentDoneBody) "agent_done"
    record Key { host } = AgentKey(AgentKeyArgs) body_as_key;
    table Joined body_as_joined;
    table Checked body_as_checked;
    unit Done;
}

union! { Result<Done, String> = AgentResult(AgentResultArgs, AgentResultBody) "agent_result"
    value Err(reason) = Reason(ReasonArgs) body_as_err;
    table Ok body_as_ok;
}

/// The role is also sent as a word, because 0.2 reads only the word.
impl Wire for Report {
    type Table<'a> = fb::Report<'a>;
    fn write(&self, to: &mut Builder) -> WIPOffset<fb::Report<'static>> {
        let part = match self.role {
            HostRole::Joining => fb::HostRole::Joining,
            HostRole::Leader => fb::HostRole::Leader,
            HostRole::Follower => fb::HostRole::Follower,
            HostRole::Candidate => fb::HostRole::Candidate,
            HostRole::Learner => fb::HostRole::Learner,
            HostRole::Stopped => fb::HostRole::Stopped,
            HostRole::Removed => fb::HostRole::Removed,
            HostRole::Other(_) => fb::HostRole::Unset,
        };
        let role = Some(to.create_string(self.role.word()));
        let leader = Field::put(&self.leader, to);
        let leader_name = Some(to.create_string(&self.leader_name));
        let args = fb::ReportArgs {
            role,
            leader: leader.arg(),
            leader_name,
            hosts: self.hosts,
            workloads: self.workloads,
            healthy: self.healthy,
            part,
        };
        fb::Report::create(to, &args)
    }
    fn read(from: fb::Report<'_>) -> Result<Self, DecodeError> {
        let word = Field::take(from.role(), "report.role")?;
        let role = match from.part() {
            fb::HostRole::Joining => HostRole::Joining,
            fb::HostRole::Leader => HostRole::Leader,
            fb::HostRole::Follower => HostRole::Follower,
            fb::HostRole::Candidate => HostRole::Candidate,
            fb::HostRole::Learner => HostRole::Learner,
            fb::HostRole::Stopped => HostRole::Stopped,
            fb::HostRole::Removed => HostRole::Removed,
            // 0.2 does not write this field, and a later release may write a role that this build does not know.
            _ => HostRole::from_word(word),
        };
        Ok(Self {
            role,
            leader: Field::take(from.leader(), "report.leader")?,
            leader_name: Field::take(from.leader_name(), "report.leader_name")?,
            hosts: from.hosts(),
            workloads: from.workloads(),
            healthy: from.healthy(),
        })
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Message;

    /// Encodes and decodes a refusal as 0.2, or a later release, writes it.
    fn refused(words: &str, why: fb::NoStream) -> Result<Opened, DecodeError> {
        let mut to = Builder::new();
        let reason = Some(to.create_string(words));
        let body = match why {
            fb::NoStream::Unset => {
                fb::Reason::create(&mut to, &fb::ReasonArgs { reason }).as_union_value()
            }
            why => fb::OpenedRefused::create(&mut to, &fb::OpenedRefusedArgs { reason, why })
                .as_union_value(),
        };
        let args = fb::OpenedArgs {
            body_type: fb::OpenedBody::Refused,
            body: Some(body),
        };
        let root = fb::Opened::create(&mut to, &args);
        to.finish(root, Some(Opened::MARK));
        Opened::decode(to.finished_data())
    }

    #[test]
    fn a_refusal_of_an_older_or_later_agent_is_understood() {
        let other = |words: &str| NoStream::Other(words.to_owned());
        let words = NoStream::NotMember.to_string();
        for (words, why, expected) in [
            (words.as_str(), fb::NoStream::Unset, NoStream::NotMember),
            ("busy", fb::NoStream::Unset, other("busy")),
            // From a later agent, `why` counts and not the words.
            (&words, fb::NoStream::Other, other(&words)),
            ("moved", fb::NoStream(200), other("moved")),
        ] {
            assert_eq!(refused(words, why), Ok(Opened::Refused(expected)));
        }
        // 0.2 reads the words from the field's original position and compares them.
        assert_eq!(words, "it does not regard this host as a member");
        assert_eq!(fb::OpenedRefused::VT_REASON, fb::Reason::VT_REASON);
    }

    #[test]
    fn the_role_that_an_older_or_later_gateway_tells_is_understood() {
        let read = |word: &str, part: fb::HostRole| {
            let mut to = Builder::new();
            let args = fb::ReportArgs {
                role: Some(to.create_string(word)),
                leader_name: Some(to.create_string("h1")),
                part,
                ..fb::ReportArgs::default()
            };
            let report = fb::Report::create(&mut to, &args);
            let args = fb::ToAgentArgs {
                body_type: fb::ToAgentBody::Report,
                body: Some(report.as_union_value()),
            };
            let root = fb::ToAgent::create(&mut to, &args);
            to.finish(root, Some(ToAgent::MARK));
            match ToAgent::decode(to.finished_data()) {
                Ok(ToAgent::Report(report)) => report.role,
                other => panic!("{other:?}"),
            }
        };
        for (word, part, expected) in [
            ("removed", fb::HostRole::Unset, HostRole::Removed),
            ("follower", fb::HostRole::Unset, HostRole::Follower),
            ("", fb::HostRole::Unset, HostRole::default()),
            ("follower", fb::HostRole::Learner, HostRole::Learner),
            ("removed", fb::HostRole(200), HostRole::Removed),
            (
                "witness",
                fb::HostRole(200),
                HostRole::Other("witness".to_owned()),
            ),
        ] {
            let role = read(word, part);
            assert_eq!(role, expected, "{word} {part:?}");
            let report = Report {
                role,
                ..Report::default()
            };
            let report = ToAgent::Report(report);
            assert_eq!(ToAgent::decode(&report.encode()), Ok(report));
        }
        // 0.2 shows the words of the other roles and compares this one.
        assert_eq!(HostRole::Removed.word(), "removed");
    }
}
