//! Tests the log against openraft's contract, torn writes, flipped bits, and every point at which a disk can fail.

mod formats;

use std::{collections::BTreeMap, fs, path::PathBuf, sync::Arc, time::Duration};

use beemesh_protocol::state::{Change, Command};
use openraft::{
    EntryPayload, LeaderId, RaftLogReader,
    storage::{RaftLogStorage, RaftLogStorageExt},
    testing::{StoreBuilder, Suite},
};
use tempfile::TempDir;
use tokio::sync::watch;

use super::*;
use crate::raft::{
    Fault, Faulty, View,
    disk::{
        Disk, System,
        held::{Access, Held},
    },
    machine::{Machine, snapshots::Snapshots},
    types::{Batch, NodeId},
};

/// The host that owns the log. It is neither a node of openraft's suite nor the leader of the entries in these tests.
const HOST: HostId = HostId([9; 32]);

/// Small, so that a short test fills several segments.
const SEGMENT: u64 = 4 << 10;

fn log_id(term: u64, index: u64) -> LogId {
    LogId::new(LeaderId::new(term, NodeId::from(1)), index)
}

fn entry(term: u64, index: u64, size: usize) -> Entry {
    let command = Command::unasked(
        index,
        Change::DeleteManifest {
            manifest: "m".repeat(size),
        },
    );
    Entry {
        log_id: log_id(term, index),
        payload: EntryPayload::Normal(Batch {
            commands: Arc::new(vec![command]),
            only: None,
        }),
    }
}

struct Open {
    log: Log,
    thread: JoinHandle<()>,
}

impl Open {
    fn on(disk: Arc<dyn Disk>, dir: &Path) -> Result<Self, LogError> {
        let (log, _, thread) = Log::open(HOST, disk, dir, SEGMENT, watch::channel(None).0)?;
        Ok(Self { log, thread })
    }

    /// Ends the writer without closing the log, like SIGKILL.
    async fn kill(self) {
        drop(self.log);
        tokio::task::spawn_blocking(move || self.thread.join())
            .await
            .unwrap()
            .unwrap();
    }
}

/// Everything that a log promises to keep.
#[derive(Debug, Clone, Default, PartialEq)]
struct Kept {
    vote: Option<Vote>,
    purged: Option<LogId>,
    entries: BTreeMap<u64, Entry>,
}

