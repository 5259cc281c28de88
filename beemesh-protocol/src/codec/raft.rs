//! Codec of [`crate::raft`].
//!
//! Pure: values to FlatBuffers and back.

use flatbuffers::WIPOffset;

use super::{
    Builder, DecodeError, Field, SIZE_TYPICAL, Slot, Wire, fb, messages, state::command_size,
    table, table_field, union,
};
use crate::{
    HostId,
    raft::{
        Entry, LogId, Membership, Payload, Reply, ReplyBody, Request, RequestBody, SnapshotFile,
        SnapshotHead, SnapshotMeta, SnapshotReply, StoredMembership, Vote,
    },
};

messages! {
    Entry, "BMen", entry_size;
    Request, "BMrq", request_size;
    Reply, "BMrr";
    SnapshotHead, "BMsh";
    SnapshotReply, "BMsr";
    SnapshotFile, "BMsf", |file: &SnapshotFile| 2 * SIZE_TYPICAL + file.state.len();
    SnapshotMeta, "BMsm";
    StoredMembership, "BMme";
    Vote, "BMvo";
    LogId, "BMli";
}

fn entry_size(entry: &Entry) -> usize {
    match &entry.payload {
        Payload::Commands(commands) => {
            SIZE_TYPICAL / 2 + commands.iter().map(command_size).sum::<usize>()
        }
        Payload::Blank | Payload::Membership(_) => SIZE_TYPICAL,
    }
}

fn request_size(request: &Request) -> usize {
    match &request.body {
        RequestBody::Append { entries, .. } => {
            SIZE_TYPICAL + entries.iter().map(entry_size).sum::<usize>()
        }
        RequestBody::Vote { .. } => SIZE_TYPICAL,
    }
}

/// Makes a FlatBuffers struct a message: a table with the struct as its only field.
macro_rules! record {
    ($type:ty = $table:ident($args:ident) $field:ident $name:literal) => {
        impl Wire for $type {
            type Table<'a> = fb::$table<'a>;
            fn write(&self, to: &mut Builder) -> WIPOffset<fb::$table<'static>> {
                let $field = self.put(to);
                fb::$table::create(
                    to,
                    &fb::$args {
                        $field: Some(&$field),
                    },
                )
            }
            fn read(from: fb::$table<'_>) -> Result<Self, DecodeError> {
                Field::take(from.$field(), $name)
            }
        }
    };
}

record! { Vote = VoteRecord(VoteRecordArgs) vote "vote_record.vote" }
record! { LogId = LogIdRecord(LogIdRecordArgs) log_id "log_id_record.log_id" }

impl Wire for Vec<HostId> {
    type Table<'a> = fb::Voters<'a>;
    fn write(&self, to: &mut Builder) -> WIPOffset<fb::Voters<'static>> {
        let hosts = Some(self.put(to));
        fb::Voters::create(to, &fb::VotersArgs { hosts })
    }
    fn read(from: fb::Voters<'_>) -> Result<Self, DecodeError> {
        Field::take(from.hosts(), "voters.hosts")
    }
}

table! { Membership = Membership(MembershipArgs) "membership" { configs, nodes } }

table! { StoredMembership = StoredMembership(StoredMembershipArgs) "stored_membership" { log_id, membership } }

table! { SnapshotMeta = SnapshotMeta(SnapshotMetaArgs) "snapshot_meta" { last_log_id, membership, id } }

union! { Payload = Payload(PayloadArgs, PayloadBody) "payload"
    value Commands(commands) = PayloadCommands(PayloadCommandsArgs) body_as_commands;
    table Membership body_as_membership;
    unit Blank;
}

table! { Entry = Entry(EntryArgs) "entry" { log_id, payload } }

union! { RequestBody = RaftRequestBody(RaftRequestBodyArgs, RaftRequestUnion) "raft_request.body"
    record Append { vote, prev, committed, entries } = RaftAppend(RaftAppendArgs) body_as_append;
    record Vote { vote, last } = RaftVote(RaftVoteArgs) body_as_vote;
}

table! { Request = RaftRequest(RaftRequestArgs) "raft_request" { id, body } }

union! { ReplyBody = RaftReplyBody(RaftReplyBodyArgs, RaftReplyUnion) "raft_reply.body"
    record Voted { vote, granted, last } = RaftVoted(RaftVotedArgs) body_as_voted;
    value AppendPartial(log_id) = RaftPartial(RaftPartialArgs) body_as_append_partial;
    value AppendHigherVote(vote) = RaftVoteKnown(RaftVoteKnownArgs) body_as_append_higher_vote;
    value Failed(reason) = Reason(ReasonArgs) body_as_failed;
    unit AppendSuccess;
    unit AppendConflict;
}

table! { Reply = RaftReply(RaftReplyArgs) "raft_reply" { id, body } }

table! { SnapshotHead = SnapshotHead(SnapshotHeadArgs) "snapshot_head" { vote, meta, size, hash } }

union! { SnapshotReply = SnapshotReply(SnapshotReplyArgs, SnapshotReplyBody) "snapshot_reply"
    value Installed(vote) = RaftVoteKnown(RaftVoteKnownArgs) body_as_installed;
    value Failed(reason) = Reason(ReasonArgs) body_as_failed;
}

table! { SnapshotFile = SnapshotFile(SnapshotFileArgs) "snapshot_file" { meta, state } }
