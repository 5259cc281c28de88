use std::{collections::BTreeMap, sync::Arc};

use beemesh_protocol::{
    ClusterId,
    peer::HostReport,
    state::{Change, Command, Host},
};
use tokio::time::timeout;

use super::*;
use crate::{
    local::files::Home,
    raft::{Nobody, Settings, System},
};

const ME: HostId = HostId([1; 32]);
const SOON: Duration = Duration::from_secs(20);

/// A cluster of one host.
struct Alone {
    _dir: tempfile::TempDir,
    node: Node,
    reports: watch::Sender<Reports>,
    views: Views,
}

impl Alone {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings {
            dir: dir.path().join("raft"),
            disk: Arc::new(System),
            host: ME,
            dial: Arc::new(Nobody),
            lost_after: Duration::from_secs(600),
            observe: Arc::new(|_| {}),
            grant: crate::raft::grant_nothing(),
        };
        let node = Node::open(settings).await.unwrap();
        let cluster = ClusterId([7; 16]);
        let found = Change::Found {
            cluster,
            host: named("h1"),
        };
        let found = Command::unasked(1, found);
        let _ = node.found(found, Instant::now() + SOON).await.unwrap();
        let (link, _) = Link::start(&dir.path().join("agent.sock"), "0");
        let (reports, reported) = watch::channel(Arc::default());
        let home = Home::open(&dir.path().join("home")).unwrap();
        let views = Views::new(Sources {
            host: ME,
            node: node.clone(),
            link,
            reports: reported,
            life: Lifecycle::open(&home).unwrap(),
            elsewhere: watch::channel(None).1,
        });
        Self {
            _dir: dir,
            node,
            reports,
            views,
        }
    }

    /// Changes the name of the host.
    async fn name(&self, name: &str) {
        let soon = Instant::now() + SOON;
        let change = Command::unasked(2, Change::PutHost(named(name)));
        self.node.propose(vec![change], soon).await.unwrap();
        self.node.read_index(soon).await.unwrap();
    }

    fn report(&self, applied: u64) {
        let report = HostReport {
            applied,
            ..HostReport::default()
        };
        let reports = BTreeMap::from([(ME, Arc::new(report))]);
        self.reports.send_replace(Arc::new(reports));
    }

    fn is_making(&self) -> bool {
        self.views.lock().upgrade().is_some()
    }
}

fn named(name: &str) -> Host {
    Host {
        id: ME,
        name: name.into(),
        addresses: vec!["/ip4/127.0.0.1/udp/4701/quic-v1".into()],
        labels: BTreeMap::new(),
        drained: false,
        claims_as: None,
        votes_from_ms: 0,
        lost_at_ms: 0,
        declared_lost: false,
        steady_at_ms: 0,
    }
}

fn name(view: &View) -> String {
    let rows = view.host_rows();
    rows.get(&ME).unwrap().shown.name.clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_confirmed_is_in_what_is_read_next() {
    let alone = Alone::start().await;
    let mut following: Option<Following> = None;
    for n in 0..40 {
        // Without a follower, and with one that may or may not have seen the change.
        if n == 20 {
            following = Some(alone.views.follow());
        }
        let expected = format!("h{n}");
        alone.name(&expected).await;
        assert_eq!(alone.views.scene().name(ME), expected);
        assert_eq!(name(&alone.views.now()), expected);
        if let Some(following) = &mut following {
            assert_eq!(name(&following.now()), expected);
        }
    }
    assert!(
        Arc::ptr_eq(&alone.views.now(), &alone.views.now()),
        "one for all"
    );
}

#[tokio::test]
async fn a_view_is_not_older_than_the_call_though_the_task_has_not_run() {
    let alone = Alone::start().await;
    let mut following = alone.views.follow();
    let applied = |view: Arc<View>| view.host_rows().get(&ME).unwrap().shown.applied;
    for n in [1, 3, 5] {
        alone.report(n);
        assert_eq!(applied(alone.views.now()), n);
        alone.report(n + 1);
        assert_eq!(applied(following.now()), n + 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_follows_sees_the_last_change_however_many_there_are() {
    const LAST: u64 = 5000;
    let alone = Alone::start().await;
    let mut following = alone.views.follow();
    let seen = tokio::spawn(async move {
        let mut seen = 0;
        loop {
            let view = following.now();
            let applied = view.host_rows().get(&ME).unwrap().shown.applied;
            assert!(applied >= seen, "{applied} after {seen}");
            seen = applied;
            if seen == LAST {
                return;
            }
            following.changed().await;
        }
    });
    for applied in 1..=LAST {
        alone.report(applied);
        if applied % 50 == 0 {
            tokio::task::yield_now().await;
        }
    }
    timeout(SOON, seen).await.expect("it misses none").unwrap();
}

#[tokio::test]
async fn views_are_made_only_while_there_are_followers() {
    let alone = Alone::start().await;
    assert_eq!(name(&alone.views.now()), "h1");
    assert!(!alone.is_making(), "a single reader starts nothing");
    let mut both = [alone.views.follow(), alone.views.follow()];
    let [one, other] = &mut both;
    assert!(Arc::ptr_eq(&one.now(), &other.now()));
    alone.report(1);
    timeout(SOON, one.changed()).await.unwrap();
    timeout(SOON, other.changed()).await.unwrap();
    assert!(alone.is_making());
    drop(both);
    assert!(!alone.is_making(), "the last one has gone");
    assert_eq!(name(&alone.views.now()), "h1");
}
