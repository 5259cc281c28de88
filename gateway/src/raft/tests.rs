//! Tests of whole nodes over socket pairs: election, forwarding, failover, catching up, snapshots, reads.

pub(crate) mod commands;
mod shorten;

use std::collections::{BTreeMap, BTreeSet};

use beemesh_protocol::{
    ClusterId,
    peer::{Committed, Outcome, ReplyBody, RequestBody},
    state::{Change, Command},
};
use tempfile::TempDir;
use tokio::{
    task::{AbortHandle, JoinSet},
    time::Instant,
};

use super::{
    disk::held::{Access, Held},
    lease::{Asked, grant_first, grant_nothing},
    *,
};
use crate::cluster::consensus::Role;
pub(crate) use commands::apply;

const LOST_AFTER: Duration = Duration::from_secs(3);
/// Longer than several elections take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn host(number: u8) -> HostId {
    HostId([number; 32])
}

/// The connections: the running nodes, the streams that each one serves, and the hosts that are cut off.
#[derive(Default)]
struct Wires {
    up: Mutex<BTreeMap<HostId, (Node, JoinSet<()>)>>,
    streams: Mutex<Vec<([HostId; 2], AbortHandle)>>,
    cut: Mutex<BTreeSet<HostId>>,
    /// Hosts that asked another gateway and did not reach it, because one of the two was cut off.
    in_vain: Mutex<Vec<HostId>>,
}

impl Wires {
    /// Ends the streams from and to a host, and allows no new ones until it is reconnected.
    fn cut(&self, host: HostId) {
        self.cut.lock().unwrap().insert(host);
        for (ends, stream) in self.streams.lock().unwrap().iter() {
            if ends.contains(&host) {
                stream.abort();
            }
        }
    }

    fn mend(&self, host: HostId) {
        self.cut.lock().unwrap().remove(&host);
    }
}

struct Wire {
    from: HostId,
    wires: Arc<Wires>,
}

impl Dial for Wire {
    fn open(
        &self,
        host: HostId,
        class: Class,
    ) -> Pin<Box<dyn Future<Output = io::Result<UnixStream>> + Send + '_>> {
        Box::pin(async move {
            let ends = [self.from, host];
            if self
                .wires
                .cut
                .lock()
                .unwrap()
                .iter()
                .any(|cut| ends.contains(cut))
            {
                if class == Class::Peer {
                    self.wires.in_vain.lock().unwrap().push(self.from);
                }
                return Err(io::ErrorKind::HostUnreachable.into());
            }
            let mut up = self.wires.up.lock().unwrap();
            let (node, streams) = up.get_mut(&host).ok_or(io::ErrorKind::ConnectionRefused)?;
            let (ours, theirs) = UnixStream::pair()?;
            let (node, from) = (node.clone(), self.from);
            let stream = streams.spawn(async move { node.serve(from, class, theirs).await });
            self.wires.streams.lock().unwrap().push((ends, stream));
            Ok(ours)
        })
    }
}

pub(crate) struct Mesh {
    wires: Arc<Wires>,
    pub(crate) dirs: Vec<TempDir>,
    disks: Vec<Held>,
    /// Who asked for leases.
    pub(crate) asked: Asked,
}

impl Mesh {
    /// Starts hosts 1 to `count`, all of them voters of the cluster that host 1 founded.
    pub(crate) async fn of(count: u8) -> Self {
        let mesh = Self::founded(count).await;
        let hosts: Vec<_> = (1..=count).map(host).collect();
        mesh.voters(&hosts).await;
        mesh
    }

    /// Starts hosts 1 to `count`. Host 1 is a cluster of one, and the others have not joined it yet.
    pub(crate) async fn founded(count: u8) -> Self {
        let mesh = Self {
            wires: Arc::default(),
            dirs: (0..count).map(|_| tempfile::tempdir().unwrap()).collect(),
            disks: (0..count).map(|_| Held::new()).collect(),
            asked: Asked::default(),
        };
        for number in 1..=count {
            mesh.start(number).await;
        }
        let first = mesh.node(1);
        assert!(first.is_pristine());
        let found = Change::Found {
            cluster: ClusterId([1; 16]),
            host: commands::member(host(1)),
        };
        let found = Command::unasked(0, found);
        let founded = first.found(found, deadline()).await.unwrap();
        assert_eq!(founded[0].outcome, Outcome::Done);
        mesh
    }

