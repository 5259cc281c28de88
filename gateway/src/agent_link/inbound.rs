//! Receives streams and applications from the agent, and bounds them.
//!
//! Shell: the caller passes the members to serve, and the functions that serve them and answer strangers.

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

/// Maximum number of applications that are decided at the same time: each costs one proposal.
const ADMISSIONS_MAX: usize = 8;

/// Receives streams from members and applications from strangers, as the agent forwards them.
///
/// A gateway that restarts in another cluster may know other members than the agent, which still has the previous
/// member list. So only the hosts in `served`, the gateway's own list, are served.
///
/// `serve` handles the streams of members, and `decide` answers strangers.
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
