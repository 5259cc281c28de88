//! The keys that seal the cluster's authority, on this host.
//!
//! Shell. Whoever makes an authority stores its key before the authority is proposed; every other member asks one that has it, over
//! the mesh, as soon as it knows of the authority.

use std::time::Duration;

use axum::body::Body;
use beemesh_protocol::{HostId, ipc::Class};
use http_body_util::{BodyExt, Limited};
use hyper::{Request, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use tokio::time::{sleep, timeout};

use crate::{
    api::Gateway,
    authority::{SealingKey, key_id},
    home::HomeError,
};

/// A member answers at once or not.
const ASK_MAX: Duration = Duration::from_secs(5);
/// Between two rounds of asking.
const PAUSE: Duration = Duration::from_secs(2);

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoKey {
    /// Nobody who can be asked has it.
    #[error("no member that can be reached has the key of the cluster's authority")]
    Nobody,
    /// The folder.
    #[error(transparent)]
    Home(#[from] HomeError),
}

/// The key of this id: from this host's folder, or from a member that can be reached, and then kept.
pub(crate) async fn obtain(gateway: &Gateway, id: [u8; 32]) -> Result<SealingKey, NoKey> {
    let home = &gateway.joiner.home;
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
        // A member that lies cannot be believed: the id is the key's hash.
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

/// Has this host know the key of the authority that the cluster has, whichever that is.
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

/// An id as it is written in paths and names of files.
pub(crate) fn hex(id: &[u8; 32]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads what [`hex`] wrote.
pub(crate) fn from_hex(text: &str) -> Option<[u8; 32]> {
    let digits = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let mut id = [0; 32];
    for (at, byte) in id.iter_mut().enumerate().filter(|_| digits) {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    digits.then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_and_nothing_else_is_one() {
        let id: [u8; 32] = std::array::from_fn(|at| (at * 8) as u8);
        assert_eq!(from_hex(&hex(&id)), Some(id));
        for other in [
            String::new(),
            "0".repeat(63),
            "g".repeat(64),
            "é".repeat(32),
            "+0".repeat(32),
        ] {
            assert_eq!(from_hex(&other), None, "{other}");
        }
    }
}
