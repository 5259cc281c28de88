//! The present view of the cluster, which all readers share.
//!
//! Shell over [`crate::cluster::view`]. It guarantees:
//!
//! - **Nothing is older than the call.** [`Views::scene`], [`Views::now`] and [`Following::now`] read the state, the
//!   reports and all other sources when they are called. The result includes everything that [`Node::read_index`]
//!   waited for, and everything that the caller was told before.
//! - **No change is missed.** [`Following::changed`] returns when anything differs from the last result of
//!   [`Following::now`]. Several changes may be combined, but the last one is always seen.
//! - **Each view is drawn once.** While there are followers, a view is computed from the one before it, at the cost of
//!   the differences. The first reader that needs it computes it, and all others get the same one.
//! - **Without followers there is no work.** The task that makes a view at each change begins with the first follower
//!   and ends with the last, which also drops the last view. A single reader draws only the rows that it needs. None of
//!   this delays a commit.

use std::{
    future::pending,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use beemesh_protocol::{HostId, ipc::Member};
use tokio::{
    sync::watch,
    task::AbortHandle,
    time::{Instant, sleep},
};

use crate::{
    agent_link::Link,
    cluster::{
        reports::Reports,
        view::{Scene, View},
    },
    local::lifecycle::store::Lifecycle,
    raft::Node,
};

/// After it has made views, the task rests for this multiple of the time that took. It thus leaves the processor to
/// other tasks, however often the state changes and however large the cluster is.
const REST: u32 = 4;
/// Shorter rests are added up until they reach this time, because timers are not more precise.
const REST_MIN: Duration = Duration::from_millis(1);

/// The sources of a view.
pub(crate) struct Sources {
    pub(crate) host: HostId,
    pub(crate) node: Node,
    pub(crate) link: Link,
    /// The last report of every host.
    pub(crate) reports: watch::Receiver<Reports>,
    /// The membership of this host.
    pub(crate) life: Lifecycle,
    /// The leader that another member hears.
    pub(crate) elsewhere: watch::Receiver<Option<HostId>>,
}

impl Sources {
    fn scene(&self) -> Scene {
        let view = self.node.state().borrow().clone();
        let life = self.life.now();
        Scene {
            host: self.host,
            applied: view.applied,
            state: view.state.clone(),
            consensus: self.node.consensus().borrow().clone(),
            reports: self.reports.borrow().clone(),
            reachable: self.link.reachable(self.host),
            lost: self.link.lost(),
            elsewhere: *self.elsewhere.borrow(),
            removed: life.is_removed(),
            joining: life.joining().map(|joining| {
                let members = joining.members.iter().cloned().map(Member::from);
                let others = members.filter(|member| member.host != self.host);
                others.map(|member| (member.host, member.name)).collect()
            }),
            index: Default::default(),
        }
    }
}

/// A handle on the views of the cluster.
#[derive(Clone)]
pub(crate) struct Views {
    sources: Arc<Sources>,
    making: Arc<Mutex<Weak<Making>>>,
}

impl Views {
    /// Creates a handle on these sources. No task runs yet.
    pub(crate) fn new(sources: Sources) -> Self {
        Self {
            sources: Arc::new(sources),
            making: Arc::default(),
        }
    }

    /// The present scene.
    pub(crate) fn scene(&self) -> Scene {
        self.sources.scene()
    }

    /// The present view.
    pub(crate) fn now(&self) -> Arc<View> {
        let making = self.lock().upgrade();
        match making {
            Some(making) => making.newest.refresh(&self.sources),
            None => Arc::new(View::of(self.scene())),
        }
    }

    /// Begins to follow changes.
    pub(crate) fn follow(&self) -> Following {
        let mut making = self.lock();
        let making = making.upgrade().unwrap_or_else(|| {
            let new = Arc::new(Making::start(Arc::clone(&self.sources)));
            *making = Arc::downgrade(&new);
            new
        });
        Following {
            sources: Arc::clone(&self.sources),
            views: making.newest.view.subscribe(),
            making,
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Weak<Making>> {
        self.making.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A follower of changes.
pub(crate) struct Following {
    sources: Arc<Sources>,
    views: watch::Receiver<Arc<View>>,
    making: Arc<Making>,
}

impl Following {
    /// The present view.
    pub(crate) fn now(&mut self) -> Arc<View> {
        self.making.newest.refresh(&self.sources);
        Arc::clone(&self.views.borrow_and_update())
    }

    /// Waits for a view that differs from the last one returned by [`Following::now`].
    pub(crate) async fn changed(&mut self) {
        if self.views.changed().await.is_err() {
            // Unreachable: `self` holds the sender.
            pending::<()>().await;
        }
    }
}

/// The task that makes views. It runs until the last follower drops it.
struct Making {
    newest: Arc<Newest>,
    task: AbortHandle,
}

impl Making {
    fn start(sources: Arc<Sources>) -> Self {
        let newest = Arc::new(Newest {
            view: watch::Sender::new(Arc::new(View::of(sources.scene()))),
            one_at_a_time: Mutex::default(),
        });
        let task = tokio::spawn(keep(sources, Arc::clone(&newest))).abort_handle();
        Self { newest, task }
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Newest {
    view: watch::Sender<Arc<View>>,
    /// Held while the sources are read and the view is made, so that an older view never replaces a newer one.
    one_at_a_time: Mutex<()>,
}

impl Newest {
    fn refresh(&self, sources: &Sources) -> Arc<View> {
        let lock = self.one_at_a_time.lock();
        let _one = lock.unwrap_or_else(PoisonError::into_inner);
        let before = Arc::clone(&self.view.borrow());
        let Some(next) = before.next(sources.scene()) else {
            return before;
        };
        let next = Arc::new(next);
        self.view.send_replace(Arc::clone(&next));
        next
    }
}

/// Makes a view whenever a source changes.
async fn keep(sources: Arc<Sources>, newest: Arc<Newest>) {
    let mut states = sources.node.state();
    let mut consensus = sources.node.consensus();
    let mut reports = sources.reports.clone();
    let mut connected = sources.link.connected();
    let mut life = sources.life.watch();
    let mut elsewhere = sources.elsewhere.clone();
    let mut rest = Duration::ZERO;
    loop {
        // The scene that is read next includes all changes up to here.
        states.mark_unchanged();
        consensus.mark_unchanged();
        reports.mark_unchanged();
        connected.mark_unchanged();
        life.mark_unchanged();
        elsewhere.mark_unchanged();
        let begun = Instant::now();
        newest.refresh(&sources);
        let made = Instant::now();
        rest += REST * (made - begun);
        if rest >= REST_MIN {
            sleep(rest).await;
        }
        tokio::select! {
            Ok(()) = states.changed() => {}
            Ok(()) = consensus.changed() => {}
            Ok(()) = reports.changed() => {}
            Ok(()) = connected.changed() => {}
            Ok(()) = life.changed() => {}
            Ok(()) = elsewhere.changed() => {}
            else => return,
        }
        rest = rest.saturating_sub(made.elapsed());
    }
}

#[cfg(test)]
mod tests;
