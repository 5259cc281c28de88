//! Distributes the keys that seal the cluster's authority to this host.
//!
//! Shell. The host that creates an authority stores its key before it proposes the authority. Every other member asks
//! one that has the key, over the mesh, as soon as it knows of the authority.

use std::time::Duration;

use axum::body::Body;
use beemesh_protocol::{HostId, ipc::Class};
use http_body_util::{BodyExt, Limited};
use hyper::{Request, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use tokio::time::{sleep, timeout};

use crate::{
    context::Gateway,
    local::{
        files::HomeError,
        sealing_key::{SealingKey, hex, key_id},
    },
};

/// Timeout for a question. A member either answers at once or not at all.
const ASK_MAX: Duration = Duration::from_secs(5);
/// Pause between two rounds of questions.
const PAUSE: Duration = Duration::from_secs(2);

/// Why the key is not available.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoKey {
    /// No reachable member has it.
    #[error("no reachable member has the key of the certificate authority")]
    Nobody,
    /// The folder cannot be read or written.
    #[error(transparent)]
    Home(#[from] HomeError),
}

/// Returns the key with this id from this host's folder, or from a reachable member. In the second case it stores the
/// key.
pub(crate) async fn obtain(gateway: &Gateway, id: [u8; 32]) -> Result<SealingKey, NoKey> {
    let home = &gateway.home;
    if let Some(key) = home.sealing_key(id)? {
        return Ok(key);
    }
    let connected = gateway.link.connected().borrow().clone();
    let view = gateway.node.state().borrow().clone();
    for host in view
        .state
        .hosts()
        .keys()
        .filter(|host| connected.contains(host))
    {
        let answer = timeout(ASK_MAX, ask(gateway, *host, id)).await;
        // The id is the hash of the key, so a wrong key is detected.
        if let Some(key) = answer.ok().flatten().filter(|key| key_id(key) == id) {
            home.set_sealing_key(&key)?;
            return Ok(key);
        }
    }
    Err(NoKey::Nobody)
}

async fn ask(gateway: &Gateway, host: HostId, id: [u8; 32]) -> Option<SealingKey> {
    let stream = gateway.link.open(host, Class::Api).await.ok()?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
    tokio::spawn(connection);
    let request = Request::get(format!("/v1/sealing-keys/{}", hex(&id)))
        .header(header::HOST, host.to_string())
        .body(Body::empty())
        .ok()?;
    let answer = sender.send_request(request).await.ok()?;
    if !answer.status().is_success() {
        return None;
    }
    let body = Limited::new(answer.into_body(), 32).collect().await.ok()?;
    body.to_bytes().as_ref().try_into().ok()
}

/// Obtains the key of the cluster's current authority.
pub(crate) async fn keep(gateway: Gateway) {
    let mut view = gateway.node.state();
    loop {
        let wanted = view
            .borrow_and_update()
            .state
            .authority()
            .map(|authority| authority.key);
        let missing = match wanted {
            None => false,
            Some(id) => match obtain(&gateway, id).await {
                Ok(_) => false,
                Err(error) => {
                    tracing::debug!(%error, "asking again");
                    true
                }
            },
        };
        let next = async {
            loop {
                view.changed().await?;
                let now = view
                    .borrow_and_update()
                    .state
                    .authority()
                    .map(|one| one.key);
                if now != wanted {
                    return Ok::<_, tokio::sync::watch::error::RecvError>(());
                }
            }
        };
        let ended = tokio::select! {
            changed = next => changed.is_err(),
            () = sleep(PAUSE), if missing => false,
        };
        if ended {
            return;
        }
    }
}
