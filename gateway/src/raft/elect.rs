//! Elections: detects that the leader is gone, asks whether other voters agree, and only then lets openraft ask for
//! votes.
//!
//! Shell over [`decide`]. Input: openraft's state, the leader's messages and whether its streams are open. Output:
//! questions to the other voters, and openraft's elections.

pub(crate) mod decide;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use beemesh_protocol::{
    HostId,
    peer::{ReplyBody, RequestBody},
};
use futures::{StreamExt, stream::FuturesUnordered};
use openraft::{ServerState, metrics::RaftServerMetrics};
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until, timeout, timeout_at},
};

use self::decide::{DOUBT_MAX, Facts, Leader, Next, OLD_PEER_PATIENCE};
use super::{
    Node, os,
    rpc::CallError,
    types::{LogId, NodeId, is_majority, log_id_out, role_in},
};

/// How long the other voters have to answer whether they would vote for this host.
const ANSWER_MAX: Duration = Duration::from_millis(300);
/// How long openraft's election may take before this host gives up and schedules another attempt.
const ELECTION_MAX: Duration = Duration::from_millis(300);

type ServerMetrics = RaftServerMetrics<NodeId, openraft::EmptyNode>;

/// What this host hears from hosts that may lead it.
#[derive(Default)]
pub(crate) struct Hearing {
    heard: Mutex<Heard>,
    /// Notified when the last stream of a host ends.
    ended: Notify,
}

#[derive(Default)]
struct Heard {
    /// For each host that has or had Raft streams to this one: their number, and when the last one ended.
    streams: BTreeMap<HostId, (usize, Option<Instant>)>,
    /// The host that last sent a message as the leader, and when.
    leader: Option<(HostId, Instant)>,
    voted: Option<Instant>,
    /// When another host first did not know this one as a member, while this one had no leader.
    doubted: Option<Instant>,
}

/// A Raft stream that a host has opened to this one. Dropping it records the end of the stream.
pub(crate) struct StreamFrom<'a> {
    hearing: &'a Hearing,
    host: HostId,
}

impl Hearing {
    fn heard(&self) -> std::sync::MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records that a host has opened a Raft stream.
    pub(crate) fn stream_from(&self, host: HostId) -> StreamFrom<'_> {
        let mut heard = self.heard();
        let (count, ended) = heard.streams.entry(host).or_default();
        *count += 1;
        *ended = None;
        StreamFrom {
            hearing: self,
            host,
        }
    }

    /// Records that a host has sent a message as the leader.
    pub(crate) fn leader_spoke(&self, host: HostId) {
        self.heard().leader = Some((host, Instant::now()));
    }

    /// Records that another host does not know this one as a member. Returns whether the doubt still counts: it starts
    /// once after the last leader, and ends after [`DOUBT_MAX`].
    fn doubts(&self) -> bool {
        let mut heard = self.heard();
        heard.doubted.get_or_insert_with(Instant::now).elapsed() < DOUBT_MAX
    }

    /// Returns true if this host has heard no leader since it started.
    fn is_new(&self) -> bool {
        self.heard().leader.is_none()
    }

    /// Returns true if this leader has sent a message within this time.
    pub(crate) fn hears(&self, leader: HostId, time: Duration) -> bool {
        let heard = self.heard().leader;
        heard.is_some_and(|(host, at)| host == leader && at.elapsed() < time)
    }

    /// Records that this host has given its vote.
    pub(crate) fn voted(&self) {
        self.heard().voted = Some(Instant::now());
    }

    /// Forgets the streams of hosts that are not members, which bounds the map.
    pub(crate) fn retain(&self, hosts: &BTreeSet<HostId>) {
        let mut heard = self.heard();
        heard
            .streams
            .retain(|host, (count, _)| *count > 0 || hosts.contains(host));
    }
}

impl Drop for StreamFrom<'_> {
    fn drop(&mut self) {
        let mut heard = self.hearing.heard();
        if let Some((count, ended)) = heard.streams.get_mut(&self.host) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                *ended = Some(Instant::now());
                self.hearing.ended.notify_one();
            }
        }
    }
}

/// Returns a random number from 0 up to 1.
fn draw() -> f64 {
    // Without random bytes all hosts draw the same number, which only costs a few attempts.
    let drawn = os::random().map_or(0, |drawn| (drawn >> 32) as u32);
    f64::from(drawn) / (f64::from(u32::MAX) + 1.0)
}

/// The current leader, since when it has been the leader, and this host's attempts to be elected since then.
struct Attempts {
    leader: Option<HostId>,
    since: Instant,
    asked: Option<(Instant, u32)>,
    draw: f64,
}

impl Attempts {
    fn new(now: Instant) -> Self {
        Self {
            leader: None,
            since: now,
            asked: None,
            draw: draw(),
        }
    }

    /// Records the leader; returns true if it has changed.
    fn note_leader(&mut self, leader: Option<HostId>, now: Instant) -> bool {
        let news = self.leader != leader;
        if news {
            *self = Self::new(now);
            self.leader = leader;
        }
        news
    }
}

