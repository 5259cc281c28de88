//! Answers streams that other gateways open to this one.
//!
//! Shell: reads requests, passes them to openraft or the batcher, and writes replies. The number of requests in
//! progress is bounded. A stream that violates the protocol is closed and logged once.

use std::{sync::Arc, time::Duration};

use beemesh_protocol::{
    DecodeError, HostId,
    frame::{CONTROL_MAX, RAFT_MAX},
    ipc::Class,
    peer::{self, Failure, ReplyBody, Reported, RequestBody},
    raft,
};
use tokio::{
    net::UnixStream,
    time::{Instant, timeout, timeout_at},
};

use super::{
    Node, SNAPSHOT_MAX,
    batch::Refused,
    network, rpc,
    types::{LeaderId, NodeId, log_id_in, log_id_out},
};
use crate::cluster::consensus::Role;

/// How long a leader waits for a majority before it replies to another gateway that it has none.
pub(crate) const ANSWER_MAX: Duration = Duration::from_secs(3);
/// Raft requests of one stream are answered one after the other, because openraft handles them in order anyway.
const RAFT_IN_FLIGHT: usize = 1;
/// Maximum number of proposals and reads of one gateway that wait at the same time: as many as one entry carries.
const PEER_IN_FLIGHT: usize = 256;

impl Node {
    /// Answers the requests on a stream that `host` opened, until it ends.
    pub(crate) async fn serve(&self, host: HostId, class: Class, stream: UnixStream) {
        let Some(_permit) = self.inner.stream_limits.take(host, class) else {
            tracing::warn!(%host, ?class, "stream closed: that host has as many streams to this gateway as it may have");
            return;
        };
        let ended: Result<(), Box<dyn std::error::Error + Send + Sync>> = match class {
            Class::Raft => {
                let _open = self.inner.hearing.stream_from(host);
                rpc::answer(stream, RAFT_MAX, RAFT_IN_FLIGHT, |bytes| async move {
                    let request = raft::Request::decode(&bytes)
                        .inspect_err(|error| self.newer(host, error))?;
                    Ok(network::answer(self, host, request).await.encode())
                })
                .await
                .map_err(Into::into)
            }
            Class::Snapshot => {
                let receive = network::receive_snapshot(&self.inner.raft, host, stream);
                match timeout(SNAPSHOT_MAX, receive).await {
                    Ok(received) => received.map_err(Into::into),
                    Err(late) => Err(late.into()),
                }
            }
            Class::Peer => rpc::answer(stream, CONTROL_MAX, PEER_IN_FLIGHT, |bytes| async move {
                let request = peer::Request::decode(&bytes)?;
                let body = self.answer_peer(host, request.body).await;
                let id = request.id;
                Ok(peer::Reply { id, body }.encode())
            })
            .await
            .map_err(Into::into),
            Class::Api => return,
        };
        if let Err(error) = ended {
            tracing::warn!(%host, ?class, error = %format_args!("{error:#}"), "stream from a gateway ended");
        }
    }

    /// Handles a message that this version cannot decode. If the leader wrote it with a newer version, this host must
    /// not skip it, so consensus stops. From any other host it is a violation of the protocol, which only ends the
    /// stream.
    fn newer(&self, host: HostId, error: &DecodeError) {
        let leads = self.inner.consensus.borrow().leader == Some(host);
        if let DecodeError::Unknown { .. } = error
            && leads
        {
            let reason =
                format!("{host} leads with a newer version of Beemesh than this host's: {error}");
            self.inner.failed.send_if_modified(|failed| {
                let first = failed.is_none();
                failed.get_or_insert(reason);
                first
            });
        }
    }

    async fn answer_peer(&self, host: HostId, request: RequestBody) -> ReplyBody {
        let deadline = Instant::now() + ANSWER_MAX;
        match request {
            RequestBody::Observe(report) => {
                (self.inner.observe)(vec![Reported { host, report }]);
                ReplyBody::Noted
            }
            RequestBody::Reports { term, mut reports } => {
                if !self.is_led_by(host, term, deadline).await {
                    return self.not_leader();
                }
                reports.retain(|reported| reported.host != self.inner.host);
                (self.inner.observe)(reports);
                ReplyBody::Noted
            }
            RequestBody::Propose { commands, term } => {
                if let Err(reply) = self.leading() {
                    return reply;
                }
                // An older version that does not name the term sends 0.
                let only = LeaderId::new(term, NodeId(self.inner.host));
                let only = Some(only).filter(|_| term > 0);
                match timeout_at(deadline, self.inner.batcher.propose(commands, only)).await {
                    Ok(Ok(committed)) => ReplyBody::Committed(committed),
                    Ok(Err(Refused::AnotherLeader)) => self.not_leader(),
                    // The entry may have been in the log when the leadership was lost.
                    Ok(Err(Refused::NotLeader)) => ReplyBody::Failed(Failure::LeadershipLost),
                    Ok(Err(Refused::Stopped)) => ReplyBody::Failed(Failure::Stopped),
                    Err(_) => ReplyBody::Failed(Failure::Late),
                }
            }
            RequestBody::Lease(workloads) => self.grant(host, &workloads, deadline).await,
            RequestBody::PreVote(last) => ReplyBody::PreVoted(self.would_vote(last.map(log_id_in))),
            RequestBody::ReadIndex => {
                if let Err(reply) = self.leading() {
                    return reply;
                }
                match timeout_at(deadline, self.inner.raft.get_read_log_id()).await {
                    Ok(Ok((read, _))) => ReplyBody::ReadIndex(read.as_ref().map(log_id_out)),
                    Ok(Err(_)) => self.not_leader(),
                    Err(_) => ReplyBody::Failed(Failure::Late),
                }
            }
        }
    }