    pub(crate) async fn start(&self, number: u8) -> Node {
        let node = Node::open(Settings {
            dir: self.dirs[usize::from(number) - 1].path().to_owned(),
            disk: Arc::new(self.disk(number).clone()),
            host: host(number),
            dial: Arc::new(Wire {
                from: host(number),
                wires: Arc::clone(&self.wires),
            }),
            lost_after: LOST_AFTER,
            observe: Arc::new(|_| {}),
            grant: grant_first(&self.asked),
        })
        .await
        .unwrap();
        let entry = (node.clone(), JoinSet::new());
        self.wires.up.lock().unwrap().insert(host(number), entry);
        node
    }

    pub(crate) async fn stop(&self, number: u8) {
        let (node, mut streams) = self.wires.up.lock().unwrap().remove(&host(number)).unwrap();
        streams.shutdown().await;
        node.close().await;
    }

    pub(crate) fn disk(&self, number: u8) -> &Held {
        &self.disks[usize::from(number) - 1]
    }

    pub(crate) fn node(&self, number: u8) -> Node {
        self.wires.up.lock().unwrap()[&host(number)].0.clone()
    }

    fn nodes(&self) -> Vec<Node> {
        let up = self.wires.up.lock().unwrap();
        up.values().map(|(node, _)| node.clone()).collect()
    }

    pub(super) async fn leader(&self) -> u8 {
        self.until("a leader with quorum", |node| {
            let consensus = node.consensus().borrow().clone();
            (consensus.role == Role::Leader && consensus.quorum).then_some(consensus.leader)
        })
        .await
        .unwrap()
        .0[0]
    }