impl Node {
    /// Takes part in elections until openraft ends.
    pub(super) fn take_part(&self) {
        let node = Self {
            inner: Arc::clone(&self.inner),
        };
        tokio::spawn(async move {
            let mut consensus = node.inner.raft.server_metrics();
            let mut attempts = Attempts::new(Instant::now());
            loop {
                let now = consensus.borrow_and_update().clone();
                let leader = now.current_leader.map(|node| node.0);
                if attempts.note_leader(leader, Instant::now()) && leader.is_some() {
                    node.inner.hearing.heard().doubted = None;
                }
                let facts = Facts {
                    asked: attempts.asked,
                    since: attempts.since,
                    ..node.facts(&now)
                };
                let due = match decide::next(&facts, attempts.draw) {
                    Next::Nothing => None,
                    Next::Wait(due) => Some(due),
                    Next::Ask => {
                        node.attempt(&now, &facts).await;
                        let times = attempts.asked.map_or(0, |(_, times)| times);
                        attempts.asked = Some((Instant::now(), times.saturating_add(1)));
                        attempts.draw = draw();
                        continue;
                    }
                };
                tokio::select! {
                    changed = consensus.changed() => if changed.is_err() {
                        return;
                    },
                    () = node.inner.hearing.ended.notified() => {}
                    () = sleep_until(due.unwrap_or(facts.now)), if due.is_some() => {}
                }
            }
        });
    }

    /// Returns what this host knows of its leader, without its own attempts.
    fn facts(&self, consensus: &ServerMetrics) -> Facts {
        let me = NodeId(self.inner.host);
        let membership = consensus.membership_config.membership();
        let heard = self.inner.hearing.heard();
        let leader = consensus.current_leader.filter(|leader| *leader != me);
        let spoke = heard
            .leader
            .filter(|(host, _)| Some(NodeId(*host)) == leader);
        Facts {
            now: Instant::now(),
            role: role_in(consensus.state),
            voter: membership.voter_ids().any(|node| node == me),
            alone: membership.voter_ids().all(|node| node == me),
            quorum: self.inner.consensus.borrow().quorum,
            leader: spoke.map(|(host, at)| Leader {
                heard: at,
                gone: match heard.streams.get(&host) {
                    Some((0, ended)) => Some(ended.unwrap_or(at)),
                    Some(_) => None,
                    None => Some(at),
                },
            }),
            since: Instant::now(),
            voted: heard.voted,
            doubted: heard.doubted,
            asked: None,
        }
    }

    /// Returns true if this host has a leader, so that no candidate needs its vote.
    pub(super) fn led(&self) -> bool {
        let consensus = self.inner.raft.server_metrics().borrow().clone();
        decide::led(&self.facts(&consensus))
    }

    /// Returns true if this host would vote for a candidate whose log ends with this entry.
    pub(super) fn would_vote(&self, theirs: Option<LogId>) -> bool {
        let consensus = self.inner.raft.server_metrics().borrow().clone();
        decide::would_vote(&self.facts(&consensus), self.inner.log.last(), theirs)
    }

    /// Asks whether a majority would vote for this host, and if so, starts openraft's election. Returns when the
    /// election is decided or has timed out.
    async fn attempt(&self, consensus: &ServerMetrics, facts: &Facts) {
        let silence = facts.now - facts.leader.map_or(facts.since, |leader| leader.heard);
        let old_peers = silence > OLD_PEER_PATIENCE;
        if !facts.alone && !self.majority_agrees(consensus, old_peers).await {
            return;
        }
        tracing::info!(?silence, "ask for votes");
        let mut state = self.inner.raft.server_metrics();
        let term = state.borrow_and_update().vote.leader_id.term;
        // An error means that openraft has ended, which its metrics show.
        drop(self.inner.raft.trigger().elect().await);
        let decided = state.wait_for(|now| {
            now.vote.leader_id.term > term
                && (now.vote.committed || now.state != ServerState::Candidate)
        });
        drop(timeout(ELECTION_MAX, decided).await);
    }

    /// Returns true if a majority would vote for this host and no host answers that it is not a member. If this host
    /// misses its leader, the first majority decides. A host that has just started, or has had no leader for long,
    /// waits for the answers of all reachable voters.
    async fn majority_agrees(&self, consensus: &ServerMetrics, old_peers: bool) -> bool {
        let all = old_peers || self.inner.hearing.is_new();
        let last = self.inner.log.last().as_ref().map(log_id_out);
        let membership = consensus.membership_config.membership();
        let mut agree = BTreeSet::from([NodeId(self.inner.host)]);
        let others = membership.voter_ids().filter(|node| !agree.contains(node));
        let mut answers: FuturesUnordered<_> = others
            .map(|node| async move {
                let answer = self
                    .inner
                    .peers
                    .ask(node.0, RequestBody::PreVote(last))
                    .await;
                (node, answer)
            })
            .collect();
        let deadline = Instant::now() + ANSWER_MAX;
        loop {
            let majority = is_majority(membership, |node| agree.contains(node));
            if majority && !all {
                return true;
            }
            match timeout_at(deadline, answers.next()).await {
                Ok(Some((node, Ok(ReplyBody::PreVoted(true))))) => drop(agree.insert(node)),
                Ok(Some((node, Err(CallError::Lost { .. })))) if old_peers => {
                    agree.insert(node);
                }
                Ok(Some((host, Err(CallError::Stranger(_))))) => {
                    if self.inner.hearing.doubts() {
                        tracing::info!(%host, "no election yet: another host does not regard this host as a member");
                        return false;
                    }
                }
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => return majority,
            }
        }
    }
}
