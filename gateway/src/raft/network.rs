//! Raft messages to and from the other gateways.
//!
//! Shell: converts between openraft's types and protocol messages on the streams of [`super::rpc`]. A snapshot uses a
//! separate stream, so that heartbeats never wait behind it.

mod snapshot;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use beemesh_protocol::{
    DecodeError, HostId,
    frame::{CONTROL_MAX, RAFT_MAX},
    ipc::Class,
    peer,
    raft::{self, ReplyBody, RequestBody},
};
use bytes::Bytes;
use openraft::{
    EmptyNode, RaftNetwork, RaftNetworkFactory,
    error::{
        Fatal, NetworkError, RPCError, RaftError, ReplicationClosed, StreamingError, Unreachable,
    },
    network::{Backoff, RPCOption},
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
    },
};
use tokio::{
    sync::oneshot,
    time::{Instant, timeout},
};

pub(crate) use self::snapshot::receive as receive_snapshot;
use super::{
    Dial, LATELY, Node,
    log::{Durable, Log},
    rpc::{self, CallError, Client, Protocol},
    types::{
        LogId, NodeId, Snapshot, TypeConfig, Vote, entry_in, entry_out, log_id_in, log_id_out,
        vote_in, vote_out,
    },
};

/// Pause before Raft retries an unreachable host: a little more than a heartbeat. Together with the longest pause of
/// [`super::rpc`] it is less than the time after which followers doubt a silent leader.
const UNREACHABLE_PAUSE: Duration = Duration::from_millis(200);

/// Raft's append and vote requests.
pub(crate) struct RaftCalls;

impl Protocol for RaftCalls {
    type Request = RequestBody;
    type Reply = ReplyBody;
    const CLASS: Class = Class::Raft;
    const LIMIT: usize = RAFT_MAX;
    /// Longer than followers tolerate a silent leader, so that a busy host is not cut off, and shorter than a user
    /// would wait.
    const SILENCE_MAX: Duration = Duration::from_secs(3);

    fn encode(id: u64, body: RequestBody) -> Bytes {
        raft::Request { id, body }.encode()
    }

    fn decode(bytes: &[u8]) -> Result<(u64, ReplyBody), DecodeError> {
        raft::Reply::decode(bytes).map(|reply| (reply.id, reply.body))
    }
}

/// Proposals, read indexes and observations.
pub(crate) struct PeerCalls;

impl Protocol for PeerCalls {
    type Request = peer::RequestBody;
    type Reply = peer::ReplyBody;
    const CLASS: Class = Class::Peer;
    const LIMIT: usize = CONTROL_MAX;
    /// Longer than [`super::serve::ANSWER_MAX`]: a leader that waits for its followers is not silent.
    const SILENCE_MAX: Duration = Duration::from_secs(5);

    fn encode(id: u64, body: peer::RequestBody) -> Bytes {
        peer::Request { id, body }.encode()
    }

    fn decode(bytes: &[u8]) -> Result<(u64, peer::ReplyBody), DecodeError> {
        peer::Reply::decode(bytes).map(|reply| (reply.id, reply.body))
    }
}

/// The streams to all other gateways, and when each gateway last answered.
pub(crate) struct Peers {
    pub(super) dial: Arc<dyn Dial>,
    known: Mutex<BTreeMap<HostId, Known>>,
}

#[derive(Default)]
struct Known {
    raft: Option<Client<RaftCalls>>,
    peer: Option<Client<PeerCalls>>,
    heard: Option<Instant>,
}

impl Peers {
    pub(crate) fn new(dial: Arc<dyn Dial>) -> Self {
        Self {
            dial,
            known: Mutex::default(),
        }
    }

    fn with<T>(&self, host: HostId, act: impl FnOnce(&mut Known) -> T) -> T {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        act(known.entry(host).or_default())
    }

    fn raft(&self, host: HostId) -> Client<RaftCalls> {
        let client = || Client::new(Arc::clone(&self.dial), host);
        self.with(host, |known| known.raft.get_or_insert_with(client).clone())
    }

    /// Sends one peer request and returns its reply.
    pub(crate) async fn ask(
        &self,
        host: HostId,
        request: peer::RequestBody,
    ) -> Result<peer::ReplyBody, CallError> {
        let client = || Client::new(Arc::clone(&self.dial), host);
        let client = self.with(host, |known| known.peer.get_or_insert_with(client).clone());
        let reply = client.send(request).await;
        reply.await.unwrap_or_else(|_| Err(rpc::gone(host)))
    }

    fn heard(&self, host: HostId) {
        self.with(host, |known| known.heard = Some(Instant::now()));
    }

