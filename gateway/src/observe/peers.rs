//! Tells every connected member what this host looks like: one stream each, the latest report at once and then at
//! every change.
//!
//! Shell. A member that does not take a report in time loses its stream and gets a new one; it then hears the latest
//! report, not those in between.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use beemesh_protocol::{
    DecodeError, HostId,
    frame::{CONTROL_MAX, FrameCodec, FrameError},
    ipc::Class,
    peer::{HostReport, Reply, ReplyBody, Request, RequestBody},
};
use futures::{SinkExt, StreamExt};
use tokio::{sync::watch, task::JoinHandle, time::timeout};
use tokio_util::codec::Framed;

use crate::link::{Link, LinkError};

/// A member that does not acknowledge a report within this time is not there.
const ACKNOWLEDGE_MAX: Duration = Duration::from_secs(10);
/// The pause after the first failure; it doubles with each further one.
const PAUSE_MIN: Duration = Duration::from_millis(200);
/// The longest pause: the mesh says when a member is gone, so this is a member whose gateway is away.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Why a stream to a member ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("{0}")]
    Open(#[from] LinkError),
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("understand the answer: {0}")]
    Decode(#[from] DecodeError),
    #[error("the member answered something else: {0:?}")]
    Answer(ReplyBody),
    #[error("the member closed the stream")]
    Closed,
    #[error("no answer within {} s", ACKNOWLEDGE_MAX.as_secs())]
    Late,
}

/// Keeps one task for each connected member, until the link or the reports end.
pub(super) async fn tell(link: Link, reports: watch::Receiver<Arc<HostReport>>) {
    let mut connected = link.connected();
    let mut members: BTreeMap<HostId, JoinHandle<()>> = BTreeMap::new();
    loop {
        let now = connected.borrow_and_update().clone();
        members.retain(|host, task| {
            let stays = now.contains(host);
            if !stays {
                task.abort();
            }
            stays
        });
        for host in now.iter() {
            members
                .entry(*host)
                .or_insert_with(|| tokio::spawn(tell_one(link.clone(), *host, reports.clone())));
        }
        if connected.changed().await.is_err() {
            return;
        }
    }
}

async fn tell_one(link: Link, host: HostId, mut reports: watch::Receiver<Arc<HostReport>>) {
    let mut pause = PAUSE_MIN;
    loop {
        let mut delivered = 0;
        let Err(ended) = stream(&link, host, &mut reports, &mut delivered).await else {
            return;
        };
        if delivered > 0 {
            pause = PAUSE_MIN;
        }
        tracing::debug!(%host, error = %ended, "member not told what this host looks like, will retry");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Ends with `Ok` when there will be no further report.
async fn stream(
    link: &Link,
    host: HostId,
    reports: &mut watch::Receiver<Arc<HostReport>>,
    delivered: &mut u64,
) -> Result<(), Ended> {
    let mut stream = Framed::new(
        link.open(host, Class::Peer).await?,
        FrameCodec::new(CONTROL_MAX),
    );
    reports.mark_changed();
    loop {
        tokio::select! {
            changed = reports.changed() => if changed.is_err() {
                return Ok(());
            },
            // Between two reports the member has nothing to say but that it is gone.
            frame = stream.next() => return match frame {
                Some(frame) => Err(Ended::Answer(Reply::decode(&frame?)?.body)),
                None => Err(Ended::Closed),
            },
        }
        let report = reports.borrow_and_update().clone();
        if report.sequence == 0 {
            // Nothing was observed yet.
            continue;
        }
        let id = *delivered + 1;
        let request = Request {
            id,
            body: RequestBody::Observe(HostReport::clone(&report)),
        };
        let exchange = async {
            stream.send(request.encode()).await?;
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
