//! The picture of the cluster that all readers share, as of now.
//!
//! Shell over [`crate::cluster::view`]. What is promised:
//!
//! - **Nothing is older than the call.** [`Views::scene`], [`Views::now`] and [`Following::now`] look at the state, the
//!   reports and all else when they are called. What [`Node::read_index`] waited for is in each of them, and so is what
//!   a caller was told before.
//! - **No change is missed.** [`Following::changed`] returns when anything is different from what [`Following::now`]
//!   returned last, however many changes there were; the last one is always seen.
//! - **Once for all.** While somebody follows, a view is made of the one before it, at the cost of what is different,
//!   by whoever needs it first: all others get the same one.
//! - **Nothing for nobody.** The task that makes views at each change begins with the first who follows and ends with
//!   the last, and the last view goes with it. A single reader draws what it asks for. Nothing of this is in the way of
//!   a commit.

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

/// After the work of making views the task rests this many times as long, so that it leaves the processor to others
/// whatever happens how often, and however large the cluster is.
const REST: u32 = 4;
/// A shorter rest is put off: timers are no finer.
const REST_MIN: Duration = Duration::from_millis(1);

/// What a view is made of.
pub(crate) struct Sources {
    /// This host.
    pub(crate) host: HostId,
    /// Consensus.
    pub(crate) node: Node,
    /// The way to the agent.
    pub(crate) link: Link,
    /// What every host said last.
    pub(crate) reports: watch::Receiver<Reports>,
    /// What this host is to its cluster.
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
            metrics: self.node.metrics().borrow().clone(),
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

/// A handle on the picture of the cluster.
#[derive(Clone)]
pub(crate) struct Views {
    sources: Arc<Sources>,
    making: Arc<Mutex<Weak<Making>>>,
}

impl Views {
    /// Of these sources. Nothing runs yet.
    pub(crate) fn new(sources: Sources) -> Self {
        Self {
            sources: Arc::new(sources),
            making: Arc::default(),
        }
    }

    /// What is known now.
    pub(crate) fn scene(&self) -> Scene {
        self.sources.scene()
    }

    /// The view as of now.
    pub(crate) fn now(&self) -> Arc<View> {
        let making = self.lock().upgrade();
        match making {
            Some(making) => making.newest.refresh(&self.sources),
            None => Arc::new(View::of(self.scene())),
        }
    }

    /// Follows from now on.
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

/// Who follows.
pub(crate) struct Following {
    sources: Arc<Sources>,
    views: watch::Receiver<Arc<View>>,
    making: Arc<Making>,
}

impl Following {
    /// The view as of now.
    pub(crate) fn now(&mut self) -> Arc<View> {
        self.making.newest.refresh(&self.sources);
        Arc::clone(&self.views.borrow_and_update())
    }

    /// Waits until there is another view than the last that this one was given.
    pub(crate) async fn changed(&mut self) {
        if self.views.changed().await.is_err() {
            // It cannot be: what sends is held here.
            pending::<()>().await;
        }
    }
}

/// Goes on until the last who follows drops it.
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
    /// Held from the look at the sources until the view is there, so that no older one follows a newer one.
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

/// Makes a view whenever anything changes.
async fn keep(sources: Arc<Sources>, newest: Arc<Newest>) {
    let mut states = sources.node.state();
    let mut metrics = sources.node.metrics();
    let mut reports = sources.reports.clone();
    let mut connected = sources.link.connected();
    let mut life = sources.life.watch();
    let mut elsewhere = sources.elsewhere.clone();
    let mut rest = Duration::ZERO;
    loop {
        // Everything up to here counts as seen and is looked at now.
        states.mark_unchanged();
        metrics.mark_unchanged();
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
            Ok(()) = metrics.changed() => {}
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