    /// Returns the hosts that answered a Raft message within [`LATELY`].
    pub(crate) fn lately(&self) -> BTreeSet<HostId> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known
            .iter()
            .filter(|(_, known)| known.heard.is_some_and(|at| at.elapsed() < LATELY))
            .map(|(host, _)| *host)
            .collect()
    }

    /// Returns true if a host has answered no Raft message for this long, counted from `since` at the earliest.
    pub(crate) fn is_silent(&self, host: HostId, since: Instant, time: Duration) -> bool {
        let heard = self.with(host, |known| known.heard);
        heard
            .max(Some(since))
            .is_some_and(|last| last.elapsed() >= time)
    }

    /// Closes the streams to all hosts but these.
    pub(crate) fn retain(&self, hosts: &BTreeSet<HostId>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|host, _| hosts.contains(host));
    }
}

/// Creates openraft's connections to the other nodes.
pub(crate) struct Network {
    /// The streams to the other gateways.
    pub(crate) peers: Arc<Peers>,
    /// The durable part of this host's log.
    pub(crate) durable: Durable,
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Target;

    async fn new_client(&mut self, target: NodeId, _: &EmptyNode) -> Target {
        Target {
            host: target.0,
            peers: Arc::clone(&self.peers),
            durable: self.durable.clone(),
            outstanding: None,
        }
    }
}

type Rpc<T> = Result<T, RPCError<NodeId, EmptyNode, RaftError<NodeId>>>;

/// openraft's connection to one other node.
pub(crate) struct Target {
    host: HostId,
    peers: Arc<Peers>,
    durable: Durable,
    outstanding: Option<Outstanding>,
}

/// An append whose reply openraft stopped waiting for. When openraft sends the same append again, it gets the reply to
/// the first one: on a slow link, sending the entries twice would delay the next attempt as well.
struct Outstanding {
    same: (Vote, Option<LogId>, Option<LogId>),
    reply: oneshot::Receiver<Result<ReplyBody, CallError>>,
}

fn unreachable<E: std::error::Error>(
    error: &(impl std::error::Error + 'static),
) -> RPCError<NodeId, EmptyNode, E> {
    RPCError::Unreachable(Unreachable::new(error))
}

/// The peer sent a reply that does not fit the request.
#[derive(Debug, thiserror::Error)]
#[error("{host} answered: {reason}")]
struct Unexpected {
    host: HostId,
    reason: String,
}

impl Target {
    fn unexpected<E: std::error::Error>(&self, reply: ReplyBody) -> RPCError<NodeId, EmptyNode, E> {
        let reason = match reply {
            ReplyBody::Failed(reason) => reason,
            other => format!("{other:?}"),
        };
        let host = self.host;
        unreachable(&Unexpected { host, reason })
    }

    fn received(
        &self,
        reply: Result<Result<ReplyBody, CallError>, oneshot::error::RecvError>,
    ) -> Result<ReplyBody, Unreachable> {
        let reply = reply
            .unwrap_or_else(|_| Err(rpc::gone(self.host)))
            .map_err(|error| Unreachable::new(&error))?;
        self.peers.heard(self.host);
        Ok(reply)
    }
}

impl RaftNetwork<TypeConfig> for Target {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        _: RPCOption,
    ) -> Rpc<AppendEntriesResponse<NodeId>> {
        // openraft may call an entry committed before this host's disk has it.
        let committed = rpc.leader_commit.map_or(0, |id| id.index);
        let durable = self.durable.reached(committed).await;
        durable.map_err(|error| unreachable(&error))?;
        let last = rpc.entries.last().map(|entry| entry.log_id);
        let same = (rpc.vote, rpc.prev_log_id, last);
        let resume = last.is_some() && self.outstanding.as_ref().is_some_and(|o| o.same == same);
        if !resume {
            let body = RequestBody::Append {
                vote: vote_out(&rpc.vote),
                prev: rpc.prev_log_id.as_ref().map(log_id_out),
                committed: rpc.leader_commit.as_ref().map(log_id_out),
                entries: rpc.entries.iter().map(entry_out).collect(),
            };
            self.outstanding = None;
            let reply = self.peers.raft(self.host).send(body).await;
            self.outstanding = Some(Outstanding { same, reply });
        }
        // openraft drops this future when it stops waiting; the outstanding append stays.
        let reply = match &mut self.outstanding {
            Some(outstanding) => (&mut outstanding.reply).await,
            None => return Err(unreachable(&rpc::gone(self.host))),
        };
        self.outstanding = None;
        match self.received(reply)? {
            ReplyBody::AppendSuccess => Ok(AppendEntriesResponse::Success),
            ReplyBody::AppendPartial(upto) => {
                Ok(AppendEntriesResponse::PartialSuccess(upto.map(log_id_in)))
            }
            ReplyBody::AppendConflict => Ok(AppendEntriesResponse::Conflict),
            ReplyBody::AppendHigherVote(vote) => {
                Ok(AppendEntriesResponse::HigherVote(vote_in(vote)))
            }
            other @ (ReplyBody::Voted { .. } | ReplyBody::Failed(_)) => Err(self.unexpected(other)),
        }
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<NodeId>,
        option: RPCOption,
    ) -> Rpc<VoteResponse<NodeId>> {
        let body = RequestBody::Vote {
            vote: vote_out(&rpc.vote),
            last: rpc.last_log_id.as_ref().map(log_id_out),
        };
        let reply = self.peers.raft(self.host).send(body).await;
        let reply = timeout(option.hard_ttl(), reply)
            .await
            .map_err(|error| unreachable(&error))?;
        match self.received(reply)? {
            ReplyBody::Voted {
                vote,
                granted,
                last,
            } => Ok(VoteResponse {
                vote: vote_in(vote),
                vote_granted: granted,
                last_log_id: last.map(log_id_in),
            }),
            other @ (ReplyBody::AppendSuccess
            | ReplyBody::AppendPartial(_)
            | ReplyBody::AppendConflict
            | ReplyBody::AppendHigherVote(_)
            | ReplyBody::Failed(_)) => Err(self.unexpected(other)),
        }
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<NodeId>, StreamingError<TypeConfig, Fatal<NodeId>>> {
        let send = snapshot::send(&*self.peers.dial, self.host, vote, snapshot);
        let vote = tokio::select! {
            closed = cancel => return Err(StreamingError::Closed(closed)),
            sent = timeout(option.hard_ttl(), send) => match sent {
                Ok(Ok(vote)) => vote,
                Ok(Err(error)) => return Err(StreamingError::Unreachable(Unreachable::new(&error))),
                Err(elapsed) => return Err(StreamingError::Network(NetworkError::new(&elapsed))),
            },
        };
        self.peers.heard(self.host);
        Ok(SnapshotResponse::new(vote))
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(UNREACHABLE_PAUSE))
    }
}

