//! Sends reports to connected members, as [`fan_out`] decides. Each member has one stream, on which the latest reports
//! are sent at once and then every change.
//!
//! Shell. If a member does not acknowledge a message in time, its stream is closed and a new one is opened. The member
//! then receives the latest reports, but not those in between.

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
    cluster::{consensus::Consensus, reports::Reports},
};

/// Time limit for the acknowledgement of a message.
const ACKNOWLEDGE_MAX: Duration = Duration::from_secs(10);
/// The pause after the first failure; it doubles with each further one.
const PAUSE_MIN: Duration = Duration::from_millis(200);
/// The longest pause. The mesh reports when a member disconnects, so a member that fails for so long is connected but
/// its gateway is not running.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// The pause between two computations of which member is sent which reports.
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

/// The sources of this host's messages.
#[derive(Clone)]
pub(super) struct Telling {
    pub(super) host: HostId,
    /// The connection to the members.
    pub(super) link: Link,
    /// The leader and the term.
    pub(super) consensus: watch::Receiver<Consensus>,
    /// The report of this host.
    pub(super) mine: watch::Receiver<Arc<HostReport>>,
    /// The reports of all hosts.
    pub(super) all: watch::Receiver<Reports>,
}

impl Telling {
    /// Runs one task for each member that is sent reports, until the link or the reports end.
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
            // Commits and reports arrive by the hundred, and seldom change which members are sent reports.
            sleep(AUDIENCE_PAUSE).await;
            let changed = tokio::select! {
                changed = connected.changed() => changed,
                changed = self.consensus.changed() => changed,
                changed = self.all.changed() => changed,
            };
            if changed.is_err() {
                return;
            }
        }
    }

    fn audience(&mut self, connected: &BTreeSet<HostId>) -> BTreeMap<HostId, Told> {
        let leader = {
            let consensus = self.consensus.borrow_and_update();
            consensus.leader.map(|leader| (leader, consensus.term))
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

/// Sends reports on one stream. Returns `Ok` when there are no more reports to send.
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
            // Between two messages the only event that the member can cause is the end of the stream.
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
