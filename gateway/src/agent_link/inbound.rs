//! Takes what the agent passes on, and bounds it.
//!
//! Shell: who is served and what strangers are answered is handed in.

use std::{collections::BTreeSet, future::Future, sync::Arc};

use beemesh_protocol::{
    HostId,
    ipc::Class,
    mesh::{JoinAnswer, JoinRequest},
};
use tokio::{
    net::UnixStream,
    sync::{Semaphore, mpsc, watch},
};

use super::{Inbound, Link};

/// Applications that are decided at once: each costs one proposal.
const ADMISSIONS_MAX: usize = 8;

/// Takes what the agent passes on: streams from members and applications from strangers.
///
/// A gateway that begins again as that of another cluster may know other members than the agent does, which was told of them before:
/// nobody but those that it knows itself is `served`.
///
/// `serve` gets the streams of members, and `decide` answers strangers.
pub(crate) async fn take<S, A>(
    link: Link,
    mut inbound: mpsc::Receiver<Inbound>,
    mut served: watch::Receiver<Option<BTreeSet<HostId>>>,
    serve: impl Fn(HostId, Class, UnixStream) -> S,
    decide: impl Fn(HostId, JoinRequest) -> A,
) where
    S: Future<Output = ()> + Send + 'static,
    A: Future<Output = JoinAnswer> + Send + 'static,
{
    let admissions = Arc::new(Semaphore::new(ADMISSIONS_MAX));
    if served.wait_for(Option::is_some).await.is_err() {
        return;
    }
    while let Some(next) = inbound.recv().await {
        match next {
            Inbound::Stream {
                host,
                class,
                stream,
            } => {
                let members = served.borrow();
                if !members
                    .as_ref()
                    .is_some_and(|members| members.contains(&host))
                {
                    tracing::info!(%host, ?class, "stream closed: that host is no member");
                    continue;
                }
                drop(members);
                tokio::spawn(serve(host, class, stream));
            }
            Inbound::Join { id, host, request } => {
                let Ok(permit) = admissions.clone().try_acquire_owned() else {
                    tracing::warn!(%host, "application dropped: {ADMISSIONS_MAX} are being decided");
                    continue;
                };
                let (link, decided) = (link.clone(), decide(host, request));
                tokio::spawn(async move {
                    link.join_answer(id, decided.await);
                    drop(permit);
                });
            }
        }
    }
}
