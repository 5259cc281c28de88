//! Tells connected members what hosts look like, as [`fan_out`] says: one stream each, the latest at once and then what
//! is new.
//!
//! Shell. A member that does not take a message in time loses its stream and gets a new one; it then hears the latest
//! reports, not those in between.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use beemesh_protocol::{
    DecodeError, HostId,
    frame::{CONTROL_MAX, FrameCodec, FrameError},
    ipc::Class,
    peer::{HostReport, Reply, ReplyBody, Request},
};
use futures::{SinkExt, StreamExt};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{sleep, timeout},
};
use tokio_util::codec::Framed;

use super::{
    fan_out::{Told, audience},
    source::Source,
};
use crate::{
    agent_link::{Link, LinkError},
    cluster::{consensus::Metrics, reports::Reports},
};

/// A member that does not acknowledge a message within this time is not there.
const ACKNOWLEDGE_MAX: Duration = Duration::from_secs(10);
/// The pause after the first failure; it doubles with each further one.
const PAUSE_MIN: Duration = Duration::from_millis(200);
/// The longest pause: the mesh says when a member is gone, so this is a member whose gateway is away.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// Between two looks at who is told what.
const AUDIENCE_PAUSE: Duration = Duration::from_millis(20);

/// Why a stream to a member ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("{0}")]
    Open(#[from] LinkError),
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("decode the answer: {0}")]
    Decode(#[from] DecodeError),
    #[error("the member answered something else: {0:?}")]
    Answer(ReplyBody),
    #[error("the member closed the stream")]
    Closed,
    #[error("no answer within {} s", ACKNOWLEDGE_MAX.as_secs())]
    Late,
}

/// What a host's messages are made of.
#[derive(Clone)]
pub(super) struct Telling {
    /// This host.
    pub(super) host: HostId,
    /// The way to the members.
    pub(super) link: Link,
    /// Who leads.
    pub(super) metrics: watch::Receiver<Metrics>,
    /// What this host looks like.
    pub(super) mine: watch::Receiver<Arc<HostReport>>,
    /// What all hosts look like.
    pub(super) all: watch::Receiver<Reports>,
}

impl Telling {
    /// Keeps one task for each member that is told something, until the link or the reports end.
    pub(super) async fn run(mut self) {
        let mut connected = self.link.connected();
        let mut members: BTreeMap<HostId, (Told, JoinHandle<()>)> = BTreeMap::new();
        loop {
            let wanted = self.audience(&connected.borrow_and_update().clone());
            members.retain(|host, (told, task)| {
                let stays = wanted.get(host) == Some(told);
                if !stays {
                    task.abort();
                }
                stays
            });
            for (host, told) in wanted {
                members
                    .entry(host)
                    .or_insert_with(|| (told, tokio::spawn(self.clone().tell(host, told))));
            }
            // Commits and reports come by the hundred, and seldom change who is told.
            sleep(AUDIENCE_PAUSE).await;
            let changed = tokio::select! {
                changed = connected.changed() => changed,
                changed = self.metrics.changed() => changed,
                changed = self.all.changed() => changed,
            };
            if changed.is_err() {
                return;
            }
        }
    }

    fn audience(&mut self, connected: &BTreeSet<HostId>) -> BTreeMap<HostId, Told> {
        let leader = {
            let metrics = self.metrics.borrow_and_update();
            metrics.leader.map(|leader| (leader, metrics.term))
        };
        let all = self.all.borrow_and_update().clone();
        let takes = |host: &HostId| Some(all.get(host)?.takes_reports);
        audience(self.host, leader, connected, takes)
    }

    async fn tell(self, host: HostId, told: Told) {
        let mut pause = PAUSE_MIN;
        loop {
            let source = Source::new(told, host, self.mine.clone(), self.all.clone());
            let mut delivered = 0;
            let Err(ended) = stream(&self.link, host, source, &mut delivered).await else {
                return;
            };
            if delivered > 0 {
                pause = PAUSE_MIN;
            }
            tracing::debug!(%host, error = %ended, "report to a member failed, will retry");
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }
}

/// Ends with `Ok` when there is nothing more to tell.
async fn stream(
    link: &Link,
    host: HostId,
    mut source: Source,
    delivered: &mut u64,
) -> Result<(), Ended> {
    let mut stream = Framed::new(
        link.open(host, Class::Peer).await?,
        FrameCodec::new(CONTROL_MAX),
    );
    loop {
        let body = tokio::select! {
            body = source.next() => match body {
                Some(body) => body,
                None => return Ok(()),
            },
            // Between two messages the member has nothing to say but that it is gone.
            frame = stream.next() => return match frame {
                Some(frame) => Err(Ended::Answer(Reply::decode(&frame?)?.body)),
                None => Err(Ended::Closed),
            },
        };
        let id = *delivered + 1;
        let exchange = async {
            stream.send(Request { id, body }.encode()).await?;
            let frame = stream.next().await.ok_or(Ended::Closed)??;
            let reply = Reply::decode(&frame)?;
            match reply {
                Reply {
                    id: of,
                    body: ReplyBody::Noted,
                } if of == id => Ok(()),
                Reply { body, .. } => Err(Ended::Answer(body)),
            }
        };
        timeout(ACKNOWLEDGE_MAX, exchange)
            .await
            .map_err(|_| Ended::Late)??;
        *delivered = id;
    }
}