    /// Returns true if a host leads in this term, so that this host accepts its reports about other hosts. A later
    /// report has replaced what a former leader says. A new leader may be heard before its first entry arrives; its
    /// reports are accepted from then on.
    async fn is_led_by(&self, host: HostId, term: u64, deadline: Instant) -> bool {
        let mut consensus = self.inner.consensus.clone();
        let known =
            consensus.wait_for(|now| now.term > term || (now.term == term && now.leader.is_some()));
        match timeout_at(deadline, known).await {
            Ok(Ok(now)) => now.term == term && now.leader == Some(host),
            _ => false,
        }
    }

    pub(super) fn leading(&self) -> Result<(), ReplyBody> {
        let consensus = self.inner.consensus.borrow();
        if consensus.role != Role::Leader {
            // A leader that is no longer heard is not named to other hosts.
            return Err(ReplyBody::NotLeader(
                consensus.leader.filter(|_| consensus.quorum),
            ));
        }
        if !consensus.quorum {
            return Err(ReplyBody::Failed(Failure::NoQuorum));
        }
        Ok(())
    }

    pub(super) fn not_leader(&self) -> ReplyBody {
        let leader = self.inner.consensus.borrow().leader;
        ReplyBody::NotLeader(leader.filter(|leader| *leader != self.inner.host))
    }
}

/// Receives the observations that other hosts make of themselves. It must not block.
pub(crate) type Observe = Arc<dyn Fn(Vec<Reported>) + Send + Sync>;

#[cfg(test)]
mod tests {
    use beemesh_protocol::raft::{Request, Vote};

    use super::*;
    use crate::raft::tests::{Mesh, PATIENCE, host};

    #[tokio::test]
    async fn a_leader_without_a_quorum_says_that_it_has_begun_nothing() {
        let mesh = Mesh::of(3).await;
        let number = mesh.leader().await;
        let leader = mesh.node(number);
        for other in (1..=3).filter(|other| *other != number) {
            mesh.stop(other).await;
        }
        let mut consensus = leader.consensus();
        let alone = consensus.wait_for(|now| now.role == Role::Leader && !now.quorum);
        drop(timeout(PATIENCE, alone).await.unwrap().unwrap());
        let term = 0;
        let commands = Vec::new();
        for request in [
            RequestBody::ReadIndex,
            RequestBody::Propose { commands, term },
        ] {
            let reply = leader.answer_peer(host(9), request).await;
            assert_eq!(reply, ReplyBody::Failed(Failure::NoQuorum));
        }
        mesh.close().await;
    }

    /// What a leader has decided in its term is not handed to a later leader, which may have decided otherwise.
    #[tokio::test]
    async fn a_leaders_own_decision_is_committed_in_its_term_or_not_at_all() {
        let mesh = Mesh::of(3).await;
        let number = mesh.leader().await;
        let leader = mesh.node(number);
        let term = leader.consensus().borrow().term;
        let follower = mesh.node(if number == 1 { 2 } else { 1 });
        let propose = async |node: &Node, term| {
            let commands = vec![crate::raft::tests::commands::token(1)];
            let deadline = crate::raft::tests::deadline();
            node.propose_in_term(commands, term, deadline).await
        };
        assert!(propose(&follower, term).await.is_err(), "another leads");
        assert!(
            propose(&leader, term - 1).await.is_err(),
            "a term that is over"
        );
        assert!(propose(&leader, term).await.is_ok());
        mesh.close().await;
    }

    #[tokio::test]
    async fn a_host_speaks_in_no_others_name_and_only_a_leader_is_taken_for_newer() {
        let mesh = Mesh::of(3).await;
        let follower = mesh.node(2);
        let mut consensus = follower.consensus();
        let led = consensus.wait_for(|consensus| consensus.leader == Some(host(1)));
        let term = timeout(PATIENCE, led).await.unwrap().unwrap().term;

        let vote = Vote {
            term: term + 1,
            node: host(1),
            committed: true,
        };
        for body in [
            raft::RequestBody::Append {
                vote,
                prev: None,
                committed: None,
                entries: Vec::new(),
            },
            raft::RequestBody::Vote { vote, last: None },
        ] {
            let reply = network::answer(&follower, host(3), Request { id: 7, body }).await;
            let refused = raft::ReplyBody::Failed("each host speaks for itself".to_owned());
            assert_eq!((reply.id, reply.body), (7, refused));
        }
        assert_eq!(consensus.borrow_and_update().term, term);

        let newer = DecodeError::Unknown {
            field: "change",
            value: 200,
        };
        follower.newer(host(3), &newer);
        assert_eq!(*follower.inner.failed.borrow(), None);
        follower.newer(host(1), &newer);
        let failed = follower.inner.failed.borrow().clone().unwrap();
        assert!(failed.contains("leads with a newer version"), "{failed}");
        mesh.close().await;
    }
}