type Appended = Result<AppendEntriesResponse<NodeId>, RaftError<NodeId>>;

async fn appended(result: Appended, log: &Log) -> ReplyBody {
    match result {
        Ok(AppendEntriesResponse::Conflict) => ReplyBody::AppendConflict,
        Ok(AppendEntriesResponse::HigherVote(vote)) => ReplyBody::AppendHigherVote(vote_out(&vote)),
        Ok(response) => match (log.settled().await, response) {
            (Ok(()), AppendEntriesResponse::PartialSuccess(upto)) => {
                ReplyBody::AppendPartial(upto.as_ref().map(log_id_out))
            }
            (Ok(()), _) => ReplyBody::AppendSuccess,
            (Err(error), _) => ReplyBody::Failed(error.to_string()),
        },
        Err(error) => ReplyBody::Failed(error.to_string()),
    }
}

async fn voted(node: &Node, rpc: VoteRequest<NodeId>) -> ReplyBody {
    let inner = &node.inner;
    // A candidate that asks for votes although there is a leader did not ask this host before, or does not know the
    // leader. Its higher term must not depose that leader.
    if node.led() {
        return ReplyBody::Voted {
            vote: vote_out(&inner.raft.server_metrics().borrow().vote),
            granted: false,
            last: inner.log.last().as_ref().map(log_id_out),
        };
    }
    match inner.raft.vote(rpc).await {
        Ok(reply) => {
            if reply.vote_granted {
                inner.hearing.voted();
            }
            ReplyBody::Voted {
                vote: vote_out(&reply.vote),
                granted: reply.vote_granted,
                last: reply.last_log_id.as_ref().map(log_id_out),
            }
        }
        Err(error) => ReplyBody::Failed(error.to_string()),
    }
}

/// Answers one Raft request, which arrived on a stream from `from`.
pub(crate) async fn answer(node: &Node, from: HostId, request: raft::Request) -> raft::Reply {
    let inner = &node.inner;
    let (RequestBody::Append { vote, .. } | RequestBody::Vote { vote, .. }) = &request.body;
    if vote.node != from {
        tracing::warn!(host = %from, as_host = %vote.node, "a host sent a message in the name of another host");
        let body = ReplyBody::Failed("each host speaks for itself".to_owned());
        let id = request.id;
        return raft::Reply { id, body };
    }
    let body = match request.body {
        RequestBody::Append {
            vote,
            prev,
            committed,
            entries,
        } => {
            let rpc = AppendEntriesRequest {
                vote: vote_in(vote),
                prev_log_id: prev.map(log_id_in),
                leader_commit: committed.map(log_id_in),
                entries: entries.into_iter().map(entry_in).collect(),
            };
            if inner.consensus.borrow().leader == Some(from) {
                inner.hearing.leader_spoke(from);
            }
            let body = appended(inner.raft.append_entries(rpc).await, &inner.log).await;
            if matches!(body, ReplyBody::AppendSuccess | ReplyBody::AppendPartial(_)) {
                inner.hearing.leader_spoke(from);
            }
            body
        }
        RequestBody::Vote { vote, last } => {
            voted(node, VoteRequest::new(vote_in(vote), last.map(log_id_in))).await
        }
    };
    raft::Reply {
        id: request.id,
        body,
    }
}