impl Kept {
    async fn of(log: &mut Log) -> Self {
        let entries = log.try_get_log_entries(..).await.unwrap();
        Self {
            vote: log.read_vote().await.unwrap(),
            purged: log.get_log_state().await.unwrap().last_purged_log_id,
            entries: entries.into_iter().map(|e| (e.log_id.index, e)).collect(),
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Vote(u64),
    Append(u64, std::ops::Range<u64>, usize),
    Truncate(u64),
    Purge(u64),
}

impl Step {
    async fn run(&self, log: &mut Log) -> Result<(), StorageError> {
        match self {
            Self::Vote(term) => log.save_vote(&Vote::new(*term, NodeId::from(1))).await,
            Self::Append(term, indexes, size) => {
                let entries: Vec<_> = indexes.clone().map(|i| entry(*term, i, *size)).collect();
                log.blocking_append(entries).await
            }
            Self::Truncate(index) => log.truncate(log_id(1, *index)).await,
            Self::Purge(index) => {
                log.purge(log_id(1, *index)).await?;
                // A purge is not awaited; the vote behind it is.
                let vote = log.read_vote().await?.unwrap_or_default();
                log.save_vote(&vote).await
            }
        }
    }

    fn model(&self, kept: &mut Kept) {
        match self {
            Self::Vote(term) => kept.vote = Some(Vote::new(*term, NodeId::from(1))),
            Self::Append(term, indexes, size) => kept
                .entries
                .extend(indexes.clone().map(|i| (i, entry(*term, i, *size)))),
            Self::Truncate(index) => drop(kept.entries.split_off(index)),
            Self::Purge(index) => {
                kept.vote = Some(kept.vote.unwrap_or_default());
                kept.purged = Some(log_id(1, *index));
                kept.entries = kept.entries.split_off(&(index + 1));
            }
        }
    }
}

/// Fills several segments, truncates, appends again, purges some segments and appends more.
fn story() -> Vec<Step> {
    vec![
        Step::Vote(1),
        Step::Append(1, 0..1, 10),
        Step::Append(1, 1..20, 300),
        Step::Truncate(15),
        Step::Vote(2),
        Step::Append(2, 15..30, 200),
        Step::Purge(12),
        Step::Append(2, 30..31, 6000),
        Step::Append(2, 31..35, 50),
        Step::Vote(3),
    ]
}

struct OnDisk;

impl StoreBuilder<TypeConfig, Log, Machine, TempDir> for OnDisk {
    async fn build(&self) -> Result<(TempDir, Log, Machine), StorageError> {
        let dir = tempfile::tempdir().unwrap();
        let disk: Arc<dyn Disk> = Arc::new(System);
        let (log, _, _) = Log::open(
            HOST,
            Arc::clone(&disk),
            dir.path(),
            SEGMENT,
            watch::channel(None).0,
        )
        .unwrap();
        let snapshots = Arc::new(Snapshots::new(disk, dir.path().to_owned()));
        let view = watch::channel(Arc::new(View::default())).0;
        Ok((
            dir,
            log,
            Machine::open(snapshots, None, view, Durable::always(), Arc::default()),
        ))
    }
}

#[test]
fn log_and_machine_pass_the_storage_suite() {
    Suite::test_all(OnDisk).unwrap();
}

#[tokio::test]
async fn a_log_comes_back_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(System);
    let mut kept = Kept::default();
    for step in story() {
        let mut open = Open::on(Arc::clone(&disk), dir.path()).unwrap();
        step.run(&mut open.log).await.unwrap();
        step.model(&mut kept);
        assert_eq!(Kept::of(&mut open.log).await, kept, "after {step:?}");
        open.kill().await;
        let mut open = Open::on(Arc::clone(&disk), dir.path()).unwrap();
        assert_eq!(
            Kept::of(&mut open.log).await,
            kept,
            "reopened after {step:?}"
        );
        open.kill().await;
    }
    let segments = disk.list(dir.path()).unwrap().len();
    assert!(
        (2..8).contains(&segments),
        "{segments} segments after a purge"
    );
}

/// Appends as openraft does, and returns once the callback reports the entry.
async fn told(log: &mut Log, entry: Entry) {
    let flushed = log.blocking_append([entry]);
    tokio::time::timeout(Duration::from_secs(10), flushed)
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn a_leader_proceeds_before_its_disk_and_reports_no_false_commit() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Held::new();
    let mut open = Open::on(Arc::new(disk.clone()), dir.path()).unwrap();
    let own = LeaderId::new(7, NodeId(HOST));
    let leads = Vote {
        leader_id: own,
        committed: true,
    };
    open.log.save_vote(&leads).await.unwrap();
    let proposed = |index| Entry {
        log_id: LogId::new(own, index),
        ..entry(7, index, 1)
    };
    told(&mut open.log, proposed(0)).await;
    open.log.durable().reached(0).await.unwrap();

    disk.set(Access::Wait);
    told(&mut open.log, proposed(1)).await;
    assert_eq!(open.log.last(), Some(LogId::new(own, 1)));
    let mut durable = open.log.durable();
    let soon = Duration::from_millis(100);
    let early = tokio::time::timeout(soon, durable.reached(1)).await;
    assert!(
        early.is_err(),
        "entry 1 is called durable while the disk waits"
    );
    let settled = tokio::time::timeout(soon, open.log.settled()).await;
    assert!(
        settled.is_err(),
        "the log is called settled while the disk waits"
    );
    disk.set(Access::Pass);
    durable.reached(1).await.unwrap();
    open.log.settled().await.unwrap();

    // Truncated entries are no longer durable.
    open.log.truncate(LogId::new(own, 1)).await.unwrap();
    let gone = tokio::time::timeout(soon, durable.reached(1)).await;
    assert!(gone.is_err(), "an entry that was cut off is called durable");

    disk.set(Access::Fail);
    told(&mut open.log, proposed(1)).await;
    let error = durable.reached(1).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the raft log ended before entry 1 was durable"
    );
    open.kill().await;

    // This host was the leader and may have lost entries that others have, so it does not continue in that term.
    let mut open = Open::on(Arc::new(System), dir.path()).unwrap();
    let vote = open.log.read_vote().await.unwrap();
    assert_eq!(
        vote,
        Some(Vote {
            committed: false,
            ..leads
        })
    );
    open.kill().await;
}

