//! Streams that other gateways opened to this one.
//!
//! Shell: reads requests, asks openraft or the batcher, writes replies. What is in flight is bounded; a stream that breaks
//! the protocol is closed and said once.

use std::{cmp::Ordering, sync::Arc, time::Duration};

use beemesh_protocol::{
    DecodeError, HostId,
    frame::{CONTROL_MAX, RAFT_MAX},
    ipc::Class,
    peer::{self, ReplyBody, Reported, RequestBody},
    raft,
};
use tokio::{
    net::UnixStream,
    time::{Instant, timeout, timeout_at},
};

use super::{
    Metrics, Node, Role, SNAPSHOT_MAX,
    batch::Refused,
    network, rpc,
    types::{log_id_in, log_id_out},
};

/// How long a leader waits for a majority before it tells another gateway that it has none.
pub(crate) const ANSWER_MAX: Duration = Duration::from_secs(3);
/// Raft requests of one stream are answered one after the other: openraft handles them in order anyway.
const RAFT_IN_FLIGHT: usize = 1;
/// Proposals and reads of one gateway that wait at the same time; as many as one entry carries.
const PEER_IN_FLIGHT: usize = 256;

impl Node {
    /// Answers what comes on a stream that `host` opened, until it ends.
    pub(crate) async fn serve(&self, host: HostId, class: Class, stream: UnixStream) {
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
                let receive = network::receive_snapshot(&self.inner.raft, stream);
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

    /// What a newer version wrote and this one cannot read must not be skipped.
    fn newer(&self, host: HostId, error: &DecodeError) {
        if let DecodeError::Unknown { .. } = error {
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
                if !may_report(&self.inner.metrics.borrow(), host, term) {
                    return self.not_leader();
                }
                reports.retain(|reported| reported.host != self.inner.host);
                (self.inner.observe)(reports);
                ReplyBody::Noted
            }
            RequestBody::Propose(commands) => {
                if let Err(reply) = self.leading() {
                    return reply;
                }
                match timeout_at(deadline, self.inner.batcher.propose(commands)).await {
                    Ok(Ok(committed)) => ReplyBody::Committed(committed),
                    Ok(Err(Refused::NotLeader)) => self.not_leader(),
                    Ok(Err(Refused::Stopped)) => ReplyBody::Failed("consensus stopped".into()),
                    Err(_) => ReplyBody::Failed("not committed in time".into()),
                }
            }
            RequestBody::PreVote(last) => ReplyBody::PreVoted(self.would_vote(last.map(log_id_in))),
            RequestBody::ReadIndex => {
                if let Err(reply) = self.leading() {
                    return reply;
                }
                match timeout_at(deadline, self.inner.raft.get_read_log_id()).await {
                    Ok(Ok((read, _))) => ReplyBody::ReadIndex(read.as_ref().map(log_id_out)),
                    Ok(Err(_)) => self.not_leader(),
                    Err(_) => ReplyBody::Failed("leadership not confirmed in time".into()),
                }
            }
        }
    }

    fn leading(&self) -> Result<(), ReplyBody> {
        let metrics = self.inner.metrics.borrow();
        if metrics.role != Role::Leader {
            return Err(ReplyBody::NotLeader(metrics.leader));
        }
        if !metrics.quorum {
            return Err(ReplyBody::Failed("the leader has no quorum".into()));
        }
        Ok(())
    }

    fn not_leader(&self) -> ReplyBody {
        let leader = self.inner.metrics.borrow().leader;
        ReplyBody::NotLeader(leader.filter(|leader| *leader != self.inner.host))
    }
}

/// Whether a host may say what others look like: as the leader of the latest term that this host knows of, or of a later one
/// that it does not know of yet. What a leader of the past says has been said better since.
fn may_report(metrics: &Metrics, host: HostId, term: u64) -> bool {
    match term.cmp(&metrics.term) {
        Ordering::Less => false,
        Ordering::Equal => metrics.leader.is_none_or(|leader| leader == host),
        Ordering::Greater => true,
    }
}

/// Gets what other hosts observe of themselves. It must not block.
pub(crate) type Observe = Arc<dyn Fn(Vec<Reported>) + Send + Sync>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_leader_says_what_others_look_like() {
        let h = |number: u8| HostId([number; 32]);
        let metrics = |leader: Option<u8>| Metrics {
            term: 4,
            leader: leader.map(h),
            ..Metrics::default()
        };
        for (leader, from, term, expected) in [
            (Some(1), 1, 4, true),
            (Some(1), 2, 4, false),
            (None, 2, 4, true),
            (Some(1), 1, 3, false),
            (None, 1, 3, false),
            (Some(1), 2, 5, true),
        ] {
            let may = may_report(&metrics(leader), h(from), term);
            assert_eq!(may, expected, "{leader:?} {from} {term}");
        }
    }
}
