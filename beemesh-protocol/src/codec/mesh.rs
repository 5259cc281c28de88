//! Codec of [`crate::mesh`].
//!
//! Pure: values to FlatBuffers and back.

use flatbuffers::WIPOffset;

use super::{Builder, DecodeError, Field, Slot, Wire, fb, messages, table, table_field, union};
use crate::mesh::{JoinAnswer, JoinRequest, Replace, StreamOpening};

messages! {
    StreamOpening, "BMso";
    JoinRequest, "BMjr";
    JoinAnswer, "BMja";
}

table! { StreamOpening = StreamOpening(StreamOpeningArgs) "stream_opening" { class } }

table! { Replace = JoinReplace(JoinReplaceArgs) "join_replace" { name, token } }

table! { JoinRequest = JoinRequest(JoinRequestArgs) "join_request" {
    cluster, token, secret, name, addresses, replace
} }

union! { JoinAnswer = JoinAnswer(JoinAnswerArgs, JoinAnswerBody) "join_answer"
    record Admitted { cluster, members } = JoinAdmitted(JoinAdmittedArgs) body_as_admitted;
    record Refused { reason } = Reason(ReasonArgs) body_as_refused;
    unit Stranger;
}