#[tokio::test]
async fn the_commit_point_is_kept_with_the_next_block_and_at_the_close() {
    let dir = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(System);
    let mut open = Open::on(Arc::clone(&disk), dir.path()).unwrap();
    Step::Append(1, 0..3, 1).run(&mut open.log).await.unwrap();
    open.log.save_committed(Some(log_id(1, 1))).await.unwrap();
    Step::Append(1, 3..4, 1).run(&mut open.log).await.unwrap();
    open.log.save_committed(Some(log_id(1, 2))).await.unwrap();
    open.kill().await;
    let mut open = Open::on(Arc::clone(&disk), dir.path()).unwrap();
    assert_eq!(open.log.read_committed().await.unwrap(), Some(log_id(1, 1)));
    open.log.save_committed(Some(log_id(1, 3))).await.unwrap();
    // Consensus has ended, as it does before its log is closed; the log itself has not failed.
    let ended = Some("raft stopped".to_owned());
    open.log.shared.failed.send_replace(ended);
    open.log.close().await.unwrap();
    open.kill().await;
    let mut open = Open::on(disk, dir.path()).unwrap();
    assert_eq!(open.log.read_committed().await.unwrap(), Some(log_id(1, 3)));
    open.kill().await;
}

/// Returns a log of one segment with four blocks: its file, the end of each block, and what the log keeps after each.
async fn four_blocks(dir: &Path) -> (PathBuf, Vec<usize>, Vec<Kept>) {
    let disk: Arc<dyn Disk> = Arc::new(System);
    let mut open = Open::on(disk, dir).unwrap();
    let (mut ends, mut kept) = (vec![block::HEADER], vec![Kept::default()]);
    for step in [
        Step::Vote(1),
        Step::Append(1, 0..2, 20),
        Step::Append(1, 2..3, 90),
        Step::Append(1, 3..5, 5),
    ] {
        let before = open.log.written();
        step.run(&mut open.log).await.unwrap();
        let size = usize::try_from(open.log.written() - before).unwrap();
        ends.push(ends.last().unwrap() + size);
        let mut now = kept.last().unwrap().clone();
        step.model(&mut now);
        kept.push(now);
    }
    open.kill().await;
    (dir.join(format!("{:020}.log", 1)), ends, kept)
}

#[tokio::test]
async fn a_log_cut_anywhere_keeps_exactly_the_blocks_before_the_cut() {
    let dir = tempfile::tempdir().unwrap();
    let (path, ends, kept) = four_blocks(dir.path()).await;
    let whole = fs::read(&path).unwrap();
    let end = *ends.last().unwrap();
    for cut in ends[1]..=end {
        // Either the file ends at the cut, or zeros follow it.
        for torn in [
            whole[..cut].to_vec(),
            [&whole[..cut], &vec![0; whole.len() - cut]].concat(),
        ] {
            // A block that ends in zeros may be whole although its end was not written.
            let same = |end: &&usize| torn.get(..**end) == Some(&whole[..**end]);
            let blocks = ends.iter().filter(same).count() - 1;
            fs::write(&path, &torn).unwrap();
            let mut open = Open::on(Arc::new(System), dir.path()).unwrap();
            assert_eq!(Kept::of(&mut open.log).await, kept[blocks], "cut at {cut}");
            // The next entry survives, too.
            let mut after = kept[blocks].clone();
            let next = after.entries.len() as u64;
            let step = Step::Append(9, next..next + 1, 3);
            step.run(&mut open.log).await.unwrap();
            step.model(&mut after);
            open.kill().await;
            let mut open = Open::on(Arc::new(System), dir.path()).unwrap();
            assert_eq!(Kept::of(&mut open.log).await, after, "after a cut at {cut}");
            open.kill().await;
            for name in System.list(dir.path()).unwrap() {
                fs::remove_file(dir.path().join(name)).unwrap();
            }
        }
    }
}

#[tokio::test]
async fn a_flipped_bit_is_refused_unless_it_is_in_the_last_block() {
    let dir = tempfile::tempdir().unwrap();
    let (path, ends, kept) = four_blocks(dir.path()).await;
    let whole = fs::read(&path).unwrap();
    let (last, end) = (ends[ends.len() - 2], *ends.last().unwrap());
    for at in 0..end {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x10;
        fs::write(&path, &damaged).unwrap();
        match Open::on(Arc::new(System), dir.path()) {
            Ok(mut open) => {
                assert!(at >= last, "damage at {at} was not found");
                assert_eq!(Kept::of(&mut open.log).await, kept[kept.len() - 2]);
                open.kill().await;
            }
            Err(LogError::Damaged {
                path: named,
                offset,
                ..
            }) => {
                assert!(at < last, "damage at {at} is a torn tail");
                let block = ends.iter().filter(|end| **end <= at).max();
                let start = block.copied().unwrap_or(0) as u64;
                assert_eq!((named, offset), (path.clone(), start), "damage at {at}");
            }
            Err(error) => panic!("damage at {at}: {error}"),
        }
    }
}