    /// Waits until `ask` returns a value for some node.
    async fn until<T>(&self, what: &str, ask: impl Fn(&Node) -> Option<T>) -> T {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = self.nodes().iter().find_map(&ask) {
                return found;
            }
            assert!(Instant::now() < end, "no {what} within {PATIENCE:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn voters(&self, hosts: &[HostId]) {
        let end = Instant::now() + PATIENCE;
        let wanted = Wanted {
            hosts: hosts.iter().copied().collect(),
            demoted: BTreeSet::new(),
        };
        loop {
            for node in self.nodes() {
                node.reconcile_members(&wanted).await.unwrap();
            }
            let there = |node: &Node| node.consensus().borrow().voters == wanted.hosts;
            if self.nodes().iter().all(there) {
                return;
            }
            assert!(Instant::now() < end, "{wanted:?} do not vote");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until a node has applied an entry, and checks that its state equals the leader's.
    pub(crate) async fn same(&self, number: u8, index: u64) {
        let node = self.node(number);
        let mut view = node.state();
        let applied = tokio::time::timeout(PATIENCE, view.wait_for(|view| view.applied >= index));
        let view = Arc::clone(&applied.await.unwrap().unwrap());
        let leader = self.node(self.leader().await);
        leader.read_index(deadline()).await.unwrap();
        let leading = Arc::clone(&leader.state().borrow());
        if view.applied == leading.applied {
            assert_eq!(view.state.to_snapshot(), leading.state.to_snapshot());
        }
    }

    pub(crate) async fn close(self) {
        let numbers: Vec<_> = self
            .wires
            .up
            .lock()
            .unwrap()
            .keys()
            .map(|h| h.0[0])
            .collect();
        for number in numbers {
            self.stop(number).await;
        }
    }
}

pub(crate) fn deadline() -> Instant {
    Instant::now() + PATIENCE
}

pub(crate) async fn put(node: &Node, manifest: usize, content: usize) -> u64 {
    let commands = vec![apply(manifest, content, 100)];
    let committed = node.propose(commands, deadline()).await.unwrap();
    let [Committed { index, outcome }] = &committed[..] else {
        panic!("{committed:?}");
    };
    assert!(matches!(outcome, Outcome::Applied(_)), "{outcome:?}");
    *index
}

#[tokio::test(flavor = "multi_thread")]
async fn three_hosts_agree_through_the_loss_and_return_of_any_one() {
    let mesh = Mesh::of(3).await;
    for number in 1..=3 {
        put(&mesh.node(number), usize::from(number), 1).await;
    }
    for (round, lost) in [mesh.leader().await, 1, 2].into_iter().enumerate() {
        mesh.stop(lost).await;
        let mut last = 0;
        for (manifest, node) in mesh.nodes().iter().enumerate() {
            last = put(node, manifest, 10 + round).await;
        }
        // A change that one host reported as committed is visible in reads on the other hosts.
        for node in mesh.nodes() {
            node.read_index(deadline()).await.unwrap();
            assert!(node.state().borrow().applied >= last);
        }
        let back = mesh.start(lost).await;
        assert!(!back.is_pristine());
        mesh.same(lost, last).await;
        let last = put(&back, 7, 20 + round).await;
        mesh.same(lost, last).await;
    }
    mesh.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_was_cut_off_comes_back_without_an_election() {
    let mesh = Mesh::of(3).await;
    let leader = mesh.leader().await;
    put(&mesh.node(leader), 1, 1).await;
    let before = mesh.node(leader).consensus().borrow().term;
    let lost = leader % 3 + 1;
    mesh.wires.cut(host(lost));
    // It misses its leader, and asks the hosts that it knows.
    mesh.until("questions of the host that is cut off", |_| {
        let in_vain = mesh.wires.in_vain.lock().unwrap();
        let asked = in_vain.iter().filter(|from| **from == host(lost));
        (asked.count() >= 4).then_some(())
    })
    .await;
    let last = put(&mesh.node(leader), 1, 2).await;
    mesh.wires.mend(host(lost));
    mesh.same(lost, last).await;
    put(&mesh.node(lost), 1, 3).await;
    for node in mesh.nodes() {
        let consensus = node.consensus().borrow().clone();
        let now = (consensus.leader, consensus.term);
        assert_eq!(now, (Some(host(leader)), before));
    }
    mesh.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_cut_off_is_replaced_and_follows_when_it_is_back() {
    let mesh = Mesh::of(3).await;
    let first = mesh.leader().await;
    put(&mesh.node(first), 1, 1).await;
    mesh.wires.cut(host(first));
    let other = mesh.node(first % 3 + 1);
    let last = put(&other, 1, 2).await;
    assert_ne!(other.consensus().borrow().leader, Some(host(first)));
    mesh.wires.mend(host(first));
    mesh.same(first, last).await;
    mesh.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_takes_effect_anywhere_before_it_is_on_the_leaders_disk() {
    let mesh = Mesh::of(3).await;
    let number = mesh.leader().await;
    let leader = mesh.node(number);
    let before = put(&leader, 1, 1).await;
    for other in 1..=3 {
        mesh.same(other, before).await;
    }
    mesh.disk(number).set(Access::Wait);
    let proposer = leader.clone();
    let proposal = tokio::spawn(async move { put(&proposer, 1, 2).await });
    // The followers have the entry on their disks by now, so openraft calls it committed.
    mesh.until("a commit", |_| {
        (leader.inner.log.committed() > before).then_some(())
    })
    .await;
    let term = |node: &Node| {
        node.inner
            .raft
            .server_metrics()
            .borrow()
            .vote
            .leader_id
            .term
    };
    let led_in = term(&leader);
    let nodes = mesh.nodes();
    let early = nodes.iter().map(|node| async {
        let mut view = node.state();
        let applied = view.wait_for(|view| view.applied > before);
        let applied = tokio::time::timeout(2 * HEARTBEAT, applied).await.is_ok();
        // Another leader in a later term may commit what a majority has.
        assert!(
            !applied || term(node) > led_in,
            "{} has applied it",
            node.inner.host
        );
    });
    futures::future::join_all(early).await;
    // A leader that cannot write is silent, and is replaced.
    put(&mesh.node(number % 3 + 1), 2, 1).await;
    mesh.disk(number).set(Access::Pass);
    let last = proposal.await.unwrap();
    assert!(last > before);
    for other in 1..=3 {
        mesh.same(other, last).await;
    }
    mesh.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_loses_what_its_followers_have_takes_it_back_from_them() {
    let mesh = Mesh::of(3).await;
    let number = mesh.leader().await;
    let leader = mesh.node(number);
    let before = put(&leader, 1, 1).await;
    mesh.disk(number).set(Access::Wait);
    let others: Vec<_> = (1..=3).filter(|other| *other != number).collect();
    let proposer = mesh.node(others[0]);
    let proposal = tokio::spawn(async move { put(&proposer, 1, 2).await });
    mesh.until("a follower that has the entry", |node| {
        let has = node.inner.log.last().is_some_and(|id| id.index > before);
        (has && node.inner.host != host(number)).then_some(())
    })
    .await;
    // The flush never completes: the leader's consensus ends, and its streams with it.
    mesh.disk(number).set(Access::Fail);
    let reason = leader.failed().await;
    assert!(reason.contains("the disk is gone"), "{reason}");
    mesh.stop(number).await;
    mesh.disk(number).set(Access::Pass);
    let last = proposal.await.unwrap();
    mesh.start(number).await;
    mesh.same(number, last).await;
    let last = put(&mesh.node(number), 1, 3).await;
    for other in 1..=3 {
        mesh.same(other, last).await;
    }
    mesh.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_majority_proposals_are_refused_and_name_who_is_silent() {
    let mesh = Mesh::of(3).await;
    put(&mesh.node(1), 1, 1).await;
    mesh.stop(2).await;
    mesh.stop(3).await;
    let left = mesh.node(1);
    // It takes a moment until the last answers of the others no longer count.
    let mut consensus = left.consensus();
    let alone = consensus.wait_for(|m| !m.quorum && m.acknowledging.len() == 1);
    drop(
        tokio::time::timeout(PATIENCE, alone)
            .await
            .unwrap()
            .unwrap(),
    );
    let soon = || Instant::now() + Duration::from_millis(500);
    let error = left
        .propose(vec![apply(1, 2, 1)], soon())
        .await
        .unwrap_err();
    let (voters, silent) = (3, vec![host(2), host(3)]);
    let expected = silent.clone();
    assert_eq!(error, ProposeError::NoQuorum { voters, silent });
    let error = left.read_index(soon()).await.unwrap_err();
    let silent = expected;
    assert_eq!(error, ReadError::NoQuorum { voters, silent });
    mesh.start(3).await;
    let last = put(&left, 1, 3).await;
    mesh.same(3, last).await;
    mesh.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proposal_that_loses_its_majority_on_the_way_names_who_is_silent() {
    let mesh = Mesh::of(3).await;
    let number = mesh.leader().await;
    let leader = mesh.node(number);
    let others: Vec<_> = (1..=3).filter(|other| *other != number).collect();
    for other in &others {
        mesh.stop(*other).await;
    }
    // The last answers of the others still count for a moment, so the entry goes into the leader's log.
    let deadline = Instant::now() + LATELY + Duration::from_millis(500);
    let error = leader.propose(vec![apply(1, 1, 1)], deadline).await;
    let silent = others.into_iter().map(host).collect();
    assert_eq!(error.unwrap_err(), ProposeError::Deadline { silent });
    mesh.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_behind_the_log_gets_a_snapshot_and_starts_from_it() {
    let mesh = Mesh::of(3).await;
    mesh.stop(3).await;
    let mut last = 0;
    for content in 0..20 {
        last = put(&mesh.node(1), content % 3, content).await;
    }
    for node in mesh.nodes() {
        node.read_index(deadline()).await.unwrap();
        node.inner.raft.trigger().snapshot().await.unwrap();
        let taken = node.inner.raft.wait(Some(PATIENCE));
        let taken = taken.metrics(|m| m.snapshot.map(|id| id.index) >= Some(last), "snapshot");
        taken.await.unwrap();
        node.inner.raft.trigger().purge_log(last).await.unwrap();
        let purged = node.inner.raft.wait(Some(PATIENCE));
        let purged = purged.metrics(|m| m.purged.map(|id| id.index) >= Some(last), "purge");
        purged.await.unwrap();
    }
    mesh.start(3).await;
    mesh.same(3, last).await;
    let installed = fs::read_dir(mesh.dirs[2].path().join("snapshots")).unwrap();
    assert_eq!(installed.count(), 1);
    let after = put(&mesh.node(1), 5, 5).await;
    mesh.same(3, after).await;
    // The whole cluster restarts from snapshots and the rest of the logs.
    for number in 1..=3 {
        mesh.stop(number).await;
    }
    for number in 1..=3 {
        mesh.start(number).await;
    }
    let last = put(&mesh.node(2), 6, 6).await;
    for number in 1..=3 {
        mesh.same(number, last).await;
    }
    mesh.close().await;
}

#[tokio::test]
async fn a_folder_has_one_node_at_a_time() {
    let mesh = Mesh::of(1).await;
    let again = Node::open(Settings {
        dir: mesh.dirs[0].path().to_owned(),
        disk: Arc::new(System),
        host: host(1),
        dial: Arc::new(Wire {
            from: host(1),
            wires: Arc::default(),
        }),
        lost_after: LOST_AFTER,
        observe: Arc::new(|_| {}),
        grant: grant_nothing(),
    });
    let error = again.await.err().unwrap();
    assert!(matches!(error, OpenError::Locked(_)), "{error}");
    mesh.stop(1).await;
    mesh.start(1).await;
    put(&mesh.node(1), 1, 1).await;
    mesh.close().await;
}

/// Prints the latency of commits; it fails only if a commit fails.
#[tokio::test(flavor = "multi_thread")]
async fn commits_are_measured() {
    let mesh = Mesh::of(3).await;
    let leader = mesh.node(mesh.leader().await);
    let mut alone = Vec::new();
    for content in 0..300 {
        let begun = Instant::now();
        let commands = vec![apply(content % 8, content, 1024)];
        leader.propose(commands, deadline()).await.unwrap();
        alone.push(begun.elapsed());
    }
    alone.sort();
    let begun = Instant::now();
    let mut proposers = JoinSet::new();
    for proposer in 0..64 {
        let leader = leader.clone();
        proposers.spawn(async move {
            let mut took = Vec::new();
            for content in 0..40 {
                let begun = Instant::now();
                let commands = vec![apply(proposer, content, 1024)];
                leader.propose(commands, deadline()).await.unwrap();
                took.push(begun.elapsed());
            }
            took
        });
    }
    let mut together: Vec<_> = proposers.join_all().await.concat();
    together.sort();
    let rate = together.len() as f64 / begun.elapsed().as_secs_f64();
    println!(
        "1 KiB commands, three nodes on this disk: one proposer p50 {:?} p99 {:?}; 64 proposers {rate:.0}/s, p50 {:?} p99 {:?}",
        alone[alone.len() / 2],
        alone[alone.len() * 99 / 100],
        together[together.len() / 2],
        together[together.len() * 99 / 100],
    );
    mesh.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_leader_of_the_present_term_says_what_others_look_like() {
    let mesh = Mesh::of(3).await;
    let leader = mesh.leader().await;
    let (one, other) = (leader % 3 + 1, (leader + 1) % 3 + 1);
    let term = mesh.node(leader).consensus().borrow().term;
    let said = |from: u8, term: u64| {
        let peers = Arc::clone(&mesh.node(from).inner.peers);
        let reports = Vec::new();
        async move {
            let request = RequestBody::Reports { term, reports };
            peers.ask(host(one), request).await.unwrap()
        }
    };
    assert_eq!(said(leader, term).await, ReplyBody::Noted);
    let refused = ReplyBody::NotLeader(Some(host(leader)));
    assert_eq!(said(leader, term - 1).await, refused);
    assert_eq!(said(other, term).await, refused);
    // The host waits for a term that does not exist, until the deadline.
    assert_eq!(said(other, term + 1000).await, refused);
}