#[tokio::test]
async fn a_missing_segment_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut open = Open::on(Arc::new(System), dir.path()).unwrap();
    for step in story() {
        step.run(&mut open.log).await.unwrap();
    }
    open.kill().await;
    let mut names = System.list(dir.path()).unwrap();
    names.sort();
    fs::remove_file(dir.path().join(&names[1])).unwrap();
    let error = Open::on(Arc::new(System), dir.path()).err().unwrap();
    assert!(matches!(error, LogError::Damaged { .. }), "{error}");
}

#[tokio::test]
async fn an_old_entry_that_was_damaged_on_disk_is_not_handed_out() {
    let dir = tempfile::tempdir().unwrap();
    let (path, ends, _) = four_blocks(dir.path()).await;
    let mut open = Open::on(Arc::new(System), dir.path()).unwrap();
    let mut damaged = fs::read(&path).unwrap();
    let at = ends[3] - 10;
    damaged[at] ^= 1;
    fs::write(&path, damaged).unwrap();
    let error = open.log.try_get_log_entries(2..3).await.unwrap_err();
    assert!(
        error.to_string().contains("is not what was written"),
        "{error}"
    );
    open.kill().await;
}

/// For every operation and every fault: after the next start, every acknowledged change is present and no change that
/// was never requested. Between the fault and the restart the log acknowledges nothing.
#[tokio::test]
async fn nothing_acknowledged_is_lost_wherever_the_disk_fails() {
    let dir = Path::new("/log");
    let operations = {
        let disk = Faulty::new(None);
        let mut open = Open::on(Arc::new(disk.clone()), dir).unwrap();
        for step in story() {
            step.run(&mut open.log).await.unwrap();
        }
        open.kill().await;
        disk.operations()
    };
    assert!(operations > 30, "{operations}");
    for seed in 0..4 {
        for fault in [Fault::Error, Fault::Short, Fault::PowerCut] {
            for at in 0..operations {
                let what = format!("{fault:?} at operation {at}, seed {seed}");
                let mut disk = Faulty::new(Some((fault, at, seed)));
                let (acknowledged, tried) = until_failure(&disk, dir).await;
                disk.power_cut();
                let mut open = Open::on(Arc::new(disk.clone()), dir)
                    .unwrap_or_else(|error| panic!("{what}: {error}"));
                let found = Kept::of(&mut open.log).await;
                let purge_came = tried.purged == found.purged;
                let mut least = acknowledged.clone();
                let mut most = tried.clone();
                if purge_came {
                    let from = found.purged.map_or(0, |id| id.index + 1);
                    least.entries = least.entries.split_off(&from);
                    most.entries = most.entries.split_off(&from);
                    least.purged = found.purged;
                } else {
                    most = acknowledged.clone();
                }
                assert!(
                    found == least || found == most,
                    "{what}: {found:?}\nis neither {least:?}\nnor {most:?}"
                );
                // The log accepts further writes.
                Step::Vote(9).run(&mut open.log).await.unwrap();
                open.kill().await;
            }
        }
    }
}

/// Runs the story until a step fails. Returns what was acknowledged, and what that would be if the failed step had
/// succeeded.
async fn until_failure(disk: &Faulty, dir: &Path) -> (Kept, Kept) {
    let (mut acknowledged, mut tried) = (Kept::default(), Kept::default());
    let Ok(mut open) = Open::on(Arc::new(disk.clone()), dir) else {
        return (acknowledged, tried);
    };
    for step in story() {
        step.model(&mut tried);
        let result = tokio::time::timeout(Duration::from_secs(10), step.run(&mut open.log));
        if result.await.unwrap().is_err() {
            let vote = Vote::new(7, NodeId::from(1));
            assert!(open.log.save_vote(&vote).await.is_err(), "acknowledged");
            break;
        }
        acknowledged = tried.clone();
    }
    open.kill().await;
    (acknowledged, tried)
}
